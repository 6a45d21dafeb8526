//! Bytes that the commands of one connection may hold at once.
//!
//! Who waits for them is the member of the crew that takes commands in; who gives them back carries
//! commands out and waits for nobody but the disk and the client. So a client that doesn't take its
//! replies stops itself alone.

use std::sync::{Condvar, Mutex, PoisonError};

#[derive(Debug)]
pub(super) struct Budget {
    free: Mutex<u32>,
    freed: Condvar,
}

impl Budget {
    pub(super) const fn new(bytes: u32) -> Self {
        Self { free: Mutex::new(bytes), freed: Condvar::new() }
    }

    /// Waits for `bytes`, which are no more than there are in all. One caller at a time.
    pub(super) fn take(&self, bytes: u32) -> Credit<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < bytes {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        Credit { budget: self, bytes }
    }
}

/// Bytes that a command may hold; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Credit<'a> {
    budget: &'a Budget,
    bytes: u32,
}

impl Drop for Credit<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            *self.budget.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
            self.budget.freed.notify_one();
        }
    }
}
