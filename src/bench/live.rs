//! What a live agent costs who writes, and how far behind the vault is: clients write to a tapped disk
//! by a schedule, and the agent is asked all the while what it has captured and what is committed.
//!
//! Invariants: both latencies count from when a write was meant to be sent. A write counts as committed
//! when, after its answer, the agent was heard to have captured up to an LSN, and then that this LSN is
//! committed: so the figure is never too small, and too large by two looks at the agent at most.

mod client;
mod looks;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use self::client::Client;
use self::looks::Looks;
use super::load::histogram;
use super::report::Latency;
use crate::failure::Failure;
use crate::output::table;

/// Bytes of a write.
pub(crate) const WRITE_BYTES: u32 = 4096;
/// The schedule begins so long after the clients are told, so that all have heard of it.
const LEAD: Duration = Duration::from_millis(20);
/// How often it is looked whether the initial copy has ended.
const COPY_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long what was written may take to be committed after the last write.
const COMMIT_LIMIT: Duration = Duration::from_secs(60);

/// What is done to a disk in one round.
#[derive(Debug, Clone)]
pub(crate) struct LiveLoad {
    /// The socket on which the disk is served.
    pub disk: PathBuf,
    pub disk_bytes: u64,
    /// The agent's folder.
    pub agent: PathBuf,
    pub clients: usize,
    /// Writes a second, of all clients together.
    pub rate: u64,
    pub length: Duration,
    /// Whether a server is there that takes what is written.
    pub linked: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct LiveRound {
    pub linked: bool,
    /// Until a write was answered.
    pub written: Latency,
    /// Until it was committed, where there is a server.
    pub committed: Option<Latency>,
    /// Whether the journal was full at the end.
    pub overflowed: bool,
    pub seconds: f64,
}

/// All rounds.
#[derive(Debug, Serialize)]
pub(crate) struct LiveReport {
    pub bench: &'static str,
    pub rate: u64,
    pub clients: usize,
    pub rounds: Vec<LiveRound>,
    /// Medians over the rounds with a server.
    pub written_p99_us: u64,
    pub committed_p99_us: u64,
    /// The 99th percentile of writes without a server over that of the round before with one: the
    /// median of the pairs.
    pub cut_over_linked: Option<f64>,
}

/// Waits until an agent has copied its disks, and all of that is committed.
pub(crate) async fn initial_copy_ended(agent: &Path) -> Result<(), Failure> {
    let socket = tidegate_agent::live::socket_of(agent);
    loop {
        let status = looks::status(&socket).await?;
        if status.copy.end.is_some_and(|end| status.committed >= end) {
            return Ok(());
        }
        tokio::time::sleep(COPY_LOOK_INTERVAL).await;
    }
}

impl LiveLoad {
    /// Writes, and waits until all of it is committed.
    pub(crate) async fn run(self) -> Result<LiveRound, Failure> {
        let looks = Looks::begin(self.agent.clone());
        let started = Instant::now() + LEAD;
        let per_client = u64::try_from(self.clients).unwrap_or(u64::MAX).max(1);
        let interval = Duration::from_nanos(1_000_000_000 * per_client / self.rate.max(1));
        let threads: Vec<_> = (0..self.clients)
            .map(|number| {
                let (disk, bytes, until) =
                    (self.disk.clone(), self.disk_bytes, started + self.length);
                // They take turns: their schedules are shifted against each other.
                let shift = interval * u32::try_from(number).unwrap_or(0)
                    / u32::try_from(self.clients).unwrap_or(1);
                let work = move || {
                    Client::open(&disk, bytes, number)?.play(started + shift, interval, until)
                };
                tokio::task::spawn_blocking(work)
            })
            .collect();
        let mut writes = Vec::new();
        for thread in threads {
            let played = thread.await.map_err(|error| Failure::failed(error.to_string()))?;
            writes.extend(
                played.map_err(|error| Failure::failed(format!("a write failed: {error}")))?,
            );
        }
        let seconds = started.elapsed().as_secs_f64();
        let looks = looks.end(self.linked.then_some(COMMIT_LIMIT)).await?;
        let (mut written, mut committed) = (histogram(), histogram());
        for write in &writes {
            record(&mut written, write.answered - write.due);
            if let Some(at) = looks.committed_at(write.answered).filter(|_| self.linked) {
                record(&mut committed, at - write.due);
            }
        }
        if self.linked && committed.len() < written.len() {
            return Err(Failure::failed("not all that was written was committed"));
        }
        Ok(LiveRound {
            linked: self.linked,
            written: Latency::of(&written),
            committed: self.linked.then(|| Latency::of(&committed)),
            overflowed: looks.overflowed(),
            seconds,
        })
    }
}

fn record(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}

impl LiveReport {
    /// What rounds came to: each without a server has one with it before it.
    pub(crate) fn of(rate: u64, clients: usize, rounds: Vec<LiveRound>) -> Self {
        let linked = || rounds.iter().filter(|round| round.linked);
        let pairs = linked().zip(rounds.iter().filter(|round| !round.linked));
        #[allow(clippy::cast_precision_loss)] // a ratio for people
        let ratio = |(up, cut): (&LiveRound, &LiveRound)| {
            cut.written.p99_us as f64 / up.written.p99_us.max(1) as f64
        };
        let mut ratios: Vec<f64> = pairs.map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let cut_over_linked = ratios.get(ratios.len() / 2).copied();
        let written_p99_us = median(linked().map(|round| round.written.p99_us));
        let committed = linked().filter_map(|round| round.committed.as_ref());
        let committed_p99_us = median(committed.map(|latency| latency.p99_us));
        let bench = "tidegate bench live";
        Self { bench, rate, clients, rounds, written_p99_us, committed_p99_us, cut_over_linked }
    }
}

fn median(figures: impl Iterator<Item = u64>) -> u64 {
    let mut figures: Vec<u64> = figures.collect();
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or(0)
}

/// The same for people.
pub(crate) fn text(report: &LiveReport) -> String {
    #[allow(clippy::cast_precision_loss)] // figures for people
    let ms = |micros: u64| format!("{:.2}", micros as f64 / 1000.0);
    let row = |round: &LiveRound| {
        let committed = |pick: fn(&Latency) -> u64| {
            round.committed.as_ref().map_or_else(|| "-".to_owned(), |latency| ms(pick(latency)))
        };
        vec![
            if round.linked { "up" } else { "cut" }.to_owned(),
            round.written.count.to_string(),
            ms(round.written.p50_us),
            ms(round.written.p99_us),
            committed(|latency| latency.p50_us),
            committed(|latency| latency.p99_us),
            committed(|latency| latency.max_us),
            if round.overflowed { "full" } else { "" }.to_owned(),
        ]
    };
    let rows: Vec<_> = report.rounds.iter().map(row).collect();
    let head =
        ["link", "writes", "written p50 ms", "p99", "committed p50 ms", "p99", "max", "journal"];
    let mut text = format!(
        "{} clients, {} writes of {WRITE_BYTES} bytes a second\n{}",
        report.clients,
        report.rate,
        table(&head, &rows)
    );
    if let Some(ratio) = report.cut_over_linked {
        text += &format!(
            "\n99th percentile of writes with the link cut over that with it up: {ratio:.2}"
        );
    }
    text
}
