//! Records in a store: creating one, reading one, listing those of a machine.

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_model::limits::META_BYTES_MAX;
use tidegate_model::{Epoch, Name, RunId};

use super::{EpochRecord, MetaError, Run, SessionRecord, container};
use crate::layout;
use crate::seal::KeyRing;
use crate::store::{Put, Store};

/// How many records are read at once: small objects cost a store's latency each.
const READS_AT_ONCE: usize = 16;

/// The machines that the vault knows, in order.
///
/// # Errors
/// What the store reports.
pub async fn list_machines(store: &Store) -> Result<Vec<Name>, MetaError> {
    let mut machines = Vec::new();
    for folder in store.names(layout::MACHINES).await?.folders {
        match folder.parse() {
            Ok(name) => machines.push(name),
            Err(_) => tracing::warn!(%folder, "a folder in machines/ is none of ours"),
        }
    }
    Ok(machines)
}

/// Claims a run. [`Put::Exists`] cannot happen by chance: a run is 128 random bits.
///
/// # Errors
/// What the store reports.
pub async fn create_run(store: &Store, ring: &KeyRing, run: &Run) -> Result<Put, MetaError> {
    create(store, ring, &layout::run(run.run), run).await
}

/// A run; `None` when it isn't there.
///
/// # Errors
/// What the store reports, or [`MetaError::Damaged`].
pub async fn read_run(store: &Store, ring: &KeyRing, run: RunId) -> Result<Option<Run>, MetaError> {
    read(store, ring, &layout::run(run), |record: &Run| record.check(run)).await
}

/// All runs, the earliest first.
///
/// # Errors
/// What the store reports, or [`MetaError::Damaged`].
pub async fn list_runs(store: &Store, ring: &KeyRing) -> Result<Vec<Run>, MetaError> {
    let mut ids = Vec::new();
    let mut listed = store.list(layout::RUNS, None);
    while let Some(object) = listed.try_next().await? {
        ids.extend(layout::parse_run(&object.path));
    }
    let mut runs = read_all(ids, |run| read_run(store, ring, run)).await?;
    runs.sort_by_key(|run| (run.started, run.run));
    Ok(runs)
}

/// Grants an epoch: creates its record. [`Put::Exists`] means that another has its number: read
/// it, and take the next.
///
/// # Errors
/// What the store reports; [`MetaError::Damaged`] for a record that no reader would accept.
pub async fn create_epoch(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    record: &EpochRecord,
) -> Result<Put, MetaError> {
    let path = layout::epoch(machine, record.epoch);
    record.check(record.epoch).map_err(|cause| MetaError::damaged(&path, cause))?;
    create(store, ring, &path, record).await
}

/// An epoch of a machine; `None` when it isn't there.
///
/// # Errors
/// What the store reports, or [`MetaError::Damaged`].
pub async fn read_epoch(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    epoch: Epoch,
) -> Result<Option<EpochRecord>, MetaError> {
    let check = |record: &EpochRecord| record.check(epoch);
    read(store, ring, &layout::epoch(machine, epoch), check).await
}

/// The epochs of a machine in order of their numbers; empty when it isn't known.
///
/// # Errors
/// What the store reports, or [`MetaError::Damaged`].
pub async fn list_epochs(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
) -> Result<Vec<EpochRecord>, MetaError> {
    let mut numbers = Vec::new();
    let mut listed = store.list(&layout::epochs(machine), None);
    while let Some(object) = listed.try_next().await? {
        numbers.extend(layout::parse_epoch(machine, &object.path));
    }
    read_all(numbers, |epoch| read_epoch(store, ring, machine, epoch)).await
}

/// Adds a session to an epoch. [`Put::Exists`] means that another has its number.
///
/// # Errors
/// What the store reports; [`MetaError::Damaged`] for a record that no reader would accept.
pub async fn create_session(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    record: &SessionRecord,
) -> Result<Put, MetaError> {
    let path = layout::session(machine, record.epoch, record.number);
    record.check(record.epoch, record.number).map_err(|cause| MetaError::damaged(&path, cause))?;
    create(store, ring, &path, record).await
}

/// The sessions of an epoch in order of their numbers, without the first, which is the epoch's
/// own.
///
/// # Errors
/// What the store reports, or [`MetaError::Damaged`].
pub async fn list_sessions(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    epoch: Epoch,
) -> Result<Vec<SessionRecord>, MetaError> {
    let mut numbers = Vec::new();
    let after = layout::before_sessions_of(machine, epoch);
    let mut listed = store.list(&layout::sessions(machine), Some(&after));
    while let Some(object) = listed.try_next().await? {
        match layout::parse_session(machine, &object.path) {
            Some((of, number)) if of == epoch => numbers.push(number),
            Some((of, _)) if of > epoch => break,
            _ => {}
        }
    }
    let read_session = async |number| {
        let path = layout::session(machine, epoch, number);
        read(store, ring, &path, |record: &SessionRecord| record.check(epoch, number)).await
    };
    read_all(numbers, read_session).await
}

async fn create(
    store: &Store,
    ring: &KeyRing,
    path: &str,
    record: &impl Serialize,
) -> Result<Put, MetaError> {
    let body = serde_json::to_vec(record);
    let body = body.map_err(|error| MetaError::damaged(path, &error.to_string()))?;
    let object = container::seal(ring, path, &body)?;
    Ok(store.create(path, object).await?)
}

async fn read<R: DeserializeOwned>(
    store: &Store,
    ring: &KeyRing,
    path: &str,
    check: impl Fn(&R) -> Result<(), &'static str>,
) -> Result<Option<R>, MetaError> {
    let object = match store.get(path, META_BYTES_MAX).await {
        Err(error) if error.is_not_found() => return Ok(None),
        got => got?,
    };
    let body = container::open(ring, path, &object)?;
    let record: R = serde_json::from_slice(&body)
        .map_err(|error| MetaError::damaged(path, &error.to_string()))?;
    check(&record).map_err(|cause| MetaError::damaged(path, cause))?;
    Ok(Some(record))
}

/// Reads many records, in order. One that went since it was listed is left out.
async fn read_all<K, R, F>(keys: Vec<K>, read: impl Fn(K) -> F) -> Result<Vec<R>, MetaError>
where
    F: Future<Output = Result<Option<R>, MetaError>>,
{
    let read: Vec<Option<R>> =
        stream::iter(keys).map(read).buffered(READS_AT_ONCE).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}
