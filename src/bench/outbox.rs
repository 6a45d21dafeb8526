//! Frames on their way into a connection: many in one write, payloads where they lie in the corpus.

use std::collections::VecDeque;
use std::io::IoSlice;

use tidegate_wire::HEADER_BYTES;

use super::corpus::{Corpus, STAMP_BYTES};

/// Slices handed to one write: 32 records.
pub(super) const SLICES: usize = 64;
/// More frames than this wait nowhere: what the server says isn't far behind then.
const BYTES_MAX: usize = 512 << 10;

enum Frame {
    Whole(Vec<u8>),
    /// Header and stamp; the rest of the payload is the corpus's record of this number.
    Write([u8; HEADER_BYTES + STAMP_BYTES], usize),
}

impl Frame {
    fn parts<'a>(&'a self, corpus: &'a Corpus) -> [&'a [u8]; 2] {
        match self {
            Self::Whole(bytes) => [bytes, &[]],
            Self::Write(head, index) => [head, corpus.behind_stamp(*index)],
        }
    }

    fn bytes(&self, corpus: &Corpus) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Write(..) => HEADER_BYTES + corpus.record_bytes(),
        }
    }
}

/// Frames not yet written.
#[derive(Default)]
pub(super) struct Outbox {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Bytes of the first frame that are written.
    written: usize,
}

impl Outbox {
    pub(super) const fn has_room(&self) -> bool {
        self.bytes < BYTES_MAX
    }

    pub(super) fn push(&mut self, frame: Vec<u8>) {
        self.bytes += frame.len();
        self.frames.push_back(Frame::Whole(frame));
    }

    pub(super) fn push_write(
        &mut self,
        header: &[u8; HEADER_BYTES],
        stamp: [u8; STAMP_BYTES],
        index: usize,
        corpus: &Corpus,
    ) {
        let mut head = [0; HEADER_BYTES + STAMP_BYTES];
        head[..HEADER_BYTES].copy_from_slice(header);
        head[HEADER_BYTES..].copy_from_slice(&stamp);
        self.bytes += HEADER_BYTES + corpus.record_bytes();
        self.frames.push_back(Frame::Write(head, index));
    }

    /// What to write next, and how many of the slices say it.
    pub(super) fn slices<'a>(&'a self, corpus: &'a Corpus) -> ([IoSlice<'a>; SLICES], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let (mut count, mut skip) = (0, self.written);
        for part in self.frames.iter().take(SLICES / 2).flat_map(|frame| frame.parts(corpus)) {
            let skipped = skip.min(part.len());
            skip -= skipped;
            if skipped < part.len() {
                slices[count] = IoSlice::new(&part[skipped..]);
                count += 1;
            }
        }
        (slices, count)
    }

    /// Takes out what was written.
    pub(super) fn advance(&mut self, count: usize, corpus: &Corpus) {
        self.written += count;
        while let Some(bytes) = self.frames.front().map(|first| first.bytes(corpus))
            && self.written >= bytes
        {
            self.written -= bytes;
            self.bytes -= bytes;
            self.frames.pop_front();
        }
    }
}
