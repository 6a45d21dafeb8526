//! An agent that stays: what is written to its disks goes into the journal, and from there into the
//! vault, for as long as it runs.
//!
//! - `feed`: the journal's records, as a session sends them.
//! - `drain`: connection after connection, to one server after the other.
//! - [`Notes`]: what the agent must know of itself when it starts again.
//!
//! Nothing here is waited for by who writes to a disk.

mod drain;
mod error;
mod feed;
mod notes;

#[cfg(test)]
mod tests;

use tidegate_hrl::uring::UringStorage;
use tidegate_model::Lsn;

pub use drain::{Link, Server, SharedLink};
pub use error::LiveError;
pub use feed::CAPTURED_BYTES_MAX;
pub use notes::{Notebook, NotedDisk, Notes};

/// The journal of an agent.
pub type Journal = tidegate_hrl::Journal<UringStorage>;

/// How far the journal is, told to those who read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progressing {
    /// The last durable LSN.
    pub durable: Lsn,
    /// The last that will ever be appended, once that is known.
    pub end: Option<Lsn>,
}
