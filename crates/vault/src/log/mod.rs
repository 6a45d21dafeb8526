//! Logs as a reader finds them: which packs count, and what is in them.
//! docs/formats/pack.md, "What counts".
//!
//! Owns: listing a log, telling what a crash left from what is lost, reading headers, indexes and
//! frames, and a cache of indexes. Doesn't own the bytes of packs (`pack`) nor what the records
//! mean for a machine (`chain`, `restore`).
//!
//! Invariants: what comes out of here was authenticated and stands at the place that was asked
//! for. Memory is bounded: the cache by its size, what is on its way by [`INDEXES_AHEAD`] and
//! the [`buffers::Buffers`] that its reader has, what searches read by [`INDEX_ROOM_BYTES`]. Decoding runs on tokio's blocking threads, so that every core helps.

pub mod buffers;
pub(crate) mod cache;
mod counted;
mod dense;
mod error;
pub mod frames;
mod place;
mod reader;
mod survey;

#[cfg(test)]
mod tests;

pub use counted::{Counted, Stated};
pub use error::LogError;
pub use place::PackPlace;
pub use reader::{CACHE_BYTES_DEFAULT, INDEX_ROOM_BYTES, LogReader, PackRead};
pub use survey::{INDEXES_AHEAD, SEARCH_BYTES, STRETCH_PACKS, Survey, stated_by};
