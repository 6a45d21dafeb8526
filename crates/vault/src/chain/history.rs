//! The history of a machine: the tree of its epochs, and what their logs say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_model::{
    BookmarkKind, Disk, DiskNumber, Epoch, LogName, Lsn, Name, PackNumber, Point,
};

use super::trace::{Trace, Traces};
use super::unnamed::Unnamed;
use crate::fold::Manifest;
use crate::layout;
use crate::log::LogError;
use crate::meta::{Begins, EpochRecord, MetaError, Records, SessionRecord};

/// One epoch of a machine.
#[derive(Debug, Clone)]
pub struct EpochHistory {
    /// What the vault granted.
    pub record: EpochRecord,
    /// Its reconnects, in order.
    pub sessions: Vec<SessionRecord>,
    /// What its logs say.
    pub trace: Trace,
}

impl EpochHistory {
    /// The highest LSN that was ever known to be committed: a session record says so, or it is
    /// there, whole chain or not.
    #[must_use]
    pub fn reached(&self) -> Lsn {
        let committed = self.sessions.iter().map(|session| session.committed).max();
        committed.unwrap_or_default().max(self.trace.chain.highest())
    }

    /// Whether a session record proves that something was committed and is lost.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.sessions.iter().any(|session| session.committed > self.trace.chain.end())
    }

    /// Where its initial copy or resync ended: its disks are whole from there on.
    #[must_use]
    pub fn copy_end(&self) -> Option<Lsn> {
        let ends = |kind: BookmarkKind| kind == BookmarkKind::CopyEnd;
        self.trace.bookmarks.iter().find(|(_, (_, mark))| ends(mark.kind)).map(|(lsn, _)| *lsn)
    }

    /// The first LSNs (first, last) that are missing below what was reached; `None` when the chain
    /// is whole. Sessions begin where the chain before them ended, so a hole is a loss.
    #[must_use]
    pub fn hole(&self) -> Option<(Lsn, Lsn)> {
        let end = self.trace.chain.end();
        let last = self.trace.chain.holes().next().map_or(self.reached(), |(_, last)| last);
        (self.reached() > end).then_some((end.next(), last))
    }
}

/// Something of a machine that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// In its logs.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Of the records of its epochs and sessions, or of what is folded of it.
    #[error(transparent)]
    Record(#[from] MetaError),
    /// The record of a session: its place is known only by what it brought.
    #[error(transparent)]
    Unnamed(#[from] Unnamed),
}

/// A machine, its epochs, and what is wrong with what holds them.
#[derive(Debug, Clone)]
pub struct MachineHistory {
    /// The machine.
    pub machine: Name,
    /// Its epochs.
    pub epochs: BTreeMap<Epoch, EpochHistory>,
    /// Epochs that were granted and whose records are damaged or missing, with what the logs say of
    /// them. Nothing that lies in them or continues them can be brought back; the others stand by
    /// themselves.
    pub lost: BTreeMap<Epoch, Trace>,
    /// Epochs of which nothing is kept any more.
    pub gone: BTreeSet<Epoch>,
    /// What couldn't be read: records first, then logs.
    pub losses: Vec<Loss>,
    /// Whether records of sessions are damaged or missing: any log may hold what they brought.
    pub(super) strayed: bool,
    /// Logs to look at besides those that the records name, from their first pack on.
    pub(super) besides: Vec<LogName>,
    /// What of it is folded: that isn't read from the logs.
    pub(crate) fold: Option<Arc<Manifest>>,
}

/// Why a point has no whole history behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// There is no such epoch.
    #[error("there is no epoch {0}")]
    NoEpoch(Epoch),
    /// There was such an epoch.
    #[error("the record of epoch {0} is damaged or missing, and what it continues isn't known")]
    Lost(Epoch),
    /// LSNs are missing.
    #[error("the chain of epoch {epoch} ends at LSN {end}, and LSN {wanted} is needed")]
    Ends {
        /// The epoch.
        epoch: Epoch,
        /// The last LSN before which nothing is missing.
        end: Lsn,
        /// What is needed of it.
        wanted: Lsn,
    },
    /// An epoch that continues another doesn't say which, or names a later one.
    #[error("epoch {0} continues another, but names none before it")]
    NoParent(Epoch),
    /// Nothing of the epoch is kept any more.
    #[error("nothing of epoch {0} is kept any more")]
    Gone(Epoch),
    /// The place was thinned away.
    #[error("{point} is no longer kept; {}", nearest(*.point, *.before, *.after))]
    Thinned {
        /// The place.
        point: Point,
        /// The last kept place before it in its epoch.
        before: Option<Lsn>,
        /// The first kept place after it.
        after: Lsn,
    },
}

fn nearest(point: Point, before: Option<Lsn>, after: Lsn) -> String {
    let after = Point { lsn: after, ..point };
    match before.map(|lsn| Point { lsn, ..point }) {
        Some(before) => format!("the nearest kept places are {before} and {after}"),
        None => format!("the nearest kept place is {after}"),
    }
}

impl Broken {
    /// Whether it was let go by a policy, and isn't damage.
    #[must_use]
    pub const fn is_let_go(&self) -> bool {
        matches!(self, Self::Gone(_) | Self::Thinned { .. })
    }
}

impl MachineHistory {
    /// A machine of which only the records of its epochs and sessions are known.
    #[must_use]
    pub fn new(
        machine: Name,
        epochs: Records<EpochRecord>,
        sessions: Records<SessionRecord>,
    ) -> Self {
        let damaged = epochs.damaged.iter().filter_map(MetaError::damaged_path);
        let lost = damaged.filter_map(|path| layout::parse_epoch(&machine, path));
        let mut lost: BTreeMap<_, _> = lost.map(|epoch| (epoch, Trace::default())).collect();
        let strayed = !sessions.damaged.is_empty();
        let mut of_epochs: BTreeMap<Epoch, Vec<SessionRecord>> = BTreeMap::new();
        for session in sessions.whole {
            of_epochs.entry(session.epoch).or_default().push(session);
        }
        let told = |record: EpochRecord| {
            let sessions = of_epochs.remove(&record.epoch).unwrap_or_default();
            (record.epoch, EpochHistory { record, sessions, trace: Trace::default() })
        };
        let epochs_told = epochs.whole.into_iter().map(told).collect();
        let losses = epochs.damaged.into_iter().chain(sessions.damaged).map(Loss::Record);
        let mut losses: Vec<Loss> = losses.collect();
        // The newest epochs may be lost without a gap in the numbers: their sessions tell.
        for epoch in of_epochs.into_keys() {
            if lost.insert(epoch, Trace::default()).is_none() {
                losses.push(MetaError::Missing { path: layout::epoch(&machine, epoch) }.into());
            }
        }
        let (gone, besides, fold) = (BTreeSet::new(), Vec::new(), None);
        Self { machine, epochs: epochs_told, lost, gone, losses, strayed, besides, fold }
    }

    /// Puts what is folded of it in its place, before its logs are read.
    pub(crate) fn set_fold(&mut self, fold: Option<Arc<Manifest>>) {
        self.let_go(fold.iter().flat_map(|fold| &fold.gone));
        self.fold = fold;
    }

    /// Takes these epochs for gone.
    pub(crate) fn let_go<'e>(&mut self, gone: impl Iterator<Item = &'e Epoch>) {
        for epoch in gone {
            self.epochs.remove(epoch);
            self.lost.remove(epoch);
            self.gone.insert(*epoch);
        }
    }

    /// Takes its epochs up to this one for removed.
    pub(crate) fn remove_upto(&mut self, upto: Epoch) {
        let later = self.epochs.split_off(&upto.next());
        self.gone.extend(std::mem::replace(&mut self.epochs, later).into_keys());
        let later = self.lost.split_off(&upto.next());
        self.gone.extend(std::mem::replace(&mut self.lost, later).into_keys());
    }

    /// Whether nothing of it is there any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        !self.gone.is_empty() && self.epochs.is_empty() && self.lost.is_empty()
    }

    /// The number of the manifest from which it was read; 0 where it was read from the logs.
    #[must_use]
    pub fn folded_by(&self) -> u64 {
        self.fold.as_ref().map_or(0, |manifest| manifest.number)
    }

    /// Whether any log may hold some of it, for nobody knows which.
    #[must_use]
    pub const fn is_strayed(&self) -> bool {
        self.strayed
    }

    /// The same history, of which all is to be read from the logs.
    #[must_use]
    pub(crate) fn unfolded(&self) -> Self {
        Self { fold: None, ..self.clone() }
    }

    /// Moves what the logs say of this machine's epochs over here.
    pub fn take_traces(&mut self, traces: &mut Traces) {
        let known = self.epochs.iter_mut().map(|(epoch, told)| (epoch, &mut told.trace));
        for (epoch, trace) in known.chain(&mut self.lost) {
            if let Some(told) = traces.0.remove(&(self.machine.clone(), *epoch)) {
                *trace = told;
            }
        }
    }

    /// Gives them back, so that they can be added to.
    pub(crate) fn give_traces(&mut self, traces: &mut Traces) {
        let known = self.epochs.iter_mut().map(|(epoch, told)| (epoch, &mut told.trace));
        for (epoch, trace) in known.chain(&mut self.lost) {
            traces.0.insert((self.machine.clone(), *epoch), std::mem::take(trace));
        }
    }

    /// The logs in which the machine's records are, each with the first pack to look at; the log
    /// of the newest session first. Read in this order a history that grows meanwhile shows no
    /// hole: what a session stands on was stored before the session began. When records of
    /// sessions are lost, all other logs follow.
    #[must_use]
    pub fn logs(&self) -> Vec<(LogName, PackNumber)> {
        let begins = self.epochs.values().flat_map(|epoch| {
            let sessions = epoch.sessions.iter().map(|session| (&session.log, session.pack));
            std::iter::once((&epoch.record.log, epoch.record.pack)).chain(sessions)
        });
        let mut logs: Vec<(LogName, PackNumber)> = Vec::new();
        for (log, pack) in begins.collect::<Vec<_>>().into_iter().rev() {
            match logs.iter_mut().find(|(known, _)| known == log) {
                Some((_, first)) => *first = pack.min(*first),
                None => logs.push((log.clone(), pack)),
            }
        }
        for log in &self.besides {
            match logs.iter_mut().find(|(known, _)| known == log) {
                Some((_, first)) => *first = PackNumber(0),
                None => logs.push((log.clone(), PackNumber(0))),
            }
        }
        logs
    }

    /// The points whose records make up the state at `point`, oldest epoch first: its own epoch,
    /// and those that it continues, each as far as it is continued. Nothing is said of chains.
    ///
    /// # Errors
    /// [`Broken`] when an epoch isn't there, or its record can't be read.
    pub fn lineage(&self, point: Point) -> Result<Vec<Point>, Broken> {
        let mut lineage = vec![point];
        let mut next = point;
        loop {
            let epoch = self.epochs.get(&next.epoch).ok_or_else(|| self.absent(next.epoch))?;
            if epoch.record.begins == Begins::Copy {
                lineage.reverse();
                return Ok(lineage);
            }
            // Epochs are numbered as they are granted: going only to earlier ones, this ends.
            let parent = epoch.record.parent.filter(|parent| parent.epoch < next.epoch);
            next = parent.ok_or(Broken::NoParent(next.epoch))?;
            lineage.push(next);
        }
    }

    fn absent(&self, epoch: Epoch) -> Broken {
        match epoch {
            _ if self.lost.contains_key(&epoch) => Broken::Lost(epoch),
            _ if self.gone.contains(&epoch) => Broken::Gone(epoch),
            _ => Broken::NoEpoch(epoch),
        }
    }

    /// The lineage of `point`, if every chain in it is whole and every place in it is kept.
    ///
    /// # Errors
    /// [`Broken`] says what is missing.
    pub fn whole_lineage(&self, point: Point) -> Result<Vec<Point>, Broken> {
        let lineage = self.lineage(point)?;
        for Point { epoch, lsn } in &lineage {
            let end = self.epochs[epoch].trace.chain.end();
            if end < *lsn {
                return Err(Broken::Ends { epoch: *epoch, end, wanted: *lsn });
            }
            let retained = &self.epochs[epoch].trace.retained;
            if !retained.has(*lsn) {
                let (before, after) = retained.around(*lsn);
                let point = Point { epoch: *epoch, lsn: *lsn };
                return Err(Broken::Thinned { point, before, after });
            }
        }
        Ok(lineage)
    }

    /// The end of the newest epoch's chain.
    #[must_use]
    pub fn newest(&self) -> Option<Point> {
        let (epoch, told) = self.epochs.last_key_value()?;
        Some(Point { epoch: *epoch, lsn: told.trace.chain.end() })
    }

    /// The disks at the end of a lineage: those that weren't removed.
    #[must_use]
    pub fn disks(&self, lineage: &[Point]) -> Vec<Disk> {
        let mut disks: BTreeMap<DiskNumber, Disk> = BTreeMap::new();
        for Point { epoch, lsn } in lineage {
            if let Some(epoch) = self.epochs.get(epoch) {
                epoch.trace.disks_at(*lsn, &mut disks);
            }
        }
        disks.into_values().filter(|disk| disk.bytes > 0).collect()
    }
}
