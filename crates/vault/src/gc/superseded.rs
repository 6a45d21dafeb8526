//! Manifests that a newer one has replaced, and the layers that only they name.
//!
//! They need no two phases. Whoever goes on from a manifest has pinned it while it was the newest, or finds
//! it gone and takes the newest. And a new manifest names layers of the newest one, or its own.
//!
//! Layers go before the manifest that names them: after a crash they are found again by it. Layers that no
//! manifest ever named, of a fold that was killed, aren't found.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use tidegate_model::{LayerId, Micros, Name};

use super::error::GcError;
use super::look::Look;
use crate::fold::{Manifest, newest_number, read_manifest};
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
    let listed: Vec<_> = store.list(&layout::manifests(machine), None).try_collect().await?;
    let numbers = listed.iter().filter_map(|object| layout::parse_manifest(machine, &object.path));
    let numbers: BTreeSet<u64> = numbers.collect();
    let newest = newest_number(store, machine).await?;
    if numbers.iter().all(|number| *number == newest) {
        return Ok(0);
    }
    // After the newest was looked up: see `collection`.
    let mut kept: BTreeSet<u64> =
        Look::new(reader).pinned(machine, oldest).await?.into_iter().collect();
    kept.insert(newest);
    kept.remove(&0);
    let mut named = BTreeSet::new();
    for number in &kept {
        named.extend(layers(&read_manifest(store, ring, machine, *number).await?));
    }
    let mut deleted = 0;
    for number in numbers.difference(&kept).copied().filter(|number| *number < newest) {
        let dropped = match read_manifest(store, ring, machine, number).await {
            Ok(manifest) => layers(&manifest),
            Err(error) if error.is_damage() => BTreeSet::new(),
            Err(error) => return Err(error.into()),
        };
        for layer in dropped.difference(&named) {
            store.delete(&layout::layer(machine, *layer)).await?;
            deleted += 1;
        }
        store.delete(&layout::manifest(machine, number)).await?;
        deleted += 1;
    }
    Ok(deleted)
}

/// The layers that a manifest names.
fn layers(manifest: &Manifest) -> BTreeSet<LayerId> {
    let of = manifest.epochs.iter().flat_map(|epoch| {
        epoch.layers.iter().chain(epoch.base.iter().flat_map(|base| &base.layers))
    });
    of.map(|entry| entry.layer).collect()
}
