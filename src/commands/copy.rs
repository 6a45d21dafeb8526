//! `tidegate agent copy`, and what it shares with `replicate`: a copy from disks to a connector.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tidegate_agent::connect::{Connector, ServerAddress, TlsConnector, TlsIdentity, VerifyServer};
use tidegate_agent::reader::{POOL_BYTES_MIN, ReaderSettings};
use tidegate_agent::source::Source;
use tidegate_agent::{CopyReport, CopyRequest, Progress, RetryPolicy, copy};
use tidegate_model::{ExactBytes, HumanBytes, Name, Remedy, VaultId};
use tidegate_vault::identity::{Identity, Role, check_peer};

use crate::cli::AgentCopyArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Stop;

/// How often the progress bar learns how far the copy is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What a copy came to.
#[derive(Serialize)]
pub(super) struct CopyResult {
    pub machine: String,
    pub epoch: u32,
    pub lsn: u64,
    pub clean: bool,
    pub changes: Vec<String>,
    pub bytes_total: u64,
    pub bytes_read: u64,
    pub bytes_zero: u64,
    pub bytes_deduplicated: u64,
    pub bytes_kept: u64,
    pub bytes_stored: u64,
    pub bytes_sent: u64,
    pub bytes_resent: u64,
    pub reconnects: u64,
    pub seconds: f64,
    pub cpu_seconds: f64,
}

pub(super) async fn run(args: AgentCopyArgs, output: Output, stop: Stop) -> Result<(), Failure> {
    check_window(args.window)?;
    let sources = open_sources(&args.disks)?;
    let identity = machine_identity(&args.identity)?;
    let server: ServerAddress = args.server.parse()?;
    let tls = TlsIdentity { certificates: identity.chain(), key: identity.key() };
    let connector = TlsConnector::new(server, tls, judge_servers(&identity))?;
    let patience = Duration::from_secs(args.patience);
    let job = Job {
        sources,
        machine: identity.name().clone(),
        vault: identity.vault(),
        window_bytes: args.window,
        patience,
    };
    let result = job.run(&connector, output, &stop).await?;
    output.result(&result, text)?;
    result.clean_or_failure()
}

/// An identity with which an agent can come to a server.
pub(super) fn machine_identity(path: &Path) -> Result<Identity, Failure> {
    let identity = Identity::read(path)?;
    if identity.role() != Role::Machine {
        return Err(Failure::usage(format!(
            "the identity {} is that of a {}: an agent needs one from 'enroll --role machine'",
            path.display(),
            identity.role()
        )));
    }
    identity.check(super::now())?;
    Ok(identity)
}

/// What is too little for the reader is refused before a server is troubled.
fn check_window(bytes: u64) -> Result<(), Failure> {
    if bytes < POOL_BYTES_MIN {
        let (given, least) = (ExactBytes(bytes), ExactBytes(POOL_BYTES_MIN));
        return Err(Failure::usage(format!(
            "--window {given} is too little: give {least} or more"
        )));
    }
    Ok(())
}

/// Opens the disks, and warns of those that are mounted.
pub(super) fn open_sources(paths: &[PathBuf]) -> Result<Vec<Arc<Source>>, Failure> {
    let mut sources = Vec::with_capacity(paths.len());
    for path in paths {
        let source = Source::open(path)?;
        for mount in source.mounts() {
            eprintln!(
                "tidegate: warning: {} is mounted ({mount}): while it is written to, the copy is a \
                 mixture of moments; freeze or unmount it, or copy a snapshot",
                path.display()
            );
        }
        sources.push(Arc::new(source));
    }
    Ok(sources)
}

/// A server must have a certificate of this vault's authority, for a server.
pub(super) fn judge_servers(identity: &Identity) -> VerifyServer {
    let (authority, vault) = (identity.authority().to_vec(), identity.vault());
    Arc::new(move |chain| {
        let checked = check_peer(chain, &authority, vault, Role::Server, super::now());
        checked.map(drop).map_err(|error| error.to_string())
    })
}

/// Disks to send as one machine.
pub(super) struct Job {
    pub sources: Vec<Arc<Source>>,
    pub machine: Name,
    pub vault: VaultId,
    pub window_bytes: u64,
    pub patience: Duration,
}

impl Job {
    /// Sends them, with a progress bar.
    pub(super) async fn run(
        self,
        connector: &dyn Connector,
        output: Output,
        stop: &Stop,
    ) -> Result<CopyResult, Failure> {
        let (begun, cpu) = (Instant::now(), super::cpu_seconds(libc::RUSAGE_SELF));
        let request = CopyRequest {
            disks: self.sources,
            machine: self.machine.clone(),
            vault: self.vault,
            incarnation: super::new_incarnation()?,
            reader: ReaderSettings { pool_bytes: self.window_bytes, ..ReaderSettings::default() },
            retry: retry_policy(self.patience)?,
            clock: super::clock(),
        };
        let progress = Arc::new(Progress::default());
        let total = request.disks.iter().map(|source| source.bytes()).sum();
        let bar = output.bytes_bar(total, "copying");
        let report = {
            let copying = copy(&request, connector, progress.clone(), stop.watch());
            tokio::pin!(copying);
            loop {
                tokio::select! {
                    result = &mut copying => break result,
                    () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                        bar.set_position(progress.snapshot().bytes_committed);
                    }
                }
            }
        };
        bar.finish_and_clear();
        let report = report?;
        let seconds = begun.elapsed().as_secs_f64();
        let cpu_seconds = super::cpu_seconds(libc::RUSAGE_SELF) - cpu;
        Ok(CopyResult::of(&self.machine, &report, seconds, cpu_seconds))
    }
}

fn retry_policy(patience: Duration) -> Result<RetryPolicy, Failure> {
    let usual = RetryPolicy::default();
    let patience_at_start = usual.patience_at_start.min(patience);
    let seed = u64::from_le_bytes(super::random()?);
    Ok(RetryPolicy { patience, patience_at_start, seed, ..usual })
}

impl CopyResult {
    /// A copy of disks that changed meanwhile is a point, but not the one that was asked for:
    /// whoever relies on the exit status must learn of it now, not at a recovery.
    pub(super) fn clean_or_failure(&self) -> Result<(), Failure> {
        if self.clean {
            return Ok(());
        }
        let text = format!(
            "the copy of {} is whole but UNCLEAN ({}): it is a mixture of moments, which recover \
             takes only by --at {}:{}; copy again while nothing writes to the disks",
            self.machine,
            self.changes.join("; "),
            self.epoch,
            self.lsn
        );
        Err(Failure::new(text, Remedy::Stop))
    }

    fn of(machine: &Name, report: &CopyReport, seconds: f64, cpu_seconds: f64) -> Self {
        Self {
            machine: machine.to_string(),
            epoch: report.epoch.0,
            lsn: report.lsn.0,
            clean: report.clean,
            changes: report.changes.iter().map(ToString::to_string).collect(),
            bytes_total: report.bytes_total,
            bytes_read: report.bytes_read,
            bytes_zero: report.bytes_zero,
            bytes_deduplicated: report.bytes_deduplicated,
            bytes_kept: report.bytes_kept,
            bytes_stored: report.bytes_stored,
            bytes_sent: report.bytes_sent,
            bytes_resent: report.bytes_resent,
            reconnects: report.reconnects,
            seconds,
            cpu_seconds,
        }
    }
}

/// A copy's result for people.
pub(super) fn text(result: &CopyResult) -> String {
    #[allow(clippy::cast_precision_loss)] // a figure for people
    let rate = result.bytes_total as f64 / 1e6 / result.seconds.max(1e-9);
    let copied = format!(
        "{}: {} copied in {:.1} s ({rate:.0} MB/s), recovery point {}:{}{}",
        result.machine,
        HumanBytes(result.bytes_total),
        result.seconds,
        result.epoch,
        result.lsn,
        if result.clean { "" } else { ", UNCLEAN" }
    );
    let became = format!(
        "{} zero, {} known already, {} new, stored as {}; {:.1} s of CPU time",
        HumanBytes(result.bytes_zero),
        HumanBytes(result.bytes_deduplicated),
        HumanBytes(result.bytes_kept),
        HumanBytes(result.bytes_stored),
        result.cpu_seconds
    );
    format!("{copied}\n{became}")
}
