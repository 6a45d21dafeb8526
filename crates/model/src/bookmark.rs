//! Bookmarks: named places in a machine's stream.

use serde::{Deserialize, Serialize};

/// What a bookmark promises.
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
            _ => return None,
        })
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
    /// mixture of moments ("fuzzy").
    pub clean: bool,
    /// A person's name for it, at most [`crate::limits::TEXT_BYTES_MAX`] bytes; may be empty.
    pub name: String,
}
