//! Work that blocks, beside a restore: a thread for it, and a future of its end.
//!
//! A future that is dropped before its work has ended says so to it, and waits for its end, as the
//! crew does: nothing is written afterwards.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use super::RestoreError;
use super::crew::stopped;

/// What tells the work that it isn't wanted any more, and when it has ended.
struct Watch {
    unwanted: Arc<AtomicBool>,
    /// Closed by the end of the work.
    ended: Receiver<Infallible>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.unwanted.store(true, Ordering::SeqCst);
        // Nothing is ever sent.
        let _ = self.ended.recv();
    }
}

/// Runs `work`, which is told when nobody waits for it any more.
pub async fn aside<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    let unwanted = Arc::new(AtomicBool::new(false));
    let (working, ended) = channel();
    let watch = Watch { unwanted: unwanted.clone(), ended };
    let work = tokio::task::spawn_blocking(move || {
        // Closed also where the work panics, or is never begun because the runtime ends.
        let _working = working;
        work(&unwanted)
    });
    let done = work.await;
    drop(watch);
    done.map_err(|error| stopped(&error))?
}
