//! The options of `tidegate bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tidegate_model::limits::{DISKS_MAX, RECORD_BYTES_MAX};
use tidegate_model::parse_bytes;
use tidegate_vault::Location;

use super::{CredentialArgs, EngineArgs};

/// Most streams of one load.
const STREAMS_MAX: i64 = 10_000;
/// A disk for `live` is made of so many bytes.
const LIVE_DISK_BYTES_MIN: u64 = 1 << 20;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    #[command(flatten)]
    pub run: BenchRunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Compare two results that `bench --json` printed: each figure of B over that of A.
    Compare {
        /// The first.
        a: PathBuf,
        /// The second.
        b: PathBuf,
    },
    /// Write to a disk that a live agent serves, and measure how long a write takes, and until it is
    /// committed. Server, agent and clients are in this process.
    Live(BenchLiveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchLiveArgs {
    /// Where the disk and the agent's journal are made for each round, and removed again.
    #[arg(long, value_name = "DIRECTORY")]
    pub folder: PathBuf,
    /// Writes of 4 KiB a second, at places in no order, by a schedule.
    #[arg(long, value_name = "COUNT", default_value_t = 2000,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: u64,
    /// Clients, each with one write at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 4,
          value_parser = clap::value_parser!(u8).range(1..=8))]
    pub clients: u8,
    /// Seconds of a round.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// Rounds.
    #[arg(long, value_name = "COUNT", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
    /// After each round one in which the server is gone before the first write.
    #[arg(long)]
    pub cut: bool,
    /// The disk.
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = parse_disk_size)]
    pub disk_size: u64,
    /// Most bytes of the journal.
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = parse_bytes)]
    pub journal_size: u64,
    /// How long each put takes at the store, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub store_latency_ms: u64,
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchRunArgs {
    /// Streams, each a machine with a session of its own [default: 8, or one an identity].
    #[arg(long, value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(1..=STREAMS_MAX))]
    pub streams: Option<u16>,
    /// Disks of each machine.
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=DISKS_MAX as i64))]
    pub disks: u8,
    /// Bytes of a write, from 512 to what the server takes (64KiB unless the vault has larger
    /// blocks).
    #[arg(long, value_name = "BYTES", value_parser = parse_write_bytes, default_value = "64KiB")]
    pub write_bytes: u64,
    /// Write at places in no order.
    #[arg(long)]
    pub random: bool,
    /// Zeros, in per cent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub zeros: u8,
    /// Duplicates among the 64 KiB pieces that aren't zero, in per cent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub duplicates: u8,
    /// What zstd 1 takes away of what is neither, in per cent, about.
    #[arg(long, value_name = "PERCENT", default_value_t = 50,
          value_parser = clap::value_parser!(u8).range(0..=95))]
    pub compressible: u8,
    /// Send the bytes of this image or disk instead of made ones; only reads it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["zeros", "duplicates", "compressible"])]
    pub image: Option<PathBuf>,
    /// Bytes to make, or to read, before; they are sent again and again, each time stamped anew.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "64MiB")]
    pub corpus: u64,
    /// Bytes a second of all streams together, by a schedule; without it as fast as the server
    /// takes them.
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    pub rate: Option<u64>,
    /// Seconds of a round.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// Rounds that count; one more goes before.
    #[arg(long, value_name = "COUNT", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub rounds: u16,
    /// Threads that send the load.
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub load_threads: u16,
    /// Connect inside the process instead of over TLS.
    #[arg(long, conflicts_with = "server")]
    pub pipe: bool,
    /// A running process server to load, instead of one in this process [default port: 9443].
    #[arg(long, value_name = "HOST[:PORT]", requires = "identity")]
    pub server: Option<String>,
    /// The identity of a machine for --server; one for each stream. The data stays in its vault.
    #[arg(long, value_name = "FILE", requires = "server")]
    pub identity: Vec<PathBuf>,
    /// The vault to write to, which must be there and keeps the data: file:///DIR or
    /// az://CONTAINER[/PREFIX]. Without it packs are thrown away.
    #[arg(long, value_name = "VAULT", conflicts_with = "server")]
    pub vault: Option<Location>,
    #[command(flatten)]
    pub credential: CredentialArgs,
    /// How long each put takes at the store that throws packs away, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0,
          conflicts_with_all = ["vault", "server"],
          value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub store_latency_ms: u64,
    /// How many bytes a second that store takes [default: any].
    #[arg(long, value_name = "BYTES", value_parser = parse_rate,
          conflicts_with_all = ["vault", "server"])]
    pub store_rate: Option<u64>,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Write a report with plots, too: one HTML file that needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

fn parse_write_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    let most = u64::from(RECORD_BYTES_MAX);
    if (512..=most).contains(&bytes) && bytes % 512 == 0 {
        return Ok(bytes);
    }
    Err(format!("a write has from 512 to {most} bytes, in steps of 512"))
}

fn parse_disk_size(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if bytes >= LIVE_DISK_BYTES_MIN && bytes.is_multiple_of(LIVE_DISK_BYTES_MIN) {
        return Ok(bytes);
    }
    Err(format!("a disk has {LIVE_DISK_BYTES_MIN} bytes or a multiple of that"))
}

fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        0 => Err("nothing would ever be sent".to_owned()),
        rate => Ok(rate),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("'{text}' is not a number"))?;
    if (0.01..=86_400.0).contains(&seconds) {
        return Ok(seconds);
    }
    Err("a round takes from 0.01 to 86400 seconds".to_owned())
}
