//! Reading any .hrl file, also one that we didn't write, was never closed, or is damaged.
//!
//! A log that was closed is read as the specification says: backwards from its end to find the blocks,
//! then forwards. Where it wasn't closed, or the way back is broken, blocks are searched for from the
//! beginning: a block counts when its checksums are right, it names the distance to the block before
//! it, and its entries' data fill exactly what lies between. What is whole is given out, and what
//! isn't is told as a [`Problem`].
//!
//! Memory: one block, a piece of data, and of very long logs every 4096th block's place.

mod chain;
mod problem;
mod search;

use std::io;

use crate::format::{Block, Entry, FileHeader, HEADER_BYTES, HeaderDoubt, Sum};
use crate::storage::ReadAt;
use chain::Chain;
pub use problem::{Problem, ScanError};
use search::Search;

/// Bytes of data read at once.
const PIECE_BYTES: usize = 64 << 10;

/// What is known of an entry's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataState {
    /// It has the stated checksum.
    Whole,
    /// Its writer stated none.
    Unchecked,
    /// It gives this checksum, and another is stated.
    Differs(u32),
}

/// One entry, with its place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundEntry {
    /// The entry.
    pub entry: Entry,
    /// Where in the file its data begins.
    pub data_location: u64,
    /// Where its block begins.
    pub block_location: u64,
    /// What became of its data.
    pub data: DataState,
}

/// What a scan comes upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The next entry, oldest first.
    Entry(FoundEntry),
    /// Something isn't as it should be here.
    Problem(Problem),
}

/// A whole block and where it and its data stand.
#[derive(Debug)]
struct Placed {
    location: u64,
    data_start: u64,
    block: Block,
}

#[derive(Debug)]
enum Stage {
    /// From the beginning, until `until`, which is the place where the chain breaks, or the end.
    Search(Search, Option<Chain>),
    Chain(Chain),
    Ended,
}

/// One pass through a log.
#[derive(Debug)]
pub struct Scan<R> {
    file: R,
    header: FileHeader,
    doubts: Vec<HeaderDoubt>,
    stage: Stage,
    /// Problems to be told before anything else.
    problems: std::collections::VecDeque<Problem>,
    /// The block whose entries are being given out, the next entry, and where its data begins.
    current: Option<(Placed, usize, u64)>,
    piece: Vec<u8>,
}

impl<R: ReadAt> Scan<R> {
    /// Reads the header, and of a log that was closed the way back.
    ///
    /// # Errors
    /// [`ScanError`] when it can't be read, or is no .hrl file.
    pub fn open(file: R) -> Result<Self, ScanError> {
        let mut bytes = vec![0; PIECE_BYTES.min(4096)];
        let count = file.fill_at(0, &mut bytes)?;
        let (header, doubts) = FileHeader::decode(&bytes[..count])?;
        let file_bytes = file.bytes()?;
        let mut scan = Self {
            file,
            header,
            doubts,
            stage: Stage::Ended,
            problems: std::collections::VecDeque::new(),
            current: None,
            piece: vec![0; PIECE_BYTES],
        };
        scan.stage = scan.first_stage(file_bytes)?;
        Ok(scan)
    }

    /// The file header.
    #[must_use]
    pub const fn header(&self) -> &FileHeader {
        &self.header
    }

    /// What is odd about the header.
    #[must_use]
    pub fn doubts(&self) -> &[HeaderDoubt] {
        &self.doubts
    }

    /// Whether its writer closed it.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.header.eol_location != 0
    }

    /// The next entry or problem; `None` at the end.
    ///
    /// # Errors
    /// When the file can't be read.
    #[allow(clippy::should_implement_trait)] // a read may fail, after which there is no next
    pub fn next(&mut self) -> io::Result<Option<Found>> {
        loop {
            if let Some(problem) = self.problems.pop_front() {
                return Ok(Some(Found::Problem(problem)));
            }
            if let Some(found) = self.next_entry()? {
                return Ok(Some(Found::Entry(found)));
            }
            if !self.next_block()? && self.problems.is_empty() {
                return Ok(None);
            }
        }
    }

    fn first_stage(&mut self, file_bytes: u64) -> io::Result<Stage> {
        let metadata_bytes = self.header.metadata_bytes;
        let search = |until| Search::new(metadata_bytes, until);
        if !self.is_closed() {
            self.problems.push_back(Problem::NotClosed);
            return Ok(Stage::Search(search(file_bytes), None));
        }
        let end = self.header.eol_location;
        if end > file_bytes || end < HEADER_BYTES + u64::from(metadata_bytes) {
            self.problems.push_back(Problem::End { end, file_bytes });
            return Ok(Stage::Search(search(file_bytes), None));
        }
        let chain = Chain::walk(&self.file, end, metadata_bytes)?;
        Ok(match chain.broken_at() {
            None => Stage::Chain(chain),
            Some((location, problem)) => {
                self.problems.push_back(problem);
                Stage::Search(search(location), Some(chain))
            }
        })
    }

    /// Goes to the next whole block; false at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        let (placed, then) = match &mut self.stage {
            Stage::Ended => return Ok(false),
            Stage::Search(search, chain) => match search.next(&self.file)? {
                Some(placed) => (Some(placed), None),
                None => {
                    let metadata_bytes = u64::from(self.header.metadata_bytes);
                    let to = search.until() + if chain.is_some() { metadata_bytes } else { 0 };
                    let unread = (search.whole_to(), to.min(self.file.bytes()?));
                    if unread.0 < unread.1 {
                        self.problems.push_back(Problem::Unread { from: unread.0, to: unread.1 });
                    }
                    (None, Some(chain.take().map_or(Stage::Ended, Stage::Chain)))
                }
            },
            Stage::Chain(chain) => match chain.next(&self.file)? {
                Some(Ok(placed)) => (Some(placed), None),
                Some(Err(problem)) => {
                    self.problems.push_back(problem);
                    (None, None)
                }
                None => (None, Some(Stage::Ended)),
            },
        };
        if let Some(stage) = then {
            self.stage = stage;
        }
        if let Some(placed) = placed {
            let (stated, room) = (placed.block.data_bytes(), placed.location - placed.data_start);
            if stated != room {
                let location = placed.location;
                self.problems.push_back(Problem::Lengths { location, stated, room });
            }
            self.current = Some((placed, 0, 0));
        }
        Ok(true)
    }

    /// The next entry of the current block that has its data before the block.
    fn next_entry(&mut self) -> io::Result<Option<FoundEntry>> {
        let Some((placed, number, before)) = &mut self.current else { return Ok(None) };
        let Some(entry) = placed.block.entries.get(*number).copied() else {
            self.current = None;
            return Ok(None);
        };
        let data_location = placed.data_start + *before;
        let data_bytes = u64::from(entry.data_bytes);
        if data_location + data_bytes > placed.location {
            self.current = None;
            return Ok(None);
        }
        *number += 1;
        *before += data_bytes;
        let block_location = placed.location;
        let sum = self.sum_of(data_location, data_bytes)?;
        let data = match entry.data_checksum {
            0 => DataState::Unchecked,
            _ if entry.is_of(sum) => DataState::Whole,
            _ => DataState::Differs(sum.checksum()),
        };
        Ok(Some(FoundEntry { entry, data_location, block_location, data }))
    }

    fn sum_of(&mut self, start: u64, bytes: u64) -> io::Result<Sum> {
        let (mut sum, mut at) = (Sum::default(), start);
        while at < start + bytes {
            let left = usize::try_from(start + bytes - at).unwrap_or(usize::MAX);
            let piece = &mut self.piece[..left.min(PIECE_BYTES)];
            let count = self.file.fill_at(at, piece)?;
            if count == 0 {
                break;
            }
            sum = sum.and(&piece[..count]);
            at += count as u64;
        }
        Ok(sum)
    }
}
