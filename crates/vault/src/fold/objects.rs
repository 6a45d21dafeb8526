//! Manifests and layers in the store: creating them, reading them. docs/formats/fold.md.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use tidegate_model::{Epoch, LayerId, Name};

use super::FoldError;
use super::body::{body_bytes_max, content_bytes, pack, unpack};
use super::layer::Layer;
use super::layer_codec::{self, LAYER_BYTES_MAX};
use super::manifest::{LayerEntry, Manifest};
use crate::keys::random;
use crate::layout;
use crate::meta::MetaError;
use crate::meta::container::{SEALED_OVERHEAD_BYTES, open_within, seal_within};
use crate::seal::KeyRing;
use crate::store::{Put, Store};

/// Most bytes of a manifest before it is compressed: a million bookmarks or packs, at some 60 bytes.
pub(super) const MANIFEST_BYTES_MAX: usize = 64 << 20;
/// Layers that are read at once: each holds up to 50 MB while it is opened.
pub(crate) const LAYERS_AHEAD: usize = 3;

/// How many manifests of a machine are kept, and tried: when the newest gets damaged, readers and folds
/// go on from the one before it.
pub(crate) const MANIFESTS_KEPT: usize = 2;

/// What is folded of a machine, by its newest manifest.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    /// The number of the newest that is there; 0 when there is none.
    pub number: u64,
    /// What the newest says that can be read.
    pub manifest: Option<Manifest>,
    /// What is wrong with the newest.
    pub damage: Option<MetaError>,
}

/// The newest manifest of a machine that can be read; what is wrong with a newer one is no error. The
/// one before it says less of the logs, and all that it needs stays (`needed`): so what it leads to is
/// right.
///
/// # Errors
/// What the store reports; [`MetaError::Format`], [`MetaError::KeyVersion`].
pub(crate) async fn newest_manifest(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
) -> Result<Newest, MetaError> {
    loop {
        let numbers = manifest_numbers(store, machine).await?;
        let number = numbers.last().copied().unwrap_or_default();
        let mut newest = Newest { number, ..Newest::default() };
        for number in numbers.into_iter().rev().take(MANIFESTS_KEPT) {
            match read_manifest(store, ring, machine, number).await {
                Ok(manifest) => {
                    newest.manifest = Some(manifest);
                    break;
                }
                Err(error) if error.is_damage() => newest.damage = newest.damage.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        // Others may have folded meanwhile, and these been collected.
        if newest.damage.is_none() || newest_number(store, machine).await? == number {
            return Ok(newest);
        }
    }
}

/// The manifest before this one, where it is there and can be read.
pub(super) async fn manifest_before(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    number: u64,
) -> Result<Option<Manifest>, MetaError> {
    let Some(number) = number.checked_sub(1).filter(|number| *number > 0) else { return Ok(None) };
    match read_manifest(store, ring, machine, number).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number of the newest manifest of a machine; 0 when there is none.
///
/// # Errors
/// What the store reports.
pub(crate) async fn newest_number(store: &Store, machine: &Name) -> Result<u64, MetaError> {
    Ok(manifest_numbers(store, machine).await?.last().copied().unwrap_or_default())
}

/// The numbers of a machine's manifests. What a listing hasn't yet is asked for by its name.
///
/// # Errors
/// What the store reports.
pub(crate) async fn manifest_numbers(
    store: &Store,
    machine: &Name,
) -> Result<BTreeSet<u64>, MetaError> {
    let mut numbers = BTreeSet::new();
    let mut listed = store.list(&layout::manifests(machine), None);
    while let Some(object) = listed.try_next().await? {
        numbers.extend(layout::parse_manifest(machine, &object.path));
    }
    loop {
        let next = numbers.last().map_or(1, |newest| newest + 1);
        match store.head(&layout::manifest(machine, next)).await {
            Ok(_) => drop(numbers.insert(next)),
            Err(error) if error.is_not_found() => return Ok(numbers),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether so many newer manifests of a machine are there that this one, and what only it needs, may
/// have been deleted. A `number` of 0 stands for the logs.
///
/// # Errors
/// What the store reports.
pub(crate) async fn is_superseded(
    store: &Store,
    machine: &Name,
    number: u64,
) -> Result<bool, MetaError> {
    let numbers = manifest_numbers(store, machine).await?;
    Ok(numbers.range(number.saturating_add(1)..).count() >= MANIFESTS_KEPT)
}

/// Manifest `number` of a machine.
pub(crate) async fn read_manifest(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    number: u64,
) -> Result<Manifest, MetaError> {
    let path = layout::manifest(machine, number);
    let content = read(store, ring, &path, MANIFEST_BYTES_MAX).await?;
    let manifest = decode_manifest(&content, number);
    manifest.map_err(|cause| MetaError::damaged(&path, &cause))
}

/// Manifest `number` of a machine, unless its content has more than so many bytes: then how many.
pub(super) async fn read_manifest_within(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    number: u64,
    bytes_max: usize,
) -> Result<Result<Manifest, usize>, MetaError> {
    let path = layout::manifest(machine, number);
    // No content is shorter than what it is sealed as, but for a few bytes.
    let stored = match store.head(&path).await {
        Err(error) if error.is_not_found() => return Err(MetaError::Missing { path }),
        head => usize::try_from(head?.bytes).unwrap_or(usize::MAX),
    };
    if stored > body_bytes_max(bytes_max) + SEALED_OVERHEAD_BYTES {
        return Ok(Err(stored));
    }
    let body = read_body(store, ring, &path, bytes_max).await?;
    let damaged = |cause: &str| MetaError::damaged(&path, cause);
    match content_bytes(&body).map_err(damaged)? {
        bytes if bytes > bytes_max => Ok(Err(bytes)),
        bytes => {
            let content = unpack(&body, bytes).map_err(damaged)?;
            Ok(Ok(decode_manifest(&content, number).map_err(|cause| damaged(&cause))?))
        }
    }
}

/// The manifest with this number whose content this is.
pub(super) fn decode_manifest(content: &[u8], number: u64) -> Result<Manifest, String> {
    let manifest: Manifest = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    manifest.check(number)?;
    Ok(manifest)
}

/// Creates a manifest. [`Put::Exists`] means that another has its number.
pub(crate) async fn create_manifest(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    manifest: &Manifest,
) -> Result<Put, FoldError> {
    let path = layout::manifest(machine, manifest.number);
    let refuse = |cause: &str| MetaError::damaged(&path, cause);
    manifest.check(manifest.number).map_err(refuse)?;
    let content = serde_json::to_vec(manifest).map_err(|error| refuse(&error.to_string()))?;
    if content.len() > MANIFEST_BYTES_MAX {
        let (machine, bytes, bytes_max) = (machine.clone(), content.len(), MANIFEST_BYTES_MAX);
        return Err(FoldError::TooLong { machine, bytes, bytes_max });
    }
    let (_, put) = create(store, ring, &path, &content, MANIFEST_BYTES_MAX).await?;
    Ok(put)
}

/// Creates a layer under a new name; gives its entry for a manifest.
pub(super) async fn create_layer(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    layer: Layer,
) -> Result<LayerEntry, MetaError> {
    let id = LayerId::from_bytes(random()?);
    let path = layout::layer(machine, id);
    let (first, last) = (layer.first, layer.last);
    let extents = u32::try_from(layer.extents.len()).unwrap_or(u32::MAX);
    let kept_bytes = layer.kept_bytes();
    let content = aside(&path, move || Ok(layer_codec::encode(&layer))).await?;
    let (bytes, put) = create(store, ring, &path, &content, LAYER_BYTES_MAX).await?;
    match put {
        Put::Created => Ok(LayerEntry { layer: id, first, last, extents, bytes, kept_bytes }),
        Put::Exists => Err(MetaError::damaged(&path, "another layer has this random name")),
    }
}

/// The layer that a manifest names.
///
/// # Errors
/// [`MetaError::Damaged`], [`MetaError::Missing`] when it isn't there, or is another; what the store
/// reports.
pub(crate) async fn read_layer(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    epoch: Epoch,
    entry: LayerEntry,
) -> Result<Layer, MetaError> {
    let path = layout::layer(machine, entry.layer);
    let content = read(store, ring, &path, LAYER_BYTES_MAX).await?;
    let layer = aside(&path, move || layer_codec::decode(&content)).await?;
    let told = (layer.epoch, layer.first, layer.last, layer.extents.len());
    if told != (epoch, entry.first, entry.last, entry.extents as usize) {
        return Err(MetaError::damaged(&path, "its manifest tells of another layer"));
    }
    Ok(layer)
}

/// Work of milliseconds, which must not keep the store's threads.
async fn aside<T: Send + 'static>(
    path: &str,
    work: impl FnOnce() -> Result<T, &'static str> + Send + 'static,
) -> Result<T, MetaError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| MetaError::Stopped(error.to_string()))?;
    done.map_err(|cause| MetaError::damaged(path, cause))
}

/// Seals `content` at `path`; gives the size of the object.
async fn create(
    store: &Store,
    ring: &KeyRing,
    path: &str,
    content: &[u8],
    content_bytes_max: usize,
) -> Result<(u64, Put), MetaError> {
    let body = pack(content).map_err(|cause| MetaError::damaged(path, cause))?;
    let object = seal_within(ring, path, &body, body_bytes_max(content_bytes_max))?;
    let bytes = object.len() as u64;
    Ok((bytes, store.create(path, object).await?))
}

/// The content of the object at `path`.
async fn read(
    store: &Store,
    ring: &KeyRing,
    path: &str,
    content_bytes_max: usize,
) -> Result<Vec<u8>, MetaError> {
    let body = read_body(store, ring, path, content_bytes_max).await?;
    unpack(&body, content_bytes_max).map_err(|cause| MetaError::damaged(path, cause))
}

/// The body of the object at `path`.
async fn read_body(
    store: &Store,
    ring: &KeyRing,
    path: &str,
    content_bytes_max: usize,
) -> Result<Vec<u8>, MetaError> {
    let body_max = body_bytes_max(content_bytes_max);
    let object = match store.get(path, (body_max + SEALED_OVERHEAD_BYTES) as u64).await {
        Err(error) if error.is_not_found() => {
            return Err(MetaError::Missing { path: path.to_owned() });
        }
        got => got?,
    };
    open_within(ring, path, &object, body_max)
}
