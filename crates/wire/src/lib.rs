//! The replication protocol: frames, codec, and the state machines of both ends, without I/O.
//!
//! docs/formats/wire.md describes every byte and rule. Owns what may be said when, and the checks
//! of everything that the other end says. Doesn't own sockets, pipes, clocks, or the payload of
//! writes: a decoder hands that on as it comes in, an encoder leaves it where it lies.
//!
//! Invariants: nothing that the other end sends can panic here, or make us reserve more than the
//! limits in [`limits`]; what is accepted is in order, within its disk and within its credit.

pub mod agent;
mod decoder;
mod header;
pub mod http;
pub mod limits;
mod message;
mod refusal;
pub mod server;

pub use decoder::{DecodeError, Decoder, Item, Side};
pub use header::{HEADER_BYTES, Header, Kind};
pub use message::{
    Ack, Begins, BlockHash, Hashes, Have, Hello, Message, Record, RecordKind, Slow, SlowReason,
    Totals, Welcome,
};
pub use refusal::{Refusal, RefusalCode};
