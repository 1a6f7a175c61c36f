//! Addresses in the files that people write: one, or a list of those that are tried.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::endpoint::NodeAddress;

/// Addresses of one node. Each is dialed at every attempt.
const ADDRESSES_MAX: usize = 16;

/// One address as text, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OneOrMany", into = "OneOrMany")]
pub struct AddressList(Vec<String>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl AddressList {
    /// The addresses, of which there is one at least.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl From<&str> for AddressList {
    fn from(address: &str) -> Self {
        Self(vec![address.to_owned()])
    }
}

impl From<String> for AddressList {
    fn from(address: String) -> Self {
        Self(vec![address])
    }
}

impl From<AddressList> for OneOrMany {
    fn from(AddressList(mut addresses): AddressList) -> Self {
        match addresses.pop() {
            Some(only) if addresses.is_empty() => Self::One(only),
            last => Self::Many(addresses.into_iter().chain(last).collect()),
        }
    }
}

impl TryFrom<OneOrMany> for AddressList {
    type Error = String;

    fn try_from(addresses: OneOrMany) -> Result<Self, Self::Error> {
        let addresses = match addresses {
            OneOrMany::One(address) => vec![address],
            OneOrMany::Many(addresses) => addresses,
        };
        if (1..=ADDRESSES_MAX).contains(&addresses.len()) {
            Ok(Self(addresses))
        } else {
            Err(format!("{} addresses, expected 1 to {ADDRESSES_MAX}", addresses.len()))
        }
    }
}

/// Writes parsed addresses.
pub(super) fn serialize<S: Serializer>(addresses: &[NodeAddress], serializer: S) -> Result<S::Ok, S::Error> {
    AddressList(addresses.iter().map(NodeAddress::to_string).collect()).serialize(serializer)
}

/// Reads and parses addresses.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NodeAddress>, D::Error> {
    let list = AddressList::deserialize(deserializer)?;
    list.texts().map(|text| text.parse().map_err(D::Error::custom)).collect()
}

/// Where a node listens for WebSocket connections, as text.
pub(super) mod websocket_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::endpoint::WebSocketListen;

    /// Writes `wss://IP:PORT`.
    pub fn serialize<S: Serializer>(listen: &Option<WebSocketListen>, serializer: S) -> Result<S::Ok, S::Error> {
        match listen {
            Some(listen) => serializer.collect_str(listen),
            None => serializer.serialize_none(),
        }
    }

    /// Reads `wss://IP:PORT` or `ws://IP:PORT`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WebSocketListen>, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(Some)
            .map_err(|_| D::Error::custom("expected wss://IP:PORT, or ws://IP:PORT behind a server that speaks TLS"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        address: AddressList,
    }

    #[test]
    fn one_address_is_text_and_several_are_a_list() {
        for text in ["address = \"a.org:1\"\n", "address = [\"a.org:1\", \"wss://a.org:443\"]\n"] {
            let file: File = toml::from_str(text).unwrap();
            assert_eq!(toml::to_string(&file).unwrap(), text);
        }
        for text in ["address = []".to_owned(), format!("address = {:?}", vec!["a.org:1"; ADDRESSES_MAX + 1])] {
            assert!(toml::from_str::<File>(&text).is_err(), "{text}");
        }
    }
}
