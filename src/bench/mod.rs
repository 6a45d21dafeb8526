//! `tidegate bench`: a load over the real protocol, what a process server spends on it, and the
//! floor below which no program of these parts can go, all in one run.
//!
//! ```text
//! corpus ──▶ load (threads of its own) ──▶ server (in this process, or a remote one)
//!   └─────▶ floor (crates/floor), between rounds, while the server has nothing to do
//! ```
//!
//! [`live`] measures a live agent instead: what writes cost, and how far behind the vault is.
//!
//! Invariants: what is sent was made before; every round begins and ends with nothing under way, so
//! its processor time is that of its own bytes; a latency counts from when a write was meant to be
//! sent. Nothing here asserts a timing.

pub(crate) mod compare;
pub(crate) mod corpus;
mod floor;
pub(crate) mod html;
pub(crate) mod live;
mod load;
pub(crate) mod measure;
mod outbox;
mod report;
mod stream;
mod usage;

pub(crate) use load::{LoadSettings, Seat};
pub(crate) use report::{About, Report, text};

/// What the names of the load's threads begin with.
const LOAD_THREAD: &str = "load-";

/// What is resident now; the peak of resident memory is counted from here.
pub(crate) fn memory_before() -> u64 {
    usage::forget_peak();
    usage::memory_bytes("VmRSS")
}
