//! An epoch as a trust policy that tools of other transparency logs read.

use super::{Epoch, cosigner_name};
use crate::{
    note::VerifierKey,
    policy::{Policy, PolicyBuilder, PolicyDefect, Threshold},
};

/// What the policy calls the replicas together.
const REPLICAS: &[u8] = b"replicas";

/// What the policy calls the witnesses together.
const WITNESSES: &[u8] = b"witnesses";

impl Epoch {
    /// The policy of the heads that this epoch makes final (C2SP tlog-policy).
    ///
    /// Every replica's log key is listed as a key of the log `origin`; replicas and witnesses are listed as witnesses under
    /// their node names. The quorum is the group `replicas` with the threshold of the epoch. Witnesses form a group of their
    /// own, which the quorum does not need: they do not hold the log.
    ///
    /// # Errors
    ///
    /// [`PolicyDefect`] if there are more nodes than a policy can list, or a name or threshold cannot stand in one.
    pub fn policy(&self, origin: &str) -> Result<Policy, PolicyDefect> {
        let mut builder = PolicyBuilder::new();
        for keys in self.replicas.values() {
            builder.log(VerifierKey::ed25519(origin, keys.log)?, None)?;
        }
        let replicas = self.replicas.iter().map(|(node, keys)| (node, keys.cosign));
        for (node, key) in replicas.chain(self.witnesses.iter().map(|(node, key)| (node, *key))) {
            let key = VerifierKey::cosignature_v1(&cosigner_name(origin, node), key)?;
            builder.witness(node.as_bytes(), key, None)?;
        }
        let threshold = Threshold::AtLeast(usize::try_from(self.threshold).unwrap_or(usize::MAX));
        let replicas: Vec<&String> = self.replicas.keys().collect();
        builder.group(REPLICAS, threshold, &replicas)?;
        if !self.witnesses.is_empty() {
            let witnesses: Vec<&String> = self.witnesses.keys().collect();
            builder.group(WITNESSES, Threshold::Any, &witnesses)?;
        }
        builder.quorum(REPLICAS)?;
        builder.build()
    }
}
