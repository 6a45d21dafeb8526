//! The table of known blocks: by a block's name, where its bytes are kept.
//!
//! One table for all shards, of fixed size, 24 bytes an entry: 16 of the name (128 bits decide
//! that two blocks are the same; fewer never do), 8 of the place. It may forget (the least
//! recently used of a bucket goes first), which costs space only. It says where a block was kept,
//! not that it may be referred to: [`crate::Logs`] knows which frames count.

use std::sync::{Mutex, PoisonError};

use tidegate_memory::prefer_large_pages;
use tidegate_model::{BlockName, FrameNumber};

use crate::logs::LogSlot;

/// Entries of a bucket: three cache lines.
const BUCKET: usize = 8;
/// Each stripe has a lock and memory of its own: some large pages, so that finding a bucket costs
/// one miss; and enough stripes that two cores hardly ever meet, for a look takes a thousandth of the
/// time of a block's other work.
const STRIPE_BYTES: usize = 8 << 20;
const STRIPES_MIN: usize = 8;
/// Bits of an entry's place.
const SLOT_BITS: u32 = 12;
const ORDINAL_BITS: u32 = 13;
const FRAME_BITS: u32 = 64 - SLOT_BITS - ORDINAL_BITS;

/// Where a block's bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The log.
    pub log: LogSlot,
    /// The frame there.
    pub frame: FrameNumber,
    /// Which of the frame's kept records.
    pub ordinal: u32,
}

/// The two halves of a name, and the place plus one; a place of 0 is an empty entry. Plain words,
/// so that a stripe is asked of the system as large pages.
type Entry = [u64; 3];
type Bucket = [Entry; BUCKET];

/// The table.
pub struct KnownBlocks {
    stripes: Box<[Mutex<Box<[Bucket]>>]>,
    buckets_per_stripe: u64,
}

impl KnownBlocks {
    /// A table of at most `bytes` bytes (at least one bucket a stripe, 1.5 KiB).
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let stripes = (bytes / STRIPE_BYTES).max(STRIPES_MIN);
        let buckets = (bytes / (stripes * size_of::<Bucket>())).max(1);
        let stripe = || {
            let mut buckets = vec![[[0; 3]; BUCKET]; buckets].into_boxed_slice();
            prefer_large_pages(&mut buckets);
            // The kernel's part of the work is done here, not in the first looks.
            buckets.fill([[0; 3]; BUCKET]);
            Mutex::new(buckets)
        };
        Self {
            stripes: (0..stripes).map(|_| stripe()).collect(),
            buckets_per_stripe: buckets as u64,
        }
    }

    /// How many blocks it can know.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.stripes.len() * BUCKET * usize::try_from(self.buckets_per_stripe).unwrap_or(usize::MAX)
    }

    /// Where the block is kept, if `usable` says that the place may be referred to; otherwise
    /// `mine` becomes what the table knows, and `None` comes back: the caller keeps the block.
    pub fn find_or_insert(
        &self,
        name: BlockName,
        mine: Known,
        usable: impl Fn(Known) -> bool,
    ) -> Option<Known> {
        let [low, high] = halves(name);
        self.with_bucket(low, high, |bucket| {
            let is_it = |entry: &Entry| entry[..2] == [low, high] && entry[2] != 0;
            if let Some(at) = bucket.iter().position(is_it) {
                let known = unpack(bucket[at][2]);
                bucket[..=at].rotate_right(1);
                if usable(known) {
                    return Some(known);
                }
            } else {
                bucket.rotate_right(1);
            }
            bucket[0] = pack(mine).map_or([0; 3], |place| [low, high, place]);
            None
        })
    }

    /// Makes a block known, as at start from the vault's packs.
    pub fn insert(&self, name: BlockName, known: Known) {
        self.find_or_insert(name, known, |_| true);
    }

    fn with_bucket<T>(&self, low: u64, high: u64, act: impl FnOnce(&mut Bucket) -> T) -> T {
        // Names are uniform: any bits of them choose evenly.
        let stripe = usize::try_from(low % self.stripes.len() as u64).unwrap_or(0);
        let bucket = usize::try_from(high % self.buckets_per_stripe).unwrap_or(0);
        // A panic elsewhere can't leave an entry half written: entries are plain values.
        let mut entries = self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut entries[bucket])
    }
}

fn halves(name: BlockName) -> [u64; 2] {
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&name.as_bytes()[at..at + 8]);
        u64::from_le_bytes(word)
    };
    [word(0), word(8)]
}

/// `None` when the place doesn't fit its bits: such a block stays unknown.
fn pack(known: Known) -> Option<u64> {
    let fits = known.frame.0 < (1 << FRAME_BITS) - 1 && known.ordinal < 1 << ORDINAL_BITS;
    let log = u64::from(known.log.0) << (FRAME_BITS + ORDINAL_BITS);
    fits.then(|| (log | known.frame.0 << ORDINAL_BITS | u64::from(known.ordinal)) + 1)
}

fn unpack(place: u64) -> Known {
    let bits = place - 1;
    let mask = |count: u32| (1_u64 << count) - 1;
    let log = u16::try_from(bits >> (FRAME_BITS + ORDINAL_BITS)).unwrap_or(0);
    let ordinal = u32::try_from(bits & mask(ORDINAL_BITS)).unwrap_or(0);
    Known {
        log: LogSlot(log),
        frame: FrameNumber(bits >> ORDINAL_BITS & mask(FRAME_BITS)),
        ordinal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> BlockName {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(&n.to_le_bytes()).as_bytes()[..16]);
        BlockName::from_bytes(bytes)
    }

    fn at(frame: u64, ordinal: u32) -> Known {
        Known { log: LogSlot(4095), frame: FrameNumber(frame), ordinal }
    }

    #[test]
    fn an_entry_has_24_bytes() {
        assert_eq!(size_of::<Entry>(), 24);
    }

    #[test]
    fn places_survive_packing_up_to_their_limits() {
        for known in [at(0, 0), at((1 << FRAME_BITS) - 2, 8191)] {
            assert_eq!(unpack(pack(known).unwrap()), known);
        }
        assert_eq!(pack(at((1 << FRAME_BITS) - 1, 0)), None);
        assert_eq!(pack(at(0, 8192)), None);
    }

    #[test]
    fn a_known_block_is_found_only_where_it_may_be_used() {
        let table = KnownBlocks::new(0);
        assert_eq!(table.find_or_insert(name(1), at(7, 3), |_| true), None);
        assert_eq!(table.find_or_insert(name(1), at(8, 0), |_| true), Some(at(7, 3)));
        // Not usable: the newcomer's place replaces it.
        assert_eq!(table.find_or_insert(name(1), at(9, 0), |known| known != at(7, 3)), None);
        assert_eq!(table.find_or_insert(name(1), at(10, 0), |_| true), Some(at(9, 0)));
    }

    #[test]
    fn a_full_table_forgets_the_least_recently_used_and_never_lies() {
        let table = KnownBlocks::new(192 << 10);
        let blocks = table.capacity() as u64 * 2;
        for n in 0..blocks {
            table.insert(name(n), at(n, 0));
        }
        let found = (0..blocks)
            .filter(|n| {
                let known = table.find_or_insert(name(*n), at(*n, 1), |_| true);
                known.inspect(|known| assert_eq!(known.frame.0, *n)).is_some()
            })
            .count();
        assert!(found > 0 && found <= table.capacity());
    }
}
