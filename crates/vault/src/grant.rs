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
mod quiet;

use std::cmp::max;
use std::collections::BTreeMap;
use std::pin::pin;

use futures::{StreamExt, TryStreamExt};
use tidegate_model::{Epoch, Incarnation, LogName, Lsn, Micros, Name, PackNumber, Point, Token};

use crate::fold::newest_manifest;
use crate::layout;
use crate::log::{LogError, LogReader, PackPlace, Stated, Survey};
use crate::meta::{self, Begins, EpochRecord, MetaError, SessionRecord, removed_upto};
use crate::pack::PackSummary;
use crate::store::Put;
pub use error::GrantError;
pub use quiet::{QuietEnd, record_end};

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
    /// By what it knows the session again.
    pub token: Token,
    /// The epoch that it goes on with; [`Epoch::NONE`] for a new one.
    pub claimed: Epoch,
    /// What a new epoch begins with. Without any parent it begins with a copy all the same.
    pub begins: Begins,
    /// What the agent was told that the vault has of the epoch that it goes on with.
    pub acknowledged: Lsn,
    /// What the agent's own state says that it continues.
    pub parent: Option<Point>,
    /// The log of the session.
    pub log: LogName,
    /// The first pack of that log that can have records of the session.
    pub pack: PackNumber,
    /// What the log's writer knows of the machine, if it has stored anything of it.
    pub known: Option<KnownEnd>,
    /// Now.
    pub now: Micros,
}

/// What the writer of a log knows of a machine without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownEnd {
    /// The machine's epoch.
    pub epoch: Epoch,
    /// Every LSN up to this is in the vault, and no pack of the log before `stored` completes one
    /// beyond it.
    pub committed: Lsn,
    /// The first pack of the log that isn't known to be stored with all before it.
    pub stored: PackNumber,
}

/// What the vault granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The epoch.
    pub epoch: Epoch,
    /// What the vault has of it: the agent sends what follows.
    pub committed: Lsn,
    /// The session's number; 0 for the epoch's first.
    pub session: u64,
    /// How the epoch began.
    pub begins: Begins,
    /// That of the epoch's session before this one; [`Token::NONE`] for its first. Who doesn't know it isn't
    /// the agent that the epoch belongs to, but a copy of it.
    pub before: Token,
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
        let removed = removed_upto(reader.store(), reader.ring(), &request.machine).await?;
        let decision = decide(request, claimed, newest.clone())?;
        let resumed = match &decision {
            Decision::Resume(epoch) => epoch.epoch,
            Decision::Begin(_) => Epoch::NONE,
        };
        let granted = match decision {
            Decision::Resume(epoch) if epoch.epoch <= removed => {
                let place = Point { epoch: epoch.epoch, lsn: Lsn::NONE };
                return Err(GrantError::NotKept { machine: request.machine.clone(), place });
            }
            // The newest epoch always stays.
            Decision::Resume(epoch) if newest.as_ref().is_some_and(|newest| *newest != epoch) => {
                let end = Point { epoch: epoch.epoch, lsn: Lsn::NONE };
                check_same_run(reader, request, &epoch).await?;
                check_kept(reader, &request.machine, end).await?;
                let resumed = resume(reader, request, &epoch).await?;
                check_kept(reader, &request.machine, end).await?;
                resumed
            }
            Decision::Resume(epoch) => resume(reader, request, &epoch).await?,
            Decision::Begin(epoch) => begin(reader, request, epoch, newest, removed).await?,
        };
        if let Some(granted) = granted {
            // Who has removed the machine meanwhile may not have seen that its agent came.
            check_there(reader, &request.machine, resumed).await?;
            return Ok(granted);
        }
    }
    Err(GrantError::Contended { machine: request.machine.clone() })
}

/// Refuses to go on with an epoch that isn't the newest to who begins anew: its state may be older than
/// what another run of the machine did since, and its disks not. The run that is under way reconnects.
async fn check_same_run(
    reader: &LogReader,
    request: &GrantRequest,
    epoch: &EpochRecord,
) -> Result<(), GrantError> {
    let newest = Chain::of(reader, request, epoch).newest_session().await?;
    if newest.map_or(epoch.token, |session| session.token) == request.token {
        return Ok(());
    }
    Err(GrantError::Superseded { machine: request.machine.clone(), epoch: epoch.epoch })
}

/// Adds a session to `epoch`; `None` when another was first.
async fn resume(
    reader: &LogReader,
    request: &GrantRequest,
    epoch: &EpochRecord,
) -> Result<Option<Grant>, GrantError> {
    let chain = Chain::of(reader, request, epoch);
    let newest = chain.newest_session().await?;
    // The agent forgot nothing beyond what it states. Where the vault is known to have that, what it
    // has besides is only sent again if it isn't found.
    let reach = match request.acknowledged <= chain.start(newest.as_ref()).committed {
        true => Reach::Tail,
        false => Reach::Log,
    };
    let mut committed = chain.end_of(newest.as_ref(), reach).await?;
    if committed < request.acknowledged {
        committed = committed.max(chain.end_of_all().await?);
    }
    let before = newest.as_ref().map_or(epoch.token, |newest| newest.token);
    let record = SessionRecord {
        epoch: epoch.epoch,
        number: newest.map_or(0, |newest| newest.number).saturating_add(1),
        incarnation: request.incarnation,
        token: request.token,
        committed,
        log: request.log.clone(),
        pack: request.pack,
        granted: request.now,
    };
    let put =
        meta::create_session(reader.store(), reader.ring(), &request.machine, &record).await?;
    let (session, begins) = (record.number, epoch.begins);
    let granted = Grant { epoch: epoch.epoch, committed, session, begins, before };
    Ok((put == Put::Created).then_some(granted))
}

/// Creates `epoch`; `None` when another was first.
async fn begin(
    reader: &LogReader,
    request: &GrantRequest,
    epoch: Epoch,
    newest: Option<EpochRecord>,
    removed: Epoch,
) -> Result<Option<Grant>, GrantError> {
    let machine = request.machine.clone();
    let is_continued = request.begins == Begins::Continue;
    // What was removed is continued by nothing.
    let newest = newest.filter(|newest| !is_continued || newest.epoch > removed);
    if let Some(place) = request.parent.filter(|place| is_continued && place.epoch <= removed) {
        return Err(GrantError::NotKept { machine, place });
    }
    let parent = match (request.parent, newest) {
        (Some(parent), _) => Some(named_parent(reader, request, parent).await?),
        (None, Some(newest)) => {
            let chain = Chain::of(reader, request, &newest);
            let lsn = match request.begins {
                Begins::Continue => chain.end().await?,
                // Nothing stands on it: a machine that begins anew waits for no search.
                Begins::Copy => chain.start(chain.newest_session().await?.as_ref()).committed,
            };
            Some(Point { epoch: newest.epoch, lsn })
        }
        (None, None) => None,
    };
    let begins = if parent.is_none() { Begins::Copy } else { request.begins };
    let record = EpochRecord {
        epoch,
        incarnation: request.incarnation,
        token: request.token,
        parent,
        begins,
        log: request.log.clone(),
        pack: request.pack,
        granted: request.now,
    };
    let put = meta::create_epoch(reader.store(), reader.ring(), &machine, &record).await?;
    if let Some(parent) = record.parent.filter(|_| begins == Begins::Continue) {
        // Who folds has seen the epoch by now, or goes back when it is seen (`fold`), or has let the place
        // go before, and that shows here.
        check_kept(reader, &machine, parent).await?;
        check_there(reader, &machine, parent.epoch).await?;
    }
    let (committed, before) = (Lsn::NONE, Token::NONE);
    let granted = Grant { epoch, committed, session: 0, begins, before };
    Ok((put == Put::Created).then_some(granted))
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
        // What isn't kept may be collected: its end can't be searched for any more.
        check_kept(reader, &machine, parent).await?;
        let end = Chain::of(reader, request, &record).end().await?;
        if end < parent.lsn {
            return Err(GrantError::ParentBeyond { machine, parent, end });
        }
    }
    Ok(parent)
}

/// Refuses to go on from an epoch that was removed; [`Epoch::NONE`] is none.
async fn check_there(reader: &LogReader, machine: &Name, epoch: Epoch) -> Result<(), GrantError> {
    if epoch > Epoch::NONE && epoch <= removed_upto(reader.store(), reader.ring(), machine).await? {
        let place = Point { epoch, lsn: Lsn::NONE };
        return Err(GrantError::NotKept { machine: machine.clone(), place });
    }
    Ok(())
}

/// Refuses to go on from a place that isn't kept any more: nobody could bring back what follows it.
async fn check_kept(reader: &LogReader, machine: &Name, place: Point) -> Result<(), GrantError> {
    let newest = newest_manifest(reader.store(), reader.ring(), machine).await?;
    let Some(manifest) = newest.manifest else { return Ok(()) };
    let folded = manifest.epochs.iter().find(|folded| folded.epoch == place.epoch);
    let is_gone = manifest.gone.contains(&place.epoch);
    if is_gone || folded.is_some_and(|folded| !folded.retained.has(place.lsn)) {
        return Err(GrantError::NotKept { machine: machine.clone(), place });
    }
    Ok(())
}

/// The end of an epoch's chain: every LSN up to it is in the vault. Looks only at the log of the
/// newest session.
///
/// # Errors
/// [`GrantError::Log`] also for a damaged or missing pack: what it held can't be told.
pub async fn chain_end(
    reader: &LogReader,
    machine: &Name,
    epoch: &EpochRecord,
) -> Result<Lsn, GrantError> {
    Chain { reader, machine, epoch, known: None }.end().await
}

/// How far back an end is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// In the log's last stretch: ten seconds' reads.
    Tail,
    /// To where the session begins, however long that takes.
    Log,
}

/// Where the search for a chain's end begins.
struct Start<'a> {
    log: &'a LogName,
    /// No pack of the log before this one completes more than is `committed`.
    first: PackNumber,
    /// Up to here the chain is known to be in the vault.
    committed: Lsn,
    /// What is known of how far the log was committed.
    stated: Stated,
}

/// The chain of an epoch.
struct Chain<'a> {
    reader: &'a LogReader,
    machine: &'a Name,
    epoch: &'a EpochRecord,
    /// What is known of it in one log.
    known: Option<(&'a LogName, KnownEnd)>,
}

impl<'a> Chain<'a> {
    /// With what the server that asks knows of it.
    fn of(reader: &'a LogReader, request: &'a GrantRequest, epoch: &'a EpochRecord) -> Self {
        let known = request.known.filter(|known| known.epoch == epoch.epoch);
        let known = known.map(|known| (&request.log, known));
        Self { reader, machine: &request.machine, epoch, known }
    }

    /// Its end, by the log of the newest session.
    async fn end(&self) -> Result<Lsn, GrantError> {
        self.end_of(self.newest_session().await?.as_ref(), Reach::Log).await
    }

    async fn newest_session(&self) -> Result<Option<SessionRecord>, GrantError> {
        let (store, ring) = (self.reader.store(), self.reader.ring());
        Ok(meta::newest_session(store, ring, self.machine, self.epoch.epoch).await?)
    }

    /// The same by the newest session of every log that the epoch has used. The newest of all may be
    /// one whose agent had gone before it was granted: what a session before it was told lies in
    /// another log then.
    async fn end_of_all(&self) -> Result<Lsn, GrantError> {
        let (store, ring) = (self.reader.store(), self.reader.ring());
        let all = meta::list_sessions(store, ring, self.machine).await?;
        let of_epoch = all.whole.iter().filter(|session| session.epoch == self.epoch.epoch);
        // In their order, so that the newest of a log is what stays.
        let newest: BTreeMap<&LogName, &SessionRecord> =
            of_epoch.map(|session| (&session.log, session)).collect();
        let mut end = Lsn::NONE;
        for session in newest.into_values().map(Some).chain([None]) {
            end = end.max(self.end_of(session, Reach::Log).await?);
        }
        Ok(end)
    }

    /// What is known of a session, or of the epoch's first, without reading its log.
    fn start<'b>(&'b self, session: Option<&'b SessionRecord>) -> Start<'b> {
        let first = (&self.epoch.log, self.epoch.pack, Lsn::NONE);
        let (log, first, committed) =
            session.map_or(first, |session| (&session.log, session.pack, session.committed));
        match self.known.filter(|(of, _)| *of == log) {
            Some((_, known)) => Start {
                log,
                first: first.max(known.stored),
                committed: committed.max(known.committed),
                stated: Stated::by_writer(known.stored),
            },
            None => Start { log, first, committed, stated: Stated::default() },
        }
    }

    /// Reads a session's log backwards, to the last pack that completes a record, or to those of
    /// which it is known what they complete, or as far as `reach` goes. What is seen to be missing on
    /// the way may have been of this machine.
    async fn end_of(
        &self,
        session: Option<&SessionRecord>,
        reach: Reach,
    ) -> Result<Lsn, GrantError> {
        let Start { log, first, committed, stated } = self.start(session);
        let mut stretch = Some(self.reader.tail(log, first, stated).await?);
        while let Some(survey) = stretch {
            if let Some(lost) = survey.first_missing(first) {
                if reach == Reach::Tail {
                    // The agent has all that came since, and sends it again: nothing is lost.
                    return Ok(committed);
                }
                // It may have held what the agent has forgotten. Going on over it, a copy would
                // end well that nobody can bring back.
                return Err(LogError::Missing(lost).into());
            }
            if let Some(complete) = self.last_complete(&survey, first).await? {
                return Ok(max(complete, committed));
            }
            if reach == Reach::Tail {
                break;
            }
            stretch = self.reader.before(&survey, first).await?;
        }
        Ok(committed)
    }

    /// The last record that a stretch of a log completes.
    async fn last_complete(
        &self,
        survey: &Survey,
        first: PackNumber,
    ) -> Result<Option<Lsn>, GrantError> {
        let backwards = survey.counted_from(first).into_iter().rev().collect();
        let complete = |_: &PackPlace, summary: PackSummary| {
            let here = summary.machines.iter();
            here.filter(|entry| entry.name == *self.machine && entry.epoch == self.epoch.epoch)
                .map(|entry| entry.complete_lsn)
                .max()
                .filter(|lsn| *lsn != Lsn::NONE)
        };
        let mut packs = pin!(self.reader.summaries(survey, backwards, complete));
        // Several are read at once: in a log of many machines the last that names this one may lie
        // far back.
        while let Some((_, complete)) = packs.next().await {
            match complete {
                // Going since it was listed: it tells nothing that a session's record doesn't.
                Err(LogError::Collected(_)) => {}
                complete => {
                    if let Some(complete) = complete? {
                        return Ok(Some(complete));
                    }
                }
            }
        }
        Ok(None)
    }
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
