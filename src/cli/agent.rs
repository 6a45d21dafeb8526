//! The options of `tidegate agent`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tidegate_model::limits::{AGENT_PATIENCE_SECONDS, PATIENCE_SECONDS_MAX};
use tidegate_model::parse_bytes;

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Send disks to a process server, as one machine.
    Copy(AgentCopyArgs),
    /// Replicate disks until stopped: served over NBD every write to them, others pass by pass.
    Run(AgentRunArgs),
    /// How a running agent is: its connection, what waits, how far the initial copy is.
    Status(AgentStatusArgs),
    /// Compare the disks with what the vault has of them, and send what differs. A new epoch begins; the
    /// disks are taken away for a moment.
    Resync(AgentResyncArgs),
    /// Place a bookmark: a moment with a name, to which the machine can be brought back.
    Bookmark(AgentBookmarkArgs),
    /// Make a pass over the disks that others write to, and wait until what changed is captured.
    Pass(AgentPassArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AgentCopyArgs {
    /// The process server [default port: 9443].
    #[arg(long, value_name = "HOST[:PORT]")]
    pub server: String,
    /// The machine's identity, from `enroll`.
    #[arg(long, value_name = "FILE")]
    pub identity: PathBuf,
    /// Raw image files or block devices; they become disks 0, 1, ... of the machine.
    #[arg(value_name = "DISK", required = true)]
    pub disks: Vec<PathBuf>,
    /// Give up after so many seconds without progress.
    #[arg(long, value_name = "SECONDS", default_value_t = AGENT_PATIENCE_SECONDS,
          value_parser = clap::value_parser!(u64).range(1..=PATIENCE_SECONDS_MAX))]
    pub patience: u64,
    /// Memory for what is sent and not yet committed, 2MiB at least.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "192MiB")]
    pub window: u64,
}

#[derive(Debug, Args)]
pub(crate) struct AgentRunArgs {
    /// The agent's configuration (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct AgentStatusArgs {
    /// The configuration with which the agent was started.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct AgentResyncArgs {
    /// The configuration with which the agent was started.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct AgentBookmarkArgs {
    /// Its name, as `recover` and `points` show it.
    pub name: String,
    /// The configuration with which the agent was started.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Freeze applications around it, by the hooks of the configuration. Otherwise the disks are as a
    /// power cut would leave them.
    #[arg(long)]
    pub application: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AgentPassArgs {
    /// A name for the moment at its end, as `recover` and `points` show it.
    #[arg(default_value = "")]
    pub name: String,
    /// The configuration with which the agent was started.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}
