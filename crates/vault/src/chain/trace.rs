//! What the logs say of one machine's epoch, but for where its bytes are: which LSNs are there,
//! which bookmarks and disks. Pure; memory grows with sessions, bookmarks and disks, not with data.

use std::collections::{BTreeMap, HashMap};

use tidegate_model::{
    Bookmark, Disk, DiskNumber, Epoch, LogId, LogName, Lsn, Micros, Name, PackNumber,
};

use super::assemble::Assembler;
use super::retained::Retained;
use super::whole::Chain;
use crate::log::PackPlace;
use crate::pack::{Content, PackIndex, Record};

/// One epoch of a machine, as its logs tell it.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// Which LSNs are complete.
    pub chain: Chain,
    /// The bookmarks, each with its time.
    pub bookmarks: BTreeMap<Lsn, (Micros, Bookmark)>,
    /// The declarations of disks, each with its time.
    pub declared: BTreeMap<Lsn, (Micros, Disk)>,
    /// The time of the last record.
    pub last_time: Micros,
    /// The logs in which there is something of it: the first pack of each that has some, and the
    /// lowest LSN in that.
    pub begins: BTreeMap<LogName, (PackNumber, Lsn)>,
    /// Which of its places are kept.
    pub retained: Retained,
    assemblers: HashMap<LogId, Assembler<()>>,
}

impl Trace {
    /// What is known of an epoch without its logs.
    pub(crate) fn known(
        chain: Chain,
        bookmarks: BTreeMap<Lsn, (Micros, Bookmark)>,
        declared: BTreeMap<Lsn, (Micros, Disk)>,
        last_time: Micros,
        begins: BTreeMap<LogName, (PackNumber, Lsn)>,
    ) -> Self {
        Self { chain, bookmarks, declared, last_time, begins, ..Self::default() }
    }

    /// Takes the next record of this epoch from `log`; logs may come in any order.
    pub fn add(&mut self, log: LogId, record: &Record) {
        let assembler = self.assemblers.entry(log).or_default();
        if assembler.push(record.lsn, record.piece, ()).is_none() {
            return;
        }
        self.chain.add(record.lsn);
        self.last_time = self.last_time.max(record.time);
        match &record.content {
            Content::Bookmark(bookmark) => {
                self.bookmarks.insert(record.lsn, (record.time, bookmark.clone()));
            }
            Content::Disk(disk) => {
                self.declared.insert(record.lsn, (record.time, disk.clone()));
            }
            Content::Kept { .. } | Content::Zero(_) | Content::Reference { .. } | Content::Time => {
            }
        }
    }

    /// Notes that a pack has this LSN.
    fn note(&mut self, place: &PackPlace, lsn: Lsn) {
        match self.begins.get_mut(&place.log) {
            Some(known) => *known = (place.number, lsn).min(*known),
            None => {
                self.begins.insert(place.log.clone(), (place.number, lsn));
            }
        }
    }

    /// The disks as they are declared at `lsn`, upon those that the epoch began with.
    pub fn disks_at(&self, lsn: Lsn, disks: &mut BTreeMap<DiskNumber, Disk>) {
        for (_, disk) in self.declared.range(..=lsn).map(|(_, told)| told) {
            disks.insert(disk.number, disk.clone());
        }
    }
}

/// The traces of machines' epochs.
#[derive(Debug, Clone, Default)]
pub struct Traces(pub BTreeMap<(Name, Epoch), Trace>);

impl Traces {
    /// Takes the next pack of its log; of one machine only, if `only` names it.
    pub fn add_pack(&mut self, place: &PackPlace, index: &PackIndex, only: Option<&Name>) {
        let wanted: Vec<bool> = index
            .machines
            .iter()
            .map(|machine| only.is_none_or(|only| *only == machine.name))
            .collect();
        // A record's machine was checked to be listed when the index was opened. Records of one
        // machine mostly follow each other, so its trace is looked up once a stretch.
        for stretch in index.records.chunk_by(|a, b| a.machine == b.machine) {
            let of = usize::from(stretch[0].machine);
            if wanted[of] {
                let machine = &index.machines[of];
                let trace = self.0.entry((machine.name.clone(), machine.epoch)).or_default();
                trace
                    .note(place, stretch.iter().map(|record| record.lsn).min().unwrap_or_default());
                stretch.iter().for_each(|record| trace.add(place.log.id, record));
            }
        }
    }
}
