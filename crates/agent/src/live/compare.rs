//! Comparing a disk with what the vault holds of it, so that only what differs is captured.
//!
//! Blocks are hashed as they are read, without keeping writes away: what is needed is captured later, as
//! it is then; what the vault has may change meanwhile, and then that change is recorded.
//! docs/formats/wire.md, "Resync", says why that is right.
//!
//! Bound: hashes of [`QUESTIONS_AHEAD`] questions, and one block's bytes.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use tidegate_model::Extent;
use tidegate_wire::limits::{HASHES_MAX, QUESTIONS_MAX};
use tidegate_wire::{Hashes, Have};

use super::Tap;
use super::halt::Halt;
use crate::session::{Answers, Questions};
use crate::tap::{CAPTURE_BYTES_MAX, CaptureError};

/// Questions that are asked before the first has its answer: those on their way, and one that waits.
const QUESTIONS_AHEAD: usize = QUESTIONS_MAX + 1;
/// How long it waits before it looks whether it shall stop.
const PAUSE: Duration = Duration::from_millis(100);

/// A stretch of a disk; it is done when `needed` is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Where it ends; it begins where the one before ended.
    pub end: u64,
    /// What the vault lacks of it, each as long as may be captured at once.
    pub needed: Vec<Range<u64>>,
}

/// A disk that is compared.
pub(super) struct Comparison<'a> {
    tap: &'a Tap,
    questions: &'a Questions,
    /// Up to here stretches were given out.
    done: u64,
    /// What was asked and isn't given out yet, and for blocks of how many bytes: the next server may
    /// compare others, or none.
    asked: VecDeque<(Extent, u64)>,
    buffer: Vec<u8>,
}

impl<'a> Comparison<'a> {
    /// Compares a disk from `at` on.
    pub fn new(tap: &'a Tap, questions: &'a Questions, at: u64) -> Self {
        Self { tap, questions, done: at, asked: VecDeque::new(), buffer: Vec::new() }
    }

    /// The next stretch, which isn't beyond the disk's end; `None` when it shall stop.
    ///
    /// # Errors
    /// [`CaptureError::Read`]: it may be tried again.
    pub fn next(&mut self, halt: &Halt) -> Result<Option<Stretch>, CaptureError> {
        let answers = loop {
            if halt.is_asked() {
                return Ok(None);
            }
            if let Some(answers) = self.questions.answers(PAUSE) {
                break answers;
            }
        };
        if let Answers::Blocks(block) = answers {
            while self.asked.len() < QUESTIONS_AHEAD && self.ask(block)? {}
        }
        let Some((extent, block)) = self.asked.front().copied() else {
            // Nobody answers, or less than a block is left.
            let bytes = CAPTURE_BYTES_MAX.min(self.tap.bytes() - self.done);
            let needed = self.done..self.done + bytes;
            self.done = needed.end;
            return Ok(Some(Stretch { end: needed.end, needed: vec![needed] }));
        };
        loop {
            if let Some(have) = self.questions.answer(PAUSE) {
                self.asked.pop_front();
                self.done = extent.offset + extent.length;
                return Ok(Some(stretch(&Have { extent, ..have }, block)));
            }
            if halt.is_asked() {
                return Ok(None);
            }
        }
    }

    /// Asks for the next blocks; false where there is no whole one any more.
    fn ask(&mut self, block: u64) -> Result<bool, CaptureError> {
        let behind = |(extent, _): &(Extent, u64)| extent.offset + extent.length;
        let begin = self.asked.back().map_or(self.done, behind);
        // What was captured without asking may have ended within a block.
        let whole = begin.next_multiple_of(block);
        let count = (self.tap.bytes().saturating_sub(whole) / block).min(HASHES_MAX as u64);
        if whole != begin || count == 0 {
            return Ok(false);
        }
        self.buffer.resize(usize::try_from(block).unwrap_or(0), 0);
        let mut hashes = Vec::with_capacity(HASHES_MAX);
        for index in 0..count {
            self.tap.look(begin + index * block, &mut self.buffer)?;
            hashes.push(*blake3::hash(&self.buffer).as_bytes());
        }
        let extent = Extent { disk: self.tap.disk(), offset: begin, length: count * block };
        self.questions.ask(Hashes { extent, hashes });
        self.asked.push_back((extent, block));
        Ok(true)
    }
}

/// What an answer leaves to be captured. Neighbours are one, as far as may be captured at once.
fn stretch(have: &Have, block: u64) -> Stretch {
    let Extent { offset, length, .. } = have.extent;
    let mut needed: Vec<Range<u64>> = Vec::new();
    for index in 0..length.div_ceil(block) {
        if usize::try_from(index).is_ok_and(|index| have.has(index)) {
            continue;
        }
        let mut begin = offset + index * block;
        let end = (begin + block).min(offset + length);
        while begin < end {
            match needed.last_mut() {
                Some(last) if last.end == begin && end - last.start <= CAPTURE_BYTES_MAX => {
                    last.end = end;
                    begin = end;
                }
                _ => {
                    let part = begin..end.min(begin + CAPTURE_BYTES_MAX);
                    begin = part.end;
                    needed.push(part);
                }
            }
        }
    }
    Stretch { end: offset + length, needed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_captured_in_few_parts_and_nothing_else_is() {
        let block = 65_536;
        let extent = Extent { disk: Default::default(), offset: 10 * block, length: 40 * block };
        let of = |blocks| stretch(&Have { extent, blocks }, block);
        let at = |first: u64, last: u64| (10 + first) * block..(10 + last) * block;
        let end = 50 * block;
        assert_eq!(of(u128::MAX), Stretch { end, needed: vec![] });
        let all = vec![at(0, 16), at(16, 32), at(32, 40)];
        assert_eq!(of(0), Stretch { end, needed: all.clone() });
        let some = !(0b1011 | 1 << 39);
        assert_eq!(of(some).needed, [at(0, 2), at(3, 4), at(39, 40)]);
        // Where it isn't known any more how long a block is.
        assert_eq!(stretch(&Have { extent, blocks: 0 }, extent.length).needed, all);
    }
}
