//! Chains: which of a machine's LSNs are there, over all its logs.
//!
//! Owns putting pieces together, judging completeness from LSNs alone, and the history of a
//! machine: its epochs, sessions, what their logs say, and which LSNs are moments. Doesn't own which packs count (`log`)
//! nor which points follow from it (`points`).

mod assemble;
mod history;
mod last_sent;
mod read;
mod retained;
mod stretch;
mod trace;
mod unnamed;
mod whole;

pub use assemble::Assembler;
pub use history::{Broken, EpochHistory, Loss, MachineHistory};
pub use last_sent::last_sent;
pub use read::HistoryError;
pub(crate) use read::READ_TRIES_MAX;
pub use retained::Retained;
pub use stretch::Stretch;
pub use trace::{Trace, Traces};
pub use unnamed::Unnamed;
pub use whole::Chain;

#[cfg(test)]
mod tests;
