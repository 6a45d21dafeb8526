//! Where a record is cut: at the borders of blocks.
//!
//! Only a whole block can be known by name, so a record that holds whole blocks is cut there, and
//! what is less than a block stays as it came.

use tidegate_model::Piece;

/// A part of a record: offsets from the record's first byte, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub begin: usize,
    pub end: usize,
    /// Whether it is a whole, aligned block.
    pub whole_block: bool,
}

/// Cuts a record of `length` bytes at `offset` of its disk, for blocks of `block` bytes.
pub(crate) fn cuts(offset: u64, length: usize, block: u32) -> impl Iterator<Item = Cut> {
    let block = u64::from(block);
    let mut begin = 0;
    std::iter::from_fn(move || {
        if begin == length {
            return None;
        }
        let into_block = (offset + begin as u64) % block;
        let to_border = usize::try_from(block - into_block).unwrap_or(usize::MAX);
        let end = length.min(begin.saturating_add(to_border));
        let whole_block = into_block == 0 && (end - begin) as u64 == block;
        let cut = Cut { begin, end, whole_block };
        begin = end;
        Some(cut)
    })
}

/// Numbers the pieces of one record once their count is known.
pub(crate) fn piece(number: usize, count: usize) -> Piece {
    let narrow = |n: usize| u16::try_from(n).expect("a record has at most 65 pieces");
    Piece { number: narrow(number), count: narrow(count) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_whole_aligned_blocks_are_whole() {
        let all = |offset, length| {
            cuts(offset, length, 4096).map(|c| (c.begin, c.end, c.whole_block)).collect::<Vec<_>>()
        };
        assert_eq!(all(0, 4096), [(0, 4096, true)]);
        assert_eq!(all(8192, 100), [(0, 100, false)]);
        assert_eq!(all(4000, 4300), [(0, 96, false), (96, 4192, true), (4192, 4300, false)]);
        assert_eq!(all(0, 0), []);
    }

    proptest! {
        #[test]
        fn the_cuts_cover_the_record_once_and_cross_no_border(
            offset in 0_u64..1 << 40,
            length in 0_usize..300_000,
        ) {
            let mut at = 0;
            for cut in cuts(offset, length, 65536) {
                prop_assert_eq!(cut.begin, at);
                prop_assert!(cut.end > cut.begin);
                let (first, last) = (offset + cut.begin as u64, offset + cut.end as u64 - 1);
                prop_assert_eq!(first / 65536, last / 65536);
                at = cut.end;
            }
            prop_assert_eq!(at, length);
        }
    }
}
