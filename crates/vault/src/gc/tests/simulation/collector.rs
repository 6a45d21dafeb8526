//! Answers what the real collection asks, from the simulation's store; wrongly where a rule is broken.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::{Epoch, LogName, Lsn, Name, PackNumber};

use super::run::Chance;
use super::world::{Broken, World, machine_name, place};
use crate::gc::collection::{Answer, Ask, Collection, LogEnd, LogSeen, Outcome};
use crate::gc::needs::{IndexEntry, MachineSeen, Root};
use crate::gc::packs::{PackSet, Ranges};
use crate::log::PackPlace;

#[derive(Debug)]
pub struct Collector {
    collection: Collection,
    ask: Ask,
    /// What is left to delete.
    deleting: Vec<PackPlace>,
    settles: bool,
}

impl Collector {
    pub fn begin() -> Self {
        let collection = Collection::default();
        let ask = collection.begin();
        Self { collection, ask, deleting: Vec::new(), settles: false }
    }

    pub fn outcome(self) -> Outcome {
        self.collection.outcome()
    }

    /// Does one thing; false when nothing more is wanted. `late`: whether the open list is old.
    pub fn step(&mut self, world: &mut World, late: bool, chance: &mut Chance) -> bool {
        if let Some(pack) = self.deleting.pop() {
            world.logs.get_mut(&pack.log).unwrap().packs.remove(&pack.number.0);
            return true;
        }
        let answer = match &self.ask {
            Ask::Nothing => return false,
            Ask::Collected => {
                let collected = world.collected();
                self.settles = collected.open_list().is_some();
                Answer::Collected { collected, late }
            }
            Ask::Logs => Answer::Logs(logs(world)),
            Ask::Machines => Answer::Machines(machines(world)),
            Ask::Pins if world.broken == Broken::IgnoresPins => Answer::Pins(Vec::new()),
            Ask::Pins => Answer::Pins(pins(world)),
            Ask::References(tails) => Answer::References(references(world, tails)),
            Ask::Indexes(packs) => {
                let (mut told, mut left) = (self.indexes(world, packs), PackSet::default());
                // For the oldest there may be no room.
                if told.len() > 1 && chance.below(4) == 0 {
                    left.add(&told.remove(0).0);
                }
                Answer::Indexes(told, left)
            }
            Ask::Create(step) => {
                let newest = world.steps.last_key_value().map_or(0, |(number, _)| *number);
                let created = newest < step.number;
                if created {
                    world.steps.insert(step.number, step.clone());
                }
                Answer::Created(created)
            }
            Ask::Fence(logs) => {
                for (log, next) in logs {
                    let log = world.logs.get_mut(log).unwrap();
                    if !log.packs.contains_key(&next.0) {
                        log.tombstone.get_or_insert(next.0);
                    }
                }
                Answer::Fenced
            }
            Ask::Delete(packs) => {
                let stored = |pack: &PackPlace| world.stored(pack).is_some();
                self.deleting = packs.places().filter(stored).collect();
                chance.shuffle(&mut self.deleting);
                Answer::Deleted
            }
        };
        self.ask = self.collection.told(answer);
        true
    }

    fn indexes(&self, world: &World, packs: &PackSet) -> Vec<(PackPlace, Vec<IndexEntry>)> {
        let mut packs = packs.clone();
        if self.settles && world.broken == Broken::SparesNothing {
            packs = world.collected().condemned;
        }
        let stored = packs.places().filter_map(|at| Some((world.stored(&at)?, at)));
        let told = stored.map(|(pack, at)| {
            let records = pack.records.iter().map(|record| (record.machine, record.lsn));
            let last: BTreeMap<usize, u64> = records.collect();
            let entry = |(machine, lsn)| IndexEntry {
                machine: machine_name(machine),
                epoch: Epoch(1),
                complete: Lsn(lsn),
            };
            (at, last.into_iter().map(entry).collect())
        });
        told.collect()
    }
}

fn logs(world: &World) -> BTreeMap<LogName, LogSeen> {
    let mut seen = BTreeMap::new();
    for (name, log) in &world.logs {
        let (counted, next) = world.counted(name);
        let (mut packs, mut left_over) = (Ranges::default(), Ranges::default());
        counted.iter().for_each(|number| packs.add(PackNumber(*number), PackNumber(*number)));
        let newest = counted.last().map(|number| (*number, &log.packs[number]));
        if log.tombstone == Some(next) {
            let beyond = log.packs.keys().filter(|number| **number > next);
            let removed = world.collected().removed;
            let beyond = beyond.filter(|number| !removed.has(&place(name, **number)));
            beyond.for_each(|number| left_over.add(PackNumber(*number), PackNumber(*number)));
        }
        let end = match newest {
            _ if log.tombstone == Some(next) => LogEnd::Fenced,
            Some((_, pack)) if pack.last => LogEnd::Last,
            _ if world.broken == Broken::WaitsForNobody => LogEnd::Last,
            None if world.broken == Broken::ForgetsEmptyLogs => LogEnd::Last,
            _ => LogEnd::Open { is_young: false },
        };
        let stated = newest.map_or(0, |(_, pack)| pack.stated);
        let newest = newest.map(|(number, _)| PackNumber(number));
        let next = PackNumber(next);
        seen.insert(name.clone(), LogSeen { packs, newest, left_over, next, stated, end });
    }
    seen
}

fn root(world: &World, machine: usize, number: u64) -> Root {
    let manifest = world.machines[machine].manifests.get(&number).cloned().unwrap_or_default();
    let tail = |(log, first): (LogName, u64)| {
        let upto = manifest.logs.get(&log).map_or(first, |(_, upto)| *upto);
        (log, PackNumber(upto))
    };
    let tails = world.logs_of(machine).into_iter().map(tail).collect();
    let packs = manifest.records.values().map(|(_, _, kept)| kept.clone()).collect();
    Root { tails, packs }
}

fn machines(world: &World) -> BTreeMap<Name, MachineSeen> {
    let seen = (0..world.machines.len()).map(|machine| {
        let (number, manifest) = world.newest(machine);
        let mut folded = PackSet::default();
        for (log, (from, upto)) in manifest.logs.iter().filter(|(_, (from, upto))| upto > from) {
            folded.add_range(log, PackNumber(*from), PackNumber(*upto - 1));
        }
        let stated = match world.broken {
            Broken::RemovesLastWords => Lsn(u64::MAX),
            _ => world.epoch_end(machine),
        };
        let committed = BTreeMap::from([(Epoch(1), stated)]);
        let (root, gone) = (root(world, machine, number), BTreeSet::new());
        let removed = Epoch::NONE;
        let seen = MachineSeen { root, folded, removed, gone, committed };
        (machine_name(machine), seen)
    });
    seen.collect()
}

fn pins(world: &World) -> Vec<Root> {
    let pins = world.machines.iter().enumerate().flat_map(|(machine, told)| {
        told.pins.values().map(move |number| root(world, machine, *number))
    });
    pins.collect()
}

fn references(world: &World, tails: &BTreeMap<LogName, PackNumber>) -> PackSet {
    let mut packs = PackSet::default();
    if world.broken == Broken::IgnoresReferences {
        return packs;
    }
    for (log, first) in tails {
        let (counted, _) = world.counted(log);
        for number in counted.into_iter().filter(|number| *number >= first.0) {
            let records = world.logs[log].packs[&number].records.iter();
            records.filter_map(|record| record.elsewhere.as_ref()).for_each(|at| packs.add(at));
        }
    }
    packs
}
