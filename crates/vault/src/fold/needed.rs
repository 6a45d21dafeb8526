//! What of a machine must stay in the store, by its manifests: what a collector asks before it removes
//! anything.
//!
//! The two newest manifests count: when the newest gets damaged, readers and folds go on from the one
//! before it, and from the packs behind that.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use tidegate_model::{LayerId, LogName, Name, PackNumber};

use super::manifest::{Base, FoldedEpoch, Manifest};
use super::objects::read_manifest;
use crate::layout;
use crate::log::PackPlace;
use crate::meta::{self, MetaError};
use crate::seal::KeyRing;
use crate::store::Store;

/// How many manifests stay.
const MANIFESTS_KEPT: usize = 2;

/// What must stay of a machine. Of manifests and layers nothing else; of a log that is among `upto`
/// the packs from there on, of any other one all; and these packs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needed {
    /// The manifests, by their numbers; those with higher ones are of others who fold meanwhile.
    pub manifests: BTreeSet<u64>,
    /// The layers.
    pub layers: BTreeSet<LayerId>,
    /// The packs in which bytes are kept.
    pub packs: BTreeSet<PackPlace>,
    /// The first pack of each folded log that a reader must look at.
    pub upto: BTreeMap<LogName, PackNumber>,
}

/// What must stay of a machine; nothing is known, and so all must stay, where it isn't folded. Of one
/// that was removed, with all its epochs ([`crate::meta::is_removed`]), nothing must, whatever this
/// says of its logs.
///
/// # Errors
/// What the store reports. Where a manifest that counts is damaged that is an error, too: nothing of
/// the machine may be removed then.
pub async fn needed(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
) -> Result<Option<Needed>, MetaError> {
    let mut numbers = BTreeSet::new();
    let mut listed = store.list(&layout::manifests(machine), None);
    while let Some(object) = listed.try_next().await? {
        numbers.extend(layout::parse_manifest(machine, &object.path));
    }
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
    fn by(manifest: &Manifest) -> Self {
        let layers_of = |epoch: &FoldedEpoch| {
            let base = epoch.base.iter().flat_map(|base: &Base| &base.layers);
            let layers = epoch.layers.iter().chain(base).map(|entry| entry.layer);
            layers.collect::<Vec<_>>()
        };
        let packs = manifest.epochs.iter().flat_map(FoldedEpoch::kept_in);
        Self {
            manifests: BTreeSet::from([manifest.number]),
            layers: manifest.epochs.iter().flat_map(layers_of).collect(),
            packs: packs.map(|(place, _)| place).collect(),
            upto: manifest.logs.iter().map(|log| (log.log.clone(), log.upto)).collect(),
        }
    }

    /// What either needs.
    fn and(mut self, other: Self) -> Self {
        self.manifests.extend(other.manifests);
        self.layers.extend(other.layers);
        self.packs.extend(other.packs);
        self.upto.retain(|log, upto| match other.upto.get(log) {
            Some(other) => {
                *upto = (*upto).min(*other);
                true
            }
            None => false,
        });
        self
    }
}
