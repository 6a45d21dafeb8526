//! `tidegate replicate`: agent, pipeline and vault in one process.
//!
//! The same session as over the network, through a pipe instead of a socket. The memory that it is
//! given is the process's: the agent's window is taken from it, the server gets the rest.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tidegate_agent::connect::{Connecting, Connection, Connector};
use tidegate_agent::source::{Source, SourceIdentity};
use tidegate_model::limits::{
    AGENT_PATIENCE_SECONDS, BLOCK_BYTES_DEFAULT, RECORD_BYTES_DEFAULT, STORE_PATIENCE_SECONDS,
    WINDOW_BYTES_DEFAULT,
};
use tidegate_model::{Counted, Name};
use tidegate_pipeline::MemoryPlan;
use tidegate_vault::store::{Access, Store};
use tidegate_vault::{Begun, Vault, VaultError};

use super::copy::{self, CopyResult, Job};
use super::vault::Made;
use crate::cli::ReplicateArgs;
use crate::credentials;
use crate::failure::Failure;
use crate::output::Output;
use crate::server::{Server, ServerReport, ServerSettings};
use crate::signals::Stop;

/// Bytes that the pipe holds: two reads of the session.
const PIPE_BYTES: usize = 256 << 10;
/// The window takes this part of the memory, up to what an agent by itself takes.
const WINDOW_PART: usize = 4;
/// Smallest window: sixteen reads of 1 MiB under way, and as much on its way to the vault.
const WINDOW_BYTES_MIN: usize = 32 << 20;
/// The agent bears with a server that commits nothing so much longer than the server with its
/// store: then the copy ends with what the server has to say.
const PATIENCE_BEYOND: Duration =
    Duration::from_secs(AGENT_PATIENCE_SECONDS - STORE_PATIENCE_SECONDS);

#[derive(Serialize)]
struct ReplicateResult {
    /// The vault, when it was made on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<Made>,
    #[serde(flatten)]
    copy: CopyResult,
    server: ServerReport,
}

pub(super) async fn run(args: ReplicateArgs, output: Output, stop: Stop) -> Result<(), Failure> {
    let (begun, cpu) = (Instant::now(), super::cpu_seconds(libc::RUSAGE_SELF));
    let sources = copy::open_sources(&args.disks)?;
    let machine = args.machine.clone().unwrap_or_else(|| default_name(&args.disks, &sources));
    let mut settings = super::server_settings(super::host_name(), &args.engine)?;
    if args.engine.level.is_none() {
        settings.level = Some(super::LEVEL_REPLICATE);
    }
    // Before a vault is made: what is too little for the usual block is too little for any.
    take_window(&mut settings.memory_bytes.clone(), settings.cores, BLOCK_BYTES_DEFAULT)?;
    let (vault, made) = open_or_make(&args, &stop).await?;
    // People see it before the copy: whatever becomes of that, the vault is there.
    if let Some(made) = made.as_ref().filter(|_| !output.is_json()) {
        output.only_once(made, Made::text)?;
    }
    let patience = settings.store_patience + PATIENCE_BEYOND;
    let copied = async {
        let block_bytes = vault.description().block_bytes;
        let window_bytes = take_window(&mut settings.memory_bytes, settings.cores, block_bytes)?;
        let job = Job { sources, machine, vault: vault.id(), window_bytes, patience };
        copy_through_server(vault, settings, job, output, &stop).await
    };
    let (mut result, report) = copied.await.inspect_err(|_| {
        if let Some(made) = made.as_ref().filter(|_| output.is_json()) {
            // The copy's failure is what ends this; the key was shown, here or where errors go.
            let _ = output.only_once(made, Made::text);
        }
    })?;
    result.seconds = begun.elapsed().as_secs_f64();
    result.cpu_seconds = super::cpu_seconds(libc::RUSAGE_SELF) - cpu;
    let result = ReplicateResult { made, copy: result, server: report };
    let text = |result: &ReplicateResult| copy::text(&result.copy);
    if result.made.is_some() {
        output.only_once(&result, text)?;
    } else {
        output.result(&result, text)?;
    }
    result.copy.clean_or_failure()
}

/// Starts a server in this process, copies through it and stops it.
async fn copy_through_server(
    vault: Vault,
    settings: ServerSettings,
    job: Job,
    output: Output,
    stop: &Stop,
) -> Result<(CopyResult, ServerReport), Failure> {
    let waiting = output.waiting("reading the vault's indexes");
    let starting = async { Ok(Server::start(Arc::new(vault), settings, stop).await?) };
    let server = super::unless_stopped(stop, starting).await?;
    waiting.finish_and_clear();
    let copied = job.run(&PipeConnector { server: &server }, output, stop).await;
    // Whatever became of the copy, the server ends in order; its failure is the better explanation.
    let report = server.stop().await?;
    Ok((copied?, report))
}

/// Takes the agent's window from the memory and leaves the rest to the server, as much as it needs
/// at least.
fn take_window(memory_bytes: &mut usize, cores: u16, block_bytes: u32) -> Result<u64, Failure> {
    let record_bytes = RECORD_BYTES_DEFAULT.max(block_bytes) as usize;
    let server_bytes_min = MemoryPlan::minimum(usize::from(cores), record_bytes);
    let window_bytes_max = usize::try_from(WINDOW_BYTES_DEFAULT).unwrap_or(usize::MAX);
    let wanted = (*memory_bytes / WINDOW_PART).clamp(WINDOW_BYTES_MIN, window_bytes_max);
    let window_bytes = wanted.min(memory_bytes.saturating_sub(server_bytes_min));
    if window_bytes < WINDOW_BYTES_MIN {
        return Err(Failure::usage(format!(
            "{} MiB of memory are too little for {} and the agent: give at least {} MiB (--memory), \
             or use fewer shards (--cores)",
            *memory_bytes >> 20,
            Counted(cores, "shard"),
            (server_bytes_min + WINDOW_BYTES_MIN).div_ceil(1 << 20)
        )));
    }
    *memory_bytes -= window_bytes;
    Ok(window_bytes as u64)
}

/// Connects with the server in this process.
struct PipeConnector<'a> {
    server: &'a Server,
}

impl Connector for PipeConnector<'_> {
    fn connect(&self) -> Connecting<'_> {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        self.server.connect_pipe(theirs);
        Box::pin(async move { Ok(Box::new(ours) as Connection) })
    }
}

/// What stands at the place of a vault.
enum There {
    Vault(Box<Vault>),
    Nothing(Box<Begun>),
}

async fn open_or_make(args: &ReplicateArgs, stop: &Stop) -> Result<(Vault, Option<Made>), Failure> {
    let there = super::unless_stopped(stop, async {
        let store = Store::open(&args.vault.vault, Access::Create)?;
        let credential = credentials::existing(&args.vault.credential).await?;
        match Vault::open(store.clone(), &credential).await {
            Ok(vault) => Ok(There::Vault(Box::new(vault))),
            Err(VaultError::NotThere { .. }) => {
                let begun = super::vault::begin(store, BLOCK_BYTES_DEFAULT, &credential).await?;
                Ok(There::Nothing(Box::new(begun)))
            }
            Err(error) => Err(error.into()),
        }
    });
    match there.await? {
        There::Vault(vault) => Ok((*vault, None)),
        There::Nothing(begun) => {
            let (vault, made) = super::vault::finish(*begun).await?;
            Ok((vault, Some(made)))
        }
    }
}

/// The first image's file name without its ending; this host's name for devices.
fn default_name(paths: &[PathBuf], sources: &[Arc<Source>]) -> Name {
    let images =
        sources.iter().all(|source| matches!(source.identity(), SourceIdentity::File { .. }));
    let stem = paths.first().filter(|_| images).and_then(|path| path.file_stem());
    stem.and_then(|stem| super::name_from(&stem.to_string_lossy())).unwrap_or_else(super::host_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u32 = 64 << 10;

    #[test]
    fn window_and_server_share_the_memory_that_was_given() {
        for mebibytes in [320, 512, 1024, 65_536] {
            let given = mebibytes << 20;
            let mut left = given;
            let window = usize::try_from(take_window(&mut left, 2, BLOCK).unwrap()).unwrap();
            assert_eq!(left + window, given);
            assert!((WINDOW_BYTES_MIN..=192 << 20).contains(&window), "{window}");
            let plan = MemoryPlan::new(left, 2, BLOCK as usize).unwrap();
            assert!(plan.total() + window <= given);
        }
    }

    #[test]
    fn too_little_memory_for_both_is_refused_with_what_is_enough() {
        let enough = MemoryPlan::minimum(2, BLOCK as usize) + WINDOW_BYTES_MIN;
        assert!(take_window(&mut enough.clone(), 2, BLOCK).is_ok());
        let refused = take_window(&mut (enough - 1), 2, BLOCK).unwrap_err();
        let needed = format!("at least {} MiB", enough >> 20);
        assert!(refused.to_string().contains(&needed), "{refused}");
    }
}
