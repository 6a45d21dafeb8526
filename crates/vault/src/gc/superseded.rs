//! Manifests that newer ones have replaced, and layers and dense packs that only they name, or that are of
//! removed epochs.
//!
//! They need no two phases. Whoever goes on from a manifest has pinned it while it counted, or finds it
//! gone and takes the newest. And a new manifest names what those name that count, or its own.
//!
//! Layers go before the manifest that names them: after a crash they are found again by it. Layers that no
//! manifest ever named, of a fold that was killed, are found by the next fold, and dense packs here: they
//! have the number of the manifest for which they were written in their names. Where that is there, or a
//! later one, nobody comes to name them who doesn't yet. The newest manifest stays also where all
//! of its machine was removed, so that no number is used twice.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use tidegate_model::{Epoch, LayerId, Micros, Name};

use super::error::GcError;
use super::look::Look;
use crate::fold::{Needed, manifest_numbers, needed, read_manifest};
use crate::layout;
use crate::log::{LogReader, PackPlace};
use crate::meta;

/// Deletes them, of all machines; gives how many objects that were. Pins from before `oldest` don't
/// count.
pub(super) async fn delete(reader: &LogReader, oldest: Micros) -> Result<u64, GcError> {
    let (mut deleted, mut failure) = (0, None);
    for machine in meta::list_machines(reader.store()).await? {
        match delete_of(reader, &machine, oldest).await {
            Ok(of_machine) => deleted += of_machine,
            // The others don't wait for what is wrong with one.
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(deleted), Err)
}

async fn delete_of(reader: &LogReader, machine: &Name, oldest: Micros) -> Result<u64, GcError> {
    let (store, ring) = (reader.store(), reader.ring());
    let numbers = manifest_numbers(store, machine).await?;
    let Some(newest) = numbers.last().copied() else { return Ok(0) };
    let removed = meta::removed_upto(store, ring, machine).await?;
    let mut kept = kept(reader, machine, removed, newest).await?;
    let dense = dense(reader, machine).await?;
    let written: BTreeSet<_> = dense.range(..=newest).flat_map(|(_, places)| places).collect();
    let may_stay = removed == Epoch::NONE && numbers.is_subset(&kept.manifests);
    if may_stay && written.iter().all(|place| kept.packs.contains(place)) {
        return Ok(0);
    }
    // After what counts was looked up: see `collection`.
    for (number, needed) in Look::new(reader).pinned(machine, oldest).await? {
        kept.manifests.insert(number);
        if let Some(needed) = needed {
            kept.layers.extend(needed.layers);
            kept.packs.extend(needed.packs);
        }
    }
    let listed: Vec<_> = store.list(&layout::layers(machine), None).try_collect().await?;
    let stored = listed.iter().filter_map(|object| layout::parse_layer(machine, &object.path));
    let stored: BTreeSet<LayerId> = stored.collect();
    let mut deleted = 0;
    for place in written.into_iter().filter(|place| !kept.packs.contains(place)) {
        store.delete(&place.path()).await?;
        deleted += 1;
    }
    for number in numbers {
        let dropped = match needs(reader, machine, number).await {
            Ok(needs) => needs.layers,
            Err(GcError::Meta(error)) if error.is_damage() => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        for layer in dropped.difference(&kept.layers).filter(|layer| stored.contains(layer)) {
            store.delete(&layout::layer(machine, *layer)).await?;
            deleted += 1;
        }
        if !kept.manifests.contains(&number) {
            store.delete(&layout::manifest(machine, number)).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// What counts of a machine whose newest manifest is `newest`.
async fn kept(
    reader: &LogReader,
    machine: &Name,
    removed: Epoch,
    newest: u64,
) -> Result<Needed, GcError> {
    let (store, ring) = (reader.store(), reader.ring());
    let last = meta::epoch_numbers(store, machine).await?.into_iter().max();
    let is_removed = removed > Epoch::NONE && last.is_none_or(|last| last <= removed);
    let needed = needed(store, ring, machine).await?.unwrap_or_default();
    // Of one that was removed whole nothing is read any more; but where a manifest has later epochs, it is
    // their records that are gone.
    let mut kept = match is_removed && needed.epochs.is_empty() {
        true => Needed::default(),
        false => needed,
    };
    kept.manifests.insert(newest);
    Ok(kept)
}

/// What a manifest names.
async fn needs(reader: &LogReader, machine: &Name, number: u64) -> Result<Needed, GcError> {
    let manifest = read_manifest(reader.store(), reader.ring(), machine, number).await?;
    Ok(Needed::by(&manifest))
}

/// The dense packs of a machine, by the number of the manifest for which they were written.
async fn dense(
    reader: &LogReader,
    machine: &Name,
) -> Result<BTreeMap<u64, Vec<PackPlace>>, GcError> {
    let mut dense: BTreeMap<u64, Vec<PackPlace>> = BTreeMap::new();
    let mut listed = reader.store().list(&layout::dense(machine), None);
    while let Some(object) = listed.try_next().await? {
        if let Some((log, number)) = layout::parse_dense(machine, &object.path) {
            dense.entry(number.0).or_default().push(PackPlace { log, number });
        }
    }
    Ok(dense)
}
