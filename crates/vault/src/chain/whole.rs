//! Which LSNs of an epoch are there, whatever the order in which they were found.

use std::collections::BTreeMap;

use tidegate_model::Lsn;

/// A set of LSNs, kept as runs: a machine's log gives few of them, one for each session at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// First to last LSN of each run; runs neither touch nor overlap.
    runs: BTreeMap<u64, u64>,
}

impl Chain {
    /// Adds an LSN whose record is complete; adding it again changes nothing.
    pub fn add(&mut self, lsn: Lsn) {
        let at = lsn.0;
        let mut begin = at;
        if let Some((first, last)) = self.runs.range_mut(..=at).next_back() {
            if *last >= at {
                return;
            }
            if *last + 1 == at {
                *last = at;
                begin = *first;
            }
        }
        let after = at.checked_add(1).and_then(|next| self.runs.remove(&next));
        if begin == at || after.is_some() {
            self.runs.insert(begin, after.unwrap_or(at));
        }
    }

    /// The end of the chain: every LSN from 1 to this one is there. [`Lsn::NONE`] when 1 isn't.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.runs.get(&1).map_or(Lsn::NONE, |last| Lsn(*last))
    }

    /// The highest LSN that is there, whole chain or not.
    #[must_use]
    pub fn highest(&self) -> Lsn {
        self.runs.last_key_value().map_or(Lsn::NONE, |(_, last)| Lsn(*last))
    }

    /// Whether this LSN is there.
    #[must_use]
    pub fn has(&self, lsn: Lsn) -> bool {
        self.runs.range(..=lsn.0).next_back().is_some_and(|(_, last)| *last >= lsn.0)
    }

    /// The ranges of LSNs (first, last) that are there, in order.
    pub fn runs(&self) -> impl Iterator<Item = (Lsn, Lsn)> {
        self.runs.iter().map(|(first, last)| (Lsn(*first), Lsn(*last)))
    }

    /// The chain of these runs, which rise and neither touch nor overlap; `None` when they do.
    #[must_use]
    pub fn of_runs(runs: impl IntoIterator<Item = (Lsn, Lsn)>) -> Option<Self> {
        let mut chain = Self::default();
        let mut next = 1;
        for (first, last) in runs {
            if first.0 < next || first > last {
                return None;
            }
            chain.runs.insert(first.0, last.0);
            next = last.0.saturating_add(2);
        }
        Some(chain)
    }

    /// The ranges of LSNs (first, last) that are missing below [`Chain::highest`].
    pub fn holes(&self) -> impl Iterator<Item = (Lsn, Lsn)> {
        let mut next = 1;
        self.runs.iter().filter_map(move |(first, last)| {
            let hole = (*first > next).then_some((Lsn(next), Lsn(first - 1)));
            next = last.saturating_add(1);
            hole
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chain_ends_before_its_first_hole() {
        let mut chain = Chain::default();
        assert_eq!(chain.end(), Lsn::NONE);
        for lsn in [2, 3, 7] {
            chain.add(Lsn(lsn));
        }
        assert_eq!(chain.end(), Lsn::NONE);
        chain.add(Lsn(1));
        assert_eq!((chain.end(), chain.highest()), (Lsn(3), Lsn(7)));
        assert_eq!(chain.holes().collect::<Vec<_>>(), [(Lsn(4), Lsn(6))]);
    }

    #[test]
    fn runs_that_touch_overlap_or_dont_rise_are_no_chain() {
        let of = |runs: &[(u64, u64)]| {
            Chain::of_runs(runs.iter().map(|(first, last)| (Lsn(*first), Lsn(*last)))).is_some()
        };
        assert!(of(&[]) && of(&[(1, 1)]) && of(&[(1, 4), (6, u64::MAX)]));
        assert!(
            !of(&[(0, 1)]) && !of(&[(2, 1)]) && !of(&[(1, 4), (5, 6)]) && !of(&[(4, 5), (1, 2)])
        );
        assert!(!of(&[(1, u64::MAX), (3, 4)]));
    }

    proptest! {
        #[test]
        fn runs_say_what_a_plain_set_says(lsns in proptest::collection::vec(1_u64..40, 0..60)) {
            let mut chain = Chain::default();
            let mut set = std::collections::BTreeSet::new();
            for lsn in lsns {
                chain.add(Lsn(lsn));
                set.insert(lsn);
                let end = (1..).find(|lsn| !set.contains(lsn)).unwrap() - 1;
                prop_assert_eq!(chain.end(), Lsn(end));
                prop_assert!((0..45).all(|lsn| chain.has(Lsn(lsn)) == set.contains(&lsn)));
                prop_assert_eq!(chain.highest().0, set.last().copied().unwrap_or(0));
                let missing: Vec<u64> =
                    chain.holes().flat_map(|(first, last)| first.0..=last.0).collect();
                let expected: Vec<u64> =
                    (1..chain.highest().0).filter(|lsn| !set.contains(lsn)).collect();
                prop_assert_eq!(missing, expected);
                prop_assert_eq!(Chain::of_runs(chain.runs()), Some(chain.clone()));
            }
        }
    }
}
