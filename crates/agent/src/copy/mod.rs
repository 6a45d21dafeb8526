//! `agent copy`: the disks of one machine, once, whole, into the vault.
//!
//! This is the driver: it connects, runs one session after the other until everything is
//! committed, and decides when to try again and when to give up. What lives longer than a
//! connection is in [`crate::session::State`]; what happens on one is [`crate::session`]'s.
//!
//! Invariants: what isn't committed is kept, so a broken connection loses nothing; a record keeps
//! its LSN and its bytes; the copy succeeds only when its last record is committed.

mod feed;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tidegate_model::limits::DISKS_MAX;
use tidegate_model::{DiskNumber, Epoch, Incarnation, Lsn, Micros, Name, Remedy, Token, VaultId};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::connect::{ConnectError, Connector};
use crate::error::CopyError;
use crate::progress::{Progress, add};
use crate::reader::{Reader, ReaderSettings};
use crate::retry::{Backoff, RetryPolicy};
use crate::session::{self, End, Stands, State, Stream, stopped};
use crate::source::{Change, Source};
use feed::CopyFeed;

/// Tells the time: microseconds since 1970.
pub type Clock = Arc<dyn Fn() -> Micros + Send + Sync>;

/// What to copy, and how.
#[derive(Clone)]
pub struct CopyRequest {
    /// The disks, in the order of their numbers.
    pub disks: Vec<Arc<Source>>,
    /// The machine's name.
    pub machine: Name,
    /// The vault in which it is enrolled.
    pub vault: VaultId,
    /// 16 random bytes: this copy's own, for an agent that starts again is a new incarnation.
    pub incarnation: Incarnation,
    /// How to read. Block and record sizes are the server's and are set from its welcome.
    pub reader: ReaderSettings,
    /// How patiently to try again.
    pub retry: RetryPolicy,
    /// For the records' times, which never go back whatever the clock does.
    pub clock: Clock,
}

impl fmt::Debug for CopyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CopyRequest({}, {} disks)", self.machine, self.disks.len())
    }
}

/// What a copy came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyReport {
    /// The epoch in which the copy lies.
    pub epoch: Epoch,
    /// Its last LSN, that of the bookmark: with the epoch, the recovery point.
    pub lsn: Lsn,
    /// Whether the disks stayed as they were while they were read.
    pub clean: bool,
    /// What changed, when not.
    pub changes: Vec<Change>,
    /// The disks' sizes together.
    pub bytes_total: u64,
    /// Bytes read from the disks: all but holes.
    pub bytes_read: u64,
    /// Bytes that are zero, holes included.
    pub bytes_zero: u64,
    /// Bytes written to connections, headers and resends included, TLS not.
    pub bytes_sent: u64,
    /// Payload bytes sent again after reconnects.
    pub bytes_resent: u64,
    /// Bytes that the vault had already, as the server counted them.
    pub bytes_deduplicated: u64,
    /// Bytes that were new to the vault, before compression.
    pub bytes_kept: u64,
    /// What these cost in the vault, compressed and sealed.
    pub bytes_stored: u64,
    /// Payload bytes whose commit a reconnect told, so that no server counted them for us: they
    /// are missing from the three above. 0 without reconnects.
    pub bytes_uncounted: u64,
    /// Connections made after the first.
    pub reconnects: u64,
    /// The most bytes of read buffers in use at once.
    pub buffer_bytes_max: u64,
    /// Of [`CopyReport::bytes_read`], what was read past the page cache (O_DIRECT), because it
    /// wasn't in it.
    pub bytes_direct: u64,
    /// Why read buffers weren't registered with io_uring, when they weren't.
    pub unregistered_because: Option<String>,
}

/// Copies the disks into the vault through the servers that `connector` reaches.
///
/// `progress` is raised as it goes; `stop` ends it when it becomes true. Needs a tokio runtime
/// with time (and I/O, for a [`crate::connect::TlsConnector`]). Dropping the future stops the copy.
///
/// # Errors
/// [`CopyError`]; what is committed by then stays in the vault and harms nothing.
pub async fn copy(
    request: &CopyRequest,
    connector: &dyn Connector,
    progress: Arc<Progress>,
    mut stop: watch::Receiver<bool>,
) -> Result<CopyReport, CopyError> {
    let disks = number(&request.disks)?;
    // Better to know before a server is troubled.
    Reader::probe()?;
    let (settings, clock) = (request.reader.clone(), request.clock.clone());
    let feed = CopyFeed::new(disks, settings, clock, progress.clone());
    add(&progress.bytes_total, feed.bytes_total());
    let mut driver = Driver {
        connector,
        backoff: Backoff::new(&request.retry),
        began: Instant::now(),
        state: State::new(stream(request), feed, progress),
    };
    driver.run(&request.retry, &mut stop).await?;
    Ok(driver.report())
}

/// A stream that begins anew.
fn stream(request: &CopyRequest) -> Stream {
    Stream {
        machine: request.machine.clone(),
        vault: request.vault,
        incarnation: request.incarnation,
        epoch: Epoch::NONE,
        stands: Stands::Nothing,
        committed: Lsn::NONE,
        ever_sent: Lsn::NONE,
        // It is gone with this run.
        tokens: vec![Token::from_bytes(*request.incarnation.as_bytes())],
        record_bytes_max: None,
        // The reader's pool is the bound.
        window_bytes: u64::MAX,
    }
}

/// Gives the disks their numbers.
fn number(sources: &[Arc<Source>]) -> Result<Vec<(DiskNumber, Arc<Source>)>, CopyError> {
    let wrong = CopyError::DiskCount { count: sources.len(), max: DISKS_MAX };
    if sources.is_empty() {
        return Err(wrong);
    }
    let mut seen = HashMap::new();
    let mut disks = Vec::with_capacity(sources.len().min(DISKS_MAX));
    for (index, source) in sources.iter().enumerate() {
        let number = u8::try_from(index).ok().and_then(|number| DiskNumber::try_from(number).ok());
        let Some(number) = number else { return Err(wrong) };
        if let Some(first) = seen.insert(source.identity(), source.path()) {
            let (first, second) = (first.to_path_buf(), source.path().to_path_buf());
            return Err(CopyError::SameDisk { first, second });
        }
        disks.push((number, source.clone()));
    }
    Ok(disks)
}

struct Driver<'a> {
    connector: &'a dyn Connector,
    backoff: Backoff,
    began: Instant,
    state: State<CopyFeed>,
}

impl Driver<'_> {
    async fn run(
        &mut self,
        policy: &RetryPolicy,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), CopyError> {
        loop {
            let cause = match self.connect(policy, stop).await? {
                Ok(connection) => {
                    let committed = self.state.committed();
                    match session::run(&mut self.state, connection, policy.patience, stop).await {
                        Ok(End::Whole) => return Ok(()),
                        Ok(End::Broken(cause)) => {
                            if self.state.committed() > committed {
                                self.backoff.reset();
                            }
                            cause
                        }
                        Ok(End::Late(last)) => return Err(self.owed(policy.patience, last)),
                        Ok(End::Stopped) => return Err(self.stopped()),
                        Err(error) => return Err(error),
                    }
                }
                Err(error) if error.remedy() == Remedy::Retry => error.to_string(),
                Err(error) => return Err(error.into()),
            };
            self.wait(cause, policy, stop).await?;
        }
    }

    /// One attempt to connect, within what is left of the patience.
    async fn connect(
        &mut self,
        policy: &RetryPolicy,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Result<crate::connect::Connection, ConnectError>, CopyError> {
        let deadline = self.deadline(policy);
        let limit = deadline.saturating_duration_since(Instant::now());
        tokio::select! {
            () = stopped(stop) => Err(self.stopped()),
            connected = timeout(limit, self.connector.connect()) => connected
                .map_err(|_| {
                    let last = "no server answered; start it, or check the address and the network";
                    self.gave_up(last.to_owned(), policy)
                }),
        }
    }

    /// Waits before the next attempt, or gives up.
    async fn wait(
        &mut self,
        cause: String,
        policy: &RetryPolicy,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), CopyError> {
        let delay = self.backoff.delay();
        if Instant::now() + delay >= self.deadline(policy) {
            return Err(self.gave_up(cause, policy));
        }
        tracing::warn!(
            %cause, delay_ms = delay.as_millis(), committed = %self.state.committed(),
            "the connection is gone; trying again"
        );
        tokio::select! {
            () = stopped(stop) => Err(self.stopped()),
            () = tokio::time::sleep(delay) => Ok(()),
        }
    }

    fn deadline(&self, policy: &RetryPolicy) -> Instant {
        let (since, patience) = self.patience(policy);
        since + patience
    }

    fn patience(&self, policy: &RetryPolicy) -> (Instant, Duration) {
        match self.state.advanced() {
            Some(advanced) => (advanced, policy.patience),
            None => (self.began, policy.patience_at_start),
        }
    }

    fn gave_up(&self, last: String, policy: &RetryPolicy) -> CopyError {
        self.owed(self.patience(policy).1, last)
    }

    fn owed(&self, waited: Duration, last: String) -> CopyError {
        let (awaited, committed) = (self.state.awaited(), self.state.committed());
        CopyError::GaveUp { waited, awaited, committed, last }
    }

    fn stopped(&self) -> CopyError {
        CopyError::Stopped { committed: self.state.committed() }
    }

    fn report(&self) -> CopyReport {
        let (state, feed) = (&self.state, &self.state.feed);
        let (totals, bytes_uncounted) = state.totals();
        let seen = state.progress.snapshot();
        let reader = feed.reader();
        CopyReport {
            epoch: state.epoch(),
            lsn: state.committed(),
            clean: feed.changes().is_empty(),
            changes: feed.changes().to_vec(),
            bytes_total: feed.bytes_total(),
            bytes_read: seen.bytes_read,
            bytes_zero: seen.bytes_zero,
            bytes_sent: seen.bytes_sent,
            bytes_resent: seen.bytes_resent,
            bytes_deduplicated: totals.deduplicated_bytes,
            bytes_kept: totals.kept_bytes,
            bytes_stored: totals.stored_bytes,
            bytes_uncounted,
            reconnects: seen.reconnects,
            buffer_bytes_max: reader.map_or(0, Reader::buffer_bytes_max),
            bytes_direct: reader.map_or(0, |r| r.counters().bytes_direct.load(Relaxed)),
            unregistered_because: reader
                .and_then(|reader| reader.counters().unregistered_because.get().cloned()),
        }
    }
}
