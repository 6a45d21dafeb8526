//! Moments of a copy at which something is killed: chosen by a seed, spread over the whole copy,
//! and some of them between a put and its acknowledgement.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::agent_log::{committed, events, openings, wait_until};
use crate::support::gate::Gate;
use crate::support::process::Running;
use crate::support::random::Rng;

/// Kills of one copy.
pub const KILLS: u64 = 20;
/// The last kill comes before this part of the copy is committed, in percent: something must be
/// left for it to interrupt.
const LAST_PERCENT: u64 = 80;
/// The longest time after an acknowledgement, in microseconds: a few packs are closed meanwhile.
const DELAY_MAX: u64 = 60_000;
/// When nothing more was stored or acknowledged for so long, nothing is under way: a pack closes
/// by its age after a quarter of a second.
const QUIET: Duration = Duration::from_secs(2);

/// What the kill follows at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A new pack stands in the vault, and the agent doesn't hear of it.
    Put,
    /// Something was acknowledged.
    Acknowledgement,
    /// A session was opened: what is to be sent again is on its way.
    Opening,
    /// Nothing: so much time has passed.
    Delay(Duration),
}

/// A moment.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// So much must have been acknowledged before.
    pub lsn: u64,
    /// And then comes this.
    pub trigger: Trigger,
}

/// The moments of a copy with LSNs up to `last`: one in each twentieth, every third at a put.
pub fn choose(rng: &mut Rng, last: u64) -> Vec<Moment> {
    let moment = |number: u64| {
        let step = last * LAST_PERCENT / 100 / KILLS;
        let lsn = (number * step + rng.below(step)).max(1);
        let trigger = match (number % 3, rng.below(3)) {
            (0, _) => Trigger::Put,
            (_, 0) => Trigger::Acknowledgement,
            (_, 1) => Trigger::Opening,
            _ => Trigger::Delay(Duration::from_micros(rng.below(DELAY_MAX))),
        };
        Moment { lsn, trigger }
    };
    (0..KILLS).map(moment).collect()
}

impl Moment {
    /// Waits for it in the course of a copy. False if the agent ended before. `opened`: how many
    /// sessions the agent has opened when the one to interrupt is among them.
    #[track_caller]
    pub fn wait(self, agent: &Running, log: &Path, gate: &Gate, opened: usize) -> bool {
        // Even a kill that follows nothing else must find a session to interrupt.
        if !wait_until(agent, "a session", |events| openings(events) >= opened) {
            return false;
        }
        self.trigger == Trigger::Opening
            || wait_until(agent, "progress", |events| committed(events) >= self.lsn)
                && self.trigger.wait(agent, log, gate)
    }
}

impl Trigger {
    /// Waits for it, from now on: for a while, because nothing may be left to come. False if the
    /// agent ended before. Behind a put, `gate` is silent: that must be ended after the kill.
    #[track_caller]
    pub fn wait(self, agent: &Running, log: &Path, gate: &Gate) -> bool {
        let begun = Instant::now();
        let enough = || begun.elapsed() > QUIET;
        match self {
            Self::Put => {
                // Whatever is stored from here on, its acknowledgement comes too late.
                gate.silence();
                let before = packs(log);
                wait_until(agent, "a new pack", |_| packs(log) > before || enough())
            }
            Self::Acknowledgement => {
                let before = committed(&events(agent));
                let more = |events: &[_]| committed(events) > before || enough();
                wait_until(agent, "an acknowledgement", more)
            }
            Self::Opening => true,
            Self::Delay(delay) => {
                std::thread::sleep(delay);
                !agent.ended()
            }
        }
    }
}

/// How many packs of a vault's directory of logs stand in it without a gap before them: those that
/// count. What is only being written has another name.
fn packs(log: &Path) -> usize {
    let inside = |path: PathBuf| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let logs = inside(log.to_owned()).into_iter().flat_map(inside);
    logs.map(|log| {
        let mut numbers: Vec<usize> = inside(log)
            .iter()
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers.iter().enumerate().take_while(|(place, number)| place == *number).count()
    })
    .sum()
}
