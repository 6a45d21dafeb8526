//! A wish to stop, as threads wait for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whether somebody asked to stop.
#[derive(Debug, Default)]
pub(super) struct Halt {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Halt {
    /// Asks to stop.
    pub fn ask(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    /// Whether it was asked for.
    pub fn is_asked(&self) -> bool {
        *self.lock()
    }

    /// Waits so long, or until it is asked for; whether it was.
    pub fn within(&self, limit: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
