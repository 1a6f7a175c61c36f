//! The way out through a web proxy: HTTP CONNECT (RFC 9110, section 9.3.6).
//!
//! Many hospitals let nothing out but what their proxy forwards, and proxies forward TLS on port 443. WebSocket servers are
//! dialed through it; QUIC and plain TCP never are.

use std::{env, fmt, io, str::FromStr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use zeroize::Zeroizing;

use super::address::{Address, Leg, NodeAddress};

/// Variables that name the proxy, the first one that is set counts.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Variables that name hosts that are dialed without it.
const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Port of a proxy that names none.
const PROXY_PORT_DEFAULT: u16 = 80;

/// Longest answer of a proxy up to the end of its headers, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// A web proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    at: Address,
    /// `user:password`, as the proxy is to see them.
    credentials: Option<Zeroizing<String>>,
    /// The variable that names it, if one does.
    variable: Option<&'static str>,
    except: Exceptions,
}

/// Hosts that are dialed without a proxy: `host`, `.domain`, either with `:port`, or `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Exceptions(Vec<String>);

/// Text that names no proxy. The text is not shown: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the proxy is not understood, expected http://host:port or http://user:password@host:port")]
pub struct ParseProxyError;

/// A variable of the environment names a proxy in a way that is not understood. Its text is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {reason}")]
pub struct ProxyVariableError {
    variable: &'static str,
    reason: ParseProxyError,
    except: Exceptions,
}

impl ProxyVariableError {
    /// The variable.
    pub const fn variable(&self) -> &'static str {
        self.variable
    }

    /// What is wrong with it.
    pub const fn reason(&self) -> &ParseProxyError {
        &self.reason
    }

    /// Whether one of these addresses would be dialed through the proxy.
    pub fn concerns<'a>(&self, addresses: impl IntoIterator<Item = &'a NodeAddress>) -> bool {
        let is_served = |at: &Address| !self.except.cover(&at.host(), at.port());
        let mut addresses = addresses.into_iter();
        addresses.any(|address| address.legs().any(|leg| leg == Leg::WebSocket) && is_served(&address.at))
    }
}

impl Proxy {
    /// The proxy that the environment names (`HTTPS_PROXY`, `ALL_PROXY`, and `NO_PROXY` for hosts that are dialed without
    /// it), if it names one.
    ///
    /// # Errors
    ///
    /// [`ProxyVariableError`].
    pub fn from_environment() -> Result<Option<Self>, ProxyVariableError> {
        Self::from_variables(|name| env::var(name).ok())
    }

    /// The proxy that the environment names for a node that dials these addresses. One that is not understood is only warned
    /// of where none of them would be dialed through it: the variable may be meant for other programs.
    ///
    /// # Errors
    ///
    /// [`ProxyVariableError`].
    pub fn for_addresses<'a>(
        addresses: impl IntoIterator<Item = &'a NodeAddress>,
    ) -> Result<Option<Self>, ProxyVariableError> {
        match Self::from_environment() {
            Err(error) if !error.concerns(addresses) => {
                tracing::warn!(%error, "going on without a proxy: no address of this node needs one");
                Ok(None)
            }
            found => found,
        }
    }

    fn from_variables(value: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, ProxyVariableError> {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| Some((*name, value(name).filter(|text| !text.is_empty())?)))
        };
        let Some((variable, text)) = first(&PROXY_VARIABLES) else { return Ok(None) };
        let except = first(&NO_PROXY_VARIABLES).map(|(_, text)| Exceptions::of(&text)).unwrap_or_default();
        match text.parse::<Self>() {
            Ok(proxy) => Ok(Some(Self { variable: Some(variable), except, ..proxy })),
            Err(reason) => Err(ProxyVariableError { variable, reason, except }),
        }
    }

    /// The variable of the environment that names it, if one does.
    pub const fn variable(&self) -> Option<&'static str> {
        self.variable
    }

    /// Whether a host is dialed through it.
    pub fn serves(&self, host: &str, port: u16) -> bool {
        !self.except.cover(host, port)
    }

    /// Connects with `host:port` behind the proxy.
    pub(super) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let reached = TcpStream::connect((self.at.host(), self.at.port())).await;
        let mut stream = reached.map_err(|error| io::Error::new(error.kind(), format!("the proxy {self}: {error}")))?;
        stream.set_nodelay(true)?;
        stream.write_all(self.request(host, port).as_bytes()).await?;
        let answer = read_head(&mut stream).await?;
        match status(&answer) {
            Some(200..=299) => Ok(stream),
            Some(status) => {
                Err(io::Error::other(format!("the proxy {self} answers {status} to CONNECT {host}:{port}")))
            }
            None => Err(io::Error::other(format!("the proxy {self} does not speak HTTP"))),
        }
    }

    fn request(&self, host: &str, port: u16) -> Zeroizing<String> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let authorization = self.credentials.as_ref().map_or_else(Zeroizing::default, |credentials| {
            let encoded = Zeroizing::new(BASE64_STANDARD.encode(credentials.as_bytes()));
            Zeroizing::new(format!("Proxy-Authorization: Basic {}\r\n", *encoded))
        });
        let text = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{}\r\n", *authorization);
        Zeroizing::new(text)
    }
}

impl Exceptions {
    fn of(text: &str) -> Self {
        let patterns = text.split(',').map(|pattern| pattern.trim().to_ascii_lowercase());
        Self(patterns.filter(|pattern| !pattern.is_empty()).collect())
    }

    fn cover(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let is_covered = |pattern: &String| {
            let (pattern, only_port) = without_port(pattern);
            let domain = pattern.strip_prefix("*.").or_else(|| pattern.strip_prefix('.')).unwrap_or(pattern);
            let below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
            only_port.is_none_or(|only| only == port) && (pattern == "*" || host == domain || below)
        };
        self.0.iter().any(is_covered)
    }
}

/// The host in `host`, `host:443`, `::1`, `[::1]` and `[::1]:443`, and the port if there is one.
fn without_port(pattern: &str) -> (&str, Option<u16>) {
    let bare = |host: &str| !host.contains(':') || host.ends_with(']');
    let (host, port) = match pattern.rsplit_once(':') {
        Some((host, port)) if bare(host) => port.parse().map_or((pattern, None), |port| (host, Some(port))),
        _ => (pattern, None),
    };
    (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
}

impl FromStr for Proxy {
    type Err = ParseProxyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err(ParseProxyError),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => (Some(Zeroizing::new(decoded(credentials)?)), host),
            None => (None, rest),
        };
        let at = host.parse::<Address>().or_else(|_| format!("{host}:{PROXY_PORT_DEFAULT}").parse());
        let at = at.map_err(|_| ParseProxyError)?;
        Ok(Self { at, credentials, variable: None, except: Exceptions::default() })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// The answer up to the end of its headers. Byte by byte, since what follows belongs to the peer.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer of the proxy has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

/// The status in `HTTP/1.1 200 Connection established`.
fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

/// Text with `%40` and the like (RFC 3986, section 2.1) replaced by what they stand for.
fn decoded(text: &str) -> Result<String, ParseProxyError> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or(ParseProxyError)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| ParseProxyError)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    // Control characters would end the header.
    let text = String::from_utf8(bytes).map_err(|_| ParseProxyError)?;
    if text.chars().any(char::is_control) { Err(ParseProxyError) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_as_elsewhere_and_its_password_is_not_shown() {
        for (text, shown) in [
            ("http://proxy.example:3128", "proxy.example:3128"),
            ("proxy.example:3128", "proxy.example:3128"),
            ("http://proxy.example/", "proxy.example:80"),
            ("http://me:se%40cret@192.0.2.1:8080", "192.0.2.1:8080"),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert!(!format!("{proxy:?}").contains("cret"));
        }
        for text in ["", "https://proxy:1", "socks5://proxy:1", "http://", "http://a%0d%0a:b@proxy:1", "http://%4@p:1"]
        {
            assert_eq!(text.parse::<Proxy>(), Err(ParseProxyError), "{text}");
        }
    }

    #[test]
    fn the_request_names_the_peer_and_the_user() {
        let proxy: Proxy = "http://me:se%40cret@192.0.2.1:8080".parse().unwrap();
        let request = proxy.request("a.org", 443);
        assert!(request.starts_with("CONNECT a.org:443 HTTP/1.1\r\nHost: a.org:443\r\n"));
        assert!(request.ends_with("Proxy-Authorization: Basic bWU6c2VAY3JldA==\r\n\r\n"));
        let open: Proxy = "http://192.0.2.1".parse().unwrap();
        assert_eq!(*open.request("::1", 443), "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n");
    }

    /// What variables with these values name.
    fn named(variables: &[(&str, &str)]) -> Result<Option<Proxy>, ProxyVariableError> {
        let value =
            |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
        Proxy::from_variables(value)
    }

    #[test]
    fn excepted_hosts_are_dialed_without_it() {
        let except = |list| named(&[("https_proxy", "http://p:1"), ("NO_PROXY", list)]).unwrap().unwrap();
        let proxy = except("localhost, .inside.org,, replica.net:443 ,*.wild.org,[::1]:8443,fd00::1");
        assert_eq!(proxy.variable(), Some("https_proxy"));
        for (host, port) in [("replica.org", 443), ("notinside.org", 443), ("replica.net", 444), ("::1", 443)] {
            assert!(proxy.serves(host, port), "{host}:{port}");
        }
        for host in ["LOCALHOST", "inside.org", "a.inside.org", "replica.net", "a.replica.net", "a.wild.org", "fd00::1"]
        {
            assert!(!proxy.serves(host, 443), "{host}");
        }
        assert!(!proxy.serves("::1", 8443));
        assert!(!except("*").serves("replica.org", 443));
        assert!(except("replica.org:http").serves("replica.org", 443), "no port, and no host has this name");
    }

    #[test]
    fn a_proxy_that_is_not_understood_matters_only_to_what_would_go_through_it() {
        assert_eq!(named(&[("ALL_PROXY", "")]), Ok(None));
        let error = named(&[("ALL_PROXY", "socks5://me:secret@p:1"), ("NO_PROXY", "a.org:443")]).unwrap_err();
        assert_eq!(error.variable(), "ALL_PROXY");
        assert!(error.to_string().starts_with("ALL_PROXY: ") && !error.to_string().contains("secret"), "{error}");
        let concerns = |texts: &[&str]| {
            let addresses: Vec<NodeAddress> = texts.iter().map(|text| text.parse().unwrap()).collect();
            error.concerns(&addresses)
        };
        assert!(!concerns(&["a.org:7001", "quic://b.org:7001", "tcp://b.org:7001", "wss://a.org"]));
        assert!(
            concerns(&["a.org:7001", "wss://b.org"]) && concerns(&["ws://b.org"]) && concerns(&["wss://a.org:444"])
        );
    }

    #[test]
    fn the_status_is_that_of_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407\r\n\r\n"), Some(407));
        assert_eq!(status(b"SSH-2.0-OpenSSH\r\n\r\n"), None);
    }
}
