//! Sets of packs: ranges of numbers, log by log. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_model::{LogName, PackNumber};

use crate::log::PackPlace;

/// A set of packs. Packs of a log that are deleted lie together, so ranges are few.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<LogPacks>", into = "Vec<LogPacks>")]
pub struct PackSet(BTreeMap<LogName, Ranges>);

/// Numbers of packs: runs (first, last) that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

/// What a set has of one log, as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LogPacks {
    log: LogName,
    packs: Vec<(PackNumber, PackNumber)>,
}

impl Ranges {
    /// Whether it has this number.
    #[must_use]
    pub fn has(&self, number: PackNumber) -> bool {
        self.0.range(..=number.0).next_back().is_some_and(|(_, last)| *last >= number.0)
    }

    /// Adds those from `first` to `last`.
    pub fn add(&mut self, first: PackNumber, last: PackNumber) {
        let (mut first, mut last) = (first.0, last.0);
        let touching = self.0.range(..=last.saturating_add(1)).rev();
        let touching = touching.take_while(|(_, end)| end.saturating_add(1) >= first);
        for (begin, end) in touching.map(|(begin, end)| (*begin, *end)).collect::<Vec<_>>() {
            self.0.remove(&begin);
            (first, last) = (first.min(begin), last.max(end));
        }
        self.0.insert(first, last);
    }

    /// The first number from this one on that it doesn't have.
    #[must_use]
    pub fn past(&self, number: PackNumber) -> PackNumber {
        let run = self.0.range(..=number.0).next_back().filter(|(_, last)| **last >= number.0);
        run.map_or(number, |(_, last)| PackNumber(last.saturating_add(1)))
    }

    /// The first number from this one on that it has.
    #[must_use]
    pub fn next(&self, number: PackNumber) -> Option<PackNumber> {
        let within = self.has(number).then_some(number);
        within.or_else(|| self.0.range(number.0..).next().map(|(first, _)| PackNumber(*first)))
    }

    /// The runs, in order.
    pub fn runs(&self) -> impl Iterator<Item = (PackNumber, PackNumber)> + '_ {
        self.0.iter().map(|(first, last)| (PackNumber(*first), PackNumber(*last)))
    }
}

impl PackSet {
    /// Whether it has nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many packs it has.
    #[must_use]
    pub fn count(&self) -> u64 {
        let runs = self.0.values().flat_map(Ranges::runs);
        runs.fold(0, |sum, (first, last)| sum.saturating_add(last.0 - first.0).saturating_add(1))
    }

    /// How many ranges it has.
    #[must_use]
    pub fn range_count(&self) -> usize {
        self.0.values().map(|ranges| ranges.0.len()).sum()
    }

    /// Whether it has this pack.
    #[must_use]
    pub fn has(&self, place: &PackPlace) -> bool {
        self.0.get(&place.log).is_some_and(|ranges| ranges.has(place.number))
    }

    /// What it has of a log, if anything.
    #[must_use]
    pub fn of(&self, log: &LogName) -> Option<&Ranges> {
        self.0.get(log)
    }

    /// What it has, log by log.
    pub fn logs(&self) -> impl DoubleEndedIterator<Item = (&LogName, &Ranges)> {
        self.0.iter()
    }

    /// Adds a pack.
    pub fn add(&mut self, place: &PackPlace) {
        self.add_range(&place.log, place.number, place.number);
    }

    /// Adds the packs of a log from `first` to `last`.
    pub fn add_range(&mut self, log: &LogName, first: PackNumber, last: PackNumber) {
        match self.0.get_mut(log) {
            Some(ranges) => ranges.add(first, last),
            None => self.0.entry(log.clone()).or_default().add(first, last),
        }
    }

    /// Takes packs out, the last first, as many as there are up to `most`.
    pub fn take_last(&mut self, most: usize) -> Self {
        let (mut taken, mut left) = (Self::default(), most as u64);
        while left > 0
            && let Some(mut log) = self.0.last_entry()
        {
            let Some((first, last)) = log.get_mut().0.pop_last() else { break };
            let begin = first.max((last - first).saturating_add(1).saturating_sub(left) + first);
            taken.add_range(log.key(), PackNumber(begin), PackNumber(last));
            left -= last - begin + 1;
            if begin > first {
                log.get_mut().0.insert(first, begin - 1);
            }
            if log.get().0.is_empty() {
                log.remove();
            }
        }
        taken
    }

    /// Adds all of another.
    pub fn add_all(&mut self, other: &Self) {
        for (log, ranges) in &other.0 {
            ranges.runs().for_each(|(first, last)| self.add_range(log, first, last));
        }
    }

    /// All packs, one by one, in order. Only for sets of packs that are there.
    pub fn places(&self) -> impl Iterator<Item = PackPlace> + '_ {
        self.0.iter().flat_map(|(log, ranges)| {
            let numbers = ranges.runs().flat_map(|(first, last)| first.0..=last.0);
            numbers.map(|number| PackPlace { log: log.clone(), number: PackNumber(number) })
        })
    }
}

impl FromIterator<PackPlace> for PackSet {
    fn from_iter<T: IntoIterator<Item = PackPlace>>(places: T) -> Self {
        let mut set = Self::default();
        places.into_iter().for_each(|place| set.add(&place));
        set
    }
}

impl From<PackSet> for Vec<LogPacks> {
    fn from(set: PackSet) -> Self {
        let told =
            |(log, ranges): (LogName, Ranges)| LogPacks { log, packs: ranges.runs().collect() };
        set.0.into_iter().map(told).collect()
    }
}

impl TryFrom<Vec<LogPacks>> for PackSet {
    type Error = &'static str;

    fn try_from(told: Vec<LogPacks>) -> Result<Self, Self::Error> {
        let mut set = Self::default();
        for LogPacks { log, packs } in told {
            if packs.iter().any(|(first, last)| first > last) {
                return Err("a range of packs ends before it begins");
            }
            packs.into_iter().for_each(|(first, last)| set.add_range(&log, first, last));
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use tidegate_model::{LogId, RunId};

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_the_numbers_that_were_added(
            added in proptest::collection::vec((0..60_u64, 0..6_u64), 0..20),
        ) {
            let (mut ranges, mut numbers) = (Ranges::default(), BTreeSet::new());
            for (first, more) in added {
                ranges.add(PackNumber(first), PackNumber(first + more));
                numbers.extend(first..=first + more);
            }
            for number in 0..70 {
                prop_assert_eq!(ranges.has(PackNumber(number)), numbers.contains(&number));
                let first = |has: bool| (number..).find(|n| numbers.contains(n) == has);
                prop_assert_eq!(Some(ranges.past(PackNumber(number)).0), first(false));
                let next = numbers.range(number..).next().copied();
                prop_assert_eq!(ranges.next(PackNumber(number)).map(|n| n.0), next);
            }
            let runs: Vec<_> = ranges.runs().collect();
            prop_assert!(runs.windows(2).all(|pair| pair[0].1.0 + 1 < pair[1].0.0), "{:?}", runs);
        }
    }

    #[test]
    fn packs_are_taken_out_from_the_end() {
        let log = |shard| {
            let id = LogId { run: RunId::from_bytes([1; 16]), shard };
            LogName { node: "ps-1".parse().unwrap(), id }
        };
        let (a, b) = (log(0), log(1));
        let mut set = PackSet::default();
        set.add_range(&a, PackNumber(0), PackNumber(4));
        set.add_range(&b, PackNumber(2), PackNumber(2));
        set.add_range(&b, PackNumber(7), PackNumber(9));
        let mut taken = Vec::new();
        while !set.is_empty() {
            let numbers: Vec<u64> = set.take_last(3).places().map(|place| place.number.0).collect();
            taken.push(numbers);
        }
        assert_eq!(taken, [vec![7, 8, 9], vec![3, 4, 2], vec![0, 1, 2]]);
    }

    #[test]
    fn the_last_number_of_all_has_no_successor() {
        let mut ranges = Ranges::default();
        ranges.add(PackNumber(5), PackNumber(u64::MAX));
        ranges.add(PackNumber(0), PackNumber(3));
        ranges.add(PackNumber(7), PackNumber(u64::MAX));
        assert_eq!(ranges.runs().count(), 2);
        ranges.add(PackNumber(4), PackNumber(4));
        assert_eq!(ranges.runs().collect::<Vec<_>>(), [(PackNumber(0), PackNumber(u64::MAX))]);
    }
}
