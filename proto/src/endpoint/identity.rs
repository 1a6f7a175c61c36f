//! Transport keys and libp2p peer ids name the same thing: the peer id of an Ed25519 key is the key itself, wrapped in
//! an identity multihash (libp2p specification, peer ids).

use fedledger_ledger::{PublicKey, SecretKey};
use libp2p::{PeerId, identity};

use super::EndpointError;

/// Multihash code of the identity "hash" (multicodec table).
const IDENTITY_MULTIHASH: u64 = 0x00;

/// The key pair that libp2p authenticates connections with.
pub(super) fn keypair(key: &SecretKey) -> Result<identity::Keypair, EndpointError> {
    // The callee wipes the seed that it is given.
    Ok(identity::Keypair::ed25519_from_bytes(key.seed())?)
}

/// The peer id of a transport key; none if the key is no point of the curve, so that nobody can hold it.
pub(super) fn peer_id(key: &PublicKey) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(key.as_bytes()).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The transport key of a peer id; none if it is not that of an Ed25519 key.
pub(super) fn public_key(peer: &PeerId) -> Option<PublicKey> {
    let multihash = peer.as_ref();
    if multihash.code() != IDENTITY_MULTIHASH {
        return None;
    }
    let key = identity::PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
    Some(PublicKey::from_bytes(key.try_into_ed25519().ok()?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_its_peer_id_name_each_other() {
        let secret = SecretKey::from_seed([9; 32]);
        let peer = peer_id(&secret.public()).unwrap();
        assert_eq!(public_key(&peer), Some(secret.public()));
        assert_eq!(keypair(&secret).unwrap().public().to_peer_id(), peer);
    }

    #[test]
    fn other_peer_ids_and_impossible_keys_have_no_counterpart() {
        assert_eq!(public_key(&PeerId::random()), None);
        let not_on_the_curve =
            (0..=u8::MAX).map(|byte| PublicKey::from_bytes([byte; 32])).find(|key| peer_id(key).is_none());
        assert!(not_on_the_curve.is_some());
    }
}
