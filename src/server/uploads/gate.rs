//! The gate through which puts go: it lets as many in as [`PutLimit`] says, in the order of coming, and
//! hears what the way behind it takes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate_pipeline::Link;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Stored;
use super::limit::{Ended, PutLimit};

/// A put that takes so many times the usual is a straggler: it is tried anew.
const STRAGGLER_TIMES: u32 = 8;
/// No put is called a straggler before.
const STRAGGLER_AFTER_MIN: Duration = Duration::from_secs(2);

/// The gate.
pub(crate) struct PutGate {
    /// Where the link's time begins.
    begin: Instant,
    permits: Semaphore,
    state: Mutex<State>,
}

struct State {
    limit: PutLimit,
    link: Link,
    /// Permits that there are: free, or with a put.
    permits: usize,
}

/// A put that is under way.
pub(super) struct Entered<'a> {
    gate: &'a PutGate,
    /// When it came to the gate, and whether nobody else was there or behind it.
    came: Duration,
    was_alone: bool,
    permit: SemaphorePermit<'a>,
}

impl PutGate {
    /// For at most `most` puts at once.
    pub(crate) fn new(most: usize) -> Self {
        let limit = PutLimit::new(most);
        let permits = limit.get();
        let state = State { limit, link: Link::default(), permits };
        Self { begin: Instant::now(), permits: Semaphore::new(permits), state: Mutex::new(state) }
    }

    /// How many puts may be under way, and how many are.
    pub(crate) fn fill(&self) -> (usize, usize) {
        let state = self.state();
        (state.limit.get(), self.under_way(&state))
    }

    /// After how long a put of so many bytes is a straggler, on its first try; `None` while nothing
    /// is known.
    pub(super) fn straggler_after(&self, bytes: usize) -> Option<Duration> {
        let usual = self.state().limit.usual(bytes)?;
        Some((usual * STRAGGLER_TIMES).max(STRAGGLER_AFTER_MIN))
    }

    /// Bytes a second that the way to the store takes: [`Link::rate`].
    pub(crate) fn rate(&self) -> Option<f64> {
        self.state().link.rate()
    }

    /// Enters, when it is its turn.
    pub(super) async fn enter(&self) -> Entered<'_> {
        let came = self.begin.elapsed();
        let was_alone = self.state().link.begun(came);
        let permit = self.permits.acquire().await.expect("nobody closes it");
        Entered { gate: self, came, was_alone, permit }
    }

    fn under_way(&self, state: &State) -> usize {
        state.permits.saturating_sub(self.permits.available_permits())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere can't leave this state half changed: nothing in between can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entered<'_> {
    /// The put has ended, or (without `stored`) failed for good; what it says of the way to the
    /// store counts.
    pub(super) fn leave(self, bytes: usize, stored: Option<&Stored>) {
        let Self { gate, came, was_alone, permit } = self;
        let now = gate.begin.elapsed();
        let mut state = gate.state();
        let stored_bytes = if stored.is_some() { bytes } else { 0 };
        state.link.ended(now, stored_bytes, now - came, was_alone);
        let under_way = gate.under_way(&state);
        let failed = stored.is_none_or(|stored| stored.failed);
        let took = stored.map(|stored| stored.took);
        state.limit.ended(Ended { bytes, took, under_way, failed });
        let limit = state.limit.get();
        if limit < state.permits {
            state.permits -= 1;
            permit.forget();
        } else {
            gate.permits.add_permits(limit - state.permits);
            state.permits = limit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: Stored = Stored { took: Duration::from_millis(100), failed: false };

    /// Lets puts through until nobody may enter; gives them.
    async fn fill(gate: &PutGate) -> Vec<Entered<'_>> {
        let mut entered = Vec::new();
        while gate.permits.available_permits() > 0 {
            entered.push(gate.enter().await);
        }
        entered
    }

    #[tokio::test]
    async fn the_gate_widens_while_puts_dont_wait_and_narrows_after_errors() {
        let gate = PutGate::new(16);
        assert_eq!(fill(&gate).await.len(), 4);
        let mut entered = fill(&gate).await;
        for _ in 0..100 {
            entered.pop().unwrap().leave(1, Some(&STORED));
            entered.extend(fill(&gate).await);
        }
        assert_eq!(gate.fill(), (16, 16));
        entered.drain(..2).for_each(|put| put.leave(1, None));
        assert_eq!(gate.fill(), (4, 14));
        // Those who leave take with them what is too many.
        entered.into_iter().for_each(|put| put.leave(1, Some(&STORED)));
        let (limit, under_way) = gate.fill();
        assert!(limit < 16 && under_way == 0, "{limit} {under_way}");
        assert_eq!(fill(&gate).await.len(), limit);
    }
}
