//! What an agent heard from its servers, taken from its log while it runs: what was acknowledged
//! as committed, and what had been sent by then. The tests' own record of what must not be lost.

use super::process::{Running, Tidegate};
use super::refusals;

/// The filter under which an agent logs what is read here.
const LOG: (&str, &str) = ("TIDEGATE_LOG", "warn,tidegate_agent=debug");

/// A call whose agent logs what is read here.
pub fn telling(call: Tidegate) -> Tidegate {
    let (name, filter) = LOG;
    call.env(name, filter)
}

/// What an agent logged of a session. LSNs are numbers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A server granted the epoch and said what it has; `sent` is the last that any connection had
    /// sent before.
    Open { committed: u64, sent: u64 },
    /// A server said that it has everything up to `committed`.
    Acknowledged { committed: u64 },
    /// The connection is gone; it had sent up to `sent`, and all connections together so many
    /// bytes, headers included.
    Ended { sent: u64, bytes_sent: u64 },
}

impl Event {
    fn of(line: &str) -> Option<Self> {
        let number = |name: &str| field(line, name);
        if line.contains(" the session is open ") {
            Some(Self::Open { committed: number("committed")?, sent: number("sent")? })
        } else if line.contains(" acknowledged ") {
            Some(Self::Acknowledged { committed: number("committed")? })
        } else if line.contains(" the connection has ended ") {
            Some(Self::Ended { sent: number("sent")?, bytes_sent: number("bytes_sent")? })
        } else {
            None
        }
    }

    /// What is committed by it.
    pub fn committed(self) -> Option<u64> {
        match self {
            Self::Open { committed, .. } | Self::Acknowledged { committed } => Some(committed),
            Self::Ended { .. } => None,
        }
    }
}

fn field(line: &str, name: &str) -> Option<u64> {
    let named = |word: &&str| word.split_once('=').is_some_and(|(key, _)| key == name);
    line.split_whitespace().find(named)?.split_once('=')?.1.parse().ok()
}

/// Everything that an agent has logged so far.
pub fn events(agent: &Running) -> Vec<Event> {
    of_log(&agent.printed())
}

/// The same of a log that is complete.
pub fn of_log(log: &str) -> Vec<Event> {
    log.lines().filter_map(Event::of).collect()
}

/// How many sessions were opened.
pub fn openings(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Open { .. })).count()
}

/// The last LSN that was acknowledged as committed.
pub fn committed(events: &[Event]) -> u64 {
    events.iter().filter_map(|event| event.committed()).max().unwrap_or(0)
}

/// Waits until `reached` holds of what an agent has logged. False if it ends before.
#[track_caller]
pub fn wait_until(agent: &Running, what: &str, reached: impl Fn(&[Event]) -> bool) -> bool {
    let mut there = false;
    refusals::wait_until(what, || {
        let ended = agent.ended();
        there = reached(&events(agent));
        there || ended
    });
    there
}
