//! An agent that stays: what is written to its disks goes into the journal, and from there into the
//! vault, for as long as it runs.
//!
//! ```text
//! NBD clients ─▶ Tap ─▶ Journal ─▶ feed ─▶ drain (session after session) ─▶ servers
//!                ▲      ▲          ▲
//!        initial copy    passes   keeper (bookmarks, times, climbing back)
//! ```
//!
//! - [`run()`], `life`: the service; `opened`: what it finds at its start.
//! - `agent`: what its parts share; `keeper`, `initial`, `passes`: what they do, on threads of their own;
//!   `compare`: what of a disk the vault lacks.
//! - `feed`, `drain`: the journal's records, as sessions send them, to one server after the other.
//! - [`Notes`]: what the agent must know of itself when it starts again.
//! - [`Hooks`]: freezing applications around a bookmark.
//! - `control`, [`Status`]: what others ask of it, over a socket; `board`: of passes.
//!
//! Nothing here is waited for by who writes to a disk.

mod agent;
mod board;
mod compare;
mod control;
mod drain;
mod error;
mod feed;
mod halt;
mod hooks;
mod initial;
mod keeper;
mod life;
mod notes;
mod opened;
mod origins;
mod passes;
mod rate;
mod settings;
mod status;

#[cfg(test)]
mod tests;

use tidegate_hrl::uring::UringStorage;
use tidegate_model::Lsn;

pub use crate::session::Stands;
pub use control::{Answer, ControlError, Request, ask};
pub use drain::{Link, Server, SharedLink};
pub use error::{LiveError, MarkError, PassFailed};
pub use feed::CAPTURED_BYTES_MAX;
pub use hooks::{HookError, Hooks};
pub use life::{ServedDisk, Serving, run};
pub use notes::{Notebook, NotedDisk, Notes};
pub use settings::{BitmapSource, DiskSource, LiveDisk, LiveSettings, PassSettings, socket_of};
pub use status::{CopyStatus, DiskStatus, LastPass, Marked, Mode, PassStatus, RunningPass, Status};

/// The journal of an agent.
pub type Journal = tidegate_hrl::Journal<UringStorage>;
/// A tap on one of its disks.
type Tap = crate::tap::Tap<UringStorage>;
/// A disk of it that is captured in passes.
type Passing = crate::pass::Passing<UringStorage>;

/// How far the journal is, told to those who read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progressing {
    /// The last durable LSN.
    pub durable: Lsn,
    /// The last that will ever be appended, once that is known.
    pub end: Option<Lsn>,
}
