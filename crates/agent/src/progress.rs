//! How far a copy is: counters that the reader and the driver raise and a person's screen reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// The counters of one copy; each only rises. They are not read together: one may be ahead
        /// of another by what happened in between.
        #[derive(Debug, Default)]
        pub struct Progress { $($(#[$doc])* pub(crate) $name: AtomicU64),+ }

        /// What the counters showed.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct ProgressSnapshot { $($(#[$doc])* pub $name: u64),+ }

        impl Progress {
            /// What the counters show now.
            #[must_use]
            pub fn snapshot(&self) -> ProgressSnapshot {
                ProgressSnapshot { $($name: self.$name.load(Relaxed)),+ }
            }
        }
    };
}

counters! {
    /// All disks' sizes.
    bytes_total,
    /// Of these, how far the reader is, holes included.
    bytes_passed,
    /// Bytes read from disks: what was passed without the holes.
    bytes_read,
    /// Bytes found to be zero, read or in holes.
    bytes_zero,
    /// Bytes written to the connection, headers and what was sent again included, TLS not.
    bytes_sent,
    /// Payload bytes sent again after reconnects.
    bytes_resent,
    /// Bytes of the disks, zeros included, that the vault has for good. At the end of the copy
    /// they are [`ProgressSnapshot::bytes_total`].
    bytes_committed,
    /// The last LSN that the vault has for good.
    lsn_committed,
    /// Connections made after the first.
    reconnects,
}

/// Raises a counter.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Relaxed);
}

/// Sets a counter to what is known to be its newest value.
pub(crate) fn raise(counter: &AtomicU64, value: u64) {
    counter.fetch_max(value, Relaxed);
}
