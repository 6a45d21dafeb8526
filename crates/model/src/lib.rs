//! The nouns of Tidegate: ids, names, sequence numbers, extents, bookmarks, checksums, and the
//! limits that formats share.
//!
//! Owns what two or more crates must agree on and nothing that waits: no I/O, no async, no clock.
//! The words are those of docs/ARCHITECTURE.md, "Words"; one noun means one thing everywhere.

mod bookmark;
mod checksum;
mod codec;
mod disk;
mod ids;
pub mod limits;
mod log;
mod name;
mod remedy;
mod sequence;
mod units;
mod zero;

pub use bookmark::{Bookmark, BookmarkKind};
pub use checksum::{Checksum, ChecksumState};
pub use codec::{Reader, Short, Writer};
pub use disk::{Disk, DiskNumber, DiskNumberError, Extent};
pub use ids::{BlockName, IdError, Incarnation, LayerId, PackId, PinId, RunId, Token, VaultId};
pub use log::{FrameNumber, LogId, LogName, PackNumber};
pub use name::{Name, NameError};
pub use remedy::Remedy;
pub use sequence::{Epoch, Lsn, Micros, Piece, Point, PointError};
pub use units::{Counted, ExactBytes, HumanBytes, parse_bytes};
pub use zero::is_zero;
