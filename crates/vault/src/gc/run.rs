//! Carries collections out: answers what [`Collection`] asks, and does what it says.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use tidegate_model::{FrameNumber, LogName, Micros, PackId, PackNumber};

use super::collection::{Answer, Ask, Collection, Outcome};
use super::error::GcError;
use super::limits;
use super::look::{Look, is_older};
use super::objects::create_step;
use super::packs::PackSet;
use super::pin::PIN_LIMIT;
use super::step::Step;
use super::superseded;
use crate::keys::random;
use crate::layout;
use crate::log::LogReader;
use crate::meta::MetaError;
use crate::pack::{HEADER_BYTES, PackHeader, PackKind};
use crate::store::Put;

/// Deletions under way at once.
const DELETES_AT_ONCE: usize = 16;

/// How garbage is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collecting {
    /// Nothing is created or deleted.
    pub dry_run: bool,
    /// A log that hasn't read a list that is so old, by the store's clock, is closed.
    pub patience: Duration,
    /// Bytes that may be held at once; `None` for what the vault asks for.
    pub bytes_max: Option<u64>,
}

impl Default for Collecting {
    fn default() -> Self {
        // A server reads lists every minute: one that hasn't for so long is gone, or is as good as.
        Self { dry_run: false, patience: Duration::from_secs(3600), bytes_max: None }
    }
}

/// What a collection did; or, where nothing was to be done, what it would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// What became of packs.
    pub outcome: Outcome,
    /// The packs that would be condemned, or removed if they are; only of a dry run.
    pub would: PackSet,
    /// Bytes of the packs that were deleted.
    pub bytes: u64,
    /// Manifests, layers and dense packs that newer ones have replaced, deleted.
    pub superseded: u64,
}

/// Collects the garbage of a vault.
///
/// # Errors
/// [`GcError`]; what was begun goes on with the next collection.
pub async fn collect(reader: &LogReader, how: Collecting) -> Result<CollectReport, GcError> {
    let now = reader.store().clock().await?;
    let collected = collect_packs(reader, how, now).await;
    if how.dry_run {
        return collected;
    }
    // Whatever is the matter with packs.
    let superseded = superseded::delete(reader, oldest_pin(now)).await;
    Ok(CollectReport { superseded: superseded?, ..collected? })
}

async fn collect_packs(
    reader: &LogReader,
    how: Collecting,
    now: Micros,
) -> Result<CollectReport, GcError> {
    let mut look = Look::new(reader);
    if let Some(bytes_max) = how.bytes_max {
        look.told_max = limits::check(reader, bytes_max).await?;
    }
    let mut collector = Collector { look, how, now, report: CollectReport::default() };
    let mut collection = Collection::default();
    let mut ask = collection.begin();
    while ask != Ask::Nothing {
        let Some(answer) = collector.answer(ask).await? else { break };
        ask = collection.told(answer);
    }
    let report = CollectReport { outcome: collection.outcome(), ..collector.report };
    let Outcome { unnamed, lost_step, lost_fold, .. } = report.outcome.clone();
    if let Some((pack, machine)) = unnamed {
        return Err(GcError::Unnamed { pack, machine });
    }
    if let Some((log, step)) = lost_step {
        return Err(GcError::LostStep { log, step });
    }
    match lost_fold {
        Some((pack, machine)) => Err(GcError::LostFold { pack, machine }),
        None => Ok(report),
    }
}

struct Collector<'r> {
    look: Look<'r>,
    how: Collecting,
    /// Now, by the store's clock.
    now: Micros,
    report: CollectReport,
}

impl Collector<'_> {
    /// `None` when a dry run has come to where something would be done.
    async fn answer(&mut self, ask: Ask) -> Result<Option<Answer>, GcError> {
        let look = &mut self.look;
        Ok(Some(match ask {
            Ask::Nothing => return Ok(None),
            Ask::Collected => self.collected().await?,
            Ask::Logs => Answer::Logs(look.logs(self.now, self.how.patience).await?),
            Ask::Machines => Answer::Machines(look.machines().await?),
            Ask::Pins if self.how.dry_run => Answer::Pins(look.pins(Micros(0)).await?),
            Ask::Pins => Answer::Pins(look.pins(oldest_pin(self.now)).await?),
            Ask::References(tails) => Answer::References(look.references(&tails).await?),
            Ask::Indexes(packs) => {
                let (told, left) = look.indexes(&packs).await?;
                Answer::Indexes(told, left)
            }
            Ask::Create(step) if self.how.dry_run => {
                let collected = look.reader.collected(false).await?;
                let condemned = collected.condemned.places();
                self.report.would = match step.condemns() {
                    true => step.packs,
                    false => condemned.filter(|place| step.packs.has(place)).collect(),
                };
                return Ok(None);
            }
            Ask::Delete(_) | Ask::Fence(_) if self.how.dry_run => return Ok(None),
            Ask::Create(step) => Answer::Created(self.create(&step).await?),
            Ask::Fence(logs) => {
                self.fence(logs).await?;
                Answer::Fenced
            }
            Ask::Delete(packs) => {
                self.delete(&packs).await?;
                Answer::Deleted
            }
        }))
    }

    async fn collected(&self) -> Result<Answer, GcError> {
        let reader = self.look.reader;
        let collected = (*reader.collected(true).await?).clone();
        let late = match collected.open_list() {
            None => false,
            Some(list) => {
                let made = reader.store().head(&layout::step(list)).await?.modified;
                is_older(made, self.now, self.how.patience)
            }
        };
        Ok(Answer::Collected { collected, late })
    }

    async fn create(&self, step: &Step) -> Result<bool, GcError> {
        let reader = self.look.reader;
        let put = create_step(reader.store(), reader.ring(), step).await?;
        Ok(put == Put::Created)
    }

    /// Closes logs. Where something is by now, that was there first.
    async fn fence(&self, logs: Vec<(LogName, PackNumber)>) -> Result<(), GcError> {
        for (log, next) in logs {
            if self.fence_at(&log, next).await? == Put::Created {
                tracing::warn!(%log, number = next.0, "a silent log was closed");
                // Should its newest pack have been lost, its owner goes on behind that.
                self.fence_at(&log, next.next()).await?;
            }
        }
        Ok(())
    }

    async fn fence_at(&self, log: &LogName, number: PackNumber) -> Result<Put, GcError> {
        let tombstone = self.tombstone(log, number)?;
        Ok(self.look.reader.store().create(&layout::pack(log, number), tombstone).await?)
    }

    fn tombstone(&self, log: &LogName, number: PackNumber) -> Result<Bytes, MetaError> {
        let ring = self.look.reader.ring();
        let mut header = PackHeader {
            kind: PackKind::Tombstone,
            key_version: ring.current(),
            vault: ring.vault(),
            log: log.id,
            number,
            first_frame: FrameNumber(0),
            frame_count: 0,
            index_bytes: 0,
            object_bytes: HEADER_BYTES as u64,
            id: PackId::from_bytes(random()?),
            digest: [0; 32],
        };
        header.digest = header.digest_with(&[]);
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        header.encode(&mut bytes);
        Ok(bytes.into())
    }

    /// Deletes what is stored of `packs`.
    async fn delete(&mut self, packs: &PackSet) -> Result<(), GcError> {
        if packs.is_empty() {
            return Ok(());
        }
        let store = self.look.reader.store();
        let doomed = store.list(layout::LOGS, None).try_filter_map(async |object| {
            let removed = layout::parse_pack(&object.path).is_some_and(|(log, number)| {
                packs.of(&log).is_some_and(|ranges| ranges.has(number))
            });
            Ok(removed.then_some(object))
        });
        let deleted = doomed.map_ok(|object| async move {
            store.delete(&object.path).await?;
            Ok(object.bytes)
        });
        let mut deleted = std::pin::pin!(deleted.try_buffer_unordered(DELETES_AT_ONCE));
        while let Some(bytes) = deleted.try_next().await? {
            self.report.bytes += bytes;
        }
        Ok(())
    }
}

/// When the oldest pin that counts was made.
fn oldest_pin(now: Micros) -> Micros {
    let limit = u64::try_from(PIN_LIMIT.as_micros()).unwrap_or(u64::MAX);
    Micros(now.0.saturating_sub(limit))
}
