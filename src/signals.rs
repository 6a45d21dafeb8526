//! SIGINT and SIGTERM: the first asks for a clean stop, the second ends the process at once, after
//! the few things that mustn't be left undone even then ([`before_the_end`]). SIGXFSZ ends nothing.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

/// What is said of the first signal.
pub(crate) const HEARD: &str = "stopping; once more to stop at once";
/// What a shell adds to the number of the signal that ended a process.
const STATUS_OF_SIGNALS: i32 = 128;

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

/// Listens to SIGINT and SIGTERM for the rest of the process, which SIGXFSZ ends no more.
pub(crate) fn listen() -> io::Result<Stop> {
    refuse_long_files();
    let stop = Stop::new();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let asked = stop.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        // Counted here: a run that failed asks for a stop too, and is no signal.
        let mut first = true;
        for signal in signals.forever() {
            if !std::mem::take(&mut first) {
                end(signal);
            }
            // Whoever closed our errors wants to stop all the same.
            let _ = writeln!(io::stderr(), "{HEARD}");
            asked.stop();
        }
    })?;
    Ok(stop)
}

/// Lets a write beyond the limit of a file's length (ulimit -f) fail like any other, rather than end
/// the process without a word.
fn refuse_long_files() {
    // SAFETY: SIGXFSZ is a signal, and to ignore it installs no handler that could run.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Ends the process as a shell expects of one that the signal ended.
fn end(signal: i32) -> ! {
    // Kept locked: nobody takes a duty back while it is done.
    let mut duties = duties();
    for (_, duty) in duties.drain(..) {
        duty();
    }
    signal_hook::low_level::exit(STATUS_OF_SIGNALS + signal)
}

type Duty = Box<dyn FnOnce() + Send>;

/// Of the process, as signals are: who ends it doesn't know who runs in it.
static DUTIES: Mutex<Vec<(u64, Duty)>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

fn duties() -> MutexGuard<'static, Vec<(u64, Duty)>> {
    DUTIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that is done before a signal ends the process at once, unless this is dropped before.
/// It runs beside everything else of the process, and should take no time.
#[must_use]
pub(crate) struct LastDuty(u64);

/// Names something to do before a signal ends the process at once.
pub(crate) fn before_the_end(duty: impl FnOnce() + Send + 'static) -> LastDuty {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    duties().push((number, Box::new(duty)));
    LastDuty(number)
}

impl Drop for LastDuty {
    fn drop(&mut self) {
        duties().retain(|(number, _)| *number != self.0);
    }
}
