//! The data path of a process server: from records of a machine's stream to packs ready to put.
//!
//! ```text
//!  session           any idle core                        the session's shard
//!  records ─▶ Unit ─▶ verify, split, zero, hash, look up,  ─▶ in order ─▶ pack ─▶ (put) ─▶ commit
//!             │       compress, seal                          │                    │
//!             └ Admission: buffer, output, place in a pack    └ PackBuffer         └ acknowledge
//! ```
//!
//! Owns the stages, their order and their memory. Doesn't own sockets, files, the object store,
//! clocks or executors: the program hosts it (src/server) and tells it the time.
//!
//! Invariants: a frame number is given once, in the order of dispatch, and its frame is packed in
//! that order; nothing is acknowledged before its pack and all before it in the log are stored;
//! nothing waits for memory that only it can free.

mod buffers;
mod compressor;
mod governor;
mod known;
mod ledger;
mod logs;
mod memory;
mod order;
mod packer;
mod probe;
mod process;
mod queue;
mod sequence;
mod shard;
mod split;
mod stats;
mod unit;

pub use buffers::{Buffer, BufferPool, BufferWait, PackBuffer};
pub use compressor::CompressorError;
pub use governor::{Effort, Governor, Link, Scarcity, Work};
pub use known::{Known, KnownBlocks};
pub use ledger::Committed;
pub use logs::{LogSlot, Logs, PACKS_REMEMBERED_MAX};
pub use memory::{
    GRANT_BYTES, GRANTS_MAX, MAINTENANCE_BYTES_MIN, MemoryError, MemoryPlan, MemoryTerm,
    RESYNCS_MAX,
};
pub use packer::{FullPack, FullPackBytes};
pub use process::{Worker, WorkerSetup};
pub use queue::{Mailbox, MailboxFull};
pub use sequence::Sequence;
pub use shard::{Admission, Homecoming, Shard, ShardSetup};
pub use stats::{Stage, StageTimes, StreamTotals};
pub use unit::{
    Blanks, Entry, EntryKind, Fault, Stream, Unit, UnitBuilder, frame_bytes_for, frame_bytes_max,
};
