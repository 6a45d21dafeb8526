//! The way back through a closed log, and then forward along it.
//!
//! The specification's reader puts the place of every block on a stack. This one keeps every 4096th
//! and walks again from there, so that a log of any length is read in little memory. Each step goes
//! back by at least a block, so every walk ends.

use std::io;

use super::{Placed, Problem};
use crate::format::{BLOCK_HEADER_BYTES, Block, BlockHeader, HEADER_BYTES};
use crate::storage::ReadAt;

/// Blocks between two places that are kept.
const STRIDE: usize = 4096;

/// The blocks from the end back to the first, or to where the way is broken.
#[derive(Debug)]
pub(super) struct Chain {
    metadata_bytes: u32,
    /// Every [`STRIDE`]th place, from the end.
    kept: Vec<u64>,
    /// Places of the next blocks, the next one last.
    stack: Vec<u64>,
    /// Where the walk ended, without the first block: what is at fault.
    broken: Option<(u64, Problem)>,
    /// Where the next block's data begins.
    data_start: u64,
}

/// One step back.
enum Step {
    To(u64),
    First,
    Broken(u64, Problem),
}

impl Chain {
    pub(super) fn walk<R: ReadAt>(file: &R, end: u64, metadata_bytes: u32) -> io::Result<Self> {
        let last = end - u64::from(metadata_bytes);
        let (mut kept, mut at, mut steps) = (Vec::new(), last, 0_usize);
        let mut whole_from = None;
        let broken = loop {
            let step = step(file, at, metadata_bytes)?;
            if let Step::Broken(location, problem) = step {
                // A block that points nowhere is whole itself, but not where its data begins.
                break Some((location, problem));
            }
            if steps.is_multiple_of(STRIDE) {
                kept.push(at);
            }
            steps += 1;
            whole_from = Some(at);
            match step {
                Step::To(before) => at = before,
                _ => break None,
            }
        };
        let data_start = match &broken {
            Some((location, _)) => location + u64::from(metadata_bytes),
            None => HEADER_BYTES,
        };
        let mut chain = Self { metadata_bytes, kept, stack: Vec::new(), broken, data_start };
        if whole_from.is_some() {
            chain.refill(file)?;
        }
        Ok(chain)
    }

    /// Where the way back is broken, and why.
    pub(super) const fn broken_at(&self) -> Option<(u64, Problem)> {
        self.broken
    }

    /// The next block, or what is wrong with it.
    pub(super) fn next<R: ReadAt>(
        &mut self,
        file: &R,
    ) -> io::Result<Option<Result<Placed, Problem>>> {
        if self.stack.is_empty() {
            self.refill(file)?;
        }
        let Some(location) = self.stack.pop() else { return Ok(None) };
        let data_start = self.data_start;
        self.data_start = location + u64::from(self.metadata_bytes);
        let mut bytes = vec![0; self.metadata_bytes as usize];
        let count = file.fill_at(location, &mut bytes)?;
        Ok(Some(match Block::decode(&bytes[..count]) {
            Ok(block) => Ok(Placed { location, data_start, block }),
            Err(error) => Err(Problem::Block { location, error }),
        }))
    }

    /// Walks from the kept place that is the farthest back.
    fn refill<R: ReadAt>(&mut self, file: &R) -> io::Result<()> {
        let Some(mut at) = self.kept.pop() else { return Ok(()) };
        for _ in 0..STRIDE {
            // A file that changes meanwhile ends the walk early, and no more.
            match step(file, at, self.metadata_bytes)? {
                Step::Broken(..) => break,
                Step::First => {
                    self.stack.push(at);
                    break;
                }
                Step::To(before) => {
                    self.stack.push(at);
                    at = before;
                }
            }
        }
        Ok(())
    }
}

fn step<R: ReadAt>(file: &R, location: u64, metadata_bytes: u32) -> io::Result<Step> {
    let mut bytes = [0; BLOCK_HEADER_BYTES];
    let count = file.fill_at(location, &mut bytes)?;
    let header = match BlockHeader::decode(&bytes[..count]) {
        Ok(header) => header,
        Err(error) => return Ok(Step::Broken(location, Problem::Block { location, error })),
    };
    let distance = header.previous_distance;
    if distance == 0 {
        return Ok(Step::First);
    }
    let before = location
        .checked_sub(distance)
        .filter(|before| *before >= HEADER_BYTES && distance >= u64::from(metadata_bytes));
    Ok(before.map_or(Step::Broken(location, Problem::Distance { location, distance }), Step::To))
}
