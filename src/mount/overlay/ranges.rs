//! Ranges of blocks that are being changed: who wants to change one of them waits.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The ranges of one disk that are taken.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    taken: Mutex<Vec<Range<u64>>>,
    freed: Condvar,
}

/// A range that nobody else changes, until this is dropped.
#[must_use]
pub(super) struct Taken<'r> {
    ranges: &'r Ranges,
    range: Range<u64>,
}

impl Ranges {
    /// Takes a range; waits until no other touches it. Who has one takes no second.
    pub(super) fn take(&self, range: Range<u64>) -> Taken<'_> {
        let mut taken = self.taken();
        while taken.iter().any(|other| other.start < range.end && range.start < other.end) {
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        taken.push(range.clone());
        Taken { ranges: self, range }
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Range<u64>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut taken = self.ranges.taken();
        if let Some(at) = taken.iter().position(|range| *range == self.range) {
            taken.swap_remove(at);
        }
        self.ranges.freed.notify_all();
    }
}
