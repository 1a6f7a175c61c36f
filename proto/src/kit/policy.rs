//! The site policy: what a hospital agrees to without asking a person.

use std::collections::BTreeSet;

use fedledger_federation::limits::ROUNDS_MAX;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Rows below which metrics say too much about each of them, unless a site says otherwise: the usual bound of cells in published
/// health statistics.
const SUPPRESS_BELOW_DEFAULT: u64 = 10;

/// `policy.toml` of a participant: bounds on what its site takes part in.
///
/// A plan outside these bounds is never trained, even with consent. A plan within them needs the consent of a person of
/// the organisation (`fedledger plan approve`), unless `auto_approve` is set. An empty file means the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SitePolicy {
    /// Whether the node consents by itself to plans within this policy. Default: `false`.
    pub auto_approve: bool,
    /// Names of the plans that may be trained: `"any"` or a list. Default: any.
    pub plans: Selection,
    /// Members whose plans may be trained, by id: `"any"` or a list. Default: any.
    pub operators: Selection,
    /// Kinds of architectures that may be trained, such as `"logistic_regression"`: `"any"` or a list. Default: any.
    pub architectures: Selection,
    /// Most rounds that a plan may have. Default: as many as the ledger allows.
    pub rounds_max: u64,
    /// Fewest training examples with which the site takes part: an update of few records tells much about each of them.
    /// Below it, rounds are declined. Default: 1.
    pub examples_min: u64,
    /// Fewest contributions that a plan may aggregate: among few, the others can work out this site's update. Default:
    /// 1.
    pub contributions_min: u64,
    /// Fewest test rows of which metrics are reported. Groups with fewer are left out, and as many others that they cannot
    /// be computed from the rest; so are AUC and F1 of fewer rows of a class. With 0, everything is reported. Default: 10.
    pub suppress_below: u64,
    /// Most parameters of a model that the node consents to by itself; a person may consent to larger ones. Default:
    /// 10,000,000.
    pub parameters_max: u64,
    /// What the node does about a plan whose model surprises: of shapes that this site has not consented to before, or
    /// with a layer that is wider than a batch. Default: ask.
    pub surprises: Surprises,
}

/// What a node does about a plan that surprises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surprises {
    /// It leaves the consent to the site's steward.
    #[default]
    Ask,
    /// It consents as to any other plan within the policy.
    Allow,
}

/// Default of [`SitePolicy::parameters_max`].
const PARAMETERS_MAX_DEFAULT: u64 = 10_000_000;

impl Default for SitePolicy {
    fn default() -> Self {
        Self {
            auto_approve: false,
            plans: Selection::Any,
            operators: Selection::Any,
            architectures: Selection::Any,
            rounds_max: ROUNDS_MAX,
            examples_min: 1,
            contributions_min: 1,
            suppress_below: SUPPRESS_BELOW_DEFAULT,
            parameters_max: PARAMETERS_MAX_DEFAULT,
            surprises: Surprises::Ask,
        }
    }
}

/// Which names are allowed. In TOML the word `"any"`, or a list of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Selection {
    /// All.
    #[default]
    Any,
    /// These and no others.
    Only(BTreeSet<String>),
}

/// The word for [`Selection::Any`].
const ANY: &str = "any";

impl Selection {
    /// Whether `name` is allowed.
    pub fn allows(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

impl Serialize for Selection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str(ANY),
            Self::Only(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Selection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected \"any\" or a list of names")]
        enum Written {
            Word(String),
            Names(BTreeSet<String>),
        }
        match Written::deserialize(deserializer)? {
            Written::Word(word) if word == ANY => Ok(Self::Any),
            Written::Word(word) => {
                Err(D::Error::custom(format!("expected \"any\" or a list of names, found {word:?}")))
            }
            Written::Names(names) => Ok(Self::Only(names)),
        }
    }
}
