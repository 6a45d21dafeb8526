//! Who reads in sequence, and how far ahead to read for them. Pure.
//!
//! A stream is a reader of which most of what lies between where it began and where it is was read:
//! requests of one may come out of order, and several connections may share one. Ahead of it more
//! and more is read, as much as it has read already, up to a bound; scattered reads begin streams
//! that never come so far. Memory: a few streams, the one that was quiet for longest goes first.

use std::collections::VecDeque;
use std::ops::Range;

use tidegate_model::DiskNumber;

/// Streams that are known at once: as many as copy a disk in parallel.
pub const STREAMS: usize = 8;
/// How far from where a stream is a read may lie and still be its: what a client with 16 requests
/// of 256 KiB under way may mix up.
const SLACK_BYTES: u64 = 4 << 20;
/// What a stream has read before anything is read ahead for it: more than a file system's look at
/// one of its tables.
const LEAST_BYTES: u64 = 256 << 10;

/// The streams of all disks.
#[derive(Debug)]
pub struct Streams {
    /// The one that read last is the first.
    streams: VecDeque<Stream>,
    ahead_bytes_max: u64,
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    disk: DiskNumber,
    begin: u64,
    /// The end of what it has read.
    next: u64,
    /// How much of that it has read.
    read: u64,
    /// Up to where was read ahead.
    ahead: u64,
}

impl Streams {
    /// None yet; nobody is read ahead for by more than so many bytes.
    pub fn new(ahead_bytes_max: u64) -> Self {
        Self { streams: VecDeque::with_capacity(STREAMS), ahead_bytes_max }
    }

    /// A read; gives what to read ahead now, if anything. Often nothing, then much at once, for a
    /// store is asked best for much.
    pub fn read(&mut self, disk: DiskNumber, offset: u64, length: u64) -> Option<Range<u64>> {
        let end = offset + length;
        let its =
            |stream: &Stream| stream.disk == disk && stream.next.abs_diff(offset) <= SLACK_BYTES;
        let known = self.streams.iter().position(its).and_then(|at| self.streams.remove(at));
        let mut stream = match known.map(|stream| stream.and(offset, end)) {
            Some(stream) if stream.is_dense() => stream,
            _ => Stream { disk, begin: offset, next: end, read: length, ahead: end },
        };
        let ahead = stream.goes_ahead(self.ahead_bytes_max);
        self.streams.truncate(STREAMS - 1);
        self.streams.push_front(stream);
        ahead
    }
}

impl Stream {
    /// With another read.
    fn and(self, offset: u64, end: u64) -> Self {
        let (begin, next) = (self.begin.min(offset), self.next.max(end));
        // What is read again counts once, as far as that is known.
        let read = (self.read + (end - offset)).min(next - begin);
        Self { begin, next, read, ..self }
    }

    const fn is_dense(&self) -> bool {
        self.read >= (self.next - self.begin) / 2
    }

    fn goes_ahead(&mut self, most: u64) -> Option<Range<u64>> {
        if self.read < LEAST_BYTES {
            return None;
        }
        let window = self.read.min(most);
        let begin = self.ahead.max(self.next);
        let end = self.next + window;
        if begin + window / 2 > end {
            return None;
        }
        self.ahead = end;
        Some(begin..end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn disk(number: u8) -> DiskNumber {
        DiskNumber::try_from(number).unwrap()
    }

    #[test]
    fn who_reads_in_sequence_finds_all_read_ahead_up_to_the_bound() {
        let mut streams = Streams::new(8 * MIB);
        let (mut ahead, mut asked) = (0, 0);
        for at in 0..1000 {
            let offset = at * 128 * KIB;
            // Another reads the same places of another disk, a piece of each.
            assert_eq!(streams.read(disk(1), offset * 100, 512), None);
            if at > 2 {
                assert!(ahead >= offset, "{offset} wasn't read ahead");
            }
            if let Some(range) = streams.read(disk(0), offset, 128 * KIB) {
                assert!(ahead == 0 || range.start == ahead, "{range:?} after {ahead}");
                assert!(range.end <= offset + 128 * KIB + 8 * MIB);
                (ahead, asked) = (range.end, asked + 1);
            }
        }
        assert!(asked < 60, "{asked} times: a store is asked for much at once");
    }

    #[test]
    fn a_client_that_mixes_its_requests_up_is_still_one_stream() {
        let mut streams = Streams::new(8 * MIB);
        let mut ahead = 0;
        for group in 0..20_u64 {
            for within in [3, 0, 2, 1, 7, 5, 6, 4] {
                let offset = (group * 8 + within) * 256 * KIB;
                if let Some(range) = streams.read(disk(0), offset, 256 * KIB) {
                    ahead = range.end;
                }
            }
            assert!(group < 2 || ahead >= (group + 1) * 8 * 256 * KIB, "group {group}: {ahead}");
        }
        assert_eq!(streams.streams.len(), 1);
    }

    #[test]
    fn several_streams_go_on_beside_each_other() {
        let mut streams = Streams::new(MIB);
        let mut ahead = [0; STREAMS];
        for at in 0..40 {
            for (stream, ahead) in ahead.iter_mut().enumerate() {
                let offset = (stream as u64) * 1024 * MIB + at * 64 * KIB;
                if let Some(range) = streams.read(disk(0), offset, 64 * KIB) {
                    *ahead = range.end;
                }
                assert!(at < 5 || *ahead >= offset + 64 * KIB);
            }
        }
    }

    #[test]
    fn what_is_read_again_and_again_is_no_stream() {
        let mut streams = Streams::new(8 * MIB);
        for _ in 0..1000 {
            assert_eq!(streams.read(disk(0), 4096, 4096), None);
        }
    }

    proptest! {
        #[test]
        fn scattered_reads_cause_hardly_any_reading_ahead(
            places in proptest::collection::vec(0..(4_u64 << 30) / 4096, 500),
        ) {
            let mut streams = Streams::new(8 * MIB);
            let ahead: u64 = places
                .iter()
                .filter_map(|place| streams.read(disk(0), place * 4096, 4096))
                .map(|range| range.end - range.start)
                .sum();
            prop_assert_eq!(ahead, 0);
        }

        #[test]
        fn never_more_is_read_ahead_than_the_bound_allows(
            reads in proptest::collection::vec((0..64 * MIB, 1..4 * MIB), 1..200),
        ) {
            let mut streams = Streams::new(2 * MIB);
            for (offset, length) in reads {
                if let Some(range) = streams.read(disk(0), offset, length) {
                    prop_assert!(range.start < range.end && range.end - range.start <= 2 * MIB);
                }
            }
        }
    }
}
