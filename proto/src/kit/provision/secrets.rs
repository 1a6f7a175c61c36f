//! The keys of a consortium, one per purpose.

use fedledger_federation::member::Role;
use fedledger_ledger::SecretKey;

use super::{MemberDescription, has_role};

/// The keys of a member and its nodes.
pub(super) struct MemberSecrets {
    /// Signs its decisions.
    pub organisation: SecretKey,
    /// Identifies its people to the API.
    pub api: SecretKey,
    /// Those of its replica, if it has one.
    pub replica: Option<ReplicaSecrets>,
    /// Those of its participant, if it has one.
    pub participant: Option<ParticipantSecrets>,
}

/// The keys of a replica.
pub(super) struct ReplicaSecrets {
    /// Those that every node has.
    pub node: NodeSecrets,
    /// Signs its checkpoints.
    pub log: SecretKey,
    /// Co-signs the log's head.
    pub cosign: SecretKey,
    /// Identifies its API.
    pub server: SecretKey,
}

/// The keys of a participant.
pub(super) struct ParticipantSecrets {
    /// Those that every node has.
    pub node: NodeSecrets,
    /// Co-signs heads of the log.
    pub witness: SecretKey,
}

/// The keys that every node has.
pub(super) struct NodeSecrets {
    /// Identifies it to other nodes.
    pub transport: SecretKey,
    /// Signs its transactions.
    pub transaction: SecretKey,
}

impl MemberSecrets {
    /// Draws the keys of a member.
    pub fn draw(member: &MemberDescription, randomness: &mut dyn FnMut() -> [u8; 32]) -> Self {
        let mut draw = || SecretKey::from_seed(randomness());
        let (organisation, api) = (draw(), draw());
        let mut node = || NodeSecrets { transport: draw(), transaction: draw() };
        let replica = has_role(member, Role::Replica).then(&mut node);
        let participant = has_role(member, Role::Participant).then(&mut node);
        let replica = replica.map(|node| ReplicaSecrets { node, log: draw(), cosign: draw(), server: draw() });
        let participant = participant.map(|node| ParticipantSecrets { node, witness: draw() });
        Self { organisation, api, replica, participant }
    }
}
