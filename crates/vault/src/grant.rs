//! Grants epochs: which LSNs of a machine the vault takes next, and where its history goes on.
//! docs/formats/epochs.md.
//!
//! Owns the decision, the end of a chain as cheaply as it can be had, and creating the record.
//! Doesn't own the records' bytes (`meta`) nor sessions and connections.
//!
//! Invariants: an epoch belongs to one incarnation; a record is created only if there is none of
//! its number, so of two servers that grant at once one looks again. Granting twice does no harm:
//! a session record that nobody uses names a log in which there is nothing of that machine.

mod error;

use std::cmp::max;
use std::collections::BTreeMap;
use std::pin::pin;

use futures::{StreamExt, TryStreamExt};
use tidegate_model::{Epoch, Incarnation, LogName, Lsn, Micros, Name, PackNumber, Point};

use crate::layout;
use crate::log::LogReader;
use crate::meta::{self, Begins, EpochRecord, MetaError, SessionRecord};
use crate::store::Put;
pub use error::GrantError;

/// How often another may be first before this gives up: each time some other grant of the same
/// machine succeeded, which a single agent can't cause.
const TRIES_MAX: u32 = 16;

/// What an agent says of itself, and where its session will begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRequest {
    /// The machine.
    pub machine: Name,
    /// The life of the agent's journal.
    pub incarnation: Incarnation,
    /// The epoch that it goes on with; [`Epoch::NONE`] for a new one.
    pub claimed: Epoch,
    /// What a new epoch begins with.
    pub begins: Begins,
    /// What the agent was told that the vault has of the epoch that it goes on with.
    pub acknowledged: Lsn,
    /// What the agent's own state says that it continues.
    pub parent: Option<Point>,
    /// The log of the session.
    pub log: LogName,
    /// The first pack of that log that can have records of the session.
    pub pack: PackNumber,
    /// Now.
    pub now: Micros,
}

/// What the vault granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The epoch.
    pub epoch: Epoch,
    /// What the vault has of it: the agent sends what follows.
    pub committed: Lsn,
}

/// What a request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    /// This epoch goes on.
    Resume(EpochRecord),
    /// A new epoch of this number begins.
    Begin(Epoch),
}

/// Decides by the epoch that is claimed and the newest one, as far as they are there. A request
/// that claims nothing, of the incarnation to which the newest epoch was granted, resumes that: its
/// agent didn't hear of the grant.
fn decide(
    request: &GrantRequest,
    claimed: Option<EpochRecord>,
    newest: Option<EpochRecord>,
) -> Result<Decision, GrantError> {
    let (machine, epoch) = (request.machine.clone(), request.claimed);
    if epoch != Epoch::NONE {
        return match claimed {
            None => Err(GrantError::NoEpoch { machine, epoch }),
            Some(record) if record.incarnation != request.incarnation => {
                Err(GrantError::OtherIncarnation { machine, epoch })
            }
            Some(record) => Ok(Decision::Resume(record)),
        };
    }
    match newest {
        Some(newest) if newest.incarnation == request.incarnation => Ok(Decision::Resume(newest)),
        // The number after the last of 2^32 is the last again, and so never created.
        newest => {
            Ok(Decision::Begin(Epoch(newest.map_or(0, |newest| newest.epoch.0).saturating_add(1))))
        }
    }
}

/// Grants an epoch, or the next session of one.
///
/// # Errors
/// [`GrantError`] says why not.
pub async fn grant(reader: &LogReader, request: &GrantRequest) -> Result<Grant, GrantError> {
    for _ in 0..TRIES_MAX {
        let claimed = read_epoch(reader, &request.machine, request.claimed).await?;
        let newest = newest_epoch(reader, &request.machine).await?;
        let granted = match decide(request, claimed, newest.clone())? {
            Decision::Resume(epoch) => resume(reader, request, &epoch).await?,
            Decision::Begin(epoch) => begin(reader, request, epoch, newest).await?,
        };
        if let Some(granted) = granted {
            return Ok(granted);
        }
    }
    Err(GrantError::Contended { machine: request.machine.clone() })
}

/// Adds a session to `epoch`; `None` when another was first.
async fn resume(
    reader: &LogReader,
    request: &GrantRequest,
    epoch: &EpochRecord,
) -> Result<Option<Grant>, GrantError> {
    let (store, ring) = (reader.store(), reader.ring());
    let newest = meta::newest_session(store, ring, &request.machine, epoch.epoch).await?;
    let mut committed = end_of(reader, &request.machine, epoch, newest.as_ref()).await?;
    if committed < request.acknowledged {
        committed = committed.max(end_of_all(reader, &request.machine, epoch).await?);
    }
    let record = SessionRecord {
        epoch: epoch.epoch,
        number: newest.map_or(0, |newest| newest.number).saturating_add(1),
        incarnation: request.incarnation,
        committed,
        log: request.log.clone(),
        pack: request.pack,
        granted: request.now,
    };
    let put = meta::create_session(store, ring, &request.machine, &record).await?;
    Ok((put == Put::Created).then_some(Grant { epoch: epoch.epoch, committed }))
}

/// Creates `epoch`; `None` when another was first.
async fn begin(
    reader: &LogReader,
    request: &GrantRequest,
    epoch: Epoch,
    newest: Option<EpochRecord>,
) -> Result<Option<Grant>, GrantError> {
    let machine = request.machine.clone();
    let parent = match (request.parent, newest) {
        (Some(parent), _) => Some(named_parent(reader, request, parent).await?),
        (None, Some(newest)) => {
            let end = chain_end(reader, &machine, &newest).await?;
            Some(Point { epoch: newest.epoch, lsn: end })
        }
        (None, None) => None,
    };
    if parent.is_none() && request.begins == Begins::Continue {
        return Err(GrantError::NothingToContinue { machine });
    }
    let record = EpochRecord {
        epoch,
        incarnation: request.incarnation,
        parent,
        begins: request.begins,
        log: request.log.clone(),
        pack: request.pack,
        granted: request.now,
    };
    let put = meta::create_epoch(reader.store(), reader.ring(), &machine, &record).await?;
    Ok((put == Put::Created).then_some(Grant { epoch, committed: Lsn::NONE }))
}

/// The parent that the agent names, if the vault has it. A copy only tells where it came from; what
/// continues needs every LSN up to there.
async fn named_parent(
    reader: &LogReader,
    request: &GrantRequest,
    parent: Point,
) -> Result<Point, GrantError> {
    let machine = request.machine.clone();
    let Some(record) = read_epoch(reader, &machine, parent.epoch).await? else {
        return Err(GrantError::NoEpoch { machine, epoch: parent.epoch });
    };
    if request.begins == Begins::Continue {
        let end = chain_end(reader, &machine, &record).await?;
        if end < parent.lsn {
            return Err(GrantError::ParentBeyond { machine, parent, end });
        }
    }
    Ok(parent)
}

/// The end of an epoch's chain: every LSN up to it is in the vault. Looks only at the log of the
/// newest session.
///
/// # Errors
/// [`GrantError::Log`] also for a damaged pack: what it held can't be told.
pub async fn chain_end(
    reader: &LogReader,
    machine: &Name,
    epoch: &EpochRecord,
) -> Result<Lsn, GrantError> {
    let (store, ring) = (reader.store(), reader.ring());
    let newest = meta::newest_session(store, ring, machine, epoch.epoch).await?;
    end_of(reader, machine, epoch, newest.as_ref()).await
}

/// The same by the newest session of every log that the epoch has used. The newest of all may be one
/// whose agent had gone before it was granted: what a session before it was told lies in another log
/// then.
async fn end_of_all(
    reader: &LogReader,
    machine: &Name,
    epoch: &EpochRecord,
) -> Result<Lsn, GrantError> {
    let all = meta::list_sessions(reader.store(), reader.ring(), machine).await?;
    let of_epoch = all.whole.iter().filter(|session| session.epoch == epoch.epoch);
    // In their order, so that the newest of a log is what stays.
    let newest: BTreeMap<&LogName, &SessionRecord> =
        of_epoch.map(|session| (&session.log, session)).collect();
    let mut end = Lsn::NONE;
    for session in newest.into_values().map(Some).chain([None]) {
        end = end.max(end_of(reader, machine, epoch, session).await?);
    }
    Ok(end)
}

/// Reads the newest session's log backwards, to the last pack that completes a record.
async fn end_of(
    reader: &LogReader,
    machine: &Name,
    epoch: &EpochRecord,
    newest: Option<&SessionRecord>,
) -> Result<Lsn, GrantError> {
    let first = (&epoch.log, epoch.pack, Lsn::NONE);
    let (log, first, committed) =
        newest.map_or(first, |session| (&session.log, session.pack, session.committed));
    let survey = reader.survey(log).await?;
    let backwards = survey.counted_from(first).into_iter().rev().collect();
    let mut packs = pin!(reader.packs(&survey, backwards));
    // Several are read at once: in a log of many machines the last that names this one may lie far
    // back.
    while let Some((_, pack)) = packs.next().await {
        let pack = pack?;
        let here = pack.index.machines.iter();
        let complete = here
            .filter(|entry| entry.name == *machine && entry.epoch == epoch.epoch)
            .map(|entry| entry.complete_lsn)
            .max();
        if let Some(complete) = complete.filter(|lsn| *lsn != Lsn::NONE) {
            return Ok(max(complete, committed));
        }
    }
    Ok(committed)
}

async fn read_epoch(
    reader: &LogReader,
    machine: &Name,
    epoch: Epoch,
) -> Result<Option<EpochRecord>, GrantError> {
    if epoch == Epoch::NONE {
        return Ok(None);
    }
    Ok(meta::read_epoch(reader.store(), reader.ring(), machine, epoch).await?)
}

/// The newest epoch; the others aren't read.
async fn newest_epoch(
    reader: &LogReader,
    machine: &Name,
) -> Result<Option<EpochRecord>, GrantError> {
    let mut listed = reader.store().list(&layout::epochs(machine), None);
    let mut newest = Epoch::NONE;
    while let Some(object) = listed.try_next().await.map_err(MetaError::from)? {
        newest = newest.max(layout::parse_epoch(machine, &object.path).unwrap_or_default());
    }
    read_epoch(reader, machine, newest).await
}

#[cfg(test)]
mod tests;
