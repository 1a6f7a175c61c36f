//! What a contribution was computed with: the description whose digest it carries.

use std::collections::BTreeMap;

use fedledger_ledger::Digest;

use crate::training::ComputeDevice;

/// Name and version of this software, as it stands in contributions.
pub const SOFTWARE: &str = concat!("fedledger/", env!("CARGO_PKG_VERSION"));

/// The library that computes gradients; its version is that of the workspace.
const NUMERIC_LIBRARY: &str = "candle-core 0.11";

/// Describes the environment of this process, whose built-in training computes on `device`, as compact JSON with sorted keys.
pub fn description(device: ComputeDevice) -> String {
    let description = BTreeMap::from([
        ("arch", std::env::consts::ARCH),
        ("device", device.name()),
        ("numeric_library", NUMERIC_LIBRARY),
        ("os", std::env::consts::OS),
        ("software", SOFTWARE),
    ]);
    let members = description.iter().map(|(key, value)| format!("{key:?}:{value:?}"));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// SHA-256 of [`description`].
pub fn digest(device: ComputeDevice) -> Digest {
    Digest::of(description(device).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_json() {
        let description = description(ComputeDevice::Cpu);
        let parsed: BTreeMap<String, String> = serde_json::from_str(&description).unwrap();
        assert_eq!((parsed["software"].as_str(), parsed["device"].as_str()), (SOFTWARE, "cpu"));
        assert_eq!(parsed.len(), 5);
        assert_eq!(serde_json::to_string(&parsed).unwrap(), description);
    }

    #[test]
    fn sites_with_and_without_a_gpu_have_different_environments() {
        assert!(description(ComputeDevice::Cuda).contains("\"device\":\"cuda\""));
        assert_ne!(digest(ComputeDevice::Cpu), digest(ComputeDevice::Cuda));
    }
}
