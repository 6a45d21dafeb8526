//! What the load consists of: bytes made before anything is measured, and the order in which each
//! stream sends them.
//!
//! Every record gets a stamp of 8 bytes in front, the same for all records of one turn of one
//! stream: equal blocks within the corpus stay equal, and no turn repeats another. So the shares of
//! zeros and duplicates hold however long the load lasts, and sending costs no making.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tidegate_model::{Checksum, ChecksumState};

/// Zeros and duplicates come in pieces of this size: the usual block.
const PIECE_BYTES: usize = 64 << 10;
/// Bytes of a stamp.
pub(super) const STAMP_BYTES: usize = 8;
/// Copies reach back so far: a window that every zstd level has.
const WINDOW_BYTES: usize = 32 << 10;
/// What a copy of earlier bytes costs a compressor, about.
const COPY_COST_BYTES: f64 = 3.0;
/// Shortest copy on average; as in programs, one in every few bytes.
const COPY_BYTES: f64 = 12.0;

/// What to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    pub bytes: usize,
    /// Bytes of a write.
    pub record_bytes: usize,
    /// Per cent of the bytes.
    pub zeros: u8,
    /// Per cent of what isn't zero.
    pub duplicates: u8,
    /// Per cent that compression takes away.
    pub compressible: u8,
    /// Whether writes come from places in no order.
    pub random: bool,
}

/// The bytes of a load.
pub(crate) struct Corpus {
    bytes: Vec<u8>,
    record_bytes: usize,
    zero: Vec<bool>,
    /// How far the next record lies from this one, in records.
    stride: usize,
}

/// One record to send.
pub(super) struct Next {
    /// Its number in the corpus, and on its disk.
    pub index: usize,
    /// Which disk, of so many.
    pub disk: usize,
    pub stamp: [u8; STAMP_BYTES],
}

impl Corpus {
    /// Makes the bytes.
    pub(crate) fn make(mix: Mix) -> Self {
        let mut noise = noise(7);
        let mut bytes = Vec::with_capacity(mix.bytes);
        let share = |percent: u8, noise: &mut dyn FnMut() -> u64| noise() % 100 < percent.into();
        let mut kept: Vec<usize> = Vec::new();
        let mut source = Vec::new();
        while bytes.len() < mix.bytes {
            let begin = bytes.len();
            let length = PIECE_BYTES.min(mix.bytes - begin);
            if share(mix.zeros, &mut noise) {
                bytes.resize(begin + length, 0);
                continue;
            }
            if share(mix.duplicates, &mut noise) && !kept.is_empty() && length == PIECE_BYTES {
                let earlier = kept[index(noise(), kept.len())];
                bytes.extend_from_within(earlier..earlier + PIECE_BYTES);
                continue;
            }
            fill(&mut source, begin == 0, length, mix.compressible, &mut noise);
            bytes.extend_from_slice(&source[source.len() - length..]);
            if length == PIECE_BYTES {
                kept.push(begin);
            }
        }
        Self::of(bytes, mix)
    }

    /// Takes pieces of an image, spread over all of it.
    ///
    /// # Errors
    /// When it can't be read, or is shorter than one write.
    pub(crate) fn read(path: &Path, mix: Mix) -> io::Result<Self> {
        let file = File::open(path)?;
        let there = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?;
        let piece = PIECE_BYTES.max(mix.record_bytes);
        let pieces = there / piece as u64;
        let wanted = (mix.bytes / piece).max(1) as u64;
        if pieces == 0 {
            return Err(io::Error::other("it is shorter than one write"));
        }
        let count = wanted.min(pieces);
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(1) * piece];
        // Runs of 4 MiB where only a part is taken, so that neighbours stay neighbours.
        let run = ((4 << 20) / piece as u64).min(count).max(1);
        for (number, part) in (0..count).zip(bytes.chunks_mut(piece)) {
            let place = number / run * (pieces / count.div_ceil(run).max(1)) + number % run;
            file.read_exact_at(part, place.min(pieces - 1) * piece as u64)?;
        }
        Ok(Self::of(bytes, mix))
    }

    fn of(mut bytes: Vec<u8>, mix: Mix) -> Self {
        bytes.truncate(bytes.len() / mix.record_bytes * mix.record_bytes);
        let zero: Vec<bool> = bytes.chunks(mix.record_bytes).map(tidegate_model::is_zero).collect();
        // Near the golden section of all, and without a common factor: it comes by every record.
        let stride = if mix.random { coprime(zero.len()) } else { 1 };
        Self { bytes, record_bytes: mix.record_bytes, zero, stride }
    }

    /// How many records it has.
    pub(super) fn records(&self) -> usize {
        self.zero.len()
    }

    /// Bytes of each record.
    pub(super) const fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// Bytes of a disk with all of it.
    pub(super) const fn disk_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The `count`th record of a stream.
    pub(super) fn next(&self, stream: usize, streams: usize, count: u64, disks: usize) -> Next {
        let records = self.records() as u64;
        // Streams begin at different places, so that not all send the same at once.
        let position = count + (stream * self.records() / streams.max(1)) as u64;
        let (turn, place) = (position / records, position % records);
        let place = u128::from(place) * self.stride as u128 % u128::from(records);
        let stamp = noise(turn << 20 | stream as u64)();
        Next {
            index: usize::try_from(place).unwrap_or(0),
            disk: index(position, disks),
            stamp: stamp.to_le_bytes(),
        }
    }

    /// Whether the record is nothing but zeros: an agent sends no bytes for it.
    pub(super) fn is_zero(&self, index: usize) -> bool {
        self.zero[index]
    }

    /// The bytes of a record that follow its stamp.
    pub(super) fn behind_stamp(&self, index: usize) -> &[u8] {
        let begin = index * self.record_bytes;
        &self.bytes[begin + STAMP_BYTES..begin + self.record_bytes]
    }

    /// The checksum of a record with its stamp.
    pub(super) fn checksum(&self, next: &Next, state: &mut ChecksumState) -> Checksum {
        state.update(&next.stamp);
        state.update(self.behind_stamp(next.index));
        state.take()
    }

    /// Up to so many bytes of what one stream sends first, zeros left out: what the floor runs over.
    pub(crate) fn sample(&self, bytes_max: usize) -> Vec<u8> {
        let mut sample = Vec::with_capacity(bytes_max);
        for count in 0..self.records() as u64 {
            let next = self.next(0, 1, count, 1);
            if sample.len() + self.record_bytes > bytes_max {
                break;
            }
            if !self.is_zero(next.index) {
                sample.extend_from_slice(&next.stamp);
                sample.extend_from_slice(self.behind_stamp(next.index));
            }
        }
        sample
    }
}

/// Appends `length` bytes: random ones, and copies of what lies before, in the measure that
/// compression takes so much away. What is no longer reached is dropped from the front.
fn fill(
    bytes: &mut Vec<u8>,
    first: bool,
    length: usize,
    compressible: u8,
    noise: &mut impl FnMut() -> u64,
) {
    if first {
        bytes.extend(std::iter::repeat_with(|| noise().to_le_bytes()).flatten().take(WINDOW_BYTES));
    }
    bytes.drain(..bytes.len() - WINDOW_BYTES);
    let away = f64::from(compressible.min(95)) / 100.0;
    // With runs of l random bytes and copies of c: (l + cost) / (l + c) = 1 - away.
    let copy = COPY_BYTES.max((COPY_COST_BYTES + away) / (1.0 - away));
    let literals = (((1.0 - away) * copy - COPY_COST_BYTES) / away.max(0.01)).max(1.0);
    let end = bytes.len() + length;
    // Twice the mean at most, one at least: the mean stays what it is.
    let up_to = |mean: f64, noise: u64| 1 + index(noise, whole(2.0 * mean - 1.0));
    while bytes.len() < end {
        let run = up_to(literals, noise());
        bytes.extend(std::iter::repeat_with(|| noise().to_le_bytes()).flatten().take(run));
        if compressible > 0 {
            let back = bytes.len() - 64 - index(noise(), WINDOW_BYTES - 64);
            let run = up_to(copy, noise()).min(bytes.len() - back);
            bytes.extend_from_within(back..back + run);
        }
    }
    bytes.truncate(end);
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small and not below 1
fn whole(figure: f64) -> usize {
    figure.clamp(1.0, 4096.0) as usize
}

/// A number below `count`.
fn index(noise: u64, count: usize) -> usize {
    usize::try_from(noise % count.max(1) as u64).unwrap_or(0)
}

fn coprime(count: usize) -> usize {
    let common = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let golden = count / 1000 * 618 + count % 1000 * 618 / 1000;
    (golden.max(1)..).find(|stride| common(*stride, count.max(1)) == 1).unwrap_or(1)
}

/// SplitMix64.
fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MIX: Mix = Mix {
        bytes: 8 << 20,
        record_bytes: 64 << 10,
        zeros: 0,
        duplicates: 0,
        compressible: 50,
        random: false,
    };

    #[test]
    fn compression_takes_away_what_was_asked_for() {
        for compressible in [0, 25, 50, 75] {
            let corpus = Corpus::make(Mix { compressible, ..MIX });
            let packed: usize = corpus
                .bytes
                .chunks(256 << 10)
                .map(|frame| zstd::bulk::compress(frame, 1).unwrap().len().min(frame.len()))
                .sum();
            let away = 100 - packed * 100 / corpus.bytes.len();
            assert!(away.abs_diff(compressible.into()) <= 12, "{away} for {compressible}");
        }
    }

    #[test]
    fn zeros_and_duplicates_have_their_shares() {
        let corpus = Corpus::make(Mix { zeros: 30, duplicates: 40, ..MIX });
        let zeros = corpus.zero.iter().filter(|zero| **zero).count();
        assert!((20..=40).contains(&(zeros * 100 / corpus.records())), "{zeros}");
        let all = (0..corpus.records()).filter(|index| !corpus.is_zero(*index));
        let apart: BTreeSet<&[u8]> = all.clone().map(|at| corpus.behind_stamp(at)).collect();
        let again = 100 - apart.len() * 100 / all.count();
        assert!((25..=55).contains(&again), "{again}");
    }

    #[test]
    fn every_record_comes_once_a_turn_and_no_turn_or_stream_repeats_another() {
        for random in [false, true] {
            let corpus = Corpus::make(Mix { random, record_bytes: 4096, bytes: 1 << 20, ..MIX });
            let records = corpus.records() as u64;
            let turn = |stream, turn: u64| {
                let counts = turn * records..(turn + 1) * records;
                counts.map(move |count| (stream, count))
            };
            let next = |(stream, count)| corpus.next(stream, 2, count, 1);
            let places: BTreeSet<usize> = turn(0, 0).map(next).map(|next| next.index).collect();
            assert_eq!(places.len(), corpus.records());
            let stamp = |(stream, count)| next((stream, count)).stamp;
            let stamps = [(0, 0), (0, records), (1, 0)].map(stamp);
            assert_eq!(BTreeSet::from(stamps).len(), 3);
        }
    }
}
