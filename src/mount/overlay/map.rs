//! Which blocks of a disk the overlay has: a bit for each. Pure.
//!
//! Bits are only ever set, so a page of which a crash of the host wrote a part says nothing wrong.
//! Memory: a page for each 128 MiB of disk in which something was written.

use std::collections::BTreeMap;
use std::ops::Range;

use super::header::{PAGE_BLOCKS, PAGE_BYTES};

/// A page of a map, as it is stored.
pub(super) type Page = [u8; PAGE_BYTES];

/// The blocks that are there.
#[derive(Debug, Default)]
pub(super) struct BlockMap {
    pages: BTreeMap<u64, MapPage>,
}

#[derive(Debug)]
struct MapPage {
    bits: Box<Page>,
    /// Whether bits were set since it was stored.
    is_dirty: bool,
}

impl BlockMap {
    /// Takes a page that was stored.
    pub(super) fn load(&mut self, number: u64, page: &Page) {
        if page.iter().any(|byte| *byte != 0) {
            self.pages.insert(number, MapPage { bits: Box::new(*page), is_dirty: false });
        }
    }

    /// These blocks are there from now on.
    pub(super) fn set(&mut self, blocks: Range<u64>) {
        for block in blocks {
            let (number, byte, bit) = place_of(block);
            let fresh = || MapPage { bits: Box::new([0; PAGE_BYTES]), is_dirty: false };
            let page = self.pages.entry(number).or_insert_with(fresh);
            page.is_dirty |= page.bits[byte] & bit == 0;
            page.bits[byte] |= bit;
        }
    }

    /// Whether a block is there.
    pub(super) fn has(&self, block: u64) -> bool {
        let (number, byte, bit) = place_of(block);
        self.pages.get(&number).is_some_and(|page| page.bits[byte] & bit != 0)
    }

    /// The first run of a range of blocks of which the same holds: where it ends, and whether its
    /// blocks are there. The range isn't empty.
    pub(super) fn run(&self, blocks: Range<u64>) -> (u64, bool) {
        let has = self.has(blocks.start);
        let mut block = blocks.start + 1;
        while block < blocks.end {
            if !self.pages.contains_key(&(block / PAGE_BLOCKS)) {
                if has {
                    break;
                }
                // None of this page is there.
                block = (block / PAGE_BLOCKS + 1) * PAGE_BLOCKS;
            } else if self.has(block) == has {
                block += 1;
            } else {
                break;
            }
        }
        (block.min(blocks.end), has)
    }

    /// The pages to be stored; from now on they count as stored.
    pub(super) fn take_dirty(&mut self) -> Vec<(u64, Box<Page>)> {
        let dirty = self.pages.iter_mut().filter(|(_, page)| page.is_dirty);
        dirty
            .map(|(number, page)| {
                page.is_dirty = false;
                (*number, page.bits.clone())
            })
            .collect()
    }

    /// Blocks that are there.
    pub(super) fn count(&self) -> u64 {
        let bytes = self.pages.values().flat_map(|page| page.bits.iter());
        bytes.map(|byte| u64::from(byte.count_ones())).sum()
    }
}

/// A block's page, and its byte and bit there.
fn place_of(block: u64) -> (u64, usize, u8) {
    let within = block % PAGE_BLOCKS;
    let byte = usize::try_from(within / 8).expect("a page is no longer than memory");
    (block / PAGE_BLOCKS, byte, 1 << (within % 8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_map_is_a_set_of_blocks_and_its_pages_are_the_map(
            runs in proptest::collection::vec((0..4 * PAGE_BLOCKS, 0..300_u64), 0..12),
            asked in (0..4 * PAGE_BLOCKS, 1..2 * PAGE_BLOCKS),
        ) {
            let (mut map, mut stored) = (BlockMap::default(), BlockMap::default());
            let mut model = vec![false; 7 * usize::try_from(PAGE_BLOCKS).unwrap()];
            for (begin, count) in runs {
                map.set(begin..begin + count);
                model[usize::try_from(begin).unwrap()..][..usize::try_from(count).unwrap()].fill(true);
                for (number, page) in map.take_dirty() {
                    stored.load(number, &page);
                }
            }
            prop_assert_eq!(map.count(), model.iter().filter(|has| **has).count() as u64);
            for map in [&map, &stored] {
                let (mut block, end) = (asked.0, asked.0 + asked.1);
                while block < end {
                    let (next, has) = map.run(block..end);
                    prop_assert!(next > block && next <= end);
                    for at in block..next {
                        prop_assert_eq!(model[usize::try_from(at).unwrap()], has);
                    }
                    let differs = next == end || model[usize::try_from(next).unwrap()] != has;
                    prop_assert!(differs, "the run goes on at {}", next);
                    block = next;
                }
            }
        }
    }

    #[test]
    fn a_page_is_stored_only_when_something_new_was_set() {
        let mut map = BlockMap::default();
        map.set(5..6);
        let pages = map.take_dirty();
        assert_eq!((pages.len(), pages[0].0, pages[0].1[0]), (1, 0, 1 << 5));
        assert!(map.take_dirty().is_empty());
        map.set(5..6);
        assert!(map.take_dirty().is_empty(), "it was there already");
        map.set(5..7);
        assert_eq!(map.take_dirty()[0].1[0], 3 << 5);
    }
}
