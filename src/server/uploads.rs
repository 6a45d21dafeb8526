//! Puts packs: the only place where a put is retried.
//!
//! Doing it twice is safe because a pack is created, never overwritten, and the same bytes are
//! sent each time: "already exists" is answered by reading the header back. The same random id and
//! digest: it is ours, stored. Another, or a tombstone: somebody closed this log; the run is
//! fenced and ends. Not there: again. A put that takes many times as long as puts do is given up
//! and tried anew, with twice the time.

mod gate;
mod limit;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_model::{LogName, PackNumber, Remedy};
use tidegate_pipeline::FullPack;
use tidegate_vault::layout;
use tidegate_vault::pack::{HEADER_BYTES, PackHeader, PackKind};
use tidegate_vault::store::{Put, Store, StoreError};
use tracing::warn;

pub(crate) use self::gate::PutGate;
use super::shared::{News, Shared};

/// First pause after a failed put; doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why a pack can't be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadFailure {
    /// Another object stands where the pack belongs.
    #[error(
        "pack {number} of log {log} can't be stored: {found} stands in its place, so this run was \
         closed from outside. Nothing that was acknowledged is lost; start the server again"
    )]
    Fenced { log: LogName, number: PackNumber, found: &'static str },
    /// The store refuses it, or has refused it for too long.
    #[error(
        "pack {number} of log {log} can't be stored: {source}. Nothing that was acknowledged is \
         lost; when the store takes writes again, run this again"
    )]
    Store { log: LogName, number: PackNumber, source: StoreError },
}

impl UploadFailure {
    /// What to do about it.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Fenced { .. } => Remedy::Stop,
            Self::Store { source, .. } => source.remedy(),
        }
    }
}

/// Sends a pack on its way; the shard hears of the end.
pub(crate) fn start(shared: &Arc<Shared>, shard: u16, pack: FullPack) {
    let shared = shared.clone();
    let runtime = shared.store.clone();
    runtime.spawn(async move {
        let number = pack.header.number;
        let begun = Instant::now();
        let entered = shared.puts.enter().await;
        let waiting = shared.waits.begin(Instant::now());
        let attempt = shared.puts.straggler_after(pack.bytes());
        let bytes = pack.bytes();
        let stored = put(shared.vault.store(), pack, shared.store_patience, attempt).await;
        entered.leave(bytes, stored.as_ref().ok());
        drop(waiting);
        match stored {
            Ok(_) => {
                let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                shared.latencies.put.record(micros);
                shared.tell(shard, News::Stored(number));
            }
            Err(failure) => shared.tell(shard, News::Failed(Arc::new(failure))),
        }
    });
}

/// What a pack that is stored says of the way to the store.
pub(super) struct Stored {
    /// How long the try took that stored it.
    pub took: Duration,
    /// Whether a try before it failed.
    pub failed: bool,
}

/// Puts a pack; `attempt` is how long the first try may take.
async fn put(
    store: &Store,
    pack: FullPack,
    patience: Duration,
    mut attempt: Option<Duration>,
) -> Result<Stored, UploadFailure> {
    let FullPack { log, header, head, frames } = pack;
    let path = layout::pack(&log, header.number);
    let mut parts = vec![Bytes::from(head)];
    parts.extend(frames.map(Bytes::from_owner));
    let begun = Instant::now();
    let mut pause = PAUSE_FIRST;
    let mut failed = false;
    loop {
        let tried_at = Instant::now();
        let tried = within(attempt, store.put_new(&path, parts.clone())).await;
        // Beyond all patience nothing is cut short: the store client's own limits tell what is wrong.
        attempt = attempt.filter(|_| begun.elapsed() < patience).map(|attempt| attempt * 2);
        let exists = matches!(tried, Some(Ok(Put::Exists)));
        let problem = match tried {
            Some(Ok(Put::Created)) => return Ok(Stored { took: tried_at.elapsed(), failed }),
            Some(Ok(Put::Exists)) => None,
            Some(Err(source)) if source.remedy() != Remedy::Retry => {
                return Err(UploadFailure::Store { log, number: header.number, source });
            }
            Some(Err(error)) => {
                failed = true;
                Some(error)
            }
            None => {
                warn!(%path, "a put takes far longer than others; trying anew");
                pause = Duration::ZERO;
                None
            }
        };
        // A put that failed may have been stored all the same; it counts once it is durable.
        let problem = match look(store, &path, &header).await {
            Ok(Found::Ours) => match store.settle(&path).await {
                Ok(()) => return Ok(Stored { took: tried_at.elapsed(), failed }),
                Err(error) => Some(error),
            },
            Ok(Found::Foreign(found)) => {
                return Err(UploadFailure::Fenced { log, number: header.number, found });
            }
            Ok(Found::Nothing) if exists && begun.elapsed() > patience => {
                let found = "something that can't be found again";
                return Err(UploadFailure::Fenced { log, number: header.number, found });
            }
            Ok(Found::Nothing) => problem,
            Err(error) => problem.or(Some(error)),
        };
        if let Some(source) = problem {
            if source.remedy() != Remedy::Retry || begun.elapsed() > patience {
                return Err(UploadFailure::Store { log, number: header.number, source });
            }
            warn!(%path, error = %source, "a put failed; trying again");
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
    }
}

/// `None` when it takes longer than `limit`.
async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.ok(),
        None => Some(work.await),
    }
}

enum Found {
    Ours,
    Foreign(&'static str),
    Nothing,
}

/// What stands at the pack's place?
async fn look(store: &Store, path: &str, ours: &PackHeader) -> Result<Found, StoreError> {
    let bytes = match store.get_range(path, 0..HEADER_BYTES as u64).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    Ok(match PackHeader::decode(&bytes) {
        Ok(theirs) if theirs.kind == PackKind::Tombstone => Found::Foreign("a tombstone"),
        Ok(theirs) if theirs.id == ours.id && theirs.digest == ours.digest => Found::Ours,
        Ok(_) => Found::Foreign("another pack"),
        Err(_) => Found::Foreign("something that is no pack"),
    })
}

/// Between half and all of `pause`, so that many puts that failed together don't return together.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness the pause is merely the longest.
    let part = if getrandom::fill(&mut byte).is_ok() { u32::from(byte[0]) } else { 255 };
    pause / 2 + pause * part / 510
}
