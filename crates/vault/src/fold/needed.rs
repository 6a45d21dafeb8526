//! What of a machine must stay in the store, by its manifests: what the collector (`gc`) goes by.
//!
//! The two newest manifests count: when the newest gets damaged, readers and folds go on from the one
//! before it, and from the packs behind that.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::{Epoch, LayerId, LogName, Name, PackNumber};

use super::manifest::{FoldedEpoch, Manifest};
use super::objects::{MANIFESTS_KEPT, manifest_numbers, read_manifest};
use crate::log::PackPlace;
use crate::meta::{self, MetaError};
use crate::seal::KeyRing;
use crate::store::Store;

/// What must stay of a machine. Of manifests and layers nothing else; of its logs the packs from
/// [`Needed::first_of`] on, and these packs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needed {
    /// The manifests, by their numbers; those with higher ones are of others who fold meanwhile.
    pub manifests: BTreeSet<u64>,
    /// The epochs that they tell of, but for removed ones.
    pub epochs: BTreeSet<Epoch>,
    /// The layers.
    pub layers: BTreeSet<LayerId>,
    /// The packs in which bytes are kept.
    pub packs: BTreeSet<PackPlace>,
    /// What is folded of each log: from a pack on, and up to the first that a reader must look at.
    pub folded: BTreeMap<LogName, (PackNumber, PackNumber)>,
    /// The epochs of which nothing is kept any more.
    pub gone: BTreeSet<Epoch>,
}

/// What must stay of a machine; `None` where it isn't folded, so that all must stay. Of epochs that were
/// removed nothing must.
///
/// # Errors
/// What the store reports. Where a manifest that counts is damaged that is an error, too: nothing may be
/// removed then.
pub async fn needed(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
) -> Result<Option<Needed>, MetaError> {
    let numbers = manifest_numbers(store, machine).await?;
    let mut all: Option<Needed> = None;
    let removed = meta::removed_upto(store, ring, machine).await?;
    for number in numbers.into_iter().rev().take(MANIFESTS_KEPT) {
        let mut manifest = read_manifest(store, ring, machine, number).await?;
        manifest.epochs.retain(|folded| folded.epoch > removed);
        let needed = Needed::by(&manifest);
        all = Some(match all {
            Some(newer) => newer.and(needed),
            None => needed,
        });
    }
    Ok(all)
}

impl Needed {
    /// What one manifest needs.
    pub(crate) fn by(manifest: &Manifest) -> Self {
        let layers_of = |epoch: &FoldedEpoch| {
            let base = epoch.base.iter().flat_map(|base| &base.layers);
            let layers = epoch.layers.iter().chain(base).map(|entry| entry.layer);
            layers.collect::<Vec<_>>()
        };
        let packs = manifest.epochs.iter().flat_map(FoldedEpoch::kept_in);
        let folded = manifest.logs.iter().map(|log| (log.log.clone(), (log.from, log.upto)));
        Self {
            manifests: BTreeSet::from([manifest.number]),
            epochs: manifest.epochs.iter().map(|folded| folded.epoch).collect(),
            layers: manifest.epochs.iter().flat_map(layers_of).collect(),
            packs: packs.map(|(place, _)| place).collect(),
            folded: folded.collect(),
            gone: manifest.gone.iter().copied().collect(),
        }
    }

    /// The first pack of a log that must stay, with all behind it, where records may begin with `first`.
    #[must_use]
    pub fn first_of(&self, log: &LogName, first: PackNumber) -> PackNumber {
        match self.folded.get(log) {
            Some((from, upto)) if *from <= first => *upto,
            _ => first,
        }
    }

    /// What either needs.
    fn and(mut self, other: Self) -> Self {
        self.manifests.extend(other.manifests);
        self.epochs.extend(other.epochs);
        self.layers.extend(other.layers);
        self.packs.extend(other.packs);
        self.folded.retain(|log, (from, upto)| match other.folded.get(log) {
            Some(other) => {
                (*from, *upto) = ((*from).max(other.0), (*upto).min(other.1));
                true
            }
            None => false,
        });
        self.gone.retain(|epoch| other.gone.contains(epoch));
        self
    }
}
