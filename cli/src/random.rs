//! Randomness for keys: a generator that the system seeds once, so that its failure is noticed before anything is made.

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use zeroize::Zeroizing;

use crate::error::{Exit, Failure};

/// A source of 32 random bytes at a time.
pub(crate) fn source() -> Result<impl FnMut() -> [u8; 32], Failure> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut())
        .map_err(|error| Failure::because(Exit::Failed, "the system gives no random numbers for keys", error))?;
    let mut generator = ChaCha20Rng::from_seed(*seed);
    Ok(move || {
        let mut bytes = [0; 32];
        generator.fill_bytes(&mut bytes);
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_twice() {
        let (mut a, mut b) = (source().unwrap(), source().unwrap());
        let mut drawn: Vec<_> = (0..50).flat_map(|_| [a(), b()]).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 100);
    }
}
