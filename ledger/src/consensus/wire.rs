//! Bytes to messages, strictly.
//!
//! `protobuf` 2 skips nested groups of unknown fields recursively, so a small message can exhaust the stack
//! (RUSTSEC-2024-0437), and a message of empty entries decodes to many times its size. Therefore every encoding is
//! checked against its schema before it is decoded: only known fields with their own wire type, no groups, a bounded
//! number of nested parts. See <https://protobuf.dev/programming-guides/encoding/>.

use protobuf::Message as _;
use raft::eraftpb::Message;

use super::bounds::MESSAGE_PARTS_MAX;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end within a field.
    #[error("the bytes end within a field")]
    Truncated,
    /// A number has more than ten bytes.
    #[error("a number is longer than ten bytes")]
    NumberTooLong,
    /// A field does not belong there, or has the wrong type.
    #[error("field {field} with wire type {wire_type} does not belong there")]
    UnknownField {
        /// The field's number.
        field: u64,
        /// Its wire type.
        wire_type: u64,
    },
    /// There are too many nested parts.
    #[error("more than {max} nested parts", max = MESSAGE_PARTS_MAX)]
    TooManyParts,
    /// The fields are in order, but their values are not.
    #[error("a field has an impossible value")]
    Value,
}

/// What a field holds.
enum Shape {
    /// A number.
    Number,
    /// Numbers, packed or one by one.
    Numbers,
    /// Bytes.
    Bytes,
    /// Another message.
    Nested(&'static [(u64, Shape)]),
}

const ENTRY: &[(u64, Shape)] = &[
    (1, Shape::Number),
    (2, Shape::Number),
    (3, Shape::Number),
    (4, Shape::Bytes),
    (5, Shape::Number),
    (6, Shape::Bytes),
];

const CONF_STATE: &[(u64, Shape)] =
    &[(1, Shape::Numbers), (2, Shape::Numbers), (3, Shape::Numbers), (4, Shape::Numbers), (5, Shape::Number)];

const SNAPSHOT: &[(u64, Shape)] =
    &[(1, Shape::Bytes), (2, Shape::Nested(&[(1, Shape::Nested(CONF_STATE)), (2, Shape::Number), (3, Shape::Number)]))];

const MESSAGE: &[(u64, Shape)] = &[
    (1, Shape::Number),
    (2, Shape::Number),
    (3, Shape::Number),
    (4, Shape::Number),
    (5, Shape::Number),
    (6, Shape::Number),
    (7, Shape::Nested(ENTRY)),
    (8, Shape::Number),
    (9, Shape::Nested(SNAPSHOT)),
    (10, Shape::Number),
    (11, Shape::Number),
    (12, Shape::Bytes),
    (13, Shape::Number),
    (14, Shape::Number),
    (15, Shape::Number),
    (16, Shape::Number),
];

/// Decodes a message whose size the caller has bounded.
pub(super) fn decode_message(bytes: &[u8]) -> Result<Message, WireError> {
    let mut parts = MESSAGE_PARTS_MAX;
    check(bytes, MESSAGE, &mut parts)?;
    Message::parse_from_bytes(bytes).map_err(|_| WireError::Value)
}

/// Checks `bytes` against a schema. The depth of recursion is that of the schema.
fn check(mut bytes: &[u8], schema: &[(u64, Shape)], parts: &mut usize) -> Result<(), WireError> {
    while !bytes.is_empty() {
        let tag = take_number(&mut bytes)?;
        let (field, wire_type) = (tag >> 3, tag & 7);
        let shape = schema.iter().find(|(known, _)| *known == field).map(|(_, shape)| shape);
        match (shape, wire_type) {
            (Some(Shape::Number | Shape::Numbers), 0) => {
                take_number(&mut bytes)?;
            }
            (Some(Shape::Bytes | Shape::Numbers), 2) => {
                take_bytes(&mut bytes)?;
            }
            (Some(Shape::Nested(inner)), 2) => {
                *parts = parts.checked_sub(1).ok_or(WireError::TooManyParts)?;
                check(take_bytes(&mut bytes)?, inner, parts)?;
            }
            _ => return Err(WireError::UnknownField { field, wire_type }),
        }
    }
    Ok(())
}

/// Takes a base-128 number from the front.
fn take_number(bytes: &mut &[u8]) -> Result<u64, WireError> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(WireError::Truncated)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(WireError::NumberTooLong)
}

/// Takes bytes preceded by their length from the front.
fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], WireError> {
    let length = usize::try_from(take_number(bytes)?).map_err(|_| WireError::Truncated)?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(WireError::Truncated)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::{Entry, MessageType, Snapshot};

    use super::*;

    fn full_message() -> Message {
        let mut entry = Entry { term: 3, index: 9, ..Entry::default() };
        entry.data = b"payload".to_vec().into();
        let mut snapshot = Snapshot { data: b"manifest".to_vec().into(), ..Snapshot::default() };
        snapshot.mut_metadata().index = 7;
        snapshot.mut_metadata().mut_conf_state().voters = vec![1, 2, 300];
        let mut message = Message { to: 1, from: 2, term: 3, index: 8, priority: -1, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        message.set_entries(vec![entry.clone(), entry].into());
        message.set_snapshot(snapshot);
        message
    }

    #[test]
    fn what_raft_encodes_is_accepted() {
        let message = full_message();
        let decoded = decode_message(&message.write_to_bytes().unwrap());
        assert_eq!(decoded, Ok(message));
    }

    #[test]
    fn groups_are_refused_at_every_level() {
        let group = [0x0b];
        assert!(matches!(decode_message(&group), Err(WireError::UnknownField { field: 1, wire_type: 3 })));
        // Field 7 (an entry) of two bytes: field 9 as a group, opened and closed.
        assert!(matches!(
            decode_message(&[0x3a, 2, 0x4b, 0x4c]),
            Err(WireError::UnknownField { field: 9, wire_type: 3 })
        ));
    }

    #[test]
    fn cut_bytes_are_refused_or_shorter_messages() {
        let message = full_message();
        let bytes = message.write_to_bytes().unwrap();
        for end in 0..bytes.len() {
            assert_ne!(decode_message(&bytes[..end]).as_ref(), Ok(&message), "cut at {end}");
        }
    }

    #[test]
    fn endless_numbers_and_too_many_parts_are_refused() {
        assert_eq!(decode_message(&[0xff; 12]), Err(WireError::NumberTooLong));
        let parts = [0x3a, 0].repeat(MESSAGE_PARTS_MAX + 1);
        assert_eq!(decode_message(&parts), Err(WireError::TooManyParts));
    }
}
