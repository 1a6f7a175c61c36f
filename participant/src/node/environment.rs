//! What a contribution was computed with: the description whose digest it carries.

use std::collections::BTreeMap;

use fedledger_ledger::Digest;

/// Name and version of this software, as it stands in contributions.
pub const SOFTWARE: &str = concat!("fedledger/", env!("CARGO_PKG_VERSION"));

/// The library that computes gradients; its version is that of the workspace.
const NUMERIC_LIBRARY: &str = "candle-core 0.11";

/// Describes the environment of this process as compact JSON with sorted keys.
pub fn description() -> String {
    let description = BTreeMap::from([
        ("arch", std::env::consts::ARCH),
        ("numeric_library", NUMERIC_LIBRARY),
        ("os", std::env::consts::OS),
        ("software", SOFTWARE),
    ]);
    let members = description.iter().map(|(key, value)| format!("{key:?}:{value:?}"));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// SHA-256 of [`description`].
pub fn digest() -> Digest {
    Digest::of(description().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_json() {
        let parsed: BTreeMap<String, String> = serde_json::from_str(&description()).unwrap();
        assert_eq!(parsed["software"], SOFTWARE);
        assert_eq!(parsed.len(), 4);
        assert_eq!(serde_json::to_string(&parsed).unwrap(), description());
    }
}
