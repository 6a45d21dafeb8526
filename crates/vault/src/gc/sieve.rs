//! Which of the packs that nobody needs may go. Pure.
//!
//! Looks into each once more, whatever was concluded from manifests: a machine whose records are in a
//! pack must have folded it; but for epochs of which nothing is kept any more. And a pack may be a
//! machine's last word: a server that is asked how far an epoch goes looks for the last pack of the log
//! that completes a record of it, unless the newest session states as much. Such a pack stays, one of a
//! log and epoch. That is decided when packs are condemned: a pack that speaks for others isn't among
//! them, and what a session states only grows.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::{Epoch, LogName, Lsn, Name};

use super::needs::{IndexEntry, MachineSeen};
use super::packs::PackSet;
use crate::log::PackPlace;

/// What comes through, and what doesn't.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sieved {
    /// What may go.
    pub passed: PackSet,
    /// Packs that are some machine's last word.
    pub last_words: u64,
    /// Packs of machines that the vault doesn't know.
    pub unknown: u64,
    /// A pack whose records of a machine aren't folded, and that no record of a session names.
    pub unnamed: Option<(PackPlace, Name)>,
}

/// Sieves packs that nobody needs; of each log the newest must come first.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    pub sieved: Sieved,
    /// Where packs aren't condemned yet: those that stay whatever they say, for they may speak for others.
    /// Last words stay as well.
    stay: Option<PackSet>,
    /// For which epochs of machines a pack of a log stays.
    spoken: BTreeSet<(LogName, Name, Epoch)>,
}

impl Sieve {
    /// Of packs that aren't condemned yet.
    pub(super) fn condemning(stay: PackSet) -> Self {
        Self { stay: Some(stay), ..Self::default() }
    }

    /// Takes packs and what their indexes say.
    pub(super) fn add(
        &mut self,
        mut packs: Vec<(PackPlace, Vec<IndexEntry>)>,
        machines: &BTreeMap<Name, MachineSeen>,
    ) {
        packs.sort_by(|(a, _), (b, _)| b.cmp(a));
        for (place, entries) in packs {
            self.add_pack(place, &entries, machines);
        }
    }

    fn add_pack(
        &mut self,
        place: PackPlace,
        entries: &[IndexEntry],
        machines: &BTreeMap<Name, MachineSeen>,
    ) {
        let has_gone = |entry: &&IndexEntry| {
            machines.get(&entry.machine).is_some_and(|seen| seen.has_let_go(entry.epoch))
        };
        let entries: Vec<_> = entries.iter().filter(|entry| !has_gone(entry)).collect();
        let known: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some((*entry, machines.get(&entry.machine)?)))
            .collect();
        if let Some((entry, _)) = known.iter().find(|(_, seen)| !seen.folded.has(&place)) {
            self.sieved.unnamed.get_or_insert((place, entry.machine.clone()));
            return;
        }
        if known.len() < entries.len() {
            self.sieved.unknown += 1;
            return;
        }
        let last = |(entry, seen): &&(&IndexEntry, &MachineSeen)| {
            let stated = seen.committed.get(&entry.epoch).copied().unwrap_or_default();
            entry.complete != Lsn::NONE
                && entry.complete > stated
                && !self.spoken.contains(&word(&place, entry))
        };
        let stays = self.stay.as_ref().is_some_and(|stay| stay.has(&place));
        let last_word = self.stay.is_some() && !stays && known.iter().any(|pair| last(&pair));
        self.sieved.last_words += u64::from(last_word);
        if stays || last_word {
            let complete = entries.iter().filter(|entry| entry.complete != Lsn::NONE);
            self.spoken.extend(complete.map(|entry| word(&place, entry)));
        } else {
            self.sieved.passed.add(&place);
        }
    }
}

fn word(place: &PackPlace, entry: &IndexEntry) -> (LogName, Name, Epoch) {
    (place.log.clone(), entry.machine.clone(), entry.epoch)
}
