//! Stretches of an epoch in which no LSN is a moment of the disks. Pure.
//!
//! Behind the end of its copy every LSN of an epoch is one, for changes are recorded in their order; who
//! can't keep that says so by a bookmark of a kind that begins a gap, before anything else is recorded,
//! and the next bookmark of another kind ends it. `agent copy` records nothing behind the copy's end.

use std::fmt;

use tidegate_model::{BookmarkKind, Lsn, Micros};

use super::Trace;

/// LSNs that are no moments of the disks, between two that are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first of them. The one before is a moment.
    pub first: Lsn,
    /// From when on something was missing.
    pub since: Micros,
    /// Why.
    pub cause: BookmarkKind,
    /// The bookmark that ends it, which is a moment again, and its time; none as long as there is none.
    pub end: Option<(Lsn, Micros)>,
}

impl Stretch {
    /// Whether this LSN is one of them.
    #[must_use]
    pub fn has(&self, lsn: Lsn) -> bool {
        self.first <= lsn && self.end.is_none_or(|(end, _)| lsn < end)
    }

    /// Whether it went on at this time.
    #[must_use]
    pub fn has_time(&self, time: Micros) -> bool {
        self.since <= time && self.end.is_none_or(|(_, until)| time < until)
    }

    /// Why it is, in words.
    #[must_use]
    pub const fn why(&self) -> &'static str {
        match self.cause {
            BookmarkKind::GapKilled => "the agent was killed with changes in flight",
            BookmarkKind::GapDiskError => "the disk failed in the midst of a change",
            BookmarkKind::GapPass => "they are captured in passes, of which the ends are",
            _ => "the journal was full",
        }
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, .. } = self;
        match self.end {
            Some((end, _)) => write!(f, "LSNs {first} to {} are", end.0.saturating_sub(1))?,
            None => write!(f, "LSNs from {first} on are")?,
        }
        write!(f, " no moments of its disks: {}", self.why())
    }
}

impl Trace {
    /// The stretches of this epoch, in order, as far as the chain is whole.
    pub fn stretches(&self) -> impl Iterator<Item = Stretch> + '_ {
        let mut marks = self.bookmarks.range(..=self.chain.end());
        std::iter::from_fn(move || {
            let (first, (since, mark)) = marks.find(|(_, (_, mark))| mark.kind.begins_gap())?;
            let end = marks.find(|(_, (_, mark))| !mark.kind.begins_gap());
            let end = end.map(|(lsn, (time, _))| (*lsn, *time));
            Some(Stretch { first: *first, since: *since, cause: mark.kind, end })
        })
    }
}
