//! The windows in memory: whose they are, and which one goes where another machine needs its place.
//!
//! Pure. A window stays when its session is idle, or ends: over a slow link an agent asks rarely, and one whose
//! connection broke comes again. Only where somebody waits one of them goes: one that is idle, or that has had
//! its turn, so that no machine waits for the whole resync of another.

use std::time::{Duration, Instant};

use tidegate_model::{Epoch, Name};

/// A window of which nothing was asked for so long goes where another needs its place.
const IDLE: Duration = Duration::from_secs(5);
/// One that has been there for so long goes though it is in use. Reading it again takes seconds.
const TURN: Duration = Duration::from_secs(60);

/// The windows, each of another machine.
pub(super) struct Windows<S> {
    kept: Vec<Kept<S>>,
    most: usize,
}

struct Kept<S> {
    machine: Name,
    epoch: Epoch,
    standing: S,
    read: Instant,
    used: Instant,
}

impl<S> Kept<S> {
    /// When it may go.
    fn free_at(&self) -> Instant {
        (self.used + IDLE).min(self.read + TURN)
    }
}

impl<S> Windows<S> {
    /// No windows yet, and never more than `most`.
    pub(super) const fn new(most: usize) -> Self {
        Self { kept: Vec::new(), most }
    }

    /// What an epoch of a machine stands on, if `fits` says that it is the window that is asked for.
    pub(super) fn find(
        &mut self,
        machine: &Name,
        epoch: Epoch,
        now: Instant,
        fits: impl Fn(&S) -> bool,
    ) -> Option<&S> {
        let of = |kept: &&mut Kept<S>| kept.machine == *machine && kept.epoch == epoch;
        let kept = self.kept.iter_mut().find(of).filter(|kept| fits(&kept.standing))?;
        kept.used = now;
        Some(&kept.standing)
    }

    /// Takes away what a machine has; whether that was of this epoch.
    pub(super) fn remove(&mut self, machine: &Name, epoch: Epoch) -> bool {
        let at = self.kept.iter().position(|kept| kept.machine == *machine);
        at.is_some_and(|at| self.kept.swap_remove(at).epoch == epoch)
    }

    /// Makes room for one more.
    ///
    /// # Errors
    /// When it is to be tried again: each of them is in use until then.
    pub(super) fn make_room(&mut self, now: Instant) -> Result<(), Instant> {
        if self.kept.len() < self.most {
            return Ok(());
        }
        let first = self.kept.iter().enumerate().min_by_key(|(_, kept)| kept.free_at());
        match first.map(|(at, kept)| (at, kept.free_at())) {
            Some((_, free_at)) if free_at > now => Err(free_at),
            Some((at, _)) => {
                self.kept.swap_remove(at);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Keeps what was read, where there is room for it.
    ///
    /// # Panics
    /// Where there isn't: a defect of the caller.
    pub(super) fn keep(&mut self, machine: &Name, epoch: Epoch, standing: S, now: Instant) {
        assert!(self.kept.len() < self.most, "there is room for what is read");
        let (machine, read, used) = (machine.clone(), now, now);
        self.kept.push(Kept { machine, epoch, standing, read, used });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(2);

    fn machine(number: usize) -> Name {
        format!("db-{number}").parse().unwrap()
    }

    /// Windows of as many machines as there may be, all read at `start`; each says whose it is.
    fn full(start: Instant) -> Windows<usize> {
        let mut windows = Windows::new(3);
        for number in 0..3 {
            windows.make_room(start).unwrap();
            windows.keep(&machine(number), EPOCH, number, start);
        }
        windows
    }

    fn has(windows: &mut Windows<usize>, number: usize, now: Instant) -> bool {
        windows.find(&machine(number), EPOCH, now, |kept| *kept == number).is_some()
    }

    #[test]
    fn a_window_stays_however_rarely_it_is_asked_for_while_nobody_waits() {
        let start = Instant::now();
        let mut windows = full(start);
        for asked in 1..100 {
            assert!(has(&mut windows, 1, start + asked * 2 * TURN));
        }
        let now = start + TURN;
        assert!(windows.find(&machine(1), Epoch(3), now, |_| true).is_none(), "another epoch");
        assert!(windows.find(&machine(1), EPOCH, now, |_| false).is_none(), "another window");
        assert!(windows.remove(&machine(1), EPOCH) && !windows.remove(&machine(1), EPOCH));
        assert!(!windows.remove(&machine(2), Epoch(3)), "it was of another epoch");
    }

    #[test]
    fn where_another_waits_what_is_idle_goes_first() {
        let start = Instant::now();
        let mut windows = full(start);
        let soon = start + IDLE / 2;
        assert!(has(&mut windows, 0, soon) && has(&mut windows, 2, soon));
        assert_eq!(windows.make_room(soon), Err(start + IDLE));
        windows.make_room(start + IDLE).unwrap();
        windows.keep(&machine(7), EPOCH, 7, start + IDLE);
        let there = [0, 1, 2, 7].map(|number| has(&mut windows, number, start + IDLE));
        assert_eq!(there, [true, false, true, true]);
    }

    #[test]
    fn what_is_in_use_has_its_turn_and_no_more() {
        let start = Instant::now();
        let mut windows = full(start);
        let mut now = start;
        while now < start + TURN {
            assert!((0..3).all(|number| has(&mut windows, number, now)));
            assert!(windows.make_room(now).is_err());
            now += IDLE / 2;
        }
        windows.make_room(start + TURN).unwrap();
    }
}
