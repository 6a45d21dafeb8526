//! How a machine is folded, and what that did.

use super::dense::CopiedMost;
use super::keep::Keeping;
use super::limits::FoldLimits;
use crate::chain::Loss;

/// Most records that are copied for a base: some 90 bytes each.
const COPIED_RECORDS_MAX: usize = 1 << 24;

/// How a machine is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folding {
    /// From the logs alone, whatever was folded before.
    pub anew: bool,
    /// A base is made of that many extents at least.
    pub base_extents_min: u64,
    /// At most so many bytes are copied into dense packs, for each base that is made.
    pub copied_bytes_max: u64,
    /// By what the past is kept; `None` keeps all.
    pub keeping: Option<Keeping>,
    /// What may be held at once; `None` for what the history asks for.
    pub limits: Option<FoldLimits>,
}

impl Folding {
    /// Whether so many extents are more than may be held.
    pub(super) fn is_beyond(&self, extents: usize) -> bool {
        self.limits.is_some_and(|limits| extents > limits.extents)
    }

    /// How much is copied at most for a base, or beside one.
    pub(super) fn copied_most(&self) -> CopiedMost {
        let records = self.limits.map_or(COPIED_RECORDS_MAX, |limits| limits.extents / 8);
        CopiedMost { bytes: self.copied_bytes_max, records }
    }

    /// From what was folded before, and everything is kept.
    pub(crate) const DEFAULT: Self = {
        // 30 KB of layers, compressed: less isn't worth another object, and more would tell on the
        // recovery of small disks. And what is copied in some five minutes, at 200 MB/s.
        Self {
            anew: false,
            base_extents_min: 1 << 10,
            copied_bytes_max: 64 << 30,
            keeping: None,
            limits: None,
        }
    };
}

impl Default for Folding {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What folding a machine did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoldReport {
    /// The manifest that was created; 0 when there was nothing to fold.
    pub manifest: u64,
    /// Packs that nobody has to read any more for this machine's history.
    pub packs: u64,
    /// Records that were folded.
    pub records: u64,
    /// Layers that were created.
    pub layers: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Dense packs that were created.
    pub dense_packs: u64,
    /// Bytes of them.
    pub dense_bytes: u64,
    /// Versions of ranges that were let go.
    pub let_go: u64,
    /// Bookmarks that were.
    pub bookmarks_let_go: u64,
    /// Epochs of which nothing is kept any more.
    pub epochs_gone: u64,
    /// Whether there is more to fold than was taken within the limits.
    pub more: bool,
    /// Epochs of which no base was made or nothing let go, for that would have taken more memory than
    /// the limits allow.
    pub too_long: u64,
    /// What stands in the way, or is wrong with what was folded before.
    pub losses: Vec<Loss>,
}

/// How far folding has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Packs that were read.
    pub packs: u64,
}
