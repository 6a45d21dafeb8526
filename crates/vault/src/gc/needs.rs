//! What of the packs somebody needs. Pure.
//!
//! A reader goes on from a manifest: it needs the packs in which the folded bytes are kept, every
//! pack of the machine's logs that isn't folded, and the packs to which those refer. Nothing else is
//! ever read for a recovery point that can be offered. `fold` says what manifests need.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::{Epoch, LogName, Lsn, Name, PackNumber};

use super::packs::PackSet;
use crate::fold::Needed;
use crate::log::PackPlace;

/// What readers of one machine need who go on from some manifests, or from none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Root {
    /// The logs that it reads, each with the first pack.
    pub tails: Vec<(LogName, PackNumber)>,
    /// The packs in which folded bytes are kept.
    pub packs: PackSet,
}

impl Root {
    /// Of a machine whose records lie in `logs`, each from a pack on.
    #[must_use]
    pub fn of(logs: &[(LogName, PackNumber)], needed: Option<&Needed>) -> Self {
        let tail = |(log, first): &(LogName, PackNumber)| {
            let first = needed.map_or(*first, |needed| needed.first_of(log, *first));
            (log.clone(), first)
        };
        let packs = needed.into_iter().flat_map(|needed| &needed.packs).cloned().collect();
        Self { tails: logs.iter().map(tail).collect(), packs }
    }
}

/// A machine, as a collection sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineSeen {
    /// What who reads it now needs.
    pub root: Root,
    /// The packs that are folded.
    pub folded: PackSet,
    /// Up to this epoch all were removed.
    pub removed: Epoch,
    /// The epochs of which nothing is kept any more.
    pub gone: BTreeSet<Epoch>,
    /// Up to where the newest session of each epoch states that the vault has it: what a server is
    /// told without looking into a log.
    pub committed: BTreeMap<Epoch, Lsn>,
}

impl MachineSeen {
    /// Whether nothing of an epoch is needed any more.
    pub(super) fn has_let_go(&self, epoch: Epoch) -> bool {
        epoch <= self.removed || self.gone.contains(&epoch)
    }
}

/// The packs that are folded.
pub(super) fn folded_by(needed: &Needed) -> PackSet {
    let mut folded = PackSet::default();
    for (log, (from, upto)) in needed.folded.iter().filter(|(_, (from, upto))| upto > from) {
        folded.add_range(log, *from, PackNumber(upto.0 - 1));
    }
    folded
}

/// All that is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Of each log the first pack that some reader reads: that and all behind it are needed.
    pub tails: BTreeMap<LogName, PackNumber>,
    /// Packs that are needed by themselves.
    pub packs: PackSet,
}

impl Needs {
    /// Adds what a reader needs, but for what the packs that it reads refer to.
    pub fn add(&mut self, root: &Root) {
        for (log, first) in &root.tails {
            let tail = self.tails.entry(log.clone()).or_insert(*first);
            *tail = (*tail).min(*first);
        }
        self.packs.add_all(&root.packs);
    }

    /// Whether the pack is needed.
    #[must_use]
    pub fn has(&self, place: &PackPlace) -> bool {
        let read = self.tails.get(&place.log).is_some_and(|first| place.number >= *first);
        read || self.packs.has(place)
    }
}

/// What the index of a pack says of one epoch of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The machine.
    pub machine: Name,
    /// Its epoch.
    pub epoch: Epoch,
    /// The last record that is complete in the pack; none is [`Lsn::NONE`].
    pub complete: Lsn,
}
