//! Manifests that newer ones have replaced, and layers that only they name, or that are of removed epochs.
//!
//! They need no two phases. Whoever goes on from a manifest has pinned it while it counted, or finds it
//! gone and takes the newest. And a new manifest names layers of those that count, or its own.
//!
//! Layers go before the manifest that names them: after a crash they are found again by it. Layers that no
//! manifest ever named, of a fold that was killed, are found by the next fold. The newest manifest stays also where all
//! of its machine was removed, so that no number is used twice.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use tidegate_model::{Epoch, LayerId, Micros, Name};

use super::error::GcError;
use super::look::Look;
use crate::fold::{Needed, manifest_numbers, needed, read_manifest};
use crate::layout;
use crate::log::LogReader;
use crate::meta;

/// Deletes them, of all machines; gives how many objects that were. Pins from before `oldest` don't
/// count.
pub(super) async fn delete(reader: &LogReader, oldest: Micros) -> Result<u64, GcError> {
    let mut deleted = 0;
    for machine in meta::list_machines(reader.store()).await? {
        deleted += delete_of(reader, &machine, oldest).await?;
    }
    Ok(deleted)
}

async fn delete_of(reader: &LogReader, machine: &Name, oldest: Micros) -> Result<u64, GcError> {
    let (store, ring) = (reader.store(), reader.ring());
    let numbers = manifest_numbers(store, machine).await?;
    let Some(newest) = numbers.last().copied() else { return Ok(0) };
    let removed = meta::removed_upto(store, ring, machine).await?;
    let mut kept = kept(reader, machine, removed, newest).await?;
    if removed == Epoch::NONE && numbers.is_subset(&kept.manifests) {
        return Ok(0);
    }
    // After what counts was looked up: see `collection`.
    for number in Look::new(reader).pinned(machine, oldest).await? {
        if number > 0 {
            kept.manifests.insert(number);
            kept.layers.extend(layers(reader, machine, number).await?);
        }
    }
    let listed: Vec<_> = store.list(&layout::layers(machine), None).try_collect().await?;
    let stored = listed.iter().filter_map(|object| layout::parse_layer(machine, &object.path));
    let stored: BTreeSet<LayerId> = stored.collect();
    let mut deleted = 0;
    for number in numbers {
        let dropped = match layers(reader, machine, number).await {
            Ok(layers) => layers,
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
    let mut kept = match last.is_some_and(|last| last > removed) {
        true => needed(store, ring, machine).await?.unwrap_or_default(),
        false => Needed::default(),
    };
    kept.manifests.insert(newest);
    Ok(kept)
}

/// The layers that a manifest names.
async fn layers(
    reader: &LogReader,
    machine: &Name,
    number: u64,
) -> Result<BTreeSet<LayerId>, GcError> {
    let manifest = read_manifest(reader.store(), reader.ring(), machine, number).await?;
    Ok(Needed::by(&manifest).layers)
}
