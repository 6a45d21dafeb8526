//! The protocol as its users see it: bytes, decoding, what each end accepts, and both ends
//! against each other.

#![allow(clippy::unwrap_used)] // also in functions that tests share

mod agent_rules;
mod codec;
mod document;
mod golden;
mod payloads;
mod questions;
mod server_rules;
mod strategies;
mod two_ends;
mod world;
