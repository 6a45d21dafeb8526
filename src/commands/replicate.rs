//! `tidegate replicate`: agent, pipeline and vault in one process.
//!
//! The same session as over the network, through a pipe instead of a socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tidegate_agent::connect::{Connecting, Connection, Connector};
use tidegate_agent::source::{Source, SourceIdentity};
use tidegate_model::Name;
use tidegate_vault::store::{Access, Store};
use tidegate_vault::{Vault, VaultError};

use super::copy::{self, CopyResult, Job};
use super::vault::Made;
use crate::cli::ReplicateArgs;
use crate::credentials;
use crate::failure::Failure;
use crate::output::Output;
use crate::server::{Server, ServerReport};
use crate::signals::Stop;

/// Bytes that the pipe holds: two reads of the session.
const PIPE_BYTES: usize = 256 << 10;
/// Memory for what is sent and not yet committed.
const WINDOW_BYTES: u64 = 192 << 20;
/// The agent bears with a server that commits nothing so much longer than the server with its
/// store: then the copy ends with what the server has to say.
const PATIENCE_BEYOND: Duration = Duration::from_secs(120);
/// Block size of a vault that is made on the way.
const BLOCK_BYTES: u64 = tidegate_model::limits::BLOCK_BYTES_DEFAULT as u64;

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
    let (vault, made) = open_or_make(&args).await?;
    // People see it before the copy: whatever becomes of that, the vault is there.
    if let Some(made) = &made {
        output.say(&made.text());
    }
    let vault = Arc::new(vault);
    let settings = super::server_settings(super::host_name(), &args.engine)?;
    let patience = settings.store_patience + PATIENCE_BEYOND;
    let server = Server::start(vault.clone(), settings, &stop).await?;
    let job = Job { sources, machine, vault: vault.id(), window_bytes: WINDOW_BYTES, patience };
    let copied = job.run(&PipeConnector { server: &server }, output, &stop).await;
    // Whatever became of the copy, the server ends in order; its failure is the better explanation.
    let report = server.stop().await?;
    let mut result = copied?;
    result.seconds = begun.elapsed().as_secs_f64();
    result.cpu_seconds = super::cpu_seconds(libc::RUSAGE_SELF) - cpu;
    let result = ReplicateResult { made, copy: result, server: report };
    output.result(&result, |result| copy::text(&result.copy));
    result.copy.clean_or_failure()
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

async fn open_or_make(args: &ReplicateArgs) -> Result<(Vault, Option<Made>), Failure> {
    let store = Store::open(&args.vault.vault, Access::Create)?;
    let credential = credentials::existing(&args.vault.credential)?;
    match Vault::open(store.clone(), &credential).await {
        Ok(vault) => Ok((vault, None)),
        Err(VaultError::NotThere { .. }) => {
            let (vault, made) = super::vault::make(store, BLOCK_BYTES, &credential).await?;
            Ok((vault, Some(made)))
        }
        Err(error) => Err(error.into()),
    }
}

/// The first image's file name without its ending; this host's name for devices.
fn default_name(paths: &[PathBuf], sources: &[Arc<Source>]) -> Name {
    let images =
        sources.iter().all(|source| matches!(source.identity(), SourceIdentity::File { .. }));
    let stem = paths.first().filter(|_| images).and_then(|path| path.file_stem());
    stem.and_then(|stem| super::name_from(&stem.to_string_lossy())).unwrap_or_else(super::host_name)
}
