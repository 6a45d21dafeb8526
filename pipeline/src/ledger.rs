//! Which packs of a log are on their way, and what becomes true when they are stored.
//!
//! A pack counts when it and all before it are stored, whatever order the puts end in.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_model::{FrameNumber, Lsn, Micros, PackNumber};

use crate::stats::StreamTotals;
use crate::unit::Stream;

/// What a pack's commit means for one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Its last LSN that is now stored with all before it; `None` when the pack ends no record.
    pub lsn: Option<Lsn>,
    /// What became of the bytes that are stored now and weren't before.
    pub totals: StreamTotals,
}

/// A pack that was closed.
pub(crate) struct Closed {
    pub number: PackNumber,
    /// No frame of it or of those before has this or a higher number.
    pub frames_end: FrameNumber,
    /// When the first of its records had come whole.
    pub came: Micros,
    pub streams: Vec<Committed>,
}

/// The packs between close and commit.
#[derive(Default)]
pub(crate) struct Ledger {
    waiting: VecDeque<(Closed, bool)>,
    committed_packs: u64,
}

impl Ledger {
    /// How many packs at the log's beginning are stored.
    pub(crate) const fn committed_packs(&self) -> u64 {
        self.committed_packs
    }

    /// How many packs wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A pack was closed and is on its way.
    pub(crate) fn closed(&mut self, pack: Closed) {
        debug_assert_eq!(pack.number.0, self.committed_packs + self.waiting.len() as u64);
        self.waiting.push_back((pack, false));
    }

    /// A pack is stored. Gives those that now count, in order.
    ///
    /// # Panics
    /// If it isn't on its way: the store client answers once a pack.
    pub(crate) fn stored(&mut self, number: PackNumber) -> Vec<Closed> {
        let place = number
            .0
            .checked_sub(self.committed_packs)
            .and_then(|place| usize::try_from(place).ok())
            .expect("a pack is stored once");
        self.waiting[place].1 = true;
        let mut count = Vec::new();
        while self.waiting.front().is_some_and(|(_, stored)| *stored) {
            count.extend(self.waiting.pop_front().map(|(pack, _)| pack));
            self.committed_packs += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(number: u64) -> Closed {
        Closed {
            number: PackNumber(number),
            frames_end: FrameNumber(number * 10),
            came: Micros(0),
            streams: Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn packs_count_in_order_whatever_order_they_are_stored_in(
            order in Just((0..20_u64).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut ledger = Ledger::default();
            (0..20).for_each(|number| ledger.closed(pack(number)));
            let mut stored = [false; 20];
            let mut counted = 0;
            for number in order {
                stored[usize::try_from(number).unwrap()] = true;
                for pack in ledger.stored(PackNumber(number)) {
                    prop_assert_eq!(pack.number.0, counted);
                    counted += 1;
                }
                let prefix = stored.iter().take_while(|stored| **stored).count();
                prop_assert_eq!(counted, prefix as u64);
                prop_assert_eq!(ledger.committed_packs(), counted);
            }
            prop_assert_eq!(ledger.len(), 0);
        }
    }
}
