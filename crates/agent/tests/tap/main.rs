//! The tap, over the real server: what the journal gives back is what the disk is, whatever the
//! clients do and whenever the process is killed.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // also in functions that tests share

mod chance;
mod client;
mod kill;
mod model;
mod overflow;
mod peers;
mod resume;
mod world;
