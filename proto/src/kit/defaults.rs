//! `fedledger.toml`: where the command line finds the ledger, a replica and an identity, if it is not told.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    DEFAULTS_FILE,
    error::KitError,
    files::{parse_toml, read_text},
};

/// Defaults of the command line. In the file, relative paths start from the folder of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CliDefaults {
    /// A node's directory, or an exported bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<PathBuf>,
    /// URLs of replicas' APIs, the first to be asked first. In the file, a list or a single one.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub connect: Vec<String>,
    /// Directory of an identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(url) => vec![url],
        OneOrMany::Many(urls) => urls,
    })
}

impl CliDefaults {
    /// Loads the defaults in `file`, with paths that do not depend on where the file lies.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the line.
    pub fn load(file: &Path) -> Result<Self, KitError> {
        let written: Self = parse_toml(&read_text(file)?, file)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let resolve = |path: Option<PathBuf>| path.map(|path| folder.join(path));
        Ok(Self { ledger: resolve(written.ledger), identity: resolve(written.identity), connect: written.connect })
    }

    /// Searches `folder` and the folders above it for the file, and loads the first one found.
    ///
    /// # Errors
    ///
    /// [`KitError`] if there is a file but it cannot be used.
    pub fn find(folder: &Path) -> Result<Option<Self>, KitError> {
        for candidate in folder.ancestors() {
            let file = candidate.join(DEFAULTS_FILE);
            match Self::load(&file) {
                Err(KitError::Missing { .. }) => {}
                found => return found.map(Some),
            }
        }
        Ok(None)
    }
}
