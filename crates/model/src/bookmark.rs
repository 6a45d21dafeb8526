//! Bookmarks: named places in a machine's stream. Some kinds say where a gap begins.
//!
//! In a stream whose every change is recorded in order, each LSN behind the end of the copy is a moment
//! of the disks, but for those in a *gap*: from a record of such a kind on, it included, to the next
//! bookmark of another kind, it excluded. So who captures otherwise says so by such a record, before the
//! first change that it appends.

use serde::{Deserialize, Serialize};

/// What a bookmark promises, or why there is a gap behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum BookmarkKind {
    /// The disks as a power cut would leave them.
    CrashConsistent = 1,
    /// Applications had written out what they held.
    ApplicationConsistent = 2,
    /// The same moment on several machines.
    Group = 3,
    /// The initial copy (or a resync) has ended: from here on the disks are whole.
    CopyEnd = 4,
    /// A gap begins: the journal was full, so only where was written to is known.
    GapJournalFull = 5,
    /// A gap begins: the agent was killed, and what was in flight is read again.
    GapKilled = 6,
    /// A gap begins: a change failed halfway, and what the disk then held couldn't be read.
    GapDiskError = 7,
    /// A gap begins: disks are captured in passes, and a moment of them only at the end of one.
    GapPass = 8,
}

impl BookmarkKind {
    /// The kind with this code; `None` when there is no such kind.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::CrashConsistent,
            2 => Self::ApplicationConsistent,
            3 => Self::Group,
            4 => Self::CopyEnd,
            5 => Self::GapJournalFull,
            6 => Self::GapKilled,
            7 => Self::GapDiskError,
            8 => Self::GapPass,
            _ => return None,
        })
    }

    /// Whether a gap begins there. Every other kind ends one: it stands only where all disks are whole.
    #[must_use]
    pub const fn begins_gap(self) -> bool {
        matches!(self, Self::GapJournalFull | Self::GapKilled | Self::GapDiskError | Self::GapPass)
    }

    /// Its code in every format.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// A named place in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bookmark {
    /// What it promises.
    pub kind: BookmarkKind,
    /// False when the source changed while it was read, so that the disks at this place are a
    /// mixture of moments ("fuzzy"), and where a gap begins.
    pub clean: bool,
    /// A person's name for it, at most [`crate::limits::TEXT_BYTES_MAX`] bytes; may be empty.
    pub name: String,
}
