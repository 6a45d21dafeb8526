//! Recovery points: which moments of a machine can be brought back, which can't, and why.
//!
//! Owns what follows from a machine's history, without waiting for anything but the time of an LSN
//! between bookmarks (`moment`). Doesn't own reading the history (`chain`) nor bringing a point back
//! (`restore`).
//!
//! Invariant: a point is offered only if the initial copy (or resync) of its epoch has ended at or
//! before it, every LSN from 1 to it is there, in its epoch and in those that it continues, and it lies
//! in no gap. Listed are the bookmarks; any LSN for which this holds can be asked for.
//! [`read`] and [`MachinePoints::withhold`] also take away what refers to packs that can't be read.

mod at;
mod choose;
mod moment;
mod read;
mod referred;

use serde::Serialize;
use tidegate_model::{BookmarkKind, Counted, Disk, Epoch, Lsn, Micros, Name, Point};

pub use at::{At, AtError, readable_time};
pub use choose::ChooseError;
pub use read::read;
pub(crate) use referred::{Lacks, Referred};

use crate::chain::{Broken, EpochHistory, MachineHistory, Stretch};
use crate::log::LogError;

/// A moment to which a machine can be brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryPoint {
    /// Where it lies in the machine's history.
    pub point: Point,
    /// When it was, by the machine's clock.
    pub time: Micros,
    /// What its bookmark promises.
    pub kind: BookmarkKind,
    /// False when the disks at this point are a mixture of moments.
    pub clean: bool,
    /// A person's name for it; may be empty.
    pub name: String,
    /// The disks at this point.
    pub disks: Vec<Disk>,
}

/// Why (part of) an epoch isn't offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GapCause {
    /// What was written in it isn't told step by step.
    #[error("{0}{lasted}", lasted = lasted(.0))]
    Stretch(Stretch),
    /// The initial copy didn't end: it goes on, or was given up.
    #[error("the initial copy hasn't ended; it is at LSN {0}")]
    CopyUnfinished(Lsn),
    /// Records that were committed are missing.
    #[error(
        "LSNs {first} to {last} are missing: {} at or after them can't be offered; `tidegate verify` says what is damaged",
        Counted(*.points, "recovery point")
    )]
    Missing {
        /// The first.
        first: Lsn,
        /// The last before the next one that is there.
        last: Lsn,
        /// How many bookmarks lie beyond.
        points: usize,
    },
    /// Blocks are kept in a pack elsewhere, which can't be read.
    #[error(
        "from {since} on it refers to a pack that can't be read: {cause}{}; {} at or after that can't be offered, though one by which the blocks were overwritten may come back; `tidegate verify` tells more",
        and_more(*.others), Counted(*.points, "recovery point")
    )]
    Referred {
        /// The first record that refers to it, in this epoch or one that it continues.
        since: Point,
        /// How many points that costs.
        points: usize,
        /// What is wrong with the pack.
        cause: LogError,
        /// How many more packs can't be read to which later records of that epoch refer.
        others: usize,
    },
    /// What the epoch continues isn't whole.
    #[error("what it continues isn't whole: {0}")]
    Parent(Broken),
    /// What the vault granted can't be read.
    #[error("its record is damaged or missing; `tidegate verify` names it")]
    Record,
}

fn lasted(stretch: &Stretch) -> String {
    let since = readable_time(stretch.since);
    match stretch.end {
        Some((_, until)) => format!(", from {since} to {}", readable_time(until)),
        None => format!(", since {since}; it hasn't ended"),
    }
}

fn and_more(others: usize) -> String {
    match others {
        0 => String::new(),
        _ => format!(" (and {})", Counted(others, "more pack")),
    }
}

/// An epoch of which something can't be offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("epoch {epoch}: {cause}")]
pub struct Gap {
    /// The epoch.
    pub epoch: Epoch,
    /// Why.
    pub cause: GapCause,
}

/// What can be brought back of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachinePoints {
    /// The machine.
    pub machine: Name,
    /// Its recovery points, by epoch and LSN.
    pub points: Vec<RecoveryPoint>,
    /// What can't be offered.
    pub gaps: Vec<Gap>,
}

impl Gap {
    /// The stretch between moments that it is, if it is one: then nothing is missing or damaged.
    #[must_use]
    pub const fn stretch(&self) -> Option<&Stretch> {
        match &self.cause {
            GapCause::Stretch(stretch) => Some(stretch),
            _ => None,
        }
    }
}

impl MachinePoints {
    /// What follows from a machine's history.
    #[must_use]
    pub fn of(history: &MachineHistory) -> Self {
        let mut all =
            Self { machine: history.machine.clone(), points: Vec::new(), gaps: Vec::new() };
        for (epoch, told) in &history.epochs {
            all.add_epoch(history, *epoch, told);
        }
        let lost = history.lost.keys().map(|epoch| Gap { epoch: *epoch, cause: GapCause::Record });
        all.gaps.extend(lost);
        all.gaps.sort_by_key(|gap| gap.epoch);
        all
    }

    fn add_epoch(&mut self, history: &MachineHistory, epoch: Epoch, told: &EpochHistory) {
        let mut gap = |cause| self.gaps.push(Gap { epoch, cause });
        let end = told.trace.chain.end();
        if let Some((first, last)) = told.hole() {
            let marks = told.trace.bookmarks.range(first..);
            let points = marks.filter(|(_, (_, mark))| !mark.kind.begins_gap()).count();
            gap(GapCause::Missing { first, last, points });
        }
        let Some(copy_end) = told.copy_end().filter(|lsn| *lsn <= end) else {
            if told.hole().is_none() {
                gap(GapCause::CopyUnfinished(end));
            }
            return;
        };
        let retained = &told.trace.retained;
        // Of its own places any that is kept tells whether what it continues is there.
        let kept = if retained.has(copy_end) { copy_end } else { retained.from.max(copy_end) };
        if let Err(broken) = history.whole_lineage(Point { epoch, lsn: kept }) {
            return gap(GapCause::Parent(broken));
        }
        let stretches = told.trace.stretches().filter(|stretch| stretch.first > copy_end);
        stretches.for_each(|stretch| gap(GapCause::Stretch(stretch)));
        let marks = told.trace.bookmarks.range(copy_end..=end);
        let offered =
            marks.filter(|(lsn, (_, mark))| retained.has(**lsn) && !mark.kind.begins_gap());
        self.points.extend(offered.filter_map(|(lsn, (time, bookmark))| {
            let point = Point { epoch, lsn: *lsn };
            let lineage = history.lineage(point).ok()?;
            Some(RecoveryPoint {
                point,
                time: *time,
                kind: bookmark.kind,
                clean: bookmark.clean,
                name: bookmark.name.clone(),
                disks: history.disks(&lineage),
            })
        }));
    }
}

#[cfg(test)]
mod tests;
