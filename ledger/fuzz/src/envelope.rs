//! Transaction envelopes, as anybody may submit them.

use fedledger_ledger::{
    Digest, codec,
    limits::ENVELOPE_SIZE_BYTES_MAX,
    transaction::{Envelope, EnvelopeError},
};

/// Opens the bytes as an envelope.
pub fn run(data: &[u8]) {
    let other_chain = Digest::of(b"another chain");
    let transaction = match Envelope::open_unverified(data) {
        Ok(transaction) => transaction,
        Err(error) => {
            assert_eq!(Envelope::open(data, &other_chain), Err(error), "what cannot be parsed must not open");
            return;
        }
    };
    let envelope: Envelope = codec::decode(data, ENVELOPE_SIZE_BYTES_MAX).expect("what was opened is an envelope");
    assert_eq!(envelope.to_bytes(), data, "an envelope has one encoding");
    if transaction.chain != other_chain {
        let refused = EnvelopeError::Chain { expected: other_chain, found: transaction.chain };
        assert_eq!(Envelope::open(data, &other_chain), Err(refused));
    }
    match Envelope::open(data, &transaction.chain) {
        Ok(opened) => assert_eq!(opened, transaction),
        Err(error) => assert!(matches!(error, EnvelopeError::Signature(_)), "{error}"),
    }
}
