//! Where to find the ledger, a replica and an identity: arguments, then the environment, then `fedledger.toml`.

use std::{env, path::PathBuf};

use fedledger_proto::kit::CliDefaults;

use crate::{args::GlobalArgs, error::Failure};

/// Where things are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// A replica's directory or a bundle.
    pub ledger: Option<PathBuf>,
    /// URLs of replicas' APIs, the one to be asked first in front.
    pub connect: Vec<String>,
    /// Directory of an identity.
    pub identity: Option<PathBuf>,
}

impl Places {
    /// The places that apply now.
    ///
    /// # Errors
    ///
    /// A `fedledger.toml` that cannot be used.
    pub fn find(global: &GlobalArgs) -> Result<Self, Failure> {
        let arguments =
            Self { ledger: global.ledger.clone(), connect: global.connect.clone(), identity: global.identity.clone() };
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let environment = Self {
            ledger: variable("FEDLEDGER_LEDGER").map(PathBuf::from),
            connect: variable("FEDLEDGER_CONNECT").map(|urls| split(&urls.to_string_lossy())).unwrap_or_default(),
            identity: variable("FEDLEDGER_IDENTITY").map(PathBuf::from),
        };
        let given = arguments.or(environment);
        if given.is_complete() {
            return Ok(given);
        }
        let found = match env::current_dir() {
            Ok(folder) => CliDefaults::find(&folder)?,
            Err(_) => None,
        };
        Ok(given.or(found.map(Self::from).unwrap_or_default()))
    }

    /// These places, and what the second best know beside them. Whoever names a ledger or a replica means that one and
    /// no other, so these two are taken together.
    fn or(self, second: Self) -> Self {
        let names_source = self.ledger.is_some() || !self.connect.is_empty();
        let identity = self.identity.or(second.identity);
        if names_source { Self { identity, ..self } } else { Self { identity, ..second } }
    }

    const fn is_complete(&self) -> bool {
        self.identity.is_some() && (self.ledger.is_some() || !self.connect.is_empty())
    }
}

/// URLs that are separated by commas.
fn split(urls: &str) -> Vec<String> {
    urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect()
}

impl From<CliDefaults> for Places {
    fn from(defaults: CliDefaults) -> Self {
        Self { ledger: defaults.ledger, connect: defaults.connect, identity: defaults.identity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_is_named_is_not_mixed_with_the_default_replica() {
        let file = Places {
            ledger: Some("kits/a/replica".into()),
            connect: vec!["https://127.0.0.1:7101".into()],
            identity: Some("kits/a/identity".into()),
        };
        let bundle = Places { ledger: Some("heart.bundle".into()), ..Places::default() };
        let places = bundle.or(file.clone());
        assert_eq!(places.ledger, Some("heart.bundle".into()));
        assert!(places.connect.is_empty(), "the bundle was asked for, not the replica");
        assert_eq!(places.identity, file.identity, "the identity is still the default one");
        assert_eq!(Places::default().or(file.clone()), file);
    }

    #[test]
    fn several_replicas_are_named_with_commas() {
        assert_eq!(split("https://a:1, https://b:2,"), ["https://a:1", "https://b:2"]);
        assert!(split(" ").is_empty());
    }
}
