//! The sending side of the world: sessions that gather records into units, as a server's session
//! does, end at any moment, and begin again behind what is committed.

use std::sync::Arc;

use tidegate_model::{Checksum, Lsn};
use tidegate_pipeline::{Admission, Entry, EntryKind, Stream, StreamTotals, Unit, UnitBuilder};

use crate::machine::{Machine, RECORD_BYTES_MAX, Record, What};
use crate::run::Away;
use crate::world::World;

/// The agent's end of one session, and the server's, as far as the pipeline sees them.
pub struct Session {
    pub stream: Arc<Stream>,
    pub shard: usize,
    pub builder: UnitBuilder,
    /// The LSN that is sent next.
    pub next: Lsn,
    /// The records in the builder.
    pub gathered: Vec<Lsn>,
    /// A unit that waits to be dispatched, and its records.
    pub waiting: Option<(Unit, Vec<Lsn>)>,
}

/// What a session sent, and what it was told; outlives the session.
pub struct Account {
    pub machine: usize,
    /// What was committed when it began.
    pub begin: Lsn,
    pub acked: Lsn,
    pub totals: StreamTotals,
    /// The first record that was spoiled or lost on its way.
    pub spoiled: Option<Lsn>,
    /// Whether the shard has found that.
    pub has_ended: bool,
    /// Payload of the units that were dispatched.
    pub sent_bytes: usize,
    /// Payload of those that came home.
    pub returned_bytes: usize,
}

impl World {
    /// Sends the machine's next record, or tries again to dispatch what waits.
    pub fn send(&mut self, machine: usize) {
        if self.sessions[machine].waiting.is_some() {
            self.dispatch(machine);
            return;
        }
        let session = &mut self.sessions[machine];
        if session.next > self.machines[machine].last() {
            self.close_unit(machine, false);
            return;
        }
        let record = self.machines[machine].record(session.next).clone();
        let bytes = record.payload_bytes();
        if session.builder.must_close(bytes) {
            self.close_unit(machine, false);
        } else if session.builder.needs_buffer(bytes) && !self.give_buffer(machine) {
            // Buffers run low: what is there goes on its way.
            self.close_unit(machine, false);
        } else {
            self.add(machine, &record);
        }
    }

    fn give_buffer(&mut self, machine: usize) -> bool {
        let mut pools = [&self.run.small, &self.run.large, &self.run.long];
        pools.rotate_left(self.chance.below(3));
        let Some(buffer) = pools.into_iter().find_map(|pool| pool.take()) else { return false };
        self.sessions[machine].builder.give_buffer(buffer);
        true
    }

    fn add(&mut self, machine: usize, record: &Record) {
        let Record { lsn, time, what } = record.clone();
        let session = &mut self.sessions[machine];
        let now = self.now;
        let mut add = |kind| session.builder.add(Entry { lsn, time, kind }, || now);
        let mut flush = false;
        match what {
            What::Write(extent, bytes) => {
                // The bytes come in parts, as they do from a socket.
                let part = 1 + self.chance.below(bytes.len());
                for (number, bytes) in bytes.chunks(part).enumerate() {
                    let space = session.builder.space(number * part, bytes.len());
                    space.copy_from_slice(bytes);
                }
                let checksum = Checksum::of(&bytes);
                let chance = self.shape.spoil_one_in;
                if self.spoil == Some(lsn) || (chance > 0 && self.chance.one_in(chance)) {
                    session.builder.space(self.chance.below(bytes.len()), 1)[0] ^= 1;
                    let account = self.accounts.get_mut(&session.stream.id).unwrap();
                    account.spoiled = account.spoiled.or(Some(lsn));
                }
                session.builder.add_write(lsn, time, extent, checksum, || now);
            }
            What::Zero(extent) => add(EntryKind::Zero(extent)),
            What::Disk(disk) => add(EntryKind::Disk(disk)),
            What::Bookmark(bookmark) => {
                flush = true;
                add(EntryKind::Bookmark(bookmark));
            }
            What::Time => add(EntryKind::Time),
        }
        session.gathered.push(lsn);
        session.next = lsn.next();
        if flush || session.builder.is_full() {
            self.close_unit(machine, flush);
        }
    }

    pub fn close_unit(&mut self, machine: usize, flush: bool) {
        let session = &mut self.sessions[machine];
        if session.waiting.is_some() {
            return;
        }
        if let Some(unit) = session.builder.close(flush) {
            session.waiting = Some((unit, std::mem::take(&mut session.gathered)));
            self.dispatch(machine);
        }
    }

    /// What the session has gathered gets lost before it has its place in the log.
    pub fn lose_unit(&mut self, machine: usize) {
        let session = &mut self.sessions[machine];
        drop(session.builder.close(false));
        let lost = std::mem::take(&mut session.gathered);
        let account = self.accounts.get_mut(&session.stream.id).unwrap();
        account.spoiled = account.spoiled.or(lost.first().copied());
    }

    fn dispatch(&mut self, machine: usize) {
        let session = &mut self.sessions[machine];
        let Some((unit, lsns)) = session.waiting.take() else { return };
        let shard = session.shard;
        match self.run.shards[shard].dispatch(unit) {
            Admission::Placed(unit) => {
                let frame = self.run.dispatched[shard];
                self.run.dispatched[shard] += 1;
                let of = (&session.stream.machine, session.stream.epoch);
                self.run.judge.dispatched(self.run.names[shard].id, frame, of, &lsns);
                let records = lsns.iter().map(|lsn| self.machines[machine].record(*lsn));
                let account = self.accounts.get_mut(&session.stream.id).unwrap();
                account.sent_bytes += records.map(Record::payload_bytes).sum::<usize>();
                self.run.at_cores.push(Away { unit, shard, frame });
            }
            Admission::Later(unit) => session.waiting = Some((unit, lsns)),
        }
        assert!(self.run.shards[shard].units_in_flight() <= self.shape.units_in_flight);
    }

    /// The machine's session ends as it is, and another begins behind `committed`, anywhere.
    pub fn reconnect(&mut self, machine: usize, committed: Lsn) {
        self.sessions[machine] = self.connect(machine, committed);
    }

    pub fn connect(&mut self, machine: usize, committed: Lsn) -> Session {
        let id = self.streams;
        self.streams += 1;
        let Machine { name, epoch, .. } = &self.machines[machine];
        let stream = Arc::new(Stream { machine: name.clone(), epoch: *epoch, id, committed });
        let account = Account {
            machine,
            begin: committed,
            acked: committed,
            totals: StreamTotals::default(),
            spoiled: None,
            has_ended: false,
            sent_bytes: 0,
            returned_bytes: 0,
        };
        self.accounts.insert(id, account);
        Session {
            builder: UnitBuilder::new(stream.clone(), RECORD_BYTES_MAX, self.run.blanks.clone()),
            stream,
            shard: self.chance.below(self.shape.shards),
            next: committed.next(),
            gathered: Vec::new(),
            waiting: None,
        }
    }
}
