//! Finds the point that a person asked for, or says why there is none.

use tidegate_model::{BookmarkKind, Epoch, Lsn, Micros, Name, Point, Remedy};

use super::moment::{Wanted, last_change};
use super::{At, Gap, MachinePoints, RecoveryPoint, readable_time};
use crate::chain::{Broken, HistoryError, MachineHistory, Stretch};
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
    #[error(
        "{machine} can't be brought back to {point}: {stretch}; ask for {}:{} before them{}",
        .point.epoch, .stretch.first.0.saturating_sub(1), or_behind(*.point, stretch)
    )]
    InGap {
        /// The machine.
        machine: Name,
        /// What was asked for.
        point: Point,
        /// The gap.
        stretch: Stretch,
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

fn or_behind(point: Point, stretch: &Stretch) -> String {
    stretch
        .end
        .map(|(end, _)| format!(", or {}:{end} behind them", point.epoch))
        .unwrap_or_default()
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
            let marks = self.clean().filter(|mark| mark.point.epoch == *epoch && mark.time <= time);
            let Some(before) = marks.max_by_key(|mark| mark.point.lsn) else { continue };
            let latest = told.trace.last_time.min(time);
            if best.as_ref().is_some_and(|best| best.time >= latest) {
                continue;
            }
            let found = self.moment_after(reader, history, before, Lsn(u64::MAX), time).await?;
            if best.as_ref().is_none_or(|best| best.time < found.time) {
                best = Some(found);
            }
        }
        best.ok_or_else(|| self.none_before(time))
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

    /// The last change behind a bookmark, up to `last` and to a time and before the next bookmark; the
    /// bookmark itself where there is none.
    async fn moment_after(
        &self,
        reader: &LogReader,
        history: &MachineHistory,
        before: &RecoveryPoint,
        last: Lsn,
        until: Micros,
    ) -> Result<RecoveryPoint, ChooseError> {
        let Point { epoch, lsn: after } = before.point;
        let Some(told) = history.epochs.get(&epoch) else { return Ok(before.clone()) };
        let next = told.trace.bookmarks.range(after.next()..).next().map(|(lsn, _)| *lsn);
        let end = told.trace.chain.end().min(last).next();
        let below = next.map_or(end, |next| next.min(end));
        let wanted = Wanted { epoch, after, below, until };
        let Some((lsn, time)) = last_change(reader, history, wanted).await? else {
            return Ok(before.clone());
        };
        Ok(self.between(history, before, lsn, time))
    }

    /// The moment at an LSN behind a bookmark, and before the next.
    fn between(
        &self,
        history: &MachineHistory,
        before: &RecoveryPoint,
        lsn: Lsn,
        time: Micros,
    ) -> RecoveryPoint {
        let point = Point { lsn, ..before.point };
        let lineage = history.lineage(point).unwrap_or_default();
        let (kind, name, disks) =
            (BookmarkKind::CrashConsistent, String::new(), history.disks(&lineage));
        // What was read while it changed is a mixture until all of it is read again.
        RecoveryPoint { point, time, kind, clean: before.clean, name, disks }
    }

    async fn at_point(
        &self,
        reader: &LogReader,
        history: &MachineHistory,
        point: Point,
    ) -> Result<RecoveryPoint, ChooseError> {
        let machine = self.machine.clone();
        if let Err(cause) = history.whole_lineage(point) {
            return Err(ChooseError::Broken { machine, point, cause });
        }
        let mut same = self.points.iter().filter(|offered| offered.point.epoch == point.epoch);
        let Some(copy_end) = same.clone().next().map(|first| first.point.lsn) else {
            return Err(ChooseError::CopyUnfinished { machine, point });
        };
        let Some(before) = same.rfind(|offered| offered.point.lsn <= point.lsn) else {
            return Err(ChooseError::BeforeCopyEnd { machine, point, copy_end });
        };
        if before.point == point {
            return Ok(before.clone());
        }
        let mut gaps = self.gaps.iter().filter(|gap| gap.epoch == point.epoch);
        let within = gaps.find_map(|gap| gap.stretch().filter(|stretch| stretch.has(point.lsn)));
        if let Some(stretch) = within.copied() {
            return Err(ChooseError::InGap { machine, point, stretch });
        }
        let (last, ever) = (point.lsn, Micros(u64::MAX));
        let found = self.moment_after(reader, history, before, last, ever).await?;
        // The LSN itself may say only that time passed: then its disks are those of the last change.
        Ok(self.between(history, before, point.lsn, found.time))
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
