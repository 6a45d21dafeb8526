//! NBD as its users see it: golden bytes, the rules of handshake and transmission, and what must
//! hold of any bytes.

#![allow(clippy::unwrap_used)] // also in functions that tests share

mod client_rules;
mod codec;
mod golden;
mod handshake_rules;
mod pieces;
mod reply_rules;
mod transmission_rules;
mod world;
