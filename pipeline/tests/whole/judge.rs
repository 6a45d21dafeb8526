//! Watches a run from outside and knows the rules: which frame each record was given, what was
//! committed when its unit was worked on, and so which references its pack may have.

use std::collections::{BTreeSet, HashMap, VecDeque};

use tidegate_model::{Epoch, LogId, Lsn, Name, PackNumber};
use tidegate_pipeline::FullPack;
use tidegate_vault::pack::Content;
use tidegate_vault::seal::{KeyRing, TAG_BYTES};

use crate::machine::BLOCK;
use crate::vault::{self, ReadPack, Store, place_of};

/// How many packs of each log count.
pub type Marks = HashMap<LogId, u64>;

/// What is known of the logs of one run.
#[derive(Default)]
pub struct Judge {
    /// Units that hold the record, oldest first: a reconnect sends a record again.
    units: HashMap<(LogId, Name, Epoch, Lsn), VecDeque<u64>>,
    /// What counted when the unit was worked on.
    marks: HashMap<(LogId, u64), Marks>,
    /// Frames that were packed.
    frames: HashMap<LogId, BTreeSet<u64>>,
    packs: HashMap<LogId, u64>,
    /// Logs whose last pack was seen.
    ended: BTreeSet<LogId>,
    /// Bytes of content sealed, as the packs' frames have them.
    pub sealed_bytes: u64,
}

impl Judge {
    /// A unit with these records was given the frame's number.
    pub fn dispatched(&mut self, log: LogId, frame: u64, of: (&Name, Epoch), lsns: &[Lsn]) {
        for lsn in lsns {
            let key = (log, of.0.clone(), of.1, *lsn);
            self.units.entry(key).or_default().push_back(frame);
        }
    }

    /// The records from `first` on of a unit that came home won't be packed: its stream has ended.
    pub fn dropped(&mut self, log: LogId, frame: u64, of: (&Name, Epoch), first: Lsn) {
        for ((in_log, name, epoch, lsn), units) in &mut self.units {
            if (*in_log, name, *epoch) == (log, of.0, of.1) && *lsn >= first {
                units.retain(|unit| *unit != frame);
            }
        }
    }

    /// A unit is about to be worked on.
    pub fn worked_on(&mut self, log: LogId, frame: u64, marks: Marks) {
        let before = self.marks.insert((log, frame), marks);
        assert!(before.is_none(), "a unit is worked on once");
    }

    /// A pack was closed: checks it against the rules.
    pub fn closed(&mut self, pack: &FullPack, store: &Store, ring: &KeyRing) {
        let object = object_of(pack);
        let number = pack.header.number;
        let read = vault::open(&object, pack.log.id, number, ring);
        let log = pack.log.id;
        assert!(!self.ended.contains(&log), "nothing follows the last pack");
        if read.index.last {
            self.ended.insert(log);
        }
        let next = self.packs.entry(log).or_default();
        assert_eq!(number.0, *next, "packs are numbered without gaps");
        *next += 1;
        assert!(read.index.committed_packs <= store.counted(log));
        self.check_frames(log, &read);
        self.check_machines(&read);
        self.check_references(log, &read);
    }

    fn check_frames(&mut self, log: LogId, pack: &ReadPack) {
        let frames = self.frames.entry(log).or_default();
        for entry in &pack.index.frames {
            assert!(frames.last().is_none_or(|last| *last < entry.number.0), "frames rise");
            assert!(self.marks.contains_key(&(log, entry.number.0)), "a frame comes of a unit");
            frames.insert(entry.number.0);
            self.sealed_bytes += u64::from(entry.sealed_bytes) - TAG_BYTES as u64;
        }
    }

    fn check_machines(&self, pack: &ReadPack) {
        for (place, machine) in (0_u16..).zip(&pack.index.machines) {
            let own = || pack.index.records.iter().filter(|record| record.machine == place);
            assert_eq!(own().map(|record| record.lsn).next(), Some(machine.first_lsn));
            let complete = own().filter(|record| record.piece.is_last()).map(|record| record.lsn);
            assert_eq!(complete.max().unwrap_or_default(), machine.complete_lsn);
            assert_eq!(own().map(|record| record.time).max(), Some(machine.last_time));
        }
    }

    /// Own log: the same frame or an earlier one, and a record that stands earlier. Other logs:
    /// what counted when the unit was worked on.
    fn check_references(&mut self, log: LogId, pack: &ReadPack) {
        for (at, record) in pack.index.records.iter().enumerate() {
            let machine = &pack.index.machines[usize::from(record.machine)];
            let key = (log, machine.name.clone(), machine.epoch, record.lsn);
            let units = self.units.get_mut(&key).expect("a record was dispatched");
            let unit = match &record.content {
                // Kept bytes of a stream that has ended are packed, but their record isn't.
                Content::Kept { frame, .. } => pack.index.frames[*frame as usize].number.0,
                _ => *units.front().expect("as often as it is packed"),
            };
            assert!(!units.contains(&unit) || units[0] == unit, "records stand in order");
            check_name(&record.content);
            if let Content::Reference { target, name, .. } = &record.content {
                let (target_log, target_pack) = place_of(&pack.index, log, target);
                if target_log == log {
                    assert!(target.frame.0 <= unit, "a reference into a later frame");
                    assert!(target_pack <= pack.header.number);
                    if target_pack == pack.header.number {
                        let frame = pack.index.frame_place(target.frame).expect("it is there");
                        let kept = pack.index.kept_at(frame, target.ordinal).expect("this too");
                        let before = &pack.index.records[..at];
                        assert!(before.contains(kept), "a reference to what comes later");
                        assert!(matches!(&kept.content,
                            Content::Kept { name: Some(there), .. } if there == name));
                    }
                } else {
                    let counted = self.marks[&(log, unit)].get(&target_log).copied().unwrap_or(0);
                    assert!(target_pack < PackNumber(counted), "not committed when referred to");
                }
            }
            if pack.index.records.get(at + 1).is_none_or(|next| {
                (next.machine, next.lsn) != (record.machine, record.lsn) || next.piece.number == 0
            }) {
                units.retain(|packed| *packed != unit);
            }
        }
    }
}

/// Whole, aligned blocks have a name and may be known; nothing else.
fn check_name(content: &Content) {
    let Some(extent) = content.extent() else { return };
    let block = BLOCK as u64;
    let is_block = extent.length == block && extent.offset % block == 0;
    match content {
        Content::Kept { name, .. } => assert_eq!(name.is_some(), is_block),
        Content::Reference { .. } => assert!(is_block),
        _ => {}
    }
}

/// The pack as the one object that is put.
pub fn object_of(pack: &FullPack) -> Vec<u8> {
    let frames = pack.frames.as_ref().map_or(&[][..], AsRef::as_ref);
    [&pack.head, frames].concat()
}
