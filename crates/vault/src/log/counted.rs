//! Which packs of a log count. docs/formats/pack.md, "What counts". Pure.
//!
//! A pack counts when it and all before it are stored. Packs are uploaded side by side, so a crash
//! may leave some beyond a gap; these were never acknowledged and count for nothing. But a gap can
//! also be a loss: what later packs state tells the two apart. Then the packs behind the gap were
//! acknowledged, and they still count: what one lost pack held is lost, no more.
//!
//! What was removed as garbage was stored once: it is neither a gap nor a loss, and doesn't count.

use std::collections::BTreeSet;

use tidegate_model::PackNumber;

use crate::gc::Ranges;

/// How many packs at the log's beginning are known to have been stored, by what was said of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stated(u64);

impl Stated {
    /// What the pack with this number says: `committed` packs were stored when it closed; when it
    /// is the log's last, all before it were.
    #[must_use]
    pub fn by_pack(number: PackNumber, committed: u64, last: bool) -> Self {
        Self(if last { number.0 } else { committed.min(number.0) })
    }

    /// What a reference from another log says: its target was committed.
    #[must_use]
    pub const fn by_reference(target: PackNumber) -> Self {
        Self(target.next().0)
    }

    /// What is known of how many packs its writer has seen stored.
    #[must_use]
    pub const fn by_writer(next: PackNumber) -> Self {
        Self(next.0)
    }

    /// How many packs that is.
    #[must_use]
    pub const fn packs(self) -> u64 {
        self.0
    }
}

/// The packs of a log, judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// The stored packs that count, in order.
    pub packs: Vec<PackNumber>,
    /// Ranges (first, last) of numbers that were committed and aren't there: damage.
    pub missing: Vec<(PackNumber, PackNumber)>,
    /// Stored packs beyond a gap that nothing proves committed: left by a crash, or on their way.
    pub leftovers: Vec<PackNumber>,
    /// The first number of which nobody knows that it was ever there: where the log would grow.
    pub next: PackNumber,
}

/// Judges a log by the numbers that are stored and by what is stated of it, from the pack `from` on:
/// those before it were all stored. `stored` has nothing that is `removed`.
#[must_use]
pub fn judge(
    stored: &BTreeSet<u64>,
    from: PackNumber,
    stated: Stated,
    removed: &Ranges,
) -> Counted {
    let mut counted = Counted::default();
    let mut next = removed.past(from);
    for number in stored.iter().copied().map(PackNumber) {
        if number > next {
            next = counted.lose(next, number.min(PackNumber(stated.0)), removed);
        }
        if number == next {
            counted.packs.push(number);
            next = removed.past(PackNumber(number.0.saturating_add(1)));
        } else {
            counted.leftovers.push(number);
        }
    }
    counted.next = counted.lose(next, PackNumber(stated.0), removed);
    counted
}

impl Counted {
    /// Those from `next` on, and before `end`, are missing, but for what was removed; gives where it
    /// goes on.
    fn lose(&mut self, mut next: PackNumber, end: PackNumber, removed: &Ranges) -> PackNumber {
        while next < end {
            let until = removed.next(next).map_or(end, |removed| removed.min(end));
            self.missing.push((next, PackNumber(until.0 - 1)));
            next = removed.past(until);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(stored: &[u64], stated: u64) -> (Vec<u64>, Vec<(u64, u64)>, Vec<u64>) {
        judged_from(0, stored, stated)
    }

    fn judged_from(
        from: u64,
        stored: &[u64],
        stated: u64,
    ) -> (Vec<u64>, Vec<(u64, u64)>, Vec<u64>) {
        let stored = stored.iter().copied().collect();
        let counted = judge(&stored, PackNumber(from), Stated(stated), &Ranges::default());
        let plain = |packs: Vec<PackNumber>| packs.into_iter().map(|pack| pack.0).collect();
        let missing = counted.missing.into_iter().map(|(first, last)| (first.0, last.0)).collect();
        (plain(counted.packs), missing, plain(counted.leftovers))
    }

    #[test]
    fn packs_count_up_to_the_first_gap() {
        assert_eq!(judged(&[], 0), (vec![], vec![], vec![]));
        assert_eq!(judged(&[0, 1, 2], 1), (vec![0, 1, 2], vec![], vec![]));
        assert_eq!(judged(&[0, 1, 3, 4], 2), (vec![0, 1], vec![], vec![3, 4]));
        assert_eq!(judged(&[2], 0), (vec![], vec![], vec![2]));
    }

    #[test]
    fn a_gap_below_what_was_committed_is_a_loss_and_hides_nothing_behind_it() {
        assert_eq!(judged(&[0, 2, 3, 5], 3), (vec![0, 2, 3], vec![(1, 1)], vec![5]));
        assert_eq!(judged(&[3, 4], 3), (vec![3, 4], vec![(0, 2)], vec![]));
        assert_eq!(judged(&[0, 5], 3), (vec![0], vec![(1, 2)], vec![5]));
        assert_eq!(judged(&[0, 2, 4], 4), (vec![0, 2, 4], vec![(1, 1), (3, 3)], vec![]));
        assert_eq!(judged(&[0], 3), (vec![0], vec![(1, 2)], vec![]));
        assert_eq!(judged(&[], 2), (vec![], vec![(0, 1)], vec![]));
    }

    #[test]
    fn what_was_removed_is_no_gap_and_no_loss() {
        let mut removed = Ranges::default();
        removed.add(PackNumber(0), PackNumber(2));
        removed.add(PackNumber(5), PackNumber(5));
        removed.add(PackNumber(8), PackNumber(9));
        let judged = |stored: &[u64], stated| {
            let stored = stored.iter().copied().collect();
            let counted = judge(&stored, PackNumber(0), Stated(stated), &removed);
            let plain = |packs: &[PackNumber]| packs.iter().map(|pack| pack.0).collect::<Vec<_>>();
            let next = counted.next.0;
            (plain(&counted.packs), counted.missing, plain(&counted.leftovers), next)
        };
        let range = |first, last| (PackNumber(first), PackNumber(last));
        assert_eq!(judged(&[3, 4, 6, 7, 10], 0), (vec![3, 4, 6, 7, 10], vec![], vec![], 11));
        assert_eq!(judged(&[3, 6, 7, 12], 0), (vec![3], vec![], vec![6, 7, 12], 4));
        let lost = vec![range(4, 4), range(7, 7), range(10, 10)];
        assert_eq!(judged(&[3, 6, 11], 11), (vec![3, 6, 11], lost, vec![], 12));
        assert_eq!(judged(&[], 0), (vec![], vec![], vec![], 3));
        assert_eq!(judged(&[], 10), (vec![], vec![range(3, 4), range(6, 7)], vec![], 10));
    }

    #[test]
    fn a_part_of_a_log_is_judged_as_in_the_whole() {
        assert_eq!(judged_from(4, &[4, 5, 7], 4), (vec![4, 5], vec![], vec![7]));
        assert_eq!(judged_from(4, &[5, 7], 6), (vec![5], vec![(4, 4)], vec![7]));
        assert_eq!(judged_from(4, &[], 6), (vec![], vec![(4, 5)], vec![]));
        assert_eq!(judged_from(4, &[], 4), (vec![], vec![], vec![]));
    }

    #[test]
    fn a_pack_speaks_only_of_those_before_it() {
        assert_eq!(Stated::by_pack(PackNumber(4), 9, false).packs(), 4);
        assert_eq!(Stated::by_pack(PackNumber(4), 2, false).packs(), 2);
        assert_eq!(Stated::by_pack(PackNumber(4), 2, true).packs(), 4);
        assert_eq!(Stated::by_reference(PackNumber(4)).packs(), 5);
    }
}
