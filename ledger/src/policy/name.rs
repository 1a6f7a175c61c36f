//! The words of a policy that are octets without further meaning.

use std::fmt;

use crate::digest::shortened;

/// A name, or an address, in a policy: octets without spaces and control characters, usually UTF-8.
///
/// [`fmt::Display`] is for people: octets that are no text are replaced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName(Vec<u8>);

impl PolicyName {
    /// A name of these octets; nothing if it is empty or could not stand as one word on a line.
    pub fn new(octets: impl Into<Vec<u8>>) -> Option<Self> {
        let octets = octets.into();
        (!octets.is_empty() && octets.iter().all(|&octet| is_allowed(octet) && octet != b' ')).then_some(Self(octets))
    }

    /// The octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name of the quorum that needs nobody.
    pub(super) fn none() -> Self {
        Self(super::NONE.to_vec())
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// Whether an octet may stand on a line of a policy, tabs aside.
pub(super) const fn is_allowed(octet: u8) -> bool {
    matches!(octet, 0x20..=0x7e | 0x80..=0xff)
}

/// Octets for an error message, in quotes and cut to a bearable length.
pub(super) fn quoted(octets: &[u8]) -> String {
    format!("{:?}", shortened(&String::from_utf8_lossy(octets)))
}
