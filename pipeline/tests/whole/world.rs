//! The simulated world: machines, shards, cores, store and clock, moved one step at a time in an
//! order that a seed decides. No threads, no time of its own.

use std::collections::HashMap;

use tidegate_model::{Lsn, Micros, PackNumber, VaultId};
use tidegate_pipeline::{FullPack, Shard, StreamTotals};
use tidegate_vault::seal::{KeyRing, Secret};

use crate::agents::{Account, Session};
use crate::chance::Chance;
use crate::judge::{Marks, object_of};
use crate::machine::Machine;
use crate::run::{Away, PACK_AGE, PACK_AGE_IDLE, Run, Shape, log_name};
use crate::vault::{self, Store};

/// All of it.
pub struct World {
    pub shape: Shape,
    pub chance: Chance,
    pub now: Micros,
    pub ring: KeyRing,
    pub store: Store,
    pub machines: Vec<Machine>,
    pub sessions: Vec<Session>,
    pub accounts: HashMap<u64, Account>,
    /// Sessions so far: the next stream's id.
    pub streams: u64,
    pub acked: Vec<Lsn>,
    pub runs: u8,
    pub run: Run,
    /// Streams that ended because of a spoiled record.
    pub spoils: usize,
    /// This record, of whichever machine, arrives with a changed byte.
    pub spoil: Option<Lsn>,
    pub store_is_stalled: bool,
}

impl World {
    /// A world of machines that send whatever the seed says.
    pub fn new(shape: Shape) -> Self {
        let mut chance = Chance::new(shape.seed);
        // Every eighth only says that time passes and ranges are zero: it needs no buffer.
        let machine = |number| Machine::new(&mut chance, number, shape.records, number % 8 == 7);
        let machines = (0..shape.machines).map(machine).collect();
        Self::of(shape, machines)
    }

    /// A world of these machines.
    pub fn of(shape: Shape, machines: Vec<Machine>) -> Self {
        let vault = VaultId::from_bytes([1; 16]);
        let ring = KeyRing::new(vault, [(1, Secret::new([7; 32]))].into());
        let run = Run::new(&shape, &ring, 0);
        let mut world = Self {
            shape,
            chance: Chance::new(!shape.seed),
            now: Micros(1_800_000_000_000_000),
            ring,
            store: Store::default(),
            acked: vec![Lsn::NONE; machines.len()],
            machines,
            sessions: Vec::new(),
            accounts: HashMap::new(),
            streams: 0,
            runs: 0,
            run,
            spoils: 0,
            spoil: None,
            store_is_stalled: false,
        };
        for machine in 0..world.machines.len() {
            let session = world.connect(machine, Lsn::NONE);
            world.sessions.push(session);
        }
        world
    }

    /// One thing happens.
    pub fn step(&mut self) {
        let machine = self.chance.below(self.machines.len());
        match self.chance.below(100) {
            0..50 => self.send(machine),
            50..65 => self.work(),
            65..80 => self.come_home(),
            80..90 if !self.store_is_stalled => self.upload(),
            90..94 => self.tick(),
            94..96 => self.close_unit(machine, false),
            96 if self.chance.one_in(4) => self.reconnect(machine, self.acked[machine]),
            _ => self.send(machine),
        }
    }

    /// Any core works on any unit.
    fn work(&mut self) {
        if !self.run.at_cores.is_empty() {
            let away = self.chance.take(&mut self.run.at_cores);
            self.work_on(away);
        }
    }

    /// Units are worked on in the order in which they were dispatched.
    pub fn work_in_order(&mut self) {
        for away in std::mem::take(&mut self.run.at_cores) {
            self.work_on(away);
        }
    }

    fn work_on(&mut self, mut away: Away) {
        let marks = self.marks();
        self.run.judge.worked_on(self.run.names[away.shard].id, away.frame, marks);
        let worker = self.chance.below(self.run.workers.len());
        self.run.workers[worker].process(&mut away.unit);
        assert_eq!(away.unit.home().map(usize::from), Some(away.shard));
        self.run.homeward.push(away);
    }

    fn marks(&self) -> Marks {
        let runs = (0..=self.runs).flat_map(|run| (0..self.shape.shards).map(move |s| (run, s)));
        let log = runs.map(|(run, shard)| log_name(run, shard).id);
        log.map(|log| (log, self.store.counted(log))).collect()
    }

    fn come_home(&mut self) {
        if self.run.homeward.is_empty() {
            return;
        }
        let away = self.chance.take(&mut self.run.homeward);
        self.run.shards[away.shard].come_home(away.unit);
        self.advance(away.shard);
    }

    pub fn come_home_all(&mut self) {
        while !self.run.homeward.is_empty() {
            self.come_home();
        }
    }

    pub fn advance(&mut self, shard: usize) {
        let (mut home, mut full) = (Vec::new(), Vec::new());
        self.run.shards[shard].advance(self.now, &mut home, &mut full);
        home.iter().for_each(|home| self.is_home(shard, home));
        full.into_iter().for_each(|pack| self.closed(shard, pack));
        assert!(self.run.shards[shard].packs_in_flight() <= self.shape.packs_in_flight);
    }

    pub fn closed(&mut self, shard: usize, pack: FullPack) {
        self.run.judge.closed(&pack, &self.store, &self.ring);
        self.run.closed[shard] += 1;
        self.run.uploads.push(pack);
    }

    /// Any pack that is on its way is stored now.
    fn upload(&mut self) {
        if self.run.uploads.is_empty() {
            return;
        }
        let pack = self.chance.take(&mut self.run.uploads);
        let (log, number) = (pack.log.id, pack.header.number);
        self.store.create(log, number, object_of(&pack));
        drop(pack);
        self.stored(usize::from(log.shard), number);
    }

    fn stored(&mut self, shard: usize, number: PackNumber) {
        let (mut committed, mut latencies) = (Vec::new(), Vec::new());
        let state = &mut self.run.shards[shard];
        state.stored(number, self.now, &mut committed, &mut latencies);
        let counted = self.store.counted(self.run.names[shard].id);
        let advanced = counted - self.run.counted[shard];
        self.run.counted[shard] = counted;
        assert_eq!(latencies.len() as u64, advanced, "packs count in order");
        assert!(advanced > 0 || committed.is_empty(), "nothing counts before those before it");
        assert_eq!(state.packs_in_flight() as u64, self.run.closed[shard] - counted);
        committed.iter().for_each(|committed| self.committed(committed));
        self.advance(shard);
    }

    fn tick(&mut self) {
        self.now.0 += self.chance.next() % PACK_AGE;
        (0..self.shape.shards).for_each(|shard| self.advance(shard));
    }

    /// The server is gone; another starts, and the machines come back to it.
    pub fn crash(&mut self) {
        self.check_vault();
        let told = vault::read(&self.store, &self.ring);
        self.runs += 1;
        self.sessions.clear();
        self.accounts.clear();
        self.run = Run::new(&self.shape, &self.ring, self.runs);
        if self.chance.one_in(2) {
            self.run.refill(&told);
        }
        for machine in 0..self.machines.len() {
            let Machine { name, epoch, .. } = &self.machines[machine];
            let end = told.chain_end(name, *epoch);
            self.acked[machine] = end;
            let session = self.connect(machine, end);
            self.sessions.push(session);
        }
    }

    /// Everything that moved so far, to tell whether anything still does.
    pub fn progress(&self) -> (usize, usize, usize, Vec<Lsn>) {
        let Run { at_cores, homeward, uploads, .. } = &self.run;
        let next = self.sessions.iter().map(|session| session.next).collect();
        (at_cores.len(), homeward.len(), uploads.len(), next)
    }

    /// Units and packs on their way, of all shards.
    pub fn in_flight(&self) -> (usize, usize) {
        let Run { at_cores, homeward, uploads, shards, .. } = &self.run;
        let units: usize = shards.iter().map(Shard::units_in_flight).sum();
        assert!(units >= at_cores.len() + homeward.len());
        let packs: usize = shards.iter().map(Shard::packs_in_flight).sum();
        assert_eq!(packs, uploads.len());
        (units, packs)
    }

    /// A round in which everybody does all that can be done.
    pub fn round(&mut self) {
        for machine in 0..self.machines.len() {
            for _ in 0..4 {
                self.send(machine);
            }
        }
        self.round_without_sending();
    }

    /// What is under way goes on.
    pub fn round_without_sending(&mut self) {
        while !self.run.at_cores.is_empty() {
            self.work();
        }
        self.come_home_all();
        self.now.0 += PACK_AGE_IDLE + PACK_AGE;
        (0..self.shape.shards).for_each(|shard| self.advance(shard));
        while !self.store_is_stalled && !self.run.uploads.is_empty() {
            self.upload();
        }
    }

    /// What became of the bytes of a machine's session.
    pub fn totals(&self, machine: usize) -> StreamTotals {
        self.accounts[&self.sessions[machine].stream.id].totals
    }

    pub fn is_all_committed(&self) -> bool {
        let mut machines = self.machines.iter().zip(&self.acked);
        machines.all(|(machine, acked)| *acked == machine.last())
    }

    /// Goes on until all is committed; that it doesn't end is a deadlock.
    pub fn drain(&mut self) {
        self.store_is_stalled = false;
        let limit = 1000 + self.shape.machines * self.shape.records;
        for _ in 0..limit {
            // What a session sent again may be in an open pack, though all is committed.
            let is_open = self.run.shards.iter().any(|shard| shard.deadline().is_some());
            if self.is_all_committed() && !is_open && self.in_flight() == (0, 0) {
                return;
            }
            self.round();
        }
        let (units, packs) = self.in_flight();
        panic!("no progress: {units} units and {packs} packs are under way");
    }

    /// Closes the logs and checks that nothing is left anywhere.
    pub fn finish(mut self) {
        self.drain();
        self.sessions.clear();
        for shard in 0..self.shape.shards {
            assert_eq!(self.run.shards[shard].deadline(), None, "the open pack is empty");
            let last = self.run.shards[shard].finish(self.now);
            assert_eq!(last.is_some(), self.run.closed[shard] > 0);
            let Some(pack) = last else { continue };
            let read = vault::open(&object_of(&pack), pack.log.id, pack.header.number, &self.ring);
            assert!(read.index.last && read.index.records.is_empty());
            self.closed(shard, pack);
        }
        while !self.run.uploads.is_empty() {
            self.upload();
        }
        self.check_vault();
        self.check_nothing_is_left();
    }
}
