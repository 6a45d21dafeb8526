//! Searching for blocks from the beginning of a log.
//!
//! Data stands before the block that describes it, so that nothing tells from the front where the next
//! block is. Every place is tried: it must name exactly the distance to the block before it, and then
//! all else must fit. Data that holds such a block at just its place could deceive it (a log within a
//! log); so what we write is recovered by the order record instead (docs/formats/hrl.md).

use std::io;

use super::Placed;
use crate::format::{BLOCK_HEADER_BYTES, Block, BlockHeader, HEADER_BYTES};
use crate::storage::ReadAt;

/// Bytes looked through at once.
const WINDOW_BYTES: usize = 256 << 10;

/// A search, block after block.
#[derive(Debug)]
pub(super) struct Search {
    metadata_bytes: u32,
    until: u64,
    /// The block found last.
    previous: Option<u64>,
    window: Vec<u8>,
    /// Where the window stands in the file.
    window_start: u64,
}

impl Search {
    /// A search for blocks that end at or before `until`.
    pub(super) const fn new(metadata_bytes: u32, until: u64) -> Self {
        Self { metadata_bytes, until, previous: None, window: Vec::new(), window_start: 0 }
    }

    /// Where the search ends.
    pub(super) const fn until(&self) -> u64 {
        self.until
    }

    /// Everything before this was whole.
    pub(super) fn whole_to(&self) -> u64 {
        self.previous.map_or(HEADER_BYTES, |previous| previous + u64::from(self.metadata_bytes))
    }

    /// The next block.
    pub(super) fn next<R: ReadAt>(&mut self, file: &R) -> io::Result<Option<Placed>> {
        let data_start = self.whole_to();
        let mut location = data_start;
        while location + u64::from(self.metadata_bytes) <= self.until {
            let distance = self.previous.map_or(0, |previous| location - previous);
            let Some(header) = self.header_at(file, location)? else { break };
            if header.first_chunk() == Some(&distance.to_le_bytes())
                && let Ok(header) = BlockHeader::decode(header)
                && let Some(placed) = self.block_at(file, location, data_start, header)?
            {
                self.previous = Some(location);
                return Ok(Some(placed));
            }
            location += 1;
        }
        Ok(None)
    }

    /// The bytes of a block's header at `location`, if the file has so many.
    fn header_at<R: ReadAt>(&mut self, file: &R, location: u64) -> io::Result<Option<&[u8]>> {
        let place = |window_start: u64| usize::try_from(location.checked_sub(window_start)?).ok();
        let holds = place(self.window_start)
            .is_some_and(|place| place + BLOCK_HEADER_BYTES <= self.window.len());
        if !holds {
            self.window.resize(WINDOW_BYTES, 0);
            let count = file.fill_at(location, &mut self.window)?;
            self.window.truncate(count);
            self.window_start = location;
        }
        let place = place(self.window_start).unwrap_or(usize::MAX);
        Ok(self.window.get(place..).and_then(|bytes| bytes.get(..BLOCK_HEADER_BYTES)))
    }

    /// The block there, if it is one and its entries' data fill what lies before it.
    fn block_at<R: ReadAt>(
        &self,
        file: &R,
        location: u64,
        data_start: u64,
        header: BlockHeader,
    ) -> io::Result<Option<Placed>> {
        // Cheap to tell before the block is read: without entries there is no data.
        if (header.entries == 0) != (location == data_start) {
            return Ok(None);
        }
        let mut bytes = vec![0; self.metadata_bytes as usize];
        let count = file.fill_at(location, &mut bytes)?;
        let block = Block::decode(&bytes[..count]).ok();
        let fits = block.filter(|block| block.data_bytes() == location - data_start);
        Ok(fits.map(|block| Placed { location, data_start, block }))
    }
}
