//! Which shard has which machine, and which incarnation of it is connected.
//!
//! A machine stays with its shard as long as the process lives: what an ended session left on its
//! way is in that shard's log, and only there may the next session refer to it before it is
//! committed. A machine that comes for the first time goes to the first shard that isn't busy, so
//! that at low load few logs are written, for each costs puts.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_model::{Epoch, Incarnation, Lsn, Name, PackNumber, Token};
use tidegate_pipeline::Committed;
use tidegate_vault::grant::KnownEnd;

use super::quiet::QUIET_PACKS;

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
    /// The agent's life that its sessions belong to.
    incarnation: Incarnation,
    /// Its sessions that haven't ended. The newest, which is the last, took over from the others.
    sessions: Vec<u64>,
    /// The newest epoch of which the shard's log has something, and up to where it is committed.
    committed: Option<(Epoch, Lsn)>,
    /// The first pack of that log that wasn't known to be stored when this last moved.
    stored: PackNumber,
    /// The record of its newest session, if this server created it.
    recorded: Option<Recorded>,
}

/// What the record of a session says that was granted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub epoch: Epoch,
    pub incarnation: Incarnation,
    pub token: Token,
    /// The session's number.
    pub session: u64,
    pub committed: Lsn,
}

/// A machine that has committed nothing for long, though more than its newest session's record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quiet {
    pub machine: Name,
    pub recorded: Recorded,
    pub end: KnownEnd,
}

/// A session's place; give it back with [`Directory::leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub shard: u16,
    pub session: u64,
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
        let mut state = self.lock();
        let known = state.machines.get(machine);
        match known.filter(|seat| !seat.sessions.is_empty()) {
            Some(seat) if seat.incarnation != incarnation => {
                return Err(NoPlace::Occupied(seat.incarnation));
            }
            Some(_) => {}
            None if state.sessions() >= state.sessions_max => {
                return Err(NoPlace::Full(state.sessions_max));
            }
            None => {}
        }
        let shard = known.map_or_else(|| state.choose(load), |seat| seat.shard);
        if known.is_none() && state.machines.len() >= MACHINES_MAX {
            state.machines.retain(|_, seat| !seat.sessions.is_empty());
        }
        let session = state.next_session;
        state.next_session += 1;
        state.sessions_per_shard[usize::from(shard)] += 1;
        let empty = || Seat {
            shard,
            incarnation,
            sessions: Vec::new(),
            committed: None,
            stored: PackNumber(0),
            recorded: None,
        };
        let seat = state.machines.entry(machine.clone()).or_insert_with(empty);
        seat.incarnation = incarnation;
        seat.sessions.push(session);
        Ok(Place { shard, session })
    }

    /// A session has ended, or didn't get to its shard. Those that it took over from and that run
    /// still keep the machine's seat.
    pub(crate) fn leave(&self, machine: &Name, place: Place) {
        let mut state = self.lock();
        let count = &mut state.sessions_per_shard[usize::from(place.shard)];
        *count = count.saturating_sub(1);
        if let Some(seat) = state.machines.get_mut(machine) {
            seat.sessions.retain(|session| *session != place.session);
        }
    }

    /// Whether the session is still its machine's: nobody took over from it.
    pub(crate) fn is_live(&self, machine: &Name, place: Place) -> bool {
        let state = self.lock();
        let newest = state.machines.get(machine).and_then(|seat| seat.sessions.last());
        newest == Some(&place.session)
    }

    /// The sessions that this one takes over from. They are on its shard, or on their way there.
    pub(crate) fn replaced_by(&self, machine: &Name, place: Place) -> Vec<u64> {
        let state = self.lock();
        let sessions = state.machines.get(machine).map_or(&[][..], |seat| &seat.sessions);
        sessions.iter().copied().filter(|session| *session < place.session).collect()
    }

    /// Notes what a shard has committed, with all packs of its log before `stored`.
    pub(crate) fn note_committed(&self, shard: u16, news: &[Committed], stored: PackNumber) {
        let mut state = self.lock();
        for Committed { stream, lsn, .. } in news {
            let Some(lsn) = *lsn else { continue };
            let seat = state.machines.get_mut(&stream.machine);
            // A machine that was forgotten may be on another shard by now.
            if let Some(seat) = seat.filter(|seat| seat.shard == shard) {
                let committed = seat.committed.max(Some((stream.epoch, lsn)));
                if committed > seat.committed {
                    (seat.committed, seat.stored) = (committed, stored);
                }
            }
        }
    }

    /// Notes the record of a session that was granted here, unless a newer one is known.
    pub(crate) fn note_recorded(&self, machine: &Name, recorded: Recorded) {
        let mut state = self.lock();
        let Some(seat) = state.machines.get_mut(machine) else { return };
        let number = |recorded: &Recorded| (recorded.epoch, recorded.session);
        if seat.recorded.as_ref().map(number) < Some(number(&recorded)) {
            seat.recorded = Some(recorded);
        }
    }

    /// The record of this session isn't its machine's newest any more, and that isn't known here.
    pub(crate) fn forget_recorded(&self, machine: &Name, session: u64) {
        let mut state = self.lock();
        let Some(seat) = state.machines.get_mut(machine) else { return };
        seat.recorded = seat.recorded.filter(|recorded| recorded.session != session);
    }

    /// Machines of a shard whose last commit lies long before `stored`, before which all packs of its
    /// log are committed and noted; `most` of them.
    pub(crate) fn quiet(&self, shard: u16, stored: PackNumber, most: usize) -> Vec<Quiet> {
        let state = self.lock();
        let quiet = state.machines.iter().filter_map(|(machine, seat)| {
            let (recorded, (epoch, committed)) = (seat.recorded?, seat.committed?);
            let is_due = seat.shard == shard && seat.stored.0 + QUIET_PACKS <= stored.0;
            let is_news = recorded.epoch == epoch && recorded.committed < committed;
            let end = KnownEnd { epoch, committed, stored };
            (is_due && is_news).then(|| Quiet { machine: machine.clone(), recorded, end })
        });
        quiet.take(most).collect()
    }

    /// The newest epoch of which the log of the machine's shard has something, as far as that is
    /// remembered, and up to where it is committed.
    pub(crate) fn committed(&self, machine: &Name) -> Option<(Epoch, Lsn)> {
        self.lock().machines.get(machine).and_then(|seat| seat.committed)
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.lock().sessions()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    use std::sync::Arc;

    use tidegate_pipeline::{Stream, StreamTotals};

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
        assert_eq!(directory.replaced_by(&name("a"), new), [old.session]);
        assert!(!directory.is_live(&name("a"), old) && directory.is_live(&name("a"), new));
        directory.leave(&name("a"), old);
        assert!(directory.enter(&name("a"), life(2), |_| 0.0).is_err(), "the new one lives");
    }

    #[test]
    fn one_that_took_over_and_didnt_get_to_its_shard_leaves_the_old_session_its_seat() {
        let directory = Directory::new(2, 9);
        let enter = |incarnation| directory.enter(&name("a"), life(incarnation), |_| 0.0);
        let (old, lost, new) = (enter(1).unwrap(), enter(1).unwrap(), enter(1).unwrap());
        directory.leave(&name("a"), new);
        directory.leave(&name("a"), lost);
        assert!(directory.is_live(&name("a"), old));
        assert_eq!(enter(2), Err(NoPlace::Occupied(life(1))));
        // Who comes next takes over from it, also behind one that got lost meanwhile.
        let (lost, new) = (enter(1).unwrap(), enter(1).unwrap());
        directory.leave(&name("a"), lost);
        assert_eq!(directory.replaced_by(&name("a"), new), [old.session]);
        directory.leave(&name("a"), new);
        assert!(enter(2).is_err(), "the old one still runs");
        directory.leave(&name("a"), old);
        assert!(enter(2).is_ok());
    }

    #[test]
    fn what_a_machines_shard_committed_is_remembered() {
        let directory = Directory::new(2, 9);
        let note = |shard, epoch, lsn| {
            let stream =
                Stream { machine: name("a"), epoch: Epoch(epoch), id: 1, committed: Lsn(0) };
            let totals = StreamTotals::default();
            let news = Committed { stream: Arc::new(stream), lsn: Some(Lsn(lsn)), totals };
            directory.note_committed(shard, &[news], PackNumber(0));
            directory.committed(&name("a"))
        };
        assert_eq!(note(0, 1, 5), None, "nobody has come");
        let place = directory.enter(&name("a"), life(1), |_| 0.0).unwrap();
        assert_eq!(note(0, 1, 5), Some((Epoch(1), Lsn(5))));
        assert_eq!(note(0, 1, 4), Some((Epoch(1), Lsn(5))), "sent again by a new session");
        assert_eq!(note(1, 1, 9), Some((Epoch(1), Lsn(5))), "in another log");
        directory.leave(&name("a"), place);
        directory.enter(&name("a"), life(2), |_| 0.0).unwrap();
        assert_eq!(note(0, 2, 1), Some((Epoch(2), Lsn(1))));
        assert_eq!(note(0, 1, 6), Some((Epoch(2), Lsn(1))), "the rest of the old epoch");
    }

    #[test]
    fn a_machine_is_quiet_once_each_time_that_it_stops_committing_and_an_idle_one_never() {
        let directory = Directory::new(2, 9);
        let place = directory.enter(&name("a"), life(1), |_| 0.0).unwrap();
        directory.enter(&name("idle"), life(1), |_| 0.0).unwrap();
        let recorded = |session, committed| Recorded {
            epoch: Epoch(1),
            incarnation: life(1),
            token: Token::NONE,
            session,
            committed: Lsn(committed),
        };
        directory.note_recorded(&name("a"), recorded(3, 5));
        directory.note_recorded(&name("idle"), recorded(0, 0));
        let commit = |lsn, stored| {
            let stream = Stream { machine: name("a"), epoch: Epoch(1), id: 1, committed: Lsn(0) };
            let totals = StreamTotals::default();
            let news = Committed { stream: Arc::new(stream), lsn: Some(Lsn(lsn)), totals };
            directory.note_committed(place.shard, &[news], PackNumber(stored));
        };
        let quiet = |stored| directory.quiet(place.shard, PackNumber(stored), 9);
        let due = |session, before, lsn, stored| Quiet {
            machine: name("a"),
            recorded: recorded(session, before),
            end: KnownEnd { epoch: Epoch(1), committed: Lsn(lsn), stored: PackNumber(stored) },
        };
        commit(5, 10);
        assert_eq!(quiet(10 + QUIET_PACKS), [], "its session's record says so already");
        commit(6, 20);
        assert_eq!(quiet(19 + QUIET_PACKS), []);
        assert_eq!(quiet(20 + QUIET_PACKS), [due(3, 5, 6, 20 + QUIET_PACKS)]);
        assert_eq!(directory.quiet(1, PackNumber(20 + QUIET_PACKS), 9), [], "of another shard");
        directory.note_recorded(&name("a"), recorded(4, 6));
        assert_eq!(quiet(20 + 9 * QUIET_PACKS), [], "it is recorded");
        // It goes on, and again; what a session before it sends again is no news.
        commit(7, 10 * QUIET_PACKS);
        commit(6, 11 * QUIET_PACKS);
        assert_eq!(quiet(11 * QUIET_PACKS), [due(4, 6, 7, 11 * QUIET_PACKS)]);
        // Another server has it.
        directory.forget_recorded(&name("a"), 4);
        assert_eq!(quiet(12 * QUIET_PACKS), []);
        // Until it is back; an answer that comes late is no newer.
        directory.note_recorded(&name("a"), recorded(9, 6));
        directory.note_recorded(&name("a"), recorded(8, 7));
        directory.forget_recorded(&name("a"), 8);
        assert_eq!(quiet(12 * QUIET_PACKS), [due(9, 6, 7, 12 * QUIET_PACKS)]);
        let next = Recorded { epoch: Epoch(2), ..recorded(0, 0) };
        directory.note_recorded(&name("a"), next);
        assert_eq!(quiet(12 * QUIET_PACKS), [], "of the epoch before");
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
