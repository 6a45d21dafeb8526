//! Whether a stream writes whole blocks in sequence, as a copy of a disk does: then long frames cost
//! a reader nothing, who wants all of them, and shrink better.
//!
//! Pure; it sees the extents of a stream's writes and zeros in their order.

use tidegate_model::Extent;

/// So many bytes in sequence must have come before more are expected: four default frames. By chance
/// scattered writes never do that.
const BYTES_MIN: u64 = 1 << 20;

/// What a stream has written last.
#[derive(Debug, Clone)]
pub struct Sequence {
    block_bytes: u64,
    last: Option<Extent>,
    bytes: u64,
}

impl Sequence {
    /// Nothing yet, in a vault with blocks of so many bytes.
    #[must_use]
    pub const fn new(block_bytes: u32) -> Self {
        Self { block_bytes: block_bytes as u64, last: None, bytes: 0 }
    }

    /// The stream wrote this, or zeros.
    pub fn saw(&mut self, extent: Extent) {
        let end = |extent: &Extent| extent.offset.saturating_add(extent.length);
        let follows =
            self.last.is_some_and(|last| last.disk == extent.disk && end(&last) == extent.offset);
        let is_whole = extent.offset.is_multiple_of(self.block_bytes)
            && extent.length.is_multiple_of(self.block_bytes)
            && extent.length > 0;
        self.bytes = match (follows, is_whole) {
            (true, true) => self.bytes.saturating_add(extent.length),
            // Zeros say little: a disk's empty end is one record of any length.
            (false, true) => extent.length.min(self.block_bytes),
            _ => 0,
        };
        self.last = Some(extent);
    }

    /// Whether more of the same is expected.
    #[must_use]
    pub const fn is_long(&self) -> bool {
        self.bytes >= BYTES_MIN
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::DiskNumber;

    use super::*;

    const BLOCK: u64 = 64 << 10;

    fn after(extents: impl IntoIterator<Item = (u64, u64)>) -> bool {
        let mut sequence = Sequence::new(64 << 10);
        for (offset, length) in extents {
            sequence.saw(Extent { disk: DiskNumber::default(), offset, length });
        }
        sequence.is_long()
    }

    #[test]
    fn whole_blocks_that_follow_each_other_are_a_sequence() {
        let copy = |blocks| (0..blocks).map(|block| (block * BLOCK, BLOCK));
        assert!(!after(copy(4)));
        assert!(after(copy(16)));
        assert!(after(copy(16).chain([(16 * BLOCK, 400 * BLOCK)])), "zeros are among them");
    }

    #[test]
    fn scattered_or_short_writes_are_none() {
        assert!(!after((0..100).map(|block| (block * 2 * BLOCK, BLOCK))));
        assert!(!after((0..1000).map(|write| (write * 4096, 4096))));
        assert!(!after((0..100).rev().map(|block| (block * BLOCK, BLOCK))));
        assert!(!after((0..32).map(|block| (block * BLOCK, BLOCK)).chain([(9 * BLOCK, BLOCK)])));
    }

    #[test]
    fn another_disk_begins_anew() {
        let mut sequence = Sequence::new(64 << 10);
        let other = DiskNumber::try_from(1).unwrap();
        for block in 0..16 {
            let disk = if block == 15 { other } else { DiskNumber::default() };
            sequence.saw(Extent { disk, offset: block * BLOCK, length: BLOCK });
        }
        assert!(!sequence.is_long());
    }
}
