//! Chance that can be repeated: a small generator (SplitMix64, by Steele, Lea and Flood) and the
//! seed of a test, which is printed so that the same run can be had again.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of this run: TIDEGATE_SEED, or one of the clock. It is printed either way.
pub fn seed() -> u64 {
    let given = std::env::var("TIDEGATE_SEED").ok().filter(|text| !text.is_empty());
    let seed = match given {
        Some(text) => text.parse().unwrap_or_else(|_| panic!("TIDEGATE_SEED={text} is no number")),
        None => {
            let now =
                SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
            u64::from(now.subsec_nanos()) ^ (now.as_secs() << 20)
        }
    };
    eprintln!("seed {seed}: TIDEGATE_SEED={seed} repeats this run");
    seed
}

/// A stream of numbers that follows from its seed.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be 0. The bias of the remainder doesn't matter here.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Fills `bytes` with what doesn't compress.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
    }
}
