//! What goes on around a machine: its agent, folding and thinning, readers.

use super::run::Chance;
use super::server::Server;
use super::world::{Broken, Manifest, Session, World};
use crate::log::PackPlace;

/// Blocks of a disk, and values that they may have: few, so that much is the same.
const BLOCKS: usize = 3;
const VALUES: u64 = 8;

/// The agent writes something.
pub fn write(world: &mut World, machine: usize, chance: &mut Chance) {
    let written = (chance.below(BLOCKS as u64), chance.below(VALUES));
    world.machines[machine].written.push(written);
}

/// The agent goes to a server, which looks how far the vault has it, and grants a session: its number,
/// and what it sends first.
pub fn connect(world: &mut World, machine: usize, server: &Server) -> Result<(usize, u64), String> {
    let found = world.search(machine);
    if found < world.machines[machine].acknowledged {
        return Err(format!("m{machine} is refused: {found} is the last that was found"));
    }
    let session = Session { log: server.log.clone(), first: server.open_pack(), committed: found };
    let sessions = &mut world.machines[machine].sessions;
    sessions.push(session);
    Ok((sessions.len(), found + 1))
}

/// A fold that has read, and hasn't created its manifest yet.
#[derive(Debug)]
pub struct Fold {
    machine: usize,
    number: u64,
    manifest: Manifest,
}

impl Fold {
    pub fn read(world: &World, machine: usize, chance: &mut Chance) -> Self {
        let (newest, mut manifest) = world.newest(machine);
        let tail = world.tail(machine, &manifest);
        let mut end = manifest.end;
        while tail.contains_key(&(end + 1)) {
            end += 1;
        }
        for (log, first) in world.logs_of(machine) {
            let (counted, next) = world.counted(&log);
            let (from, upto) = manifest.logs.get(&log).copied().unwrap_or((first, first));
            let beyond = |number: &&u64| {
                let records = &world.logs[&log].packs[*number].records;
                **number >= upto
                    && records.iter().any(|one| one.machine == machine && one.lsn > end)
            };
            let upto = counted.iter().find(beyond).copied().unwrap_or(next.max(upto));
            manifest.logs.insert(log, (from, upto));
        }
        manifest.records.extend(tail.into_iter().filter(|(lsn, _)| *lsn <= end));
        manifest.end = end;
        thin(&mut manifest, chance);
        Self { machine, number: newest + 1, manifest }
    }

    /// Unless another has its number.
    pub fn create(self, world: &mut World) {
        let manifests = &mut world.machines[self.machine].manifests;
        let newest = manifests.last_key_value().map_or(0, |(number, _)| *number);
        if newest < self.number {
            manifests.insert(self.number, self.manifest);
        }
    }
}

/// Drops some of what later records hide.
fn thin(manifest: &mut Manifest, chance: &mut Chance) {
    let mut seen = [false; BLOCKS];
    let mut dropped = Vec::new();
    for (lsn, (block, _, _)) in manifest.records.iter().rev() {
        let seen = &mut seen[usize::try_from(*block).unwrap()];
        if *seen && chance.below(3) > 0 {
            dropped.push(*lsn);
        }
        *seen = true;
    }
    dropped.iter().for_each(|lsn| drop(manifest.records.remove(lsn)));
}

/// A recovery under way.
#[derive(Debug)]
pub struct Recovery {
    machine: usize,
    pin: u64,
    newest: u64,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Pin,
    LookAgain,
    Reads,
}

impl Recovery {
    pub fn begin(world: &mut World, machine: usize) -> Self {
        let (newest, _) = world.newest(machine);
        Self { machine, pin: world.name(), newest, step: Step::Pin }
    }

    /// False when it has ended.
    pub fn step(&mut self, world: &mut World, chance: &mut Chance) -> bool {
        match self.step {
            Step::Pin => {
                world.machines[self.machine].pins.insert(self.pin, self.newest);
                self.step = Step::LookAgain;
            }
            Step::LookAgain => {
                let (newest, _) = world.newest(self.machine);
                if newest != self.newest && world.broken != Broken::PinsAndGoesOn {
                    world.machines[self.machine].pins.remove(&self.pin);
                    *self = Self::begin(world, self.machine);
                    return true;
                }
                let pinned = self.newest;
                let manifest = world.machines[self.machine].manifests.get(&pinned);
                let manifest = manifest.cloned().unwrap_or_default();
                let tail = world.tail(self.machine, &manifest);
                let all = manifest.records.values().chain(tail.values());
                let needed: Vec<(PackPlace, u64)> =
                    all.map(|(_, value, kept)| (kept.clone(), *value)).collect();
                world.reading.insert(self.pin, needed);
                self.step = Step::Reads;
            }
            Step::Reads => {
                if chance.below(3) == 0 {
                    self.end(world);
                    return false;
                }
            }
        }
        true
    }

    pub fn end(&self, world: &mut World) {
        world.reading.remove(&self.pin);
        world.machines[self.machine].pins.remove(&self.pin);
    }
}
