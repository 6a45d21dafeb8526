//! Layers that no manifest names: of folds that were killed, or came second.
//!
//! Who creates a manifest deletes those that were stored before. None of them is ever named: a manifest
//! has the number after the one that its fold went on from, so of the folds that are under way when this
//! one is created none gets its own through; and who begins later makes layers that weren't stored yet.
//! Manifests that aren't needed any more count as long as they are there, for they may be pinned: with
//! their layers the collector (`gc`) deals.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use tidegate_model::{LayerId, Name};

use super::FoldError;
use super::manifest::Manifest;
use super::needed::Needed;
use super::objects::{create_manifest, manifest_numbers, read_manifest};
use crate::layout;
use crate::meta::MetaError;
use crate::seal::KeyRing;
use crate::store::{Put, Store, StoreError};

/// Creates a manifest, and then deletes the layers that none names. [`Put::Exists`] means that another has
/// its number.
pub(super) async fn create_and_sweep(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    manifest: &Manifest,
) -> Result<Put, FoldError> {
    let stored = stored_layers(store, machine).await.map_err(MetaError::from)?;
    let put = create_manifest(store, ring, machine, manifest).await?;
    if put == Put::Created
        && let Err(error) = delete_unnamed(store, ring, machine, stored).await
    {
        tracing::warn!(%machine, %error, "layers of folds that were killed stay for the next fold");
    }
    Ok(put)
}

/// The layers of a machine that are stored.
pub(super) async fn stored_layers(
    store: &Store,
    machine: &Name,
) -> Result<BTreeSet<LayerId>, StoreError> {
    let mut stored = BTreeSet::new();
    let mut listed = store.list(&layout::layers(machine), None);
    while let Some(object) = listed.try_next().await? {
        stored.extend(layout::parse_layer(machine, &object.path));
    }
    Ok(stored)
}

/// Deletes those of the layers `stored` that no manifest names, of which one was created since.
async fn delete_unnamed(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    mut stored: BTreeSet<LayerId>,
) -> Result<(), MetaError> {
    for number in manifest_numbers(store, machine).await? {
        if stored.is_empty() {
            return Ok(());
        }
        match read_manifest(store, ring, machine, number).await {
            Ok(manifest) => {
                let named = Needed::by(&manifest).layers;
                stored.retain(|layer| !named.contains(layer));
            }
            // It was collected, after its layers.
            Err(MetaError::Missing { .. }) => {}
            // What it names can't be told.
            Err(error) if error.is_damage() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    for layer in &stored {
        store.delete(&layout::layer(machine, *layer)).await?;
    }
    Ok(())
}
