//! The range lock: who changes a place of the disk has it alone from applying to recording, so
//! that overlapping changes have one order on the disk and in the journal. Disjoint ones don't meet.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Ranges that are held or waited for. As many as there are commands under way at most, so they are
/// simply gone through.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Each with its ticket: who has a smaller one comes first.
    taken: Vec<(u64, Range<u64>)>,
    waiting: usize,
}

impl State {
    fn must_wait(&self, ticket: u64, range: &Range<u64>) -> bool {
        let overlaps = |other: &Range<u64>| other.start < range.end && range.start < other.end;
        self.taken.iter().any(|(other, taken)| *other < ticket && overlaps(taken))
    }
}

impl Ranges {
    /// Waits for a range; first come, first served.
    pub(super) fn lock(&self, range: Range<u64>) -> Held<'_> {
        let mut state = self.state();
        let ticket = state.next;
        state.next += 1;
        state.taken.push((ticket, range.clone()));
        while state.must_wait(ticket, &range) {
            state.waiting += 1;
            state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        Held { ranges: self, ticket }
    }

    /// Whether somebody waits for a range.
    #[cfg(test)]
    pub(super) fn has_waiting(&self) -> bool {
        self.state().waiting > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole between calls, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A range that is held; released when dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    ranges: &'a Ranges,
    ticket: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.ranges.state();
        state.taken.retain(|(ticket, _)| *ticket != self.ticket);
        if state.waiting > 0 {
            self.ranges.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn overlapping_ranges_wait_in_the_order_in_which_they_came_and_others_do_not() {
        let ranges = Ranges::default();
        let first = ranges.lock(10..20);
        drop((ranges.lock(0..10), ranges.lock(20..30)));
        let (said, heard) = mpsc::channel();
        thread::scope(|scope| {
            for (number, range) in [(1, 15..40), (2, 5..12), (3, 30..35), (4, 0..50)] {
                let (ranges, said) = (&ranges, said.clone());
                scope.spawn(move || {
                    let held = ranges.lock(range);
                    said.send(number).unwrap();
                    drop(held);
                });
                while ranges.state().waiting < number {
                    thread::yield_now();
                }
            }
            // The third waits for the first, which isn't there yet itself.
            assert!(heard.try_recv().is_err());
            drop(first);
        });
        let order: Vec<usize> = heard.try_iter().collect();
        let place = |number| order.iter().position(|other| *other == number);
        assert_eq!(order.len(), 4);
        assert!(place(1) < place(3) && place(4) == Some(3), "{order:?}");
        assert!(ranges.state().taken.is_empty());
    }
}
