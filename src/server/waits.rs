//! What waits for the store, and since when: so that a server whose store hangs says so, long before
//! its patience ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A store that hasn't answered for so long is told of: a thousand times what a near one takes.
pub(super) const LONG: Duration = Duration::from_secs(10);

/// Puts and grants under way.
#[derive(Default)]
pub(crate) struct Waits(Mutex<State>);

#[derive(Default)]
struct State {
    /// Since when each waits, in the order of beginning.
    since: BTreeMap<u64, Instant>,
    next: u64,
}

/// Something that waits for the store; no longer when it is dropped.
pub(super) struct Wait<'a> {
    waits: &'a Waits,
    number: u64,
}

impl Waits {
    /// Something begins to wait.
    pub(super) fn begin(&self, now: Instant) -> Wait<'_> {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.since.insert(number, now);
        Wait { waits: self, number }
    }

    /// How long the one that began first has waited; none is zero.
    pub(super) fn longest(&self, now: Instant) -> Duration {
        let first = self.state().since.first_key_value().map(|(_, since)| *since);
        first.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere can't leave this state half changed: nothing in between can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.waits.state().since.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_has_waited_longest_counts_until_it_ends() {
        let waits = Waits::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(waits.longest(at(9)), Duration::ZERO);
        let first = waits.begin(at(0));
        let second = waits.begin(at(5));
        assert_eq!(waits.longest(at(9)), Duration::from_secs(9));
        drop(first);
        assert_eq!(waits.longest(at(9)), Duration::from_secs(4));
        drop(second);
        assert_eq!(waits.longest(at(9)), Duration::ZERO);
    }
}
