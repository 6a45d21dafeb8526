//! Which slots of the marks are free, and when those of recorded changes become so: when the journal
//! says that their records are durable.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_hrl::Journal;
use tidegate_hrl::storage::Storage;
use tidegate_model::Lsn;

use super::marks::{Marks, SLOTS};

#[derive(Debug)]
pub(super) struct Slots(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// The one freed last is given first, so that few pages of the file are touched.
    free: Vec<usize>,
    /// Of changes that are recorded, about in the order of their LSNs.
    recorded: VecDeque<(Lsn, usize)>,
}

impl Slots {
    /// All are free.
    pub(super) fn new() -> Self {
        let free = (0..SLOTS).rev().collect();
        Self(Mutex::new(Inner { free, recorded: VecDeque::new() }))
    }

    /// A free slot. Where there is none it waits for the journal's disk; `None` when the journal has
    /// failed.
    pub(super) fn take<S: Storage>(&self, marks: &Marks, journal: &Journal<S>) -> Option<usize> {
        loop {
            let mut inner = self.lock();
            inner.settle(marks, journal.durable());
            if let Some(slot) = inner.free.pop() {
                return Some(slot);
            }
            let (oldest, _) = *inner.recorded.front()?;
            drop(inner);
            journal.wait_durable(oldest).ok()?;
        }
    }

    /// The change is recorded up to `last`: its slot is free once that is durable.
    pub(super) fn recorded(&self, last: Lsn, slot: usize) {
        self.lock().recorded.push_back((last, slot));
    }

    /// Nothing of the change is missing any more, or it is noted elsewhere.
    pub(super) fn free(&self, marks: &Marks, slot: usize) {
        marks.clear(slot);
        self.lock().free.push(slot);
    }

    /// Frees what is durable.
    pub(super) fn settle(&self, marks: &Marks, durable: Lsn) {
        self.lock().settle(marks, durable);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // It is whole between calls, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn settle(&mut self, marks: &Marks, durable: Lsn) {
        while let Some((last, slot)) = self.recorded.front().copied()
            && last <= durable
        {
            self.recorded.pop_front();
            marks.clear(slot);
            self.free.push(slot);
        }
    }
}
