//! Decisions drawn from the fuzzer's bytes, for targets that build something valid first and then change it.

use fedledger_ledger::Digest;

/// Reads decisions from the front of some bytes; once these are used up, everything is zero.
#[derive(Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Decisions from these bytes.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Whether nothing is left to decide.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    /// A number below `end`, which is at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// A number below `end`, which is at most 256.
    pub fn number_below(&mut self, end: u64) -> u64 {
        u64::from(self.byte()) % end
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.bytes(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Any digest.
    pub fn digest(&mut self) -> Digest {
        let mut digest = [0; 32];
        let bytes = self.bytes(32);
        digest[..bytes.len()].copy_from_slice(bytes);
        Digest::from_bytes(digest)
    }

    /// The next bytes, at most `length`.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Bytes whose number, at most 65,535, comes first.
    pub fn sized_bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()) << 8 | usize::from(self.byte());
        self.bytes(length)
    }

    /// Bytes with one of them changed, taken out or put in.
    pub fn changed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut changed = bytes.to_vec();
        let place = (usize::from(self.byte()) << 8 | usize::from(self.byte())) % (bytes.len() + 1);
        match self.below(3) {
            0 => changed.insert(place, self.byte()),
            1 if place < bytes.len() => _ = changed.remove(place),
            _ if place < bytes.len() => changed[place] ^= self.byte(),
            _ => {}
        }
        changed
    }
}
