//! Block status: what parts of an export hold.

use crate::StatusFlags;

/// The context of which we tell: what takes up room, and what is zero.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// The number by which answers name that context.
pub(crate) const BASE_ALLOCATION_ID: u32 = 1;

/// A part of an export of which the same holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its bytes.
    pub length: u64,
    /// What holds.
    pub flags: StatusFlags,
}

/// The spans that are told: neighbours of the same kind as one, empty ones none, cut to `length`
/// bytes. It asks `spans` for no more than that takes.
pub(crate) struct Merged<I: Iterator<Item = Span>> {
    spans: std::iter::Peekable<I>,
    left: u64,
}

impl<I: Iterator<Item = Span>> Merged<I> {
    pub(crate) fn new(spans: impl IntoIterator<IntoIter = I>, length: u32) -> Self {
        Self { spans: spans.into_iter().peekable(), left: u64::from(length) }
    }
}

impl<I: Iterator<Item = Span>> Iterator for Merged<I> {
    type Item = (u32, StatusFlags);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let mut span = self.spans.find(|span| span.length > 0)?;
        while span.length < self.left {
            let follows = |next: &Span| next.length == 0 || next.flags == span.flags;
            let Some(next) = self.spans.next_if(follows) else { break };
            span.length = span.length.saturating_add(next.length);
        }
        let length = span.length.min(self.left);
        self.left -= length;
        Some((u32::try_from(length).expect("a request's length has 32 bits"), span.flags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: StatusFlags = StatusFlags::NONE;
    const HOLE: StatusFlags = StatusFlags::HOLE;

    fn merged(spans: &[(u64, StatusFlags)], length: u32) -> Vec<(u32, StatusFlags)> {
        let spans = spans.iter().map(|&(length, flags)| Span { length, flags });
        Merged::new(spans, length).collect()
    }

    #[test]
    fn neighbours_of_a_kind_are_one_and_the_last_is_cut() {
        let spans = [(0, HOLE), (1, DATA), (2, DATA), (0, HOLE), (3, DATA), (4, HOLE), (9, DATA)];
        assert_eq!(merged(&spans, 12), [(6, DATA), (4, HOLE), (2, DATA)]);
        assert_eq!(merged(&spans, 6), [(6, DATA)]);
        assert_eq!(merged(&spans, 100), [(6, DATA), (4, HOLE), (9, DATA)]);
        assert_eq!(merged(&[(u64::MAX, HOLE), (1, DATA)], u32::MAX), [(u32::MAX, HOLE)]);
        assert_eq!(merged(&[], 5), []);
    }

    #[test]
    fn no_more_is_asked_for_than_is_told() {
        let endless = std::iter::repeat(Span { length: 1, flags: HOLE });
        assert_eq!(Merged::new(endless, 1000).collect::<Vec<_>>(), [(1000, HOLE)]);
    }
}
