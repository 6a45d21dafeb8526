//! Which of the packs that nobody needs may go. Pure.
//!
//! Looks into each once more, whatever was concluded from manifests: a machine whose records are in a
//! pack must have folded it; but for epochs of which nothing is kept any more. And a pack may be a machine's last word: a server that is asked how far
//! an epoch goes looks for the last pack of the log that completes a record of it, unless the newest
//! session states as much. Such a pack stays, one of a log and epoch. That is decided when packs are
//! condemned: a pack that speaks for others isn't among them, and what a session states only grows.

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

/// Sieves packs that nobody needs. Where they aren't condemned yet, last words stay, and those that `stay`
/// whatever they say: they may speak for others.
pub(super) fn sieve(
    mut packs: Vec<(PackPlace, Vec<IndexEntry>)>,
    machines: &BTreeMap<Name, MachineSeen>,
    stay: Option<&PackSet>,
) -> Sieved {
    // The newest of each log first.
    packs.sort_by(|(a, _), (b, _)| b.cmp(a));
    let (mut sieved, mut spoken) = (Sieved::default(), BTreeSet::new());
    for (place, entries) in packs {
        let has_gone = |entry: &&IndexEntry| {
            machines.get(&entry.machine).is_some_and(|seen| seen.gone.contains(&entry.epoch))
        };
        let entries: Vec<_> = entries.iter().filter(|entry| !has_gone(entry)).collect();
        let known: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some((*entry, machines.get(&entry.machine)?)))
            .collect();
        if known.len() < entries.len() {
            sieved.unknown += 1;
            continue;
        }
        if let Some((entry, _)) = known.iter().find(|(_, seen)| !seen.folded.has(&place)) {
            sieved.unnamed.get_or_insert((place, entry.machine.clone()));
            continue;
        }
        let last = |(entry, seen): &&(&IndexEntry, &MachineSeen)| {
            let stated = seen.committed.get(&entry.epoch).copied().unwrap_or_default();
            entry.complete != Lsn::NONE
                && entry.complete > stated
                && !spoken.contains(&word(&place, entry))
        };
        let stays = stay.is_some_and(|stay| stay.has(&place));
        let last_word = stay.is_some() && !stays && known.iter().any(|pair| last(&pair));
        sieved.last_words += u64::from(last_word);
        if stays || last_word {
            let complete = entries.iter().filter(|entry| entry.complete != Lsn::NONE);
            spoken.extend(complete.map(|entry| word(&place, entry)));
        } else {
            sieved.passed.add(&place);
        }
    }
    sieved
}

fn word(place: &PackPlace, entry: &IndexEntry) -> (LogName, Name, Epoch) {
    (place.log.clone(), entry.machine.clone(), entry.epoch)
}
