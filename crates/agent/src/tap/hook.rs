//! Where tests kill the process: exactly between applying a change and recording it. In release
//! builds there is nothing here.

/// So many changes are applied, and with the last of them the process is killed.
#[cfg(debug_assertions)]
const KILL: &str = "TIDEGATE_TEST_KILL_UNRECORDED";

/// A change was applied, and isn't recorded yet.
#[cfg(debug_assertions)]
pub(super) fn applied() {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static LEFT: LazyLock<AtomicU64> = LazyLock::new(|| {
        let count = std::env::var(KILL).ok().and_then(|count| count.parse().ok());
        AtomicU64::new(count.unwrap_or(u64::MAX))
    });
    if LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

/// A change was applied, and isn't recorded yet.
#[cfg(not(debug_assertions))]
pub(super) const fn applied() {}
