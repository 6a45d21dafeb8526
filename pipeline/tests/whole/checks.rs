//! What must hold in the world: told at each commit, and found by reading the vault back.

use tidegate_model::Lsn;
use tidegate_pipeline::{Committed, Fault, Homecoming, Stage};

use crate::agents::Account;
use crate::machine::{Disks, Machine, Record, What};
use crate::run::Run;
use crate::vault::{self, Found, Said};
use crate::world::World;

impl World {
    /// A unit came home: the first record of its stream that was spoiled or lost is told, and ends the
    /// session.
    pub fn is_home(&mut self, shard: usize, home: &Homecoming) {
        let frame = self.run.packed[shard];
        self.run.packed[shard] += 1;
        let account = self.accounts.get_mut(&home.stream.id).unwrap();
        account.returned_bytes += home.payload_bytes;
        let of = (&home.stream.machine, home.stream.epoch);
        let log = self.run.names[shard].id;
        if account.has_ended {
            self.run.judge.dropped(log, frame, of, Lsn(1));
        } else if let Some(fault) = home.fault {
            let (Fault::Spoiled(lsn) | Fault::Gap { expected: lsn, .. }) = fault;
            assert_eq!(account.spoiled, Some(lsn), "this record was spoiled or lost, and first");
            account.has_ended = true;
            let machine = account.machine;
            self.run.judge.dropped(log, frame, of, lsn);
            self.spoils += 1;
            if self.sessions[machine].stream == home.stream {
                self.reconnect(machine, self.acked[machine]);
            }
        }
    }

    /// A session hears what is committed: in order, never beyond a spoiled record, and the totals
    /// are those of the records.
    pub fn committed(&mut self, news: &Committed) {
        let account = self.accounts.get_mut(&news.stream.id).unwrap();
        let totals = &mut account.totals;
        totals.add(&news.totals);
        if let Some(lsn) = news.lsn {
            assert!(lsn > account.acked, "acknowledgements rise");
            account.acked = lsn;
        }
        let within = account.spoiled.is_none_or(|spoiled| account.acked < spoiled);
        assert!(within, "LSN {} is acknowledged beyond a spoiled one", account.acked);
        let journal = &self.machines[account.machine].journal;
        let of = |lsn: Lsn| usize::try_from(lsn.0).unwrap();
        let records = &journal[of(account.begin)..of(account.acked)];
        let bytes = records.iter().map(Record::disk_bytes).sum::<u64>();
        let counted = totals.zero_bytes + totals.deduplicated_bytes + totals.kept_bytes;
        assert_eq!(counted, bytes, "zero, known and kept bytes are all bytes");
        let machine = account.machine;
        self.acked[machine] = self.acked[machine].max(account.acked);
        if self.chance.one_in(12) {
            self.check_acknowledged(machine);
        }
    }

    /// What was acknowledged is in the packs that count, were everything else to end now.
    fn check_acknowledged(&self, machine: usize) {
        let Machine { name, epoch, .. } = &self.machines[machine];
        let end = vault::read(&self.store, &self.ring).chain_end(name, *epoch);
        assert!(end >= self.acked[machine], "LSN {} is lost", self.acked[machine]);
    }

    /// Reads everything back as a stranger would, record by record, and compares it with the
    /// journals; what was acknowledged must be there.
    pub fn check_vault(&self) {
        let told = vault::read(&self.store, &self.ring);
        for (machine, acked) in self.machines.iter().zip(&self.acked) {
            let end = told.chain_end(&machine.name, machine.epoch);
            assert!(end >= *acked, "{} of {} is lost", acked, machine.name);
            let (mut disks, mut expected) = (Disks::default(), Disks::default());
            let records = told.records.get(&(machine.name.clone(), machine.epoch));
            for (lsn, found) in records.into_iter().flatten() {
                let record = machine.record(*lsn);
                found.iter().for_each(|found| check_record(record, found));
                if *lsn <= end {
                    apply(&mut disks, &found[0].said);
                    expected.apply(record);
                    assert!(disks == expected, "{} differs at LSN {lsn}", machine.name);
                }
            }
        }
        if self.spoils == 0 && self.runs == 0 {
            assert_eq!(told.unfinished, [], "every record is whole");
        }
    }

    pub fn check_nothing_is_left(&mut self) {
        let Run { small, large, long, packs, workers, times, judge, .. } = &self.run;
        assert_eq!(small.free() + workers.len(), small.count(), "small buffers are back");
        assert_eq!(large.free() + workers.len(), large.count(), "large buffers are back");
        assert_eq!(long.free() + workers.len(), long.count(), "long buffers are back");
        assert!(packs.iter().all(|packs| packs.free() == packs.count()), "pack buffers are back");
        let (_, sealed) = times.get(Stage::Seal);
        assert_eq!(sealed, judge.sealed_bytes, "what was sealed was packed, once");
        let returned = |account: &Account| account.returned_bytes == account.sent_bytes;
        assert!(self.accounts.values().all(returned), "all credit is back");
    }
}

/// The record as it was read says what the journal says, and its pieces lie one behind another.
fn check_record(record: &Record, found: &Found) {
    assert_eq!(found.time, record.time);
    let (extent, expected) = match (&record.what, &found.said) {
        (What::Write(extent, bytes), Said::Bytes(_)) => (extent, Some(bytes)),
        (What::Zero(extent), Said::Bytes(_)) => (extent, None),
        (What::Disk(disk), Said::Disk(read)) if disk == read => return,
        (What::Bookmark(bookmark), Said::Bookmark(read)) if bookmark == read => return,
        (What::Time, Said::Time) => return,
        (what, said) => panic!("LSN {}: {what:?} came back as {said:?}", record.lsn),
    };
    let Said::Bytes(pieces) = &found.said else { unreachable!("it was just looked at") };
    let mut at = extent.offset;
    for (piece, bytes) in pieces {
        assert_eq!((piece.disk, piece.offset), (extent.disk, at), "LSN {}", record.lsn);
        let place = |at: u64| usize::try_from(at - extent.offset).unwrap();
        let range = place(at)..place(at + piece.length);
        let same = match (expected, bytes) {
            (Some(expected), Some(bytes)) => expected[range] == **bytes,
            (Some(expected), None) => expected[range].iter().all(|byte| *byte == 0),
            (None, bytes) => bytes.is_none(),
        };
        assert!(same, "LSN {} differs at offset {at}", record.lsn);
        at += piece.length;
    }
    assert_eq!(Some(at), extent.end(), "LSN {} is whole", record.lsn);
}

fn apply(disks: &mut Disks, said: &Said) {
    match said {
        Said::Bytes(pieces) => {
            for (extent, bytes) in pieces {
                disks.write(*extent, bytes.as_deref());
            }
        }
        Said::Disk(disk) => disks.declare(disk),
        Said::Bookmark(_) | Said::Time => {}
    }
}
