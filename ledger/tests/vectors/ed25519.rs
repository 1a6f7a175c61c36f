//! Which Ed25519 signatures are accepted: replicas that differed here would disagree on which transactions exist.
//!
//! RFC 8032 leaves room, and libraries use it differently (<https://hdevalence.ca/blog/2020-10-04-its-25519am>). What
//! holds on the ledger, for a signature `(R, S)` by key `A` over a message with challenge `k`, where the group has a
//! part of order 8 besides the large one:
//!
//! | class (names of C2SP CCTV) | here |
//! |---|---|
//! | wrong length, `S` not reduced, `R` or `A` no point | refused |
//! | `low_order_A`, `low_order_R` | refused |
//! | `non_canonical_A`, `non_canonical_R`, `reencoded_k` | refused |
//! | `low_order_residue`: the parts of order 8 in `R` and `kA` do not cancel out | refused |
//! | `low_order_component_A` and `_R`, neither of low order, no residue | accepted |
//!
//! So the equation is the one without cofactor, with points of low order refused. The accepted class takes a key that
//! its owner made on purpose, and concerns that owner's signatures only. Verification in batches would decide
//! differently about its neighbour with a residue, so nothing is verified in batches.

use curve25519_dalek::{EdwardsPoint, Scalar, constants, edwards::CompressedEdwardsY, traits::IsIdentity as _};
use fedledger_ledger::{PublicKey, Signature};
use sha2::{Digest as _, Sha512};

const WYCHEPROOF: &str = include_str!("wycheproof_ed25519.txt");

/// A point of order 4, its non-canonical encoding, and a key with a part of order 4.
const ORDER_4: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const ORDER_4_NON_CANONICAL: &str = "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
const MIXED: &str = "10eb7c3acfb2bed3e0d6ab89bf5a3d6afddd1176ce4812e38d9fd485058fdb1f";

/// Vectors of C2SP CCTV, `ed25519/ed25519vectors.json`, one for each combination of flags among its first forty:
/// number, key, both halves of the signature, message, whether it is accepted here.
const CCTV: [(u32, &str, &str, &str, &str, bool); 14] = [
    (0, ORDER_4, ORDER_4, ORDER_4, "ed25519vectors 3", false),
    (1, ORDER_4, ORDER_4, ORDER_4, "ed25519vectors 11", false),
    (
        2,
        ORDER_4,
        "36684ea91032ba5b1dbab2d02f4debc74c3327f2b3802e2e4d371aa42b12b56b",
        "05ba9a796274d80437afa36f1236563f2f3b0aa84cecddc3d20914615ba4fe02",
        "ed25519vectors 7",
        false,
    ),
    (
        3,
        ORDER_4,
        "36684ea91032ba5b1dbab2d02f4debc74c3327f2b3802e2e4d371aa42b12b56b",
        "05ba9a796274d80437afa36f1236563f2f3b0aa84cecddc3d20914615ba4fe02",
        "ed25519vectors 3",
        false,
    ),
    (5, MIXED, ORDER_4, "9472a69cd9a701a50d130ed52189e2455b23767db52cacb8716fb896ffeeac09", "ed25519vectors 3", false),
    (
        6,
        MIXED,
        "36684ea91032ba5b1dbab2d02f4debc74c3327f2b3802e2e4d371aa42b12b56b",
        "c02e2b9e63e385c058bf62b14b3a2b29ccefe8e38ddb536bc3f9865320a3d801",
        "ed25519vectors 10",
        false,
    ),
    (
        7,
        MIXED,
        "36684ea91032ba5b1dbab2d02f4debc74c3327f2b3802e2e4d371aa42b12b56b",
        "bbfd00bd9c259d8d222d15e67a3d8228585050dbb9b9585be20d8fadc721da03",
        "ed25519vectors",
        true,
    ),
    (9, ORDER_4_NON_CANONICAL, ORDER_4, ORDER_4, "ed25519vectors 6", false),
    (
        13,
        ORDER_4_NON_CANONICAL,
        "36684ea91032ba5b1dbab2d02f4debc74c3327f2b3802e2e4d371aa42b12b56b",
        "05ba9a796274d80437afa36f1236563f2f3b0aa84cecddc3d20914615ba4fe02",
        "ed25519vectors 3",
        false,
    ),
    (
        17,
        MIXED,
        ORDER_4_NON_CANONICAL,
        "ad7a355469b5c87e550469f6b2de409ee723acd584bf35f86b80c384e8ceb702",
        "ed25519vectors 3",
        false,
    ),
    (
        19,
        MIXED,
        ORDER_4_NON_CANONICAL,
        "9472a69cd9a701a50d130ed52189e2455b23767db52cacb8716fb896ffeeac09",
        "ed25519vectors 3",
        false,
    ),
    (21, ORDER_4_NON_CANONICAL, ORDER_4_NON_CANONICAL, ORDER_4, "ed25519vectors 15", false),
    (
        28,
        MIXED,
        "b797b156efcd45a4e2454d2fd0b21438b3ccd80d4c7fd1d1b2c8e55bd4ed4a94",
        "639734cf989e314e9e049fc01a3864d191fed8f231b12fee6fa50aaadba44b0e",
        "ed25519vectors 9",
        false,
    ),
    (
        29,
        MIXED,
        "b797b156efcd45a4e2454d2fd0b21438b3ccd80d4c7fd1d1b2c8e55bd4ed4a94",
        "732d9e0279fe001d90327efa319816e3e4506b78432b8b4e1f2fdc4b960d700f",
        "ed25519vectors 2",
        true,
    ),
];

/// Encodings of the points of order 1, 2 and 4 that no encoder writes (C2SP CCTV, `ed25519/README.md`): the coordinate
/// is not reduced, or zero has a sign.
const NON_CANONICAL: [&str; 6] = [
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

#[test]
fn wycheproof_vectors_are_judged_as_published() {
    let mut judged = [0, 0];
    for line in WYCHEPROOF.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split(' ').collect();
        let [number, result, flag, key, message, signature] = fields[..] else { panic!("{line:?}") };
        let expected = match result {
            "valid" => true,
            "invalid" => false,
            other => panic!("vector {number} has the result {other:?}"),
        };
        // Signatures of another length cannot be expressed.
        let signature = <[u8; 64]>::try_from(bytes(signature)).ok();
        let accepted = signature.is_some_and(|signature| verifies(&array(key), &bytes(message), &signature));
        assert_eq!(accepted, expected, "vector {number}, {flag}");
        judged[usize::from(accepted)] += 1;
    }
    assert_eq!(judged, [63, 88]);
}

#[test]
fn published_edge_cases_are_judged_as_documented() {
    for (number, key, first, second, message, expected) in CCTV {
        let signature = [array::<32>(first), array(second)].concat().try_into().unwrap();
        assert_eq!(verifies(&array(key), message.as_bytes(), &signature), expected, "vector {number}");
    }
}

/// A point with its parts and one of its encodings.
struct Point {
    /// The multiple of the base point.
    scalar: Scalar,
    /// The part whose order divides 8.
    torsion: EdwardsPoint,
    encoding: [u8; 32],
    canonical: bool,
}

impl Point {
    fn point(&self) -> EdwardsPoint {
        EdwardsPoint::mul_base(&self.scalar) + self.torsion
    }

    fn is_low_order(&self) -> bool {
        self.scalar == Scalar::ZERO
    }

    /// All sums of a part of order 8 and the given multiple of the base point, in all encodings.
    fn all(scalar: Scalar) -> Vec<Self> {
        let mut points = Vec::new();
        for torsion in constants::EIGHT_TORSION {
            for (scalar, is_low_order) in [(Scalar::ZERO, true), (scalar, false)] {
                let point = EdwardsPoint::mul_base(&scalar) + torsion;
                let encoding = point.compress().to_bytes();
                points.push(Self { scalar, torsion, encoding, canonical: true });
                let others = NON_CANONICAL.map(array).into_iter().filter(|_| is_low_order);
                let same = others.filter(|other| CompressedEdwardsY(*other).decompress() == Some(point));
                points.extend(same.map(|encoding| Self { scalar, torsion, encoding, canonical: false }));
            }
        }
        points
    }
}

/// Every class of C2SP CCTV, made anew: all 22 encodings of points on either side, with and without a residue.
#[test]
fn every_class_of_edge_cases_is_judged_as_documented() {
    let (keys, nonces) = (Point::all(hashed(&[b"key"])), Point::all(hashed(&[b"nonce"])));
    assert_eq!((keys.len(), nonces.len()), (22, 22));
    let (mut accepted, mut refused) = (0, 0);
    for (a, r) in keys.iter().flat_map(|a| nonces.iter().map(move |r| (a, r))) {
        for residue in [false, true] {
            let Some((message, signature)) = sign(a, r, residue) else { continue };
            let documented = !a.is_low_order() && !r.is_low_order() && a.canonical && r.canonical && !residue;
            let verified = verifies(&a.encoding, &message, &signature);
            assert_eq!(verified, documented, "A {} R {} residue {residue}", hex(&a.encoding), hex(&r.encoding));
            *(if verified { &mut accepted } else { &mut refused }) += 1;
        }
    }
    // Of the 64 pairs of parts of order 8, 43 can cancel out: those where the order of R's divides that of A's.
    assert_eq!(accepted, 43);
    assert!(refused > 700, "{refused}");
}

/// A message and a signature that satisfies the equation with cofactor, and the one without exactly where there is to be
/// no residue; `None` where every message leaves one, or none does.
fn sign(a: &Point, r: &Point, residue: bool) -> Option<(Vec<u8>, [u8; 64])> {
    let (message, k) = (0..200u8).map(|number| vec![number]).find_map(|message| {
        let k = hashed(&[&r.encoding, &a.encoding, &message]);
        let cancels = (r.torsion + k * a.torsion).is_identity();
        (cancels != residue).then_some((message, k))
    })?;
    let s = r.scalar + k * a.scalar;
    let difference = EdwardsPoint::mul_base(&s) - r.point() - k * a.point();
    assert!(difference.mul_by_cofactor().is_identity());
    assert_eq!(difference.is_identity(), !residue);
    Some((message, [r.encoding, s.to_bytes()].concat().try_into().unwrap()))
}

#[test]
fn a_signature_with_an_unreduced_scalar_is_refused() {
    // The order of the base point (RFC 8032, section 5.1).
    let order: [u8; 32] = array("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let (a, r) = (Point::all(hashed(&[b"key"])), Point::all(hashed(&[b"nonce"])));
    // Without parts of order 8: an honest signature.
    let honest =
        |points: &[Point]| points.iter().position(|point| !point.is_low_order() && point.torsion.is_identity());
    let (a, r) = (&a[honest(&a).unwrap()], &r[honest(&r).unwrap()]);
    let (message, signature) = sign(a, r, false).unwrap();
    assert!(verifies(&a.encoding, &message, &signature));
    let mut unreduced = signature;
    let mut carry = 0;
    for (byte, addend) in unreduced[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(addend) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(carry, 0);
    assert!(!verifies(&a.encoding, &message, &unreduced));
}

fn verifies(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    PublicKey::from_bytes(*key).verify(b"", message, &Signature::from_bytes(*signature)).is_ok()
}

/// SHA-512 as a scalar (RFC 8032, section 5.1.6).
fn hashed(parts: &[&[u8]]) -> Scalar {
    let hasher = parts.iter().fold(Sha512::new(), |hasher, part| hasher.chain_update(part));
    Scalar::from_bytes_mod_order_wide(&hasher.finalize().into())
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

fn bytes(text: &str) -> Vec<u8> {
    if text == "-" { Vec::new() } else { hex::decode(text).unwrap() }
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    bytes(text).try_into().unwrap()
}
