//! SIGINT and SIGTERM: the first asks for a clean stop, the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

/// What a shell reports for a process that SIGINT ended.
const EXIT_AT_ONCE: i32 = 130;

/// Whether somebody asked to stop. Cheap to clone; every clone sees it.
#[derive(Clone)]
pub(crate) struct Stop {
    sender: Arc<watch::Sender<bool>>,
    seen: Arc<AtomicBool>,
}

impl Stop {
    /// A stop that nobody asked for yet.
    pub(crate) fn new() -> Self {
        Self { sender: Arc::new(watch::Sender::new(false)), seen: Arc::default() }
    }

    /// Asks to stop.
    pub(crate) fn stop(&self) {
        self.seen.store(true, Ordering::SeqCst);
        self.sender.send_replace(true);
    }

    /// Whether it was asked for.
    pub(crate) fn is_asked(&self) -> bool {
        self.seen.load(Ordering::SeqCst)
    }

    /// Becomes true when it is asked for.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.sender.subscribe()
    }

    /// Waits until it is asked for.
    pub(crate) async fn asked(&self) {
        // The sender lives in self, so this can't end early.
        let _ = self.watch().wait_for(|stop| *stop).await;
    }
}

/// Listens to SIGINT and SIGTERM for the rest of the process.
pub(crate) fn listen() -> io::Result<Stop> {
    let stop = Stop::new();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let asked = stop.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            if asked.is_asked() {
                signal_hook::low_level::exit(EXIT_AT_ONCE);
            }
            eprintln!("stopping; once more to stop at once");
            asked.stop();
        }
    })?;
    Ok(stop)
}
