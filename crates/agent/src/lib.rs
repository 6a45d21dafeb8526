//! The agent: sends a machine's disks, as one stream of records, to a process server; once, or as they
//! are written.
//!
//! ```text
//! copy:  source ──▶ reader ─────────────▶ copy::feed ─┐
//!        (disks)   (io_uring, a thread)               ├─▶ window ──▶ session ──▶ connect
//! live:  NBD client ──▶ tap ──▶ journal ─▶ live::feed ┘   (until it   (frames,   (TLS, or a
//!        source ──▶ pass ───▶                           is committed) credit)     pipe)
//! ```
//!
//! - [`tap`]: serving a disk over NBD, so that every change is in the journal.
//! - [`pass`]: capturing now and then what changed on a disk that others write to.
//! - [`source`]: opening a disk, what it is, who uses it, whether it changed.
//! - [`reader`]: its bytes through io_uring, cut into records; the pool that bounds memory. The
//!   only unsafe code of the crate is in `reader/pool.rs`, `reader/ring.rs`, `reader/residency.rs`,
//!   and in `tap/marks/mapped.rs`.
//! - [`window`]: records that aren't committed, for reconnects; pure.
//! - [`copy()`]: the driver of `agent copy` and of the agent's half of `replicate`.
//! - [`live`]: an agent that stays: taps, journal, drain, bookmarks.
//! - `session`: one connection of either; where its records come from is a `Feed`.
//! - [`connect`]: where connections come from.
//!
//! The crate knows no vault: how identities are issued and judged is the program's. Time and chance
//! come in through [`CopyRequest`] and [`live::LiveSettings`]. It needs a tokio runtime; its threads are in
//! docs/ARCHITECTURE.md.

mod capture;
pub mod connect;
mod copy;
mod error;
pub mod live;
pub mod pass;
mod pieces;
mod progress;
pub mod reader;
mod retry;
mod session;
pub mod source;
pub mod tap;
pub mod window;

pub use capture::{Capture, Order};
pub use copy::{Clock, CopyReport, CopyRequest, copy};
pub use error::{Awaited, CopyError};
pub use progress::{Progress, ProgressSnapshot};
pub use retry::RetryPolicy;
pub use session::SessionError;
