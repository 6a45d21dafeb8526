//! Records in a store: creating one, reading one, listing those of a machine.

use std::collections::BTreeMap;

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
/// How many records that a listing lacks are asked for by name: a vault that lost more has other
/// troubles, and each costs a request.
const GAPS_MAX: usize = 1024;

/// Records of one kind, as far as they can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records<R> {
    /// Those that are whole, in order.
    pub whole: Vec<R>,
    /// What is wrong with the others: damaged, or missing though a later one is there.
    pub damaged: Vec<MetaError>,
}

impl<R> Default for Records<R> {
    fn default() -> Self {
        Self { whole: Vec::new(), damaged: Vec::new() }
    }
}

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

/// All runs that can be read, the earliest first.
///
/// # Errors
/// What the store reports; [`MetaError::Format`], [`MetaError::KeyVersion`].
pub async fn list_runs(store: &Store, ring: &KeyRing) -> Result<Records<Run>, MetaError> {
    let mut ids = Vec::new();
    let mut listed = store.list(layout::RUNS, None);
    while let Some(object) = listed.try_next().await? {
        ids.extend(layout::parse_run(&object.path));
    }
    let mut runs = read_all(ids, |run| read_run(store, ring, run)).await?;
    runs.whole.sort_by_key(|run| (run.started, run.run));
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

/// The numbers of a machine's epochs, whether their records can be read or not.
///
/// # Errors
/// What the store reports.
pub async fn epoch_numbers(store: &Store, machine: &Name) -> Result<Vec<Epoch>, MetaError> {
    let mut listed = store.list(&layout::epochs(machine), None);
    let mut numbers = Vec::new();
    while let Some(object) = listed.try_next().await? {
        numbers.extend(layout::parse_epoch(machine, &object.path));
    }
    Ok(numbers)
}

/// The epochs of a machine in order of their numbers; none when it isn't known. Numbers are given
/// without gaps: one that lacks below an epoch that can be read was lost.
///
/// # Errors
/// What the store reports; [`MetaError::Format`], [`MetaError::KeyVersion`].
pub async fn list_epochs(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
) -> Result<Records<EpochRecord>, MetaError> {
    let numbers = epoch_numbers(store, machine).await?;
    let read = |epoch| read_epoch(store, ring, machine, epoch);
    let mut epochs = read_all(numbers.clone(), read).await?;
    let highest = epochs.whole.last().map_or(0, |record| record.epoch.0);
    let gaps = gaps(numbers.into_iter().map(|epoch| epoch.0.into()), highest.into());
    let gaps = gaps.into_iter().filter_map(|number| u32::try_from(number).ok().map(Epoch));
    ask(&mut epochs, gaps, |epoch| layout::epoch(machine, epoch), read).await?;
    epochs.whole.sort_by_key(|record| record.epoch);
    Ok(epochs)
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

/// The sessions of all epochs of a machine, in order, without the first of each epoch, which is the
/// epoch's own. Numbers are given without gaps, as those of epochs.
///
/// # Errors
/// What the store reports; [`MetaError::Format`], [`MetaError::KeyVersion`].
pub async fn list_sessions(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
) -> Result<Records<SessionRecord>, MetaError> {
    let mut listed = store.list(&layout::sessions(machine), None);
    let mut keys: BTreeMap<Epoch, Vec<u64>> = BTreeMap::new();
    while let Some(object) = listed.try_next().await? {
        if let Some((epoch, number)) = layout::parse_session(machine, &object.path) {
            keys.entry(epoch).or_default().push(number);
        }
    }
    let read = |(epoch, number)| read_session(store, ring, machine, epoch, number);
    let path = |(epoch, number)| layout::session(machine, epoch, number);
    let mut sessions = Records::default();
    for (epoch, numbers) in keys {
        let mut of_epoch =
            read_all(numbers.iter().map(|number| (epoch, *number)).collect(), read).await?;
        let highest = of_epoch.whole.last().map_or(0, |record| record.number);
        let gaps = gaps(numbers, highest).into_iter().map(|number| (epoch, number));
        ask(&mut of_epoch, gaps, path, read).await?;
        of_epoch.whole.sort_by_key(|record| record.number);
        sessions.whole.append(&mut of_epoch.whole);
        sessions.damaged.append(&mut of_epoch.damaged);
    }
    Ok(sessions)
}

/// The newest session of an epoch; `None` when it has only its first, which is its own. The others
/// are listed and not read.
///
/// # Errors
/// What the store reports, or [`MetaError::Damaged`].
pub async fn newest_session(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    epoch: Epoch,
) -> Result<Option<SessionRecord>, MetaError> {
    let mut newest = 0;
    let after = layout::before_sessions_of(machine, epoch);
    let mut listed = store.list(&layout::sessions(machine), Some(&after));
    while let Some(object) = listed.try_next().await? {
        match layout::parse_session(machine, &object.path) {
            Some((of, number)) if of == epoch => newest = number.max(newest),
            Some((of, _)) if of > epoch => break,
            _ => {}
        }
    }
    match newest {
        0 => Ok(None),
        number => read_session(store, ring, machine, epoch, number).await,
    }
}

async fn read_session(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    epoch: Epoch,
    number: u64,
) -> Result<Option<SessionRecord>, MetaError> {
    let path = layout::session(machine, epoch, number);
    read(store, ring, &path, |record: &SessionRecord| record.check(epoch, number)).await
}

/// Creates a record at `path`.
pub(crate) async fn create(
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

/// The record at `path`; `None` when it isn't there.
pub(crate) async fn read<R: DeserializeOwned>(
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
async fn read_all<K, R, F>(keys: Vec<K>, read: impl Fn(K) -> F) -> Result<Records<R>, MetaError>
where
    F: Future<Output = Result<Option<R>, MetaError>>,
{
    let mut records = Records::default();
    let mut reads = std::pin::pin!(stream::iter(keys).map(read).buffered(READS_AT_ONCE));
    while let Some(read) = reads.next().await {
        match read {
            Ok(record) => records.whole.extend(record),
            Err(error) if error.is_damage() => records.damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(records)
}

/// Asks by name for what a listing lacks, for it may have been made meanwhile. What isn't there is
/// missing.
async fn ask<K: Copy, R, F>(
    records: &mut Records<R>,
    lacking: impl Iterator<Item = K>,
    path: impl Fn(K) -> String,
    read: impl Fn(K) -> F,
) -> Result<(), MetaError>
where
    F: Future<Output = Result<Option<R>, MetaError>>,
{
    for key in lacking {
        match read(key).await {
            Ok(Some(record)) => records.whole.push(record),
            Ok(None) => records.damaged.push(MetaError::Missing { path: path(key) }),
            Err(error) if error.is_damage() => records.damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The numbers from 1 below `highest` that aren't in `listed`, which rises; [`GAPS_MAX`] at most.
fn gaps(listed: impl IntoIterator<Item = u64>, highest: u64) -> Vec<u64> {
    let mut gaps = Vec::new();
    let mut next = 1_u64;
    for number in listed.into_iter().take_while(|number| *number <= highest) {
        gaps.extend((next..number).take(GAPS_MAX - gaps.len()));
        next = number.saturating_add(1);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_lacks_below_the_highest_number() {
        assert_eq!(gaps([1, 2, 3], 3), [0; 0]);
        assert_eq!(gaps([2, 5, 9], 5), [1, 3, 4]);
        assert_eq!(gaps([1], 0), [0; 0]);
        assert_eq!(gaps([1, u64::MAX], u64::MAX).len(), GAPS_MAX);
    }
}
