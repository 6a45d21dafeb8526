//! Frames on their way into a connection: written many at once, payloads where they lie.
//!
//! Pure. Holds shares of the records (the window keeps them too), so a frame half written when a
//! connection breaks is still whole in the window.

use std::collections::VecDeque;
use std::io::IoSlice;

use tidegate_wire::HEADER_BYTES;

use super::record::Payload;

/// Slices handed to one write: 16 records, 1 MiB at the default record size, well below what the
/// kernel takes (1,024).
pub(super) const SLICES: usize = 32;

/// Frames wait here only up to this, so that an answer to what the server says (or a stop) isn't
/// far behind; it is what one write takes.
const BYTES_MAX: usize = 1 << 20;

/// One frame, as it is written.
#[derive(Debug)]
pub(super) enum Frame {
    /// Header and payload together: all but writes, which are small.
    Whole(Vec<u8>),
    /// A write: its payload lies where the window has it.
    Write {
        /// The header as it is sent.
        header: [u8; HEADER_BYTES],
        /// What follows it.
        payload: Payload,
    },
}

impl Frame {
    /// Its bytes on the wire, in two parts.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Whole(bytes) => [bytes, &[]],
            Self::Write { header, payload } => [header, payload],
        }
    }

    /// Bytes on the wire.
    pub(super) fn bytes(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }
}

/// Frames not yet written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Bytes of the first frame that are written.
    written: usize,
}

impl Outbox {
    /// Whether more may be put in.
    pub(super) const fn has_room(&self) -> bool {
        self.bytes < BYTES_MAX
    }

    /// Puts a frame behind the others.
    pub(super) fn push(&mut self, frame: Frame) {
        self.bytes += frame.bytes();
        self.frames.push_back(frame);
    }

    /// What to write next, and how many of the slices say it.
    pub(super) fn slices(&self) -> ([IoSlice<'_>; SLICES], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let mut skip = self.written;
        for frame in self.frames.iter().take(SLICES / 2) {
            for part in frame.parts() {
                let skipped = skip.min(part.len());
                skip -= skipped;
                if skipped < part.len() {
                    slices[count] = IoSlice::new(&part[skipped..]);
                    count += 1;
                }
            }
        }
        (slices, count)
    }

    /// Takes out what was written.
    pub(super) fn advance(&mut self, count: usize) {
        self.written += count;
        while let Some(first) = self.frames.front()
            && self.written >= first.bytes()
        {
            self.written -= first.bytes();
            self.bytes -= first.bytes();
            self.frames.pop_front();
        }
        debug_assert!(!self.frames.is_empty() || self.written == 0, "no more than there was");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn written_in_parts_of_any_size_the_frames_come_out_as_they_went_in(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..100), 0..40),
            parts in prop::collection::vec(1_usize..400, 1..10),
        ) {
            let (mut outbox, mut expected, mut written) = (Outbox::default(), Vec::new(), Vec::new());
            for body in bodies {
                expected.extend_from_slice(&body);
                outbox.push(Frame::Whole(body));
            }
            for part in parts.iter().cycle() {
                let (slices, count) = outbox.slices();
                if count == 0 {
                    break;
                }
                let all: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                let taken = all.len().min(*part);
                written.extend_from_slice(&all[..taken]);
                outbox.advance(taken);
            }
            prop_assert!(outbox.frames.is_empty() && outbox.bytes == 0);
            prop_assert_eq!(written, expected);
        }
    }
}
