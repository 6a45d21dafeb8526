//! Finds the point that a person asked for, or says why there is none.

use tidegate_model::{Lsn, Micros, Name, Point, Remedy};

use super::{At, MachinePoints, RecoveryPoint, readable_time};
use crate::chain::{Broken, MachineHistory};

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

impl ChooseError {
    /// What to do about it: ask for something else.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        Remedy::Refuse
    }
}

impl MachinePoints {
    /// The point that `at` asks for. The latest is that of the newest epoch, which the vault granted
    /// last: clocks can be set back. `history` is what these points follow from. For an LSN
    /// between bookmarks it is the bookmark before it, moved there and called unclean.
    ///
    /// # Errors
    /// [`ChooseError`] says why there is none, and what can be asked for instead.
    pub fn choose(&self, history: &MachineHistory, at: At) -> Result<RecoveryPoint, ChooseError> {
        match at {
            At::Latest => self.latest(),
            At::Time(time) => self.at_time(time),
            At::Point(point) => self.at_point(history, point),
        }
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

    fn at_time(&self, time: Micros) -> Result<RecoveryPoint, ChooseError> {
        let before = self.clean().filter(|point| point.time <= time);
        // Of two points of one moment the later one holds more.
        if let Some(point) = before.max_by_key(|point| (point.time, point.point)) {
            return Ok(point.clone());
        }
        let first = self.clean().min_by_key(|point| (point.time, point.point));
        Err(first.map_or_else(
            || self.no_clean_point(),
            |first| ChooseError::NoneBefore {
                machine: self.machine.clone(),
                time,
                first: first.point,
                first_time: first.time,
            },
        ))
    }

    fn at_point(
        &self,
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
        if let Some(offered) = self.points.iter().find(|offered| offered.point == point) {
            return Ok(offered.clone());
        }
        // That of the end of the copy is known in any case.
        let before = told.trace.bookmarks.range(copy_end..=point.lsn).next_back();
        let Some((_, (time, bookmark))) = before else {
            return Err(ChooseError::CopyUnfinished { machine, point });
        };
        let (time, kind, name) = (*time, bookmark.kind, bookmark.name.clone());
        let disks = history.disks(&lineage);
        Ok(RecoveryPoint { point, time, kind, clean: false, name, disks })
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
