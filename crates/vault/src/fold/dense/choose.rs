//! What is copied out of where it lies. Pure.
//!
//! What a recovery reads of a pack: its head, and the runs of frames in which something is alive, with
//! what lies between. So a run is what can be spared. Its gain is what it costs less what is alive in it,
//! for so much the copy costs. This is how log-structured disks are cleaned: the emptiest first, until
//! little enough is left of what is dead.

use std::cmp::Ordering;
use std::ops::Range;

use tidegate_model::{FrameNumber, Name};

use super::Alive;
use crate::log::PackRead;
use crate::log::frames::runs;

/// What a recovery may read for what is alive, in hundredths. Between two bases a 32nd is written besides,
/// and layers and manifests take a little: together that is below 1.2 times.
const READ_PERCENT: u128 = 114;

/// Frames of a pack that a recovery reads together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::fold) struct Part {
    /// The pack: its place in a table.
    pub pack: u32,
    /// The alive records in them: a range of those that were told.
    pub alive: Range<usize>,
    /// Bytes that are read of the store for them.
    pub cost: u64,
    /// What of that is for what is alive.
    pub worth: u64,
    /// Bytes that are alive, before they were made smaller.
    pub plain: u64,
    /// It is copied whatever it costs to read, for its pack is to go.
    pub must_go: bool,
}

/// What is read of a pack for `alive`, which is all of it that is, in the order of its frames; `begin`
/// is the place of the first of them among all.
pub(in crate::fold) fn parts(pack: &PackRead, alive: &[Alive], begin: usize) -> Vec<Part> {
    let Some(first) = alive.first() else { return Vec::new() };
    let frame_of = |alive: &Alive| alive.key.1;
    let frames = alive.chunk_by(|a, b| frame_of(a) == frame_of(b));
    let places = frames.filter_map(|frame| pack.index.frame_place(frame_of(&frame[0])));
    let runs = runs(&pack.index, places);
    let head = pack.header.frames_begin();
    let head_share = head / (runs.len() as u64).max(1);
    let mut parts: Vec<Part> = Vec::with_capacity(runs.len());
    for run in runs {
        let (Some(front), Some(back)) = (run.frames.first(), run.frames.last()) else { continue };
        let number = |place: u32| pack.index.frames[place as usize].number;
        let (low, high) = (number(*front), number(*back));
        let from = alive.partition_point(|alive| frame_of(alive) < low);
        let upto = alive.partition_point(|alive| frame_of(alive) <= high);
        let of_run = &alive[from..upto];
        let worth = of_run.chunk_by(|a, b| frame_of(a) == frame_of(b));
        let worth: u64 = worth.map(|frame| worth_of(pack, frame_of(&frame[0]), frame)).sum();
        let records = pack.index.records.len() as u64;
        let of_head = (head * of_run.len() as u64).checked_div(records).unwrap_or(0);
        parts.push(Part {
            pack: first.key.0,
            alive: begin + from..begin + upto,
            cost: run.range.end - run.range.start + head_share,
            worth: worth + of_head,
            plain: of_run.iter().map(|alive| alive.extent.length).sum(),
            must_go: false,
        });
    }
    parts
}

/// Whether less than half is alive of what a machine has of a pack: what it brought to it, and what it
/// refers to.
pub(in crate::fold) fn is_sparse(pack: &PackRead, machine: &Name, alive: &[Alive]) -> bool {
    let index = &pack.index;
    let mut frames = alive.chunk_by(|a, b| a.key.1 == b.key.1).peekable();
    let (mut has, mut worth) = (0, 0);
    for (place, frame) in (0..).zip(&index.frames) {
        let of_frame = frames.next_if(|alive| alive[0].key.1 == frame.number);
        let sender = index.kept_of(place).next();
        let sender = sender.map(|record| &index.machines[usize::from(record.machine)].name);
        if of_frame.is_some() || sender == Some(machine) {
            has += frame.object_bytes();
        }
        worth += of_frame.map_or(0, |alive| worth_of(pack, frame.number, alive));
    }
    2 * worth < has
}

/// What of a frame's stored bytes is for these records.
fn worth_of(pack: &PackRead, number: FrameNumber, alive: &[Alive]) -> u64 {
    let place = pack.index.frame_place(number);
    let Some(frame) = place.and_then(|place| pack.index.frames.get(place as usize)) else {
        return 0;
    };
    let plain: u64 = alive.iter().map(|alive| alive.extent.length).sum();
    let worth = u128::from(frame.object_bytes()) * u128::from(plain);
    let worth = worth / u128::from(frame.plain_bytes.max(1));
    u64::try_from(worth).unwrap_or(u64::MAX).min(frame.object_bytes())
}

/// How much is copied at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fold) struct CopiedMost {
    /// Bytes, before they are made smaller.
    pub bytes: u64,
    /// Records.
    pub records: usize,
}

/// The parts that are worth copying, of all that is read, and whether more would be than `most`. Those
/// that must go come first.
pub(in crate::fold) fn choose(mut parts: Vec<Part>, most: CopiedMost) -> (Vec<Part>, bool) {
    let mut cost: u128 = parts.iter().map(|part| u128::from(part.cost)).sum();
    let worth: u128 = parts.iter().map(|part| u128::from(part.worth)).sum();
    parts.sort_by(|a, b| b.must_go.cmp(&a.must_go).then_with(|| by_emptiness(a, b)));
    let (mut chosen, mut bytes, mut records) = (Vec::new(), 0, 0);
    for part in parts {
        let is_enough = cost * 100 <= worth * READ_PERCENT || part.cost <= part.worth;
        if is_enough && !part.must_go {
            break;
        }
        (bytes, records) = (bytes + part.plain, records + part.alive.len());
        // One at least: a limit below any part would else be in the way for ever.
        if (bytes > most.bytes || records > most.records) && !chosen.is_empty() {
            return (chosen, true);
        }
        cost -= u128::from(part.cost.saturating_sub(part.worth));
        chosen.push(part);
    }
    (chosen, false)
}

/// The one of which less is alive comes first.
fn by_emptiness(a: &Part, b: &Part) -> Ordering {
    let cross = |one: &Part, other: &Part| u128::from(one.worth) * u128::from(other.cost);
    cross(a, b).cmp(&cross(b, a)).then_with(|| a.alive.start.cmp(&b.alive.start))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(at: usize, cost: u64, worth: u64, must_go: bool) -> Part {
        Part { pack: 0, alive: at..at + 1, cost, worth, plain: worth, must_go }
    }

    proptest! {
        #[test]
        fn what_is_left_is_read_for_little_and_nothing_fuller_is_copied(
            told in proptest::collection::vec((1..1000_u64, 0..=100_u64, 0..10_u8), 1..60),
            bytes in 0..20_000_u64,
            records in 0..60_usize,
        ) {
            let told: Vec<Part> = (0..).zip(told).map(|(at, (cost, percent, go))| {
                part(at, cost, cost * percent / 100, go == 0)
            }).collect();
            let sum = |parts: &[Part], of: fn(&Part) -> u64| parts.iter().map(of).sum::<u64>();
            let all = CopiedMost { bytes: u64::MAX, records: usize::MAX };
            let (chosen, goes_on) = choose(told.clone(), all);
            prop_assert!(!goes_on);
            let saved = sum(&chosen, |part| part.cost) - sum(&chosen, |part| part.worth);
            let read = sum(&told, |part| part.cost) - saved;
            let worth = sum(&told, |part| part.worth);
            prop_assert!(u128::from(read) * 100 <= u128::from(worth) * READ_PERCENT);
            prop_assert!(told.iter().all(|part| !part.must_go || chosen.contains(part)));
            let left = told.iter().filter(|part| !chosen.contains(part));
            let by_worth = chosen.iter().filter(|part| !part.must_go);
            let fullest = by_worth.max_by(|a, b| by_emptiness(a, b));
            for left in left {
                let is_fuller = |full| by_emptiness(full, left) == Ordering::Greater;
                prop_assert!(!fullest.is_some_and(is_fuller));
            }
            let (some, goes_on) = choose(told.clone(), CopiedMost { bytes, records });
            let is_within = sum(&some, |part| part.plain) <= bytes && some.len() <= records;
            prop_assert!(is_within || some.len() == 1);
            prop_assert_eq!(goes_on, some.len() < chosen.len());
            prop_assert!(chosen.starts_with(&some));
        }
    }

    #[test]
    fn what_lies_dense_is_left_alone() {
        let told = vec![part(0, 105, 100, false), part(1, 100, 95, false)];
        let most = CopiedMost { bytes: u64::MAX, records: usize::MAX };
        assert_eq!(choose(told, most), (Vec::new(), false));
    }
}
