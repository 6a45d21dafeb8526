//! Which shard has which machine, and which incarnation of it is connected.
//!
//! A machine stays with its shard as long as the process lives: what an ended session left on its
//! way is in that shard's log, and only there may the next session refer to it before it is
//! committed. A machine that comes for the first time goes to the first shard that isn't busy, so
//! that at low load few logs are written, for each costs puts.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use tidegate_model::{Incarnation, Name};

/// Most machines that are remembered; beyond, a machine's shard is found anew each time.
const MACHINES_MAX: usize = 1 << 16;

/// The directory of a server.
pub(crate) struct Directory {
    state: Mutex<State>,
}

struct State {
    sessions_max: usize,
    machines: HashMap<Name, Seat>,
    sessions_per_shard: Vec<usize>,
    next_session: u64,
}

struct Seat {
    shard: u16,
    /// The session that is connected now, and the agent's life that it belongs to.
    live: Option<(u64, Incarnation)>,
}

/// A session's place; give it back with [`Directory::leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub shard: u16,
    pub session: u64,
    /// The session of the same incarnation that this one takes over from.
    pub replaces: Option<u64>,
}

/// Why a session gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// Another life of the agent is connected as this machine.
    Occupied(Incarnation),
    /// There are as many sessions as may be.
    Full(usize),
}

impl Directory {
    /// A directory for at most `sessions_max` sessions.
    pub(crate) fn new(shards: u16, sessions_max: usize) -> Self {
        let state = State {
            sessions_max,
            machines: HashMap::new(),
            sessions_per_shard: vec![0; usize::from(shards)],
            next_session: 1,
        };
        Self { state: Mutex::new(state) }
    }

    /// Gives a machine's new session its place. `load` tells how busy a shard is, from 0 to 1. One
    /// that takes over isn't counted against the most, for its predecessor is about to leave.
    pub(crate) fn enter(
        &self,
        machine: &Name,
        incarnation: Incarnation,
        load: impl Fn(u16) -> f64,
    ) -> Result<Place, NoPlace> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.machines.get(machine);
        let replaces = match known.and_then(|seat| seat.live) {
            Some((_, other)) if other != incarnation => return Err(NoPlace::Occupied(other)),
            Some((session, _)) => Some(session),
            None if state.sessions() >= state.sessions_max => {
                return Err(NoPlace::Full(state.sessions_max));
            }
            None => None,
        };
        let shard = known.map_or_else(|| state.choose(load), |seat| seat.shard);
        let session = state.next_session;
        state.next_session += 1;
        state.sessions_per_shard[usize::from(shard)] += 1;
        if state.machines.len() >= MACHINES_MAX {
            state.machines.retain(|_, seat| seat.live.is_some());
        }
        let live = Some((session, incarnation));
        state.machines.insert(machine.clone(), Seat { shard, live });
        Ok(Place { shard, session, replaces })
    }

    /// A session has ended.
    pub(crate) fn leave(&self, machine: &Name, place: Place) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let count = &mut state.sessions_per_shard[usize::from(place.shard)];
        *count = count.saturating_sub(1);
        if let Entry::Occupied(mut seat) = state.machines.entry(machine.clone())
            && seat.get().live.is_some_and(|(session, _)| session == place.session)
        {
            seat.get_mut().live = None;
        }
    }

    /// Whether the session is still its machine's: nobody took over from it.
    pub(crate) fn is_live(&self, machine: &Name, place: Place) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let live = state.machines.get(machine).and_then(|seat| seat.live);
        live.is_some_and(|(session, _)| session == place.session)
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sessions()
    }
}

/// A shard takes new machines while it is less busy than this: its core then still has as much
/// time for units as the others.
const BUSY: f64 = 0.4;

impl State {
    fn sessions(&self) -> usize {
        self.sessions_per_shard.iter().sum()
    }

    fn choose(&self, load: impl Fn(u16) -> f64) -> u16 {
        let shards = 0..u16::try_from(self.sessions_per_shard.len()).unwrap_or(u16::MAX);
        let gather = shards.clone().find(|shard| load(*shard) < BUSY);
        gather
            .or_else(|| shards.min_by_key(|shard| self.sessions_per_shard[usize::from(*shard)]))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn life(n: u8) -> Incarnation {
        Incarnation::from_bytes([n; 16])
    }

    #[test]
    fn another_incarnation_of_a_connected_machine_is_refused() {
        let directory = Directory::new(2, 9);
        let place = directory.enter(&name("a"), life(1), |_| 0.0).unwrap();
        assert_eq!(directory.enter(&name("a"), life(2), |_| 0.0), Err(NoPlace::Occupied(life(1))));
        directory.leave(&name("a"), place);
        assert!(directory.enter(&name("a"), life(2), |_| 0.0).is_ok());
    }

    #[test]
    fn the_same_incarnation_takes_over_and_the_old_session_ends_without_harm() {
        let directory = Directory::new(2, 9);
        let old = directory.enter(&name("a"), life(1), |_| 0.0).unwrap();
        let new = directory.enter(&name("a"), life(1), |_| 0.0).unwrap();
        assert_eq!(new.replaces, Some(old.session));
        assert!(!directory.is_live(&name("a"), old) && directory.is_live(&name("a"), new));
        directory.leave(&name("a"), old);
        assert!(directory.enter(&name("a"), life(2), |_| 0.0).is_err(), "the new one lives");
    }

    #[test]
    fn a_full_server_lets_in_who_takes_over_and_nobody_else() {
        let directory = Directory::new(2, 1);
        directory.enter(&name("a"), life(1), |_| 0.0).unwrap();
        assert_eq!(directory.enter(&name("b"), life(1), |_| 0.0), Err(NoPlace::Full(1)));
        assert!(directory.enter(&name("a"), life(1), |_| 0.0).is_ok());
    }

    #[test]
    fn machines_gather_until_a_shard_is_busy_and_stay_where_they_are() {
        let directory = Directory::new(3, 9);
        let enter = |machine: &str, load: [f64; 3]| {
            directory.enter(&name(machine), life(1), |s| load[usize::from(s)]).unwrap().shard
        };
        assert_eq!(enter("a", [0.0, 0.0, 0.0]), 0);
        assert_eq!(enter("b", [0.1, 0.0, 0.0]), 0);
        assert_eq!(enter("c", [0.9, 0.1, 0.0]), 1);
        assert_eq!(enter("d", [0.9, 0.9, 0.9]), 2, "all busy: the fewest sessions");
        assert_eq!(enter("a", [0.9, 0.0, 0.0]), 0, "a known machine stays");
    }
}
