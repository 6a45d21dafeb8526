//! A process server of one shard: it refers to what it knows, packs what it has decided, and puts packs
//! in any order. It may sleep anywhere, and die.

use std::collections::{BTreeMap, VecDeque};

use tidegate_model::LogName;

use super::run::Chance;
use super::world::{Broken, Log, Pack, Record, World, log_name, place};
use crate::gc::step::Collected;
use crate::log::PackPlace;

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    ReadLists,
    Fill(Vec<PackPlace>),
    Runs,
    Dead,
}

#[derive(Debug)]
pub struct Server {
    pub log: LogName,
    phase: Phase,
    lists: Collected,
    known: BTreeMap<u64, PackPlace>,
    /// Decided, and not packed yet.
    units: VecDeque<Record>,
    open: Pack,
    number: u64,
    /// A list that may be stated once so many units are packed.
    read: (u64, usize),
    stated: u64,
    under_way: Vec<(u64, Pack)>,
    stored: Vec<u64>,
    committed: u64,
    /// Whether its units wait long for a core.
    slow: bool,
    /// Of each machine that is here its session, and what it sends next.
    pub seats: BTreeMap<usize, (usize, u64)>,
}

impl Server {
    /// Claims a run.
    pub fn start(world: &mut World) -> Self {
        let log = log_name(world.name());
        world.logs.insert(log.clone(), Log::default());
        Self {
            log,
            phase: if world.broken == Broken::FillsFirst { fill(world) } else { Phase::ReadLists },
            lists: Collected::default(),
            known: BTreeMap::new(),
            units: VecDeque::new(),
            open: Pack::default(),
            number: 0,
            read: (0, 0),
            stated: 0,
            under_way: Vec::new(),
            stored: Vec::new(),
            committed: 0,
            slow: world.names.is_multiple_of(2),
            seats: BTreeMap::new(),
        }
    }

    pub fn is_dead(&self) -> bool {
        self.phase == Phase::Dead
    }

    pub fn runs(&self) -> bool {
        self.phase == Phase::Runs
    }

    pub fn kill(&mut self) {
        self.phase = Phase::Dead;
    }

    /// The pack into which what comes next goes at the earliest.
    pub const fn open_pack(&self) -> u64 {
        self.number
    }

    pub fn step(&mut self, world: &mut World, chance: &mut Chance) {
        match &mut self.phase {
            Phase::Dead => {}
            Phase::ReadLists => {
                self.lists = world.collected();
                self.stated = self.lists.newest;
                self.phase = fill(world);
            }
            Phase::Fill(packs) => match packs.pop() {
                Some(kept) => self.learn(world, &kept),
                None => {
                    if world.broken == Broken::FillsFirst {
                        self.stated = world.collected().newest;
                    }
                    self.phase = Phase::Runs;
                }
            },
            Phase::Runs => match chance.below(10) {
                0..3 => self.take(world, chance),
                3..6 if self.slow && chance.below(12) > 0 => {}
                3..6 => self.pack(),
                6 => self.close(world, chance),
                7..9 => self.put(world, chance),
                _ => self.read_lists(world),
            },
        }
    }

    fn learn(&mut self, world: &World, kept: &PackPlace) {
        let Some(pack) = world.stored(kept).filter(|_| !self.lists.forbids(&kept.log, kept.number))
        else {
            return;
        };
        for record in pack.records.iter().filter(|record| record.elsewhere.is_none()) {
            self.known.insert(record.value, kept.clone());
        }
    }

    /// Takes the next record of a machine, and decides whether it refers.
    fn take(&mut self, world: &World, chance: &mut Chance) {
        let Some(machine) = chance.pick(self.seats.keys().copied()) else { return };
        let Some((session, lsn)) = self.seats.get_mut(&machine) else { return };
        let at = usize::try_from(*lsn - 1).unwrap();
        let Some((block, value)) = world.machines[machine].written.get(at).copied() else { return };
        let known = self.known.get(&value).cloned();
        let drops = world.broken != Broken::DropsNothing;
        let elsewhere = known.filter(|kept| !(drops && self.lists.forbids(&kept.log, kept.number)));
        self.units.push_back(Record {
            machine,
            session: *session,
            lsn: *lsn,
            block,
            value,
            elsewhere,
        });
        *lsn += 1;
    }

    fn pack(&mut self) {
        let Some(record) = self.units.pop_front() else { return };
        self.read.1 = self.read.1.saturating_sub(1);
        if record.elsewhere.is_none() {
            self.known.insert(record.value, place(&self.log, self.number));
        }
        self.open.records.push(record);
    }

    fn close(&mut self, world: &World, chance: &mut Chance) {
        if self.read.1 == 0 || world.broken == Broken::StatesAtOnce {
            self.stated = self.stated.max(self.read.0);
        }
        // A log with nothing to say may say what it has read, or be silent.
        if self.open.records.is_empty() && chance.below(3) > 0 {
            return;
        }
        let pack = Pack { stated: self.stated, ..std::mem::take(&mut self.open) };
        self.under_way.push((self.number, pack));
        self.number += 1;
    }

    fn put(&mut self, world: &mut World, chance: &mut Chance) {
        if self.under_way.is_empty() {
            return;
        }
        let at = usize::try_from(chance.below(self.under_way.len() as u64)).unwrap();
        let (number, pack) = self.under_way.swap_remove(at);
        let log = world.logs.get_mut(&self.log).unwrap();
        if log.tombstone == Some(number) {
            return self.kill();
        }
        log.packs.insert(number, pack);
        self.stored.push(number);
        while self.stored.contains(&self.committed) {
            let pack = log.packs.get(&self.committed);
            for record in pack.into_iter().flat_map(|pack| &pack.records) {
                // Whose session has ended hears nothing.
                if self.seats.get(&record.machine).is_some_and(|(now, _)| *now == record.session) {
                    let machine = &mut world.machines[record.machine];
                    machine.acknowledged = machine.acknowledged.max(record.lsn);
                }
            }
            self.committed += 1;
        }
    }

    fn read_lists(&mut self, world: &World) {
        let lists = world.collected();
        if lists.newest > self.lists.newest {
            self.read = (lists.newest, self.units.len());
            // What was spared isn't referred to again: it is merely forgotten.
            self.known.retain(|_, kept| {
                !lists.forbids(&kept.log, kept.number) || world.broken == Broken::DropsNothing
            });
            self.lists = lists;
        }
    }

    /// Whether it has taken everything that its machines have.
    pub fn has_all(&self, world: &World) -> bool {
        let sent = |(machine, (_, next)): (&usize, &(usize, u64))| {
            *next > world.machines[*machine].written.len() as u64
        };
        self.seats.iter().all(sent)
    }

    /// Ends in order: everything is packed and stored, and the last pack says so.
    pub fn finish(&mut self, world: &mut World, chance: &mut Chance) {
        while self.runs() && !(self.units.is_empty() && self.under_way.is_empty()) {
            self.pack();
            self.close(world, chance);
            self.put(world, chance);
        }
        if self.runs() && self.number > 0 {
            let last = Pack { last: true, stated: self.stated, ..std::mem::take(&mut self.open) };
            self.under_way.push((self.number, last));
            self.number += 1;
            self.put(world, chance);
        }
        self.kill();
    }
}

/// All packs that count, for the table.
fn fill(world: &World) -> Phase {
    let logs = world.logs.keys().flat_map(|log| {
        let (counted, _) = world.counted(log);
        counted.into_iter().map(|number| place(log, number))
    });
    Phase::Fill(logs.collect())
}
