//! The store, as the simulation has it, and the checker.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::{LogId, LogName, Lsn, Name, PackNumber, RunId};

use crate::gc::packs::PackSet;
use crate::gc::step::{Collected, Step};
use crate::log::PackPlace;

/// Which rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    WaitsForNobody,
    ForgetsEmptyLogs,
    SparesNothing,
    IgnoresReferences,
    IgnoresPins,
    RemovesLastWords,
    StatesAtOnce,
    DropsNothing,
    FillsFirst,
    PinsAndGoesOn,
}

/// A record of a pack: one block of a machine's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub machine: usize,
    /// The session that brought it.
    pub session: usize,
    pub lsn: u64,
    pub block: u64,
    pub value: u64,
    /// Where the value is kept, if it is elsewhere.
    pub elsewhere: Option<PackPlace>,
}

#[derive(Debug, Clone, Default)]
pub struct Pack {
    pub records: Vec<Record>,
    pub stated: u64,
    pub last: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Log {
    pub packs: BTreeMap<u64, Pack>,
    pub tombstone: Option<u64>,
}

/// What a folded record says: the block, its value, and where that is kept.
pub type Folded = (u64, u64, PackPlace);

#[derive(Debug, Clone, Default)]
pub struct Manifest {
    /// Each log, folded from a pack up to another.
    pub logs: BTreeMap<LogName, (u64, u64)>,
    /// Everything up to here is folded, or thinned away.
    pub end: u64,
    /// What is left of it, by LSN.
    pub records: BTreeMap<u64, Folded>,
}

#[derive(Debug, Clone)]
pub struct Session {
    pub log: LogName,
    pub first: u64,
    pub committed: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// What its agent has written: block and value of LSN n at place n - 1.
    pub written: Vec<(u64, u64)>,
    pub acknowledged: u64,
    pub sessions: Vec<Session>,
    pub manifests: BTreeMap<u64, Manifest>,
    /// The manifests that are pinned, by the pins' names.
    pub pins: BTreeMap<u64, u64>,
}

#[derive(Debug)]
pub struct World {
    pub broken: Broken,
    pub logs: BTreeMap<LogName, Log>,
    pub machines: Vec<Machine>,
    pub steps: BTreeMap<u64, Step>,
    /// What readers who are under way still need.
    pub reading: BTreeMap<u64, Vec<(PackPlace, u64)>>,
    /// Makes names.
    pub names: u64,
}

pub fn log_name(number: u64) -> LogName {
    let id = LogId { run: RunId::from_bytes(u128::from(number).to_be_bytes()), shard: 0 };
    LogName { node: "n".parse().unwrap(), id }
}

pub fn machine_name(machine: usize) -> Name {
    format!("m{machine}").parse().unwrap()
}

pub fn place(log: &LogName, number: u64) -> PackPlace {
    PackPlace { log: log.clone(), number: PackNumber(number) }
}

impl World {
    pub fn new(broken: Broken) -> Self {
        Self {
            broken,
            logs: BTreeMap::new(),
            machines: vec![Machine::default(); 3],
            steps: BTreeMap::new(),
            reading: BTreeMap::new(),
            names: 0,
        }
    }

    pub fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    pub fn collected(&self) -> Collected {
        let Some((number, newest)) = self.steps.last_key_value() else {
            return Collected::default();
        };
        Collected::of(newest.clone(), self.steps.get(&(number - 1)).cloned())
    }

    fn removed(&self) -> PackSet {
        self.collected().removed
    }

    /// The packs of a log that count and weren't removed, and the first number that isn't there.
    pub fn counted(&self, name: &LogName) -> (Vec<u64>, u64) {
        let (log, removed) = (&self.logs[name], self.removed());
        let (mut counted, mut next) = (Vec::new(), 0);
        loop {
            if removed.has(&place(name, next)) {
                next += 1;
            } else if log.packs.contains_key(&next) && log.tombstone != Some(next) {
                counted.push(next);
                next += 1;
            } else {
                return (counted, next);
            }
        }
    }

    pub fn stored(&self, place: &PackPlace) -> Option<&Pack> {
        self.logs.get(&place.log)?.packs.get(&place.number.0)
    }

    /// Whether this place keeps this value.
    pub fn keeps(&self, place: &PackPlace, value: u64) -> bool {
        let kept = |record: &Record| record.value == value && record.elsewhere.is_none();
        self.stored(place).is_some_and(|pack| pack.records.iter().any(kept))
    }

    /// The logs of a machine, each with the first pack that may have something of it.
    pub fn logs_of(&self, machine: usize) -> Vec<(LogName, u64)> {
        let mut logs: BTreeMap<LogName, u64> = BTreeMap::new();
        for session in &self.machines[machine].sessions {
            let first = logs.entry(session.log.clone()).or_insert(session.first);
            *first = session.first.min(*first);
        }
        logs.into_iter().collect()
    }

    /// The records of a machine behind a manifest: by LSN the block, the value, where it is kept.
    pub fn tail(&self, machine: usize, manifest: &Manifest) -> BTreeMap<u64, Folded> {
        let mut tail = BTreeMap::new();
        for (log, first) in self.logs_of(machine) {
            let first = manifest.logs.get(&log).map_or(first, |(_, upto)| *upto);
            let (counted, _) = self.counted(&log);
            for number in counted.into_iter().filter(|number| *number >= first) {
                let own = place(&log, number);
                for record in &self.logs[&log].packs[&number].records {
                    if record.machine == machine {
                        let kept = record.elsewhere.clone().unwrap_or_else(|| own.clone());
                        tail.insert(record.lsn, (record.block, record.value, kept));
                    }
                }
            }
        }
        tail
    }

    pub fn newest(&self, machine: usize) -> (u64, Manifest) {
        let newest = self.machines[machine].manifests.last_key_value();
        newest.map_or_else(Default::default, |(number, manifest)| (*number, manifest.clone()))
    }

    /// Everything that a recovery needs is there: what the newest manifests keep, all that was
    /// acknowledged since, and what those need who are reading.
    pub fn check(&self) -> Result<(), String> {
        for machine in 0..self.machines.len() {
            let (number, manifest) = self.newest(machine);
            for (lsn, (_, value, kept)) in &manifest.records {
                if !self.keeps(kept, *value) {
                    return Err(format!(
                        "manifest {number} of m{machine}: {lsn} is lost in {kept}"
                    ));
                }
            }
            let tail = self.tail(machine, &manifest);
            for lsn in manifest.end + 1..=self.machines[machine].acknowledged {
                match tail.get(&lsn) {
                    None => return Err(format!("m{machine}: {lsn} isn't in the logs")),
                    Some((_, value, kept)) if !self.keeps(kept, *value) => {
                        return Err(format!("m{machine}: {lsn} is lost in {kept}"));
                    }
                    Some(_) => {}
                }
            }
        }
        for (reader, needed) in &self.reading {
            if let Some((kept, _)) = needed.iter().find(|(kept, value)| !self.keeps(kept, *value)) {
                return Err(format!("reader {reader} is missing {kept}"));
            }
        }
        Ok(())
    }

    /// What a server finds that is asked how far a machine goes: the real one's search, by the newest
    /// session, and by those of all logs where the agent knows of more.
    pub fn search(&self, machine: usize) -> u64 {
        let told = &self.machines[machine];
        let Some(newest) = told.sessions.last() else { return 0 };
        let of = |session: &Session| self.search_log(machine, session).max(session.committed);
        let found = of(newest);
        if found >= told.acknowledged {
            return found;
        }
        let logs: BTreeMap<_, _> = told.sessions.iter().map(|one| (&one.log, one)).collect();
        logs.into_values().map(of).max().unwrap_or(0).max(found)
    }

    fn search_log(&self, machine: usize, session: &Session) -> u64 {
        let (counted, _) = self.counted(&session.log);
        let log = &self.logs[&session.log];
        let last = counted.iter().rev().filter(|number| **number >= session.first).find_map(|at| {
            let of = log.packs[at].records.iter().filter(|record| record.machine == machine);
            of.map(|record| record.lsn).max()
        });
        last.unwrap_or(0)
    }

    /// The values that anything refers to or keeps in a machine's whole history: for the end.
    pub fn needed(&self) -> BTreeSet<PackPlace> {
        let mut needed = BTreeSet::new();
        for machine in 0..self.machines.len() {
            let (_, manifest) = self.newest(machine);
            needed.extend(manifest.records.into_values().map(|(_, _, kept)| kept));
        }
        needed
    }

    pub fn epoch_end(&self, machine: usize) -> Lsn {
        Lsn(self.machines[machine].sessions.last().map_or(0, |session| session.committed))
    }
}
