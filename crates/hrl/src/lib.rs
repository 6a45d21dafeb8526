//! The change journal: what was written to a machine's disks, until the vault has it.
//!
//! - [`mod@format`]: the bytes of .hrl files, as [MS-HRL] has them; pure.
//! - [`order`]: the bytes of the order record beside them; pure.
//! - [`scan`]: reading any .hrl file, whole or not.
//! - [`journal`]: what is appended, durable, committed, recovered; pure but for its thin shells.
//! - [`storage`]: what it needs of a file system; [`uring`]: a real one.
//! - [`Journal`]: the shell, with a thread that writes.
//!
//! The documents are docs/formats/hrl.md and docs/formats/order.md.

pub mod format;
pub mod journal;
pub mod limits;
pub mod order;
pub mod scan;
mod shell;
pub mod storage;
pub mod uring;

pub use shell::{Journal, JournalReader, OnDurable};
