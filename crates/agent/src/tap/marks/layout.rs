//! Where things stand in a file of marks; docs/formats/marks.md.

use tidegate_model::{Checksum, DiskNumber, Incarnation};

/// Bytes of a block of the map of dirty blocks: the vault's block, unless it says otherwise, so a climb
/// gives whole ones. A disk of 1 TiB has a map of 2 MiB.
pub(in crate::tap) const BLOCK_BYTES: u64 = tidegate_model::limits::BLOCK_BYTES_DEFAULT as u64;

/// Changes that can be marked at once. A mark stays until its record is durable. The journal keeps two
/// batches in memory, 16 MiB, so writes of 2 KiB and more wait for its disk before they lack marks;
/// shorter ones wait for the same disk a little sooner.
pub(in crate::tap) const SLOTS: usize = 8192;

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"TGMARKS\0");
pub(super) const VERSION: u64 = 1;

/// Words of the page that begins the file.
pub(super) const HEADER_WORDS: usize = 512;
/// Words of what the header says for good, and the place of their check.
pub(super) const FIXED_WORDS: usize = 6;
/// The first LSN that isn't in the journal's history, so one more than the last that is; 0: there is
/// no gap.
pub(super) const GAP_LSN: usize = 8;
pub(super) const GAP_TIME: usize = 9;
/// The code of the bookmark's kind that begins it.
pub(super) const GAP_KIND: usize = 10;
/// 1: the tap was closed, as the words that follow it say.
pub(super) const CLOSED: usize = 16;
pub(super) const CLOSED_LSN: usize = 17;
/// Two words: the start of the host in which the tap was opened.
pub(super) const BOOT: usize = 20;
/// What shows whether somebody wrote to the disk of a closed tap.
pub(super) const FOOTPRINT: usize = 24;

/// Offset, length, check.
pub(super) const SLOT_WORDS: usize = 4;

/// The first word of the map of dirty blocks.
pub(super) const MAP_START: usize = HEADER_WORDS + SLOTS * SLOT_WORDS;

/// What a file of marks is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tap) struct Subject {
    pub incarnation: Incarnation,
    pub disk: DiskNumber,
    /// The disk's size.
    pub bytes: u64,
    /// Of the disk's name, so that two disks that change places are told.
    pub name: Checksum,
}

impl Subject {
    /// Words of the whole file: full pages.
    pub(super) fn words(&self) -> usize {
        let map_words = usize::try_from(self.blocks().div_ceil(64)).unwrap_or(usize::MAX);
        MAP_START.saturating_add(map_words).next_multiple_of(HEADER_WORDS)
    }

    pub(in crate::tap) const fn blocks(&self) -> u64 {
        self.bytes.div_ceil(BLOCK_BYTES)
    }

    /// The words of the header that stay, and their check.
    pub(super) fn fixed(&self) -> [u64; FIXED_WORDS + 1] {
        let [low, high] = halves(*self.incarnation.as_bytes());
        let version = VERSION | u64::from(self.disk.get()) << 32;
        let words = [MAGIC, version, low, high, self.bytes, self.name.0];
        let [a, b, c, d, e, f] = words;
        [a, b, c, d, e, f, check(&words)]
    }
}

/// 16 bytes as two words.
pub(super) fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let (low, high) = bytes.split_at(8);
    [low, high].map(|half| half.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
}

/// XXH3 of some words; never 0, which is no check.
pub(super) fn check(words: &[u64]) -> u64 {
    let mut bytes = [0; FIXED_WORDS * 8];
    for (word, place) in words.iter().zip(bytes.chunks_exact_mut(8)) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    Checksum::of(&bytes[..words.len() * 8]).0.max(1)
}
