//! One run by a seed: everybody in turn, by chance; then all comes to rest.

use super::collector::Collector;
use super::machine::{self, Fold, Recovery};
use super::server::Server;
use super::world::{Broken, World, place};
use crate::gc::collection::Outcome;

/// Things that are done in a run.
const TURNS: u64 = 2500;

/// Numbers from a seed (SplitMix64).
pub struct Chance(u64);

impl Chance {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    pub fn pick<T>(&mut self, of: impl Iterator<Item = T>) -> Option<T> {
        let mut all: Vec<T> = of.collect();
        if all.is_empty() {
            return None;
        }
        let at = usize::try_from(self.below(all.len() as u64)).unwrap();
        Some(all.swap_remove(at))
    }

    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let at = usize::try_from(self.below(last as u64 + 1)).unwrap();
            all.swap(at, last);
        }
    }
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Told {
    pub removed: u64,
    pub spared: u64,
    pub fenced: u64,
}

impl Told {
    fn add(&mut self, outcome: &Outcome) {
        self.removed += outcome.removed;
        self.spared += outcome.spared;
        self.fenced += outcome.fenced.len() as u64;
    }
}

struct Run {
    world: World,
    chance: Chance,
    servers: Vec<Server>,
    collectors: Vec<Collector>,
    folds: Vec<Fold>,
    recoveries: Vec<Recovery>,
    told: Told,
}

pub fn simulate(seed: u64, broken: Broken) -> Result<Told, String> {
    let mut run = Run {
        world: World::new(broken),
        chance: Chance(seed),
        servers: Vec::new(),
        collectors: Vec::new(),
        folds: Vec::new(),
        recoveries: Vec::new(),
        told: Told::default(),
    };
    for turn in 0..TURNS {
        run.turn()?;
        // What is lost stays lost.
        if turn % 8 == 0 {
            run.world.check()?;
        }
    }
    run.rest()?;
    Ok(run.told)
}

impl Run {
    fn turn(&mut self) -> Result<(), String> {
        match self.chance.below(1000) {
            0..100 => {
                let machine = self.machine();
                machine::write(&mut self.world, machine, &mut self.chance);
            }
            100..450 => self.serve(),
            450..480 => self.connect()?,
            480..490 if self.servers.len() < 3 => {
                self.servers.push(Server::start(&mut self.world));
            }
            490..493 => self.stop(),
            493..600 => self.fold(),
            600..625 => self.recover(),
            625..650 if self.collectors.len() < 2 => self.collectors.push(Collector::begin()),
            650..990 => self.collect()?,
            990..1000 => drop(self.pop_collector()),
            _ => {}
        }
        self.servers.retain(|server| !server.is_dead());
        Ok(())
    }

    fn machine(&mut self) -> usize {
        usize::try_from(self.chance.below(self.world.machines.len() as u64)).unwrap()
    }

    /// One server does something; one may be asleep for long, for the first of them is seldom asked.
    fn serve(&mut self) {
        let awake = self.servers.len().saturating_sub(usize::from(self.chance.below(20) > 0));
        let servers = self.servers.iter_mut().rev().take(awake.max(1));
        if let Some(server) = self.chance.pick(servers) {
            server.step(&mut self.world, &mut self.chance);
        }
    }

    fn connect(&mut self) -> Result<(), String> {
        let machine = self.machine();
        let Some(at) = self.chance.pick(0..self.servers.len()) else { return Ok(()) };
        if !self.servers[at].runs() {
            return Ok(());
        }
        self.servers[at].seats.remove(&machine);
        let seat = machine::connect(&mut self.world, machine, &self.servers[at])?;
        if self.chance.below(4) == 0 {
            // The grant came too late: the agent is where it was.
            return Ok(());
        }
        for server in &mut self.servers {
            server.seats.remove(&machine);
        }
        self.servers[at].seats.insert(machine, seat);
        Ok(())
    }

    fn stop(&mut self) {
        let Some(at) = self.chance.pick(0..self.servers.len()) else { return };
        match self.chance.below(2) {
            0 => self.servers[at].kill(),
            _ => self.servers[at].finish(&mut self.world, &mut self.chance),
        }
    }

    fn fold(&mut self) {
        if self.folds.len() < 3 && self.chance.below(2) == 0 {
            let machine = self.machine();
            self.folds.push(Fold::read(&self.world, machine, &mut self.chance));
        } else if let Some(at) = self.chance.pick(0..self.folds.len()) {
            self.folds.swap_remove(at).create(&mut self.world);
        }
    }

    fn recover(&mut self) {
        if self.recoveries.len() < 3 && self.chance.below(3) == 0 {
            let machine = self.machine();
            self.recoveries.push(Recovery::begin(&mut self.world, machine));
        } else if let Some(at) = self.chance.pick(0..self.recoveries.len())
            && !self.recoveries[at].step(&mut self.world, &mut self.chance)
        {
            self.recoveries.swap_remove(at);
        }
    }

    fn collect(&mut self) -> Result<(), String> {
        let Some(at) = self.chance.pick(0..self.collectors.len()) else { return Ok(()) };
        // Whether a list is old is a matter of clocks: it may be anything.
        let late = self.chance.below(12) == 0;
        if self.collectors[at].step(&mut self.world, late, &mut self.chance) {
            return Ok(());
        }
        let outcome = self.collectors.swap_remove(at).outcome();
        self.end_collection(&outcome)
    }

    fn end_collection(&mut self, outcome: &Outcome) -> Result<(), String> {
        self.told.add(outcome);
        match &outcome.unnamed {
            Some((pack, machine)) => Err(format!("{pack} of {machine} isn't accounted for")),
            None => Ok(()),
        }
    }

    fn pop_collector(&mut self) -> Option<Collector> {
        self.collectors.pop()
    }

    /// Every agent sends all it has to a server that ends in order.
    fn send_all(&mut self) -> Result<(), String> {
        let mut server = Server::start(&mut self.world);
        while !server.runs() {
            server.step(&mut self.world, &mut self.chance);
        }
        for machine in 0..self.world.machines.len() {
            let seat = machine::connect(&mut self.world, machine, &server)?;
            server.seats.insert(machine, seat);
        }
        while !server.has_all(&self.world) {
            server.step(&mut self.world, &mut self.chance);
        }
        server.finish(&mut self.world, &mut self.chance);
        Ok(())
    }

    /// Everybody ends; all is folded and collected. What is left then is needed, or a log's or a
    /// machine's last pack.
    fn rest(&mut self) -> Result<(), String> {
        self.servers.iter_mut().for_each(Server::kill);
        self.send_all()?;
        self.recoveries.iter().for_each(|recovery| recovery.end(&mut self.world));
        for machine in 0..self.world.machines.len() {
            Fold::read(&self.world, machine, &mut self.chance).create(&mut self.world);
        }
        let mut last_words = 0;
        for _ in 0..4 {
            let mut collector = Collector::begin();
            while collector.step(&mut self.world, true, &mut self.chance) {}
            self.world.check()?;
            let outcome = collector.outcome();
            last_words = outcome.last_words;
            self.end_collection(&outcome)?;
        }
        let needed = self.world.needed();
        let mut left = 0;
        for (name, log) in &self.world.logs {
            let ends = log.packs.last_key_value().filter(|(_, pack)| pack.last);
            let ends = ends.map(|(number, _)| *number);
            let packs = log.packs.keys().filter(|number| Some(**number) != ends);
            left += packs.filter(|number| !needed.contains(&place(name, **number))).count() as u64;
        }
        // One for each epoch and log at most.
        let machines = self.world.machines.len() as u64;
        if left > last_words || last_words > machines * self.world.logs.len() as u64 {
            return Err(format!(
                "{left} packs that nobody needs are left, {last_words} last words"
            ));
        }
        Ok(())
    }
}
