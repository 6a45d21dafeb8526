//! A manifest: how far a machine's logs are folded, and what was found in them.
//! docs/formats/fold.md, "Manifest". Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tidegate_model::limits::TEXT_BYTES_MAX;
use tidegate_model::{
    Bookmark, BookmarkKind, Disk, Epoch, LayerId, LogName, Lsn, Micros, Name, PackNumber,
};

use super::ages::Age;
use super::layer::LAYER_EXTENTS_MAX;
use super::packs::{FoldedPack, Need, Needs, is_listed, list, listed};
use crate::chain::{Chain, Retained, Trace, Traces};
use crate::log::PackPlace;

/// What part of a base's bytes is written since when the next one is made: one in so many.
const BASE_PART: u64 = 32;

/// A machine's history, as far as it is folded, but for what its layers hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its number, from 1.
    pub number: u64,
    /// How far the machine's logs are folded.
    pub logs: Vec<FoldedLog>,
    /// Its epochs, in order.
    pub epochs: Vec<FoldedEpoch>,
    /// The epochs of which nothing is kept any more, in order.
    pub gone: Vec<Epoch>,
    /// What the folded packs take of it.
    pub usage: FoldedUsage,
}

/// How far a log is folded, for one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldedLog {
    /// The log.
    pub log: LogName,
    /// The first pack that was looked at.
    pub from: PackNumber,
    /// The first pack that a reader must look at: every record that is complete in the packs before
    /// it, or that begins there, is folded.
    pub upto: PackNumber,
}

/// What is folded of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldedEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// The LSNs, as ranges (first, last) that rise and don't touch.
    pub runs: Vec<(Lsn, Lsn)>,
    /// The time of the last record.
    pub last_time: Micros,
    /// How old they are, in order.
    pub ages: Vec<Age>,
    /// Which places are kept.
    pub retained: Retained,
    /// The bookmarks of kept places and those that tell what such places are, in order, and the one
    /// that ends the initial copy.
    pub bookmarks: Vec<Marked>,
    /// The declarations of disks, in order.
    pub disks: Vec<Declared>,
    /// The logs in which there is something of it.
    pub begins: Vec<Begin>,
    /// The packs in which its bytes are kept.
    pub packs: Vec<FoldedPack>,
    /// The logs of those packs.
    pub pack_logs: Vec<LogName>,
    /// Its layers, the oldest first.
    pub layers: Vec<LayerEntry>,
    /// What stands for the layers up to some place, for who wants that or a later one.
    pub base: Option<Base>,
}

/// What an epoch's disks hold something of at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The place.
    pub lsn: Lsn,
    /// The layers, by place on the disks.
    pub layers: Vec<LayerEntry>,
    /// The packs in which their bytes are kept. Where none is listed (as before there were dense packs),
    /// those of the epoch are.
    #[serde(default)]
    pub packs: Vec<FoldedPack>,
    /// The logs of those packs.
    #[serde(default)]
    pub pack_logs: Vec<LogName>,
    /// More should have been copied into dense packs than one fold does: the next one goes on.
    #[serde(default)]
    pub unfinished: bool,
}

/// A bookmark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// Where it lies.
    pub lsn: Lsn,
    /// When it was.
    pub time: Micros,
    /// What it says.
    pub bookmark: Bookmark,
    /// When it was stored, by the store's clock.
    pub stored: Micros,
}

/// A disk's declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Where it lies.
    pub lsn: Lsn,
    /// When it was.
    pub time: Micros,
    /// What it says.
    pub disk: Disk,
}

/// The first pack of a log that has something of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The log.
    pub log: LogName,
    /// The pack.
    pub pack: PackNumber,
    /// The lowest LSN in it.
    pub lsn: Lsn,
}

/// A layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerEntry {
    /// Its id.
    pub layer: LayerId,
    /// The lowest LSN in it.
    pub first: Lsn,
    /// The highest LSN in it.
    pub last: Lsn,
    /// How many extents it has.
    pub extents: u32,
    /// Bytes of the object.
    pub bytes: u64,
    /// Bytes of disks that its extents keep; 0 where that wasn't written.
    #[serde(default)]
    pub kept_bytes: u64,
}

/// What packs take of a machine; see `usage`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldedUsage {
    /// Bytes that frames keep for it, before they were made smaller.
    pub kept_bytes: u64,
    /// Bytes that were zero.
    pub zero_bytes: u64,
    /// Bytes that refer to kept ones.
    pub reference_bytes: u64,
    /// Bytes of the store: its frames, and its share of the packs' heads.
    pub stored_bytes: u64,
}

impl FoldedUsage {
    /// Both together.
    pub(crate) const fn plus(self, other: &Self) -> Self {
        Self {
            kept_bytes: self.kept_bytes + other.kept_bytes,
            zero_bytes: self.zero_bytes + other.zero_bytes,
            reference_bytes: self.reference_bytes + other.reference_bytes,
            stored_bytes: self.stored_bytes + other.stored_bytes,
        }
    }
}

impl Manifest {
    /// From which pack on a log must be read whose records may begin with pack `first`; `None` when
    /// it isn't folded from there.
    #[must_use]
    pub fn upto(&self, log: &LogName, first: PackNumber) -> Option<PackNumber> {
        let folded = self.logs.iter().find(|folded| folded.log == *log)?;
        (folded.from <= first).then_some(folded.upto)
    }

    /// Whether what this pack takes is part of [`Self::usage`].
    pub(crate) fn has(&self, place: &PackPlace) -> bool {
        let mut folded = self.logs.iter().filter(|folded| folded.log == place.log);
        folded.any(|folded| (folded.from..folded.upto).contains(&place.number))
    }

    /// Puts what is folded of `machine` among what is read of its logs.
    pub(crate) fn seed(&self, machine: &Name, traces: &mut Traces) {
        for epoch in &self.epochs {
            traces.0.insert((machine.clone(), epoch.epoch), epoch.trace());
        }
    }

    /// What it says that can't be.
    pub(super) fn check(&self, number: u64) -> Result<(), &'static str> {
        if self.number != number || number == 0 {
            return Err("it is another manifest");
        }
        if self.logs.iter().any(|log| log.from > log.upto) {
            return Err("a log is folded backwards");
        }
        let here = |epoch: &Epoch| self.epochs.iter().any(|folded| folded.epoch == *epoch);
        if !self.epochs.is_sorted_by(|a, b| a.epoch < b.epoch)
            || !self.gone.is_sorted_by(|a, b| a < b)
            || self.gone.iter().any(here)
        {
            return Err("its epochs are out of order");
        }
        self.epochs.iter().try_for_each(FoldedEpoch::check)
    }
}

impl Base {
    /// Whether it says by itself in which packs its bytes are kept.
    pub(super) const fn is_whole(&self) -> bool {
        !self.packs.is_empty()
    }
}

impl FoldedEpoch {
    /// What is folded of an epoch, as it was read.
    pub(super) fn of(epoch: Epoch, trace: &Trace, marks_stored: &BTreeMap<Lsn, Micros>) -> Self {
        let marked = |(lsn, (time, bookmark)): (&Lsn, &(Micros, Bookmark))| Marked {
            lsn: *lsn,
            time: *time,
            bookmark: bookmark.clone(),
            // Both come from the same packs; what doesn't is kept rather than let go.
            stored: marks_stored.get(lsn).copied().unwrap_or(Micros(u64::MAX)),
        };
        let begin = |(log, (pack, lsn)): (&LogName, &(PackNumber, Lsn))| Begin {
            log: log.clone(),
            pack: *pack,
            lsn: *lsn,
        };
        let declared = |(lsn, (time, disk)): (&Lsn, &(Micros, Disk))| Declared {
            lsn: *lsn,
            time: *time,
            disk: disk.clone(),
        };
        Self {
            epoch,
            runs: trace.chain.runs().collect(),
            last_time: trace.last_time,
            ages: Vec::new(),
            retained: trace.retained.clone(),
            bookmarks: trace.bookmarks.iter().map(marked).collect(),
            disks: trace.declared.iter().map(declared).collect(),
            begins: trace.begins.iter().map(begin).collect(),
            packs: Vec::new(),
            pack_logs: Vec::new(),
            layers: Vec::new(),
            base: None,
        }
    }

    /// The layers that make up its disks at `upto`.
    pub(crate) fn needed(&self, upto: Lsn) -> impl Iterator<Item = LayerEntry> + '_ {
        let base = self.base.as_ref().filter(|base| base.lsn <= upto);
        let since = base.map_or(Lsn::NONE, |base| base.lsn);
        let rest =
            self.layers.iter().filter(move |layer| layer.last > since && layer.first <= upto);
        base.into_iter().flat_map(|base| &base.layers).chain(rest).copied()
    }

    /// Where a base is worth making: everything up to there is folded, and since the one before at
    /// least `extents_min` extents were. And as many as that has, so that layers are written anew
    /// about twice; or [`BASE_PART`] of its bytes, so that a recovery doesn't read much more than that
    /// of what was written over since, as long as the new layers aren't longer than what was written. Or the one before was left unfinished; or the window, which is to
    /// begin at `from`, has passed it: then what lies before can be condensed, though nothing is written
    /// any more.
    pub(super) fn next_base(&self, extents_min: u64, from: Lsn) -> Option<Lsn> {
        let sums = |layers: &mut dyn Iterator<Item = &LayerEntry>| -> (u64, u64, u64) {
            layers.fold((0, 0, 0), |(extents, kept, bytes), layer| {
                let extents = extents + u64::from(layer.extents);
                (extents, kept + layer.kept_bytes, bytes + layer.bytes)
            })
        };
        let lsn = self.base.as_ref().map_or(Lsn::NONE, |base| base.lsn);
        let of_base = sums(&mut self.base.iter().flat_map(|base| &base.layers));
        let since = sums(&mut self.layers.iter().filter(|layer| layer.first > lsn));
        let [(Lsn(1), end)] = self.runs[..] else { return None };
        let is_part = since.1.saturating_mul(BASE_PART) >= of_base.1 && since.1 >= of_base.2;
        let is_much = since.0 >= of_base.0 || is_part;
        let is_due = since.0 >= extents_min && is_much;
        let passed = |base: &Base| self.retained.from < base.lsn && base.lsn <= from;
        let goes_on = self.base.as_ref().is_some_and(|base| base.unfinished || passed(base));
        (is_due || goes_on).then_some(end)
    }

    fn trace(&self) -> Trace {
        let marks = self.bookmarks.iter().cloned();
        let marks = marks.map(|mark| (mark.lsn, (mark.time, mark.bookmark))).collect();
        let declared = self.disks.iter().cloned();
        let declared = declared.map(|told| (told.lsn, (told.time, told.disk))).collect();
        let begins = self.begins.iter().cloned();
        let begins = begins.map(|begin| (begin.log, (begin.pack, begin.lsn))).collect();
        let mut trace = Trace::known(self.chain(), marks, declared, self.last_time, begins);
        trace.retained = self.retained.clone();
        trace
    }

    /// Which LSNs are folded.
    pub(crate) fn chain(&self) -> Chain {
        // Checked when it was read.
        Chain::of_runs(self.runs.iter().copied()).unwrap_or_default()
    }

    /// The bookmark that ends the initial copy.
    fn copy_end(&self) -> Option<Lsn> {
        let ends = |mark: &&Marked| mark.bookmark.kind == BookmarkKind::CopyEnd;
        self.bookmarks.iter().find(ends).map(|mark| mark.lsn)
    }

    /// The gap in which this place lies: the bookmark that begins it, and the one that ends it.
    pub(super) fn gap_at(&self, lsn: Lsn) -> Option<(&Marked, Option<&Marked>)> {
        let is_moment = |mark: &Marked| !mark.bookmark.kind.begins_gap();
        let (until, behind) = self.bookmarks.split_at(self.behind(lsn));
        let first = until.iter().rposition(is_moment).map_or(0, |moment| moment + 1);
        let begin = until.get(first)?;
        Some((begin, behind.iter().find(|mark| is_moment(mark))))
    }

    /// How many bookmarks lie at this place or before it.
    fn behind(&self, lsn: Lsn) -> usize {
        self.bookmarks.partition_point(|mark| mark.lsn <= lsn)
    }

    /// The bookmarks that tell what a kept place is, though they aren't kept themselves: the last moment
    /// that was marked before it says whether it is clean, and a gap around it that it is no moment.
    fn telling(&self, place: Lsn) -> impl Iterator<Item = Lsn> + '_ {
        let gap = self.gap_at(place);
        let before = &self.bookmarks[..self.behind(place)];
        let moment = before.iter().rfind(|mark| !mark.bookmark.kind.begins_gap());
        let gap = gap.into_iter().flat_map(|(begin, end)| [Some(begin), end]).flatten();
        moment.into_iter().chain(gap).map(|mark| mark.lsn)
    }

    /// Notes that only these places are kept from now on.
    pub(super) fn retain(&mut self, retained: Retained) {
        let places = retained.points.iter().chain([&retained.from]);
        let mut telling: BTreeSet<Lsn> = places.flat_map(|place| self.telling(*place)).collect();
        telling.extend(self.copy_end());
        self.bookmarks.retain(|mark| retained.has(mark.lsn) || telling.contains(&mark.lsn));
        // The last before them tells since when the machine is in this epoch.
        let before = self.ages.iter().rposition(|age| age.lsn < retained.from);
        self.ages.drain(..before.unwrap_or_default());
        self.retained = retained;
    }

    /// The packs in which its bytes are kept; one may come twice.
    pub(crate) fn kept_in(&self) -> impl Iterator<Item = (PackPlace, Need)> + '_ {
        let of_base = self.base.iter().flat_map(|base| listed(&base.packs, &base.pack_logs));
        self.layers_kept_in().chain(of_base)
    }

    /// The packs in which the bytes of its layers are kept.
    pub(super) fn layers_kept_in(&self) -> impl Iterator<Item = (PackPlace, Need)> + '_ {
        listed(&self.packs, &self.pack_logs)
    }

    /// Sets the packs in which the bytes of its layers are kept.
    pub(super) fn set_packs(&mut self, packs: &Needs) {
        (self.packs, self.pack_logs) = list(packs);
    }

    fn check(&self) -> Result<(), &'static str> {
        let chain = Chain::of_runs(self.runs.iter().copied()).ok_or("its LSNs are out of order")?;
        if self.epoch == Epoch::NONE {
            return Err("it has an epoch without a number");
        }
        let texts = self.bookmarks.iter().map(|mark| &mark.bookmark.name);
        let mut texts = texts.chain(self.disks.iter().map(|told| &told.disk.name));
        if texts.any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err("a text is too long");
        }
        let marks = self.bookmarks.iter().map(|mark| mark.lsn);
        if !marks.chain(self.disks.iter().map(|told| told.lsn)).all(|lsn| chain.has(lsn)) {
            return Err("a bookmark or disk isn't among its LSNs");
        }
        let points = &self.retained.points;
        if !points.is_sorted_by(|a, b| a < b)
            || points.first() == Some(&Lsn::NONE)
            || points.last().is_some_and(|last| *last >= self.retained.from)
            || self.retained.from > chain.end()
        {
            return Err("what is kept of it is out of order");
        }
        if !self.ages.is_sorted_by(|a, b| a.lsn < b.lsn && a.stored <= b.stored) {
            return Err("its ages are out of order");
        }
        let of_base = |base: &Base| is_listed(&base.packs, &base.pack_logs);
        if !is_listed(&self.packs, &self.pack_logs) || !self.base.iter().all(of_base) {
            return Err("a pack is of a log that isn't listed");
        }
        let whole = |layer: &LayerEntry| {
            let extents = 1..=LAYER_EXTENTS_MAX;
            let within = layer.first <= layer.last && layer.last <= chain.highest();
            within && extents.contains(&(layer.extents as usize))
        };
        let base = self.base.iter().flat_map(|base| &base.layers);
        if !self.layers.iter().chain(base).all(whole) {
            return Err("a layer can't be what is said");
        }
        let Some(base) = &self.base else { return Ok(()) };
        let beside = |layer: &LayerEntry| layer.last <= base.lsn || layer.first > base.lsn;
        let below = |layer: &LayerEntry| layer.last <= base.lsn;
        if chain.end() < base.lsn || !base.layers.iter().all(below) {
            return Err("a base isn't where it is said to be");
        }
        if self.layers.iter().all(beside) { Ok(()) } else { Err("a layer lies across a base") }
    }
}
