//! Steps of collections in the store. docs/formats/gc.md.

use futures::TryStreamExt;

use super::error::GcError;
use super::step::{Collected, Step};
use crate::fold::body::{body_bytes_max, pack, unpack};
use crate::layout;
use crate::meta::MetaError;
use crate::meta::container::{SEALED_OVERHEAD_BYTES, open_within, seal_within};
use crate::seal::KeyRing;
use crate::store::{Put, Store};

/// Most bytes of a step before it is compressed: 100,000 ranges, or 30,000 logs with one each.
const STEP_BYTES_MAX: usize = 4 << 20;

/// How far collections have come.
///
/// # Errors
/// What the store reports; [`MetaError::Damaged`], [`MetaError::Missing`]: then nobody can tell what was
/// collected from what is lost.
pub async fn read_collected(store: &Store, ring: &KeyRing) -> Result<Collected, MetaError> {
    let newest = newest_step(store).await?;
    if newest == 0 {
        return Ok(Collected::default());
    }
    let step = read_step(store, ring, newest).await?;
    let before = match step.condemns() && newest > 1 {
        true => Some(read_step(store, ring, newest - 1).await?),
        false => None,
    };
    Ok(Collected::of(step, before))
}

/// The number of the newest step; 0 when there is none. What a listing hasn't yet is asked for by its
/// name.
async fn newest_step(store: &Store) -> Result<u64, MetaError> {
    let mut newest = 0;
    let mut listed = store.list(layout::GC, None);
    while let Some(object) = listed.try_next().await? {
        newest = layout::parse_step(&object.path).unwrap_or_default().max(newest);
    }
    loop {
        match store.head(&layout::step(newest.saturating_add(1))).await {
            Ok(_) => newest += 1,
            Err(error) if error.is_not_found() => return Ok(newest),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A step.
///
/// # Errors
/// As [`read_collected`].
pub(super) async fn read_step(
    store: &Store,
    ring: &KeyRing,
    number: u64,
) -> Result<Step, MetaError> {
    let path = layout::step(number);
    let body_max = body_bytes_max(STEP_BYTES_MAX);
    let object = match store.get(&path, (body_max + SEALED_OVERHEAD_BYTES) as u64).await {
        Err(error) if error.is_not_found() => return Err(MetaError::Missing { path }),
        got => got?,
    };
    let body = open_within(ring, &path, &object, body_max)?;
    let content =
        unpack(&body, STEP_BYTES_MAX).map_err(|cause| MetaError::damaged(&path, cause))?;
    decode(&content, number).map_err(|cause| MetaError::damaged(&path, &cause))
}

/// The step with this number whose content this is.
pub(super) fn decode(content: &[u8], number: u64) -> Result<Step, String> {
    let step: Step = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    step.check(number)?;
    Ok(step)
}

/// Creates a step. [`Put::Exists`] means that another has its number.
///
/// # Errors
/// What the store reports; [`GcError::TooLong`].
pub(super) async fn create_step(
    store: &Store,
    ring: &KeyRing,
    step: &Step,
) -> Result<Put, GcError> {
    let path = layout::step(step.number);
    let content = serde_json::to_vec(step);
    let content = content.map_err(|error| MetaError::damaged(&path, &error.to_string()))?;
    if content.len() > STEP_BYTES_MAX {
        let (bytes, bytes_max) = (content.len(), STEP_BYTES_MAX);
        return Err(GcError::TooLong { bytes, bytes_max });
    }
    let body = pack(&content).map_err(|cause| MetaError::damaged(&path, cause))?;
    let object = seal_within(ring, &path, &body, body_bytes_max(STEP_BYTES_MAX))?;
    Ok(store.create(&path, object).await?)
}
