//! Finds the point that a person asked for, or says why there is none.

use tidegate_model::{BookmarkKind, Epoch, Lsn, Micros, Name, Point, Remedy};

use super::moment::{Wanted, last_moment};
use super::{At, Gap, MachinePoints, RecoveryPoint, readable_time};
use crate::chain::{Broken, EpochHistory, HistoryError, MachineHistory, Stretch};
use crate::log::LogReader;

/// Why there is no such point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// Nothing can be brought back.
    #[error("{machine} has no recovery point: {why}")]
    NoPoints {
        /// The machine.
        machine: Name,
        /// The gaps, in words.
        why: String,
    },
    /// Points there are, but all are mixtures of moments.
    #[error(
        "{machine} has only unclean recovery points, whose disks changed while they were read; if that is good enough, ask for the newest by --at {newest}"
    )]
    OnlyUnclean {
        /// The machine.
        machine: Name,
        /// The newest.
        newest: Point,
    },
    /// All points are later.
    #[error(
        "{machine} has no clean recovery point at or before {}; the first is {first} at {}: ask for that or a later one",
        readable_time(*.time), readable_time(*.first_time)
    )]
    NoneBefore {
        /// The machine.
        machine: Name,
        /// What was asked for.
        time: Micros,
        /// The first clean point.
        first: Point,
        /// Its time.
        first_time: Micros,
    },
    /// It lies before the end of the initial copy.
    #[error(
        "{machine} can't be brought back to {point}: the initial copy of that epoch ended at LSN {copy_end}; ask for that or a later one"
    )]
    BeforeCopyEnd {
        /// The machine.
        machine: Name,
        /// What was asked for.
        point: Point,
        /// Where the copy ended.
        copy_end: Lsn,
    },
    /// Its epoch has no end of a copy.
    #[error(
        "{machine} can't be brought back to {point}: the initial copy of that epoch hasn't ended; 'tidegate points' lists what can be had"
    )]
    CopyUnfinished {
        /// The machine.
        machine: Name,
        /// What was asked for.
        point: Point,
    },
    /// It lies in a gap.
    #[error("{machine} can't be brought back to {point}: {stretch}; {}", ask_for(*.point, .around))]
    InGap {
        /// The machine.
        machine: Name,
        /// What was asked for.
        point: Point,
        /// The gap.
        stretch: Stretch,
        /// The moments before it and behind it, as far as they are kept.
        around: Vec<Point>,
    },
    /// What tells the time of an LSN can't be read.
    #[error(transparent)]
    Read(#[from] HistoryError),
    /// Something before it is missing, or it isn't there yet.
    #[error(
        "{machine} can't be brought back to {point}: {cause}; 'tidegate points' lists what can be had"
    )]
    Broken {
        /// The machine.
        machine: Name,
        /// What was asked for.
        point: Point,
        /// Why.
        cause: Broken,
    },
}

fn ask_for(point: Point, around: &[Point]) -> String {
    let word = |other: &Point| match *other < point {
        true => format!("{other} before them"),
        false => format!("{other} behind them"),
    };
    match around {
        [] => "'tidegate points' lists what can be had".to_owned(),
        _ => format!("ask for {}", around.iter().map(word).collect::<Vec<_>>().join(", or ")),
    }
}

/// The moments before a gap and behind it, as far as they are kept.
fn kept_around(told: &EpochHistory, epoch: Epoch, stretch: &Stretch) -> Vec<Point> {
    let before = Lsn(stretch.first.0.saturating_sub(1));
    let around = [Some(before), stretch.end.map(|(end, _)| end)].into_iter().flatten();
    let kept = around.filter(|lsn| told.trace.retained.has(*lsn));
    kept.map(|lsn| Point { epoch, lsn }).collect()
}

/// The moment at an LSN between bookmarks. What was read while it changed is a mixture until all of it is
/// read again, so it is as clean as the bookmark before.
fn between(
    history: &MachineHistory,
    lineage: &[Point],
    point: Point,
    time: Micros,
    clean: bool,
) -> RecoveryPoint {
    let (kind, name, disks) =
        (BookmarkKind::CrashConsistent, String::new(), history.disks(lineage));
    RecoveryPoint { point, time, kind, clean, name, disks }
}

impl ChooseError {
    /// What to do about it: mostly, ask for something else.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Read(error) => error.remedy(),
            _ => Remedy::Refuse,
        }
    }
}

impl MachinePoints {
    /// The point that `at` asks for. The latest bookmark is that of the newest epoch, which the vault
    /// granted last: clocks can be set back. `history` is what these points follow from.
    ///
    /// # Errors
    /// [`ChooseError`] says why there is none, and what can be asked for instead.
    pub async fn choose(
        &self,
        reader: &LogReader,
        history: &MachineHistory,
        at: At,
    ) -> Result<RecoveryPoint, ChooseError> {
        match at {
            At::Latest => self.latest(),
            At::Time(time) => self.at_time(reader, history, time).await,
            At::Point(point) => self.at_point(reader, history, point).await,
        }
    }

    /// The gap of an epoch that went on at this time, by the machine's clock.
    #[must_use]
    pub fn gap_at(&self, epoch: Epoch, time: Micros) -> Option<&Gap> {
        let mut gaps = self.gaps.iter().filter(|gap| gap.epoch == epoch);
        gaps.find(|gap| gap.stretch().is_some_and(|stretch| stretch.has_time(time)))
    }

    /// The last of the clean points that are later than `time`, by the machine's clock.
    #[must_use]
    pub fn clean_after(&self, time: Micros) -> Option<&RecoveryPoint> {
        let later = self.clean().filter(|point| point.time > time);
        later.max_by_key(|point| (point.time, point.point))
    }

    fn clean(&self) -> impl DoubleEndedIterator<Item = &RecoveryPoint> {
        self.points.iter().filter(|point| point.clean)
    }

    fn latest(&self) -> Result<RecoveryPoint, ChooseError> {
        self.clean().next_back().cloned().ok_or_else(|| self.no_clean_point())
    }

    /// Of all epochs that had begun by then, the last moment at or before the time.
    async fn at_time(
        &self,
        reader: &LogReader,
        history: &MachineHistory,
        time: Micros,
    ) -> Result<RecoveryPoint, ChooseError> {
        let mut best: Option<RecoveryPoint> = None;
        // The newest first: of two moments of one time that of the later epoch holds more.
        for (epoch, told) in history.epochs.iter().rev() {
            let latest = told.trace.last_time.min(time);
            if best.as_ref().is_some_and(|best| best.time >= latest) {
                continue;
            }
            let Some(found) = self.at_time_of(reader, history, *epoch, time).await? else {
                continue;
            };
            if best.as_ref().is_none_or(|best| best.time < found.time) {
                best = Some(found);
            }
        }
        best.ok_or_else(|| self.none_before(time))
    }

    /// The last moment of an epoch at or before the time.
    async fn at_time_of(
        &self,
        reader: &LogReader,
        history: &MachineHistory,
        epoch: Epoch,
        time: Micros,
    ) -> Result<Option<RecoveryPoint>, ChooseError> {
        let Some(told) = history.epochs.get(&epoch) else { return Ok(None) };
        let end = told.trace.chain.end();
        let begin = told.copy_end().filter(|copy_end| *copy_end <= end);
        let marks = begin.into_iter().flat_map(|begin| told.trace.bookmarks.range(begin..=end));
        let moments = marks.filter(|(_, (_, mark))| mark.clean && !mark.kind.begins_gap());
        // A bookmark that isn't kept may tell of a kept place behind it; or else one before it does.
        for (lsn, (marked, _)) in moments.rev().filter(|(_, (marked, _))| *marked <= time) {
            let kept = told.trace.retained.has(*lsn);
            if kept && self.offered(Point { epoch, lsn: *lsn }).is_none() {
                continue;
            }
            let found = self.moment_from(reader, history, epoch, (*lsn, *marked), time).await?;
            if let Some(found) = found {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn offered(&self, point: Point) -> Option<&RecoveryPoint> {
        self.points.iter().find(|offered| offered.point == point)
    }

    fn none_before(&self, time: Micros) -> ChooseError {
        let first = self.clean().min_by_key(|point| (point.time, point.point));
        first.map_or_else(
            || self.no_clean_point(),
            |first| ChooseError::NoneBefore {
                machine: self.machine.clone(),
                time,
                first: first.point,
                first_time: first.time,
            },
        )
    }

    /// The last kept moment up to a time, from a clean bookmark on and before the next.
    async fn moment_from(
        &self,
        reader: &LogReader,
        history: &MachineHistory,
        epoch: Epoch,
        (after, since): (Lsn, Micros),
        until: Micros,
    ) -> Result<Option<RecoveryPoint>, ChooseError> {
        let Some(told) = history.epochs.get(&epoch) else { return Ok(None) };
        let next = told.trace.bookmarks.range(after.next()..).next().map(|(lsn, _)| *lsn);
        let end = told.trace.chain.end().next();
        let below = next.map_or(end, |next| next.min(end));
        let wanted = Wanted { epoch, after, since, below, until };
        let Some((lsn, time)) = last_moment(reader, history, wanted).await? else {
            return Ok(None);
        };
        let point = Point { epoch, lsn };
        let Ok(lineage) = history.whole_lineage(point) else { return Ok(None) };
        let offered = self.offered(point).cloned();
        Ok(Some(offered.unwrap_or_else(|| between(history, &lineage, point, time, true))))
    }

    async fn at_point(
        &self,
        reader: &LogReader,
        history: &MachineHistory,
        point: Point,
    ) -> Result<RecoveryPoint, ChooseError> {
        let machine = self.machine.clone();
        let lineage = match history.whole_lineage(point) {
            Ok(lineage) => lineage,
            Err(cause) => return Err(ChooseError::Broken { machine, point, cause }),
        };
        let told = history.epochs.get(&point.epoch);
        let Some((told, copy_end)) = told.and_then(|told| Some((told, told.copy_end()?))) else {
            return Err(ChooseError::CopyUnfinished { machine, point });
        };
        if point.lsn < copy_end {
            return Err(ChooseError::BeforeCopyEnd { machine, point, copy_end });
        }
        if let Some(stretch) = told.trace.stretches().find(|stretch| stretch.has(point.lsn)) {
            let around = kept_around(told, point.epoch, &stretch);
            return Err(ChooseError::InGap { machine, point, stretch, around });
        }
        if let Some(offered) = self.offered(point) {
            return Ok(offered.clone());
        }
        // The end of the copy is known in any case, and outside gaps every bookmark is a moment.
        let before = told.trace.bookmarks.range(copy_end..=point.lsn).next_back();
        let Some((after, (since, mark))) = before else {
            return Err(ChooseError::CopyUnfinished { machine, point });
        };
        let (below, until) = (point.lsn.next(), Micros(u64::MAX));
        let wanted = Wanted { epoch: point.epoch, after: *after, since: *since, below, until };
        // The LSN itself may say only that time passed: then its disks are those of the last change.
        let found = last_moment(reader, history, wanted).await?;
        let time = found.map_or(*since, |(_, time)| time);
        Ok(between(history, &lineage, point, time, mark.clean))
    }

    fn no_clean_point(&self) -> ChooseError {
        let machine = self.machine.clone();
        if let Some(newest) = self.points.last() {
            return ChooseError::OnlyUnclean { machine, newest: newest.point };
        }
        let gaps: Vec<String> = self.gaps.iter().map(ToString::to_string).collect();
        let why = if gaps.is_empty() {
            "nothing was sent yet, copy it first".into()
        } else {
            gaps.join("; ")
        };
        ChooseError::NoPoints { machine, why }
    }
}
