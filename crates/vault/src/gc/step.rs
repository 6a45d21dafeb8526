//! What collections have written down: the numbered steps of `gc/`. docs/formats/gc.md. Pure.
//!
//! Steps take turns: one with an odd number condemns packs, the next settles it: it says which packs
//! were ever removed, and what it doesn't name of the list before it was spared. So at most one list is
//! open, and the newest step, with the one before it, says all.

use serde::{Deserialize, Serialize};
use tidegate_model::{LogName, PackNumber};

use super::packs::PackSet;

/// Most packs that are condemned at once: their indexes are read, and a server goes through the list.
/// What is left waits for the next.
pub const LIST_PACKS_MAX: usize = 1 << 16;

/// A step of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its number, from 1.
    pub number: u64,
    /// Odd: the packs that are condemned. Even: all packs that were ever removed.
    pub packs: PackSet,
}

impl Step {
    /// Whether it condemns, and doesn't settle.
    #[must_use]
    pub const fn condemns(&self) -> bool {
        self.number % 2 == 1
    }

    /// What it says that can't be.
    pub(super) fn check(&self, number: u64) -> Result<(), &'static str> {
        if self.number != number || number == 0 {
            return Err("it is another step");
        }
        Ok(())
    }
}

/// How far collections have come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// The number of the newest step; 0 for none.
    pub newest: u64,
    /// All packs that were removed, or will be as soon as somebody comes to it.
    pub removed: PackSet,
    /// The packs of the list that isn't settled.
    pub condemned: PackSet,
}

impl Collected {
    /// By the newest step, and the one before it if that one condemns.
    pub(super) fn of(newest: Step, before: Option<Step>) -> Self {
        let number = newest.number;
        match newest.condemns() {
            true => {
                let removed = before.map(|before| before.packs).unwrap_or_default();
                Self { newest: number, removed, condemned: newest.packs }
            }
            false => Self { newest: number, removed: newest.packs, condemned: PackSet::default() },
        }
    }

    /// The list that isn't settled, if there is one.
    #[must_use]
    pub fn open_list(&self) -> Option<u64> {
        (self.newest % 2 == 1).then_some(self.newest)
    }

    /// Whether nobody may refer to this pack any more.
    #[must_use]
    pub fn forbids(&self, log: &LogName, number: PackNumber) -> bool {
        let mut sets = [&self.condemned, &self.removed].into_iter().filter_map(|set| set.of(log));
        sets.any(|ranges| ranges.has(number))
    }
}
