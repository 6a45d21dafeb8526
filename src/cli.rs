//! The command line: every command and option, and nothing of what they do.

mod agent;
mod bench;
mod machines;
mod maintain;
mod policy;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidegate_model::limits::PATIENCE_SECONDS_MAX;
use tidegate_model::{DiskNumber, Name, parse_bytes};
use tidegate_nbd::serve::Address;
use tidegate_vault::Location;

use crate::choice::{Frame, Level};
use crate::commands::{CORES_MAX, LISTS_SECONDS_MAX, PACK_AGE_MS_MAX, PACK_AGE_MS_MIN};
use crate::failure::STATUSES;

pub(crate) use agent::{
    AgentBookmarkArgs, AgentCommand, AgentCopyArgs, AgentPassArgs, AgentResyncArgs, AgentRunArgs,
    AgentStatusArgs,
};
pub(crate) use bench::{BenchArgs, BenchCommand, BenchLiveArgs, BenchRunArgs};
pub(crate) use machines::{MachinesArgs, MachinesCommand, MachinesRemoveArgs};
pub(crate) use maintain::{BackgroundArgs, INTERVAL_SECONDS_MAX, MaintainArgs};
pub(crate) use policy::{PolicyCommand, PolicySetArgs, PolicyShowArgs};

/// Keeps machines recoverable: copies their disks, write by write, into Azure-compatible object
/// storage, and brings them back.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = STATUSES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// How results are shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct OutputArgs {
    /// Print results as JSON on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to log on standard error: error, warn, info, debug, or a filter per module.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "TIDEGATE_LOG",
        default_value = "warn"
    )]
    pub log: String,
    /// Show no progress bars.
    #[arg(long, global = true)]
    pub no_progress: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a vault, and manage the keys that open it.
    #[command(subcommand)]
    Vault(VaultCommand),
    /// Issue an identity: what a machine or a process server shows to the other side.
    Enroll(EnrollArgs),
    /// Run a process server.
    Server(ServerArgs),
    /// The agent: what runs on a protected machine.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Copy disks into a vault, all in one process. Makes the vault if it isn't there.
    Replicate(ReplicateArgs),
    /// List the machines of a vault, with the space that each uses, or remove one.
    Machines(MachinesArgs),
    /// List the points to which a machine can be brought back.
    ///
    /// It reads indexes: of the machine's packs, and of those in which its deduplicated blocks are
    /// kept. Damage inside a frame shows only when it is read: `verify --contents` reads every frame.
    Points(PointsArgs),
    /// Write a machine's disks back as they were.
    Recover(RecoverArgs),
    /// Serve a machine's disks as they were over NBD, at once: nothing is copied first.
    ///
    /// Each disk is an export by its number and by its name; the first is also the one that a client
    /// gets who names none. What is read is fetched from the vault when it is wanted. Without --overlay
    /// nothing can be written.
    Mount(MountArgs),
    /// Check a vault: indexes and references, or every byte.
    Verify(VerifyArgs),
    /// Fold machines' histories, let go of what their policies don't keep, and delete what nothing needs.
    ///
    /// What the packs of many logs say of a machine's disks is put together in layers and a manifest,
    /// which `points`, `machines` and `recover` then read instead, so that reading doesn't cost more
    /// and more. Beyond the any-point window only the points that the policy keeps stay. It may be
    /// stopped at any moment, and servers go on meanwhile.
    Maintain(MaintainArgs),
    /// How long machines' pasts can be brought back: the any-point window, and which points are kept.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Look at change journals.
    #[command(subcommand)]
    Hrl(HrlCommand),
    /// Show the main job end to end on a real file system, server and agent over TLS.
    Demo(DemoArgs),
    /// Measure a process server under load, and what its work costs at least on this machine.
    Bench(Box<BenchArgs>),
}

#[derive(Debug, Subcommand)]
pub(crate) enum VaultCommand {
    /// Make a vault. Prints the recovery key, once.
    Init(VaultInitArgs),
    /// Manage passphrases and key files.
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Let another passphrase or key file open the vault.
    Add(KeyAddArgs),
    /// Replace a passphrase or key file.
    Change(KeyChangeArgs),
    /// List what opens the vault. Needs no passphrase or key file; one that is named is tried.
    List(KeyListArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum HrlCommand {
    /// Print a change log (.hrl), whoever wrote it: its header, its entries, and what is wrong with it.
    Show(HrlShowArgs),
}

/// What opens a vault. Without either option TIDEGATE_PASSPHRASE is taken; without that, you are
/// asked at the terminal.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CredentialArgs {
    /// File whose first line is the passphrase.
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    pub passphrase_file: Option<PathBuf>,
    /// Key file, or a file that holds the recovery key.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// A vault and what opens it.
#[derive(Debug, Clone, Args)]
pub(crate) struct VaultArgs {
    /// The vault: file:///DIR or az://CONTAINER[/PREFIX].
    #[arg(long, value_name = "VAULT", env = "TIDEGATE_VAULT")]
    pub vault: Location,
    #[command(flatten)]
    pub credential: CredentialArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VaultInitArgs {
    /// The vault to make: file:///DIR or az://CONTAINER[/PREFIX].
    #[arg(value_name = "VAULT", env = "TIDEGATE_VAULT")]
    pub vault: Location,
    #[command(flatten)]
    pub credential: CredentialArgs,
    /// Block size: the unit in which equal data is found; a power of two from 4KiB to 256KiB.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "64KiB")]
    pub block_bytes: u64,
}

/// What a new slot opens with.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct NewSecretArgs {
    /// File whose first line is the new passphrase.
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
    /// The new key file; made with random content if it isn't there.
    #[arg(long, value_name = "FILE")]
    pub new_key_file: Option<PathBuf>,
}

/// What a slot opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeArg {
    /// Everything, the certificate authority included.
    All,
    /// The data only: enough for a process server that has an identity.
    Data,
}

#[derive(Debug, Args)]
pub(crate) struct KeyAddArgs {
    /// The vault.
    #[arg(value_name = "VAULT", env = "TIDEGATE_VAULT")]
    pub vault: Location,
    #[command(flatten)]
    pub credential: CredentialArgs,
    #[command(flatten)]
    pub new: NewSecretArgs,
    /// What it opens.
    #[arg(long, value_enum, default_value = "all")]
    pub scope: ScopeArg,
}

#[derive(Debug, Args)]
pub(crate) struct KeyChangeArgs {
    /// The vault.
    #[arg(value_name = "VAULT", env = "TIDEGATE_VAULT")]
    pub vault: Location,
    #[command(flatten)]
    pub credential: CredentialArgs,
    #[command(flatten)]
    pub new: NewSecretArgs,
    /// The slot to change (see `vault key list`); without it, the one that the credential opened.
    #[arg(long, value_name = "SLOT")]
    pub slot: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyListArgs {
    /// The vault.
    #[arg(value_name = "VAULT", env = "TIDEGATE_VAULT")]
    pub vault: Location,
    #[command(flatten)]
    pub credential: CredentialArgs,
}

/// What an identity is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// A protected machine.
    Machine,
    /// A process server.
    Server,
}

#[derive(Debug, Args)]
pub(crate) struct EnrollArgs {
    /// The machine's or server's name.
    pub name: Name,
    #[command(flatten)]
    pub vault: VaultArgs,
    /// Where to write the identity; it holds a private key and only its owner may read it.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What the identity is for.
    #[arg(long, value_enum, default_value = "machine")]
    pub role: RoleArg,
    /// How many days it is good for.
    #[arg(long, value_name = "DAYS", default_value_t = 365,
          value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Overwrite FILE if it is there.
    #[arg(long)]
    pub force: bool,
}

/// What a server, embedded or not, can be told.
#[derive(Debug, Default, Args)]
pub(crate) struct EngineArgs {
    /// Memory that the process never exceeds, as 512MiB or 2GiB [default: 1GiB].
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub memory: Option<u64>,
    /// zstd level, from -7 (fast) to 12 (small), or auto: what is scarce decides, cores or the link
    /// [default: auto; of replicate and bench 1].
    #[arg(long, value_name = "LEVEL|auto", allow_hyphen_values = true)]
    pub level: Option<Level>,
    /// How much of whole blocks in sequence is compressed as one, at most; auto is what suits the
    /// level [default: auto].
    #[arg(long, value_name = "256KiB|1MiB|4MiB|auto")]
    pub frame: Option<Frame>,
    /// Cores to use [default: all that the process may use].
    #[arg(long, value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(1..=CORES_MAX as i64))]
    pub cores: Option<u16>,
    /// Give up when the store has taken nothing for so many seconds [default: 300].
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=PATIENCE_SECONDS_MAX))]
    pub store_patience: Option<u64>,
    /// A pack closes, and goes to the store, at the latest so many milliseconds after the first of its
    /// records came in, or half of that after it was packed where that is later, as when the cores are
    /// behind: less loses less in a disaster, more costs fewer requests [default: 250].
    #[arg(long, value_name = "MILLISECONDS",
          value_parser = clap::value_parser!(u64).range(PACK_AGE_MS_MIN..=PACK_AGE_MS_MAX))]
    pub pack_age: Option<u64>,
    /// A pack is stored as soon as it has so many bytes, from 1MiB to 16MiB [default: 16MiB, or what
    /// the memory allows].
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub pack_size: Option<u64>,
    /// Look every so many seconds which packs are condemned as garbage [default: 60].
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=LISTS_SECONDS_MAX))]
    pub lists_interval: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The vault: file:///DIR or az://CONTAINER[/PREFIX]. May stand in the configuration instead.
    #[arg(long, value_name = "VAULT", env = "TIDEGATE_VAULT")]
    pub vault: Option<Location>,
    #[command(flatten)]
    pub credential: CredentialArgs,
    /// Where to listen [default: 0.0.0.0:9443].
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen)]
    pub listen: Option<SocketAddr>,
    /// The server's identity, from `enroll --role server`. Without it the server makes itself one,
    /// which needs a key that opens the vault's authority.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub background: BackgroundArgs,
    /// Configuration (TOML); options on the command line win.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReplicateArgs {
    /// Raw image files or block devices; they become disks 0, 1, ... of the machine.
    #[arg(value_name = "DISK", required = true)]
    pub disks: Vec<PathBuf>,
    #[command(flatten)]
    pub vault: VaultArgs,
    /// The machine's name [default: the first image's file name without its ending; this host's
    /// name if any of the disks is a device].
    #[arg(long, value_name = "NAME")]
    pub machine: Option<Name>,
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PointsArgs {
    /// The machine.
    pub machine: Name,
    #[command(flatten)]
    pub vault: VaultArgs,
}

/// A point of a machine, of which all disks are meant or one.
#[derive(Debug, Args)]
pub(crate) struct PointArgs {
    /// The machine.
    pub machine: Name,
    #[command(flatten)]
    pub vault: VaultArgs,
    /// One disk only.
    #[arg(long, value_name = "N", value_parser = parse_disk)]
    pub disk: Option<DiskNumber>,
    /// Which moment: latest (bookmark), a time (2026-11-21T07:30:00Z), or EPOCH:LSN.
    #[arg(long, value_name = "POINT", default_value = "latest")]
    pub at: String,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    pub point: PointArgs,
    /// A directory for all disks (disk-N.img), or with --disk a file or block device.
    #[arg(long, value_name = "PATH")]
    pub to: PathBuf,
    /// Overwrite what is there.
    #[arg(long)]
    pub force: bool,
    /// Memory for what is on its way from the store to the disks, 32MiB at least: the more, the
    /// farther is read ahead of a slow store [default: 256MiB].
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub memory: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    #[command(flatten)]
    pub point: PointArgs,
    /// Where to serve: unix:PATH, for processes of the same user, or tcp:ADDRESS:PORT, for whoever
    /// reaches it (there is no TLS).
    #[arg(long, value_name = "unix:PATH|tcp:ADDR")]
    pub nbd: Address,
    /// Takes what is written, and has it again at the next mount of the same point; made if it isn't
    /// there.
    #[arg(long, value_name = "FILE")]
    pub overlay: Option<PathBuf>,
    /// Memory for clients, for what is fetched and opened, and for what is kept of it; the map of the
    /// point comes besides [default: 512MiB].
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub memory: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub vault: VaultArgs,
    /// Read and check every frame, not only indexes and references.
    #[arg(long)]
    pub contents: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HrlShowArgs {
    /// The .hrl file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Size of the disk image to make.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "1GiB")]
    pub size: u64,
    /// Where to work; everything made there is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "it takes an IP address of this host and a port, as 0.0.0.0:9443 or [::]:9443".to_owned()
    })
}

fn parse_disk(text: &str) -> Result<DiskNumber, String> {
    let number: u8 = text.parse().map_err(|_| format!("'{text}' is not a disk number"))?;
    DiskNumber::try_from(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use tidegate_model::limits::{PORT_DEFAULT, STORE_PATIENCE_SECONDS, WINDOW_BYTES_DEFAULT};

    use tidegate_vault::restore;

    use super::*;
    use crate::choice::Choice;
    use crate::commands::{LEVEL_REPLICATE, LISTEN_DEFAULT, MEMORY_DEFAULT, MOUNT_MEMORY_DEFAULT};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// What the help of an option says of its default, where it isn't clap that says it.
    fn told(command: &str, option: &str) -> String {
        let cli = Cli::command();
        let command = cli.find_subcommand(command).expect("there is such a command");
        let mut options = command.get_arguments();
        let option = options.find(|arg| arg.get_long() == Some(option)).expect("with the option");
        let help = option.get_help().expect("which has a help").to_string();
        let (_, told) = help.split_once("[default: ").expect("that tells its default");
        told.split(']').next().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_help_tells_the_defaults_that_are_taken() {
        for command in ["server", "replicate", "bench"] {
            assert_eq!(parse_bytes(&told(command, "memory")), Ok(MEMORY_DEFAULT));
            let level =
                format!("{}; of replicate and bench {LEVEL_REPLICATE}", Choice::<i32>::default());
            assert_eq!(told(command, "level"), level);
            assert_eq!(told(command, "frame"), Choice::<u64>::default().to_string());
            assert_eq!(told(command, "store-patience"), STORE_PATIENCE_SECONDS.to_string());
        }
        assert_eq!(parse_bytes(&told("recover", "memory")), Ok(restore::MEMORY_DEFAULT));
        assert_eq!(parse_bytes(&told("mount", "memory")), Ok(MOUNT_MEMORY_DEFAULT));
        assert_eq!(told("server", "listen"), LISTEN_DEFAULT.to_string());
        assert_eq!(LISTEN_DEFAULT.port(), PORT_DEFAULT);
        let agent = AgentCopyArgs::augment_args(clap::Command::new("copy"));
        let help = agent.clone().render_help().to_string();
        assert!(help.contains(&format!("[default port: {PORT_DEFAULT}]")), "{help}");
        let arguments = ["copy", "--server", "s", "--identity", "i", "disk"];
        let matches = agent.try_get_matches_from(arguments).expect("it is enough");
        assert_eq!(matches.get_one("window"), Some(&WINDOW_BYTES_DEFAULT));
    }

    #[test]
    fn levels_beyond_the_memory_plan_are_refused() {
        for level in ["-8", "13", "19"] {
            let arguments = ["tidegate", "server", "--level", level];
            assert!(Cli::try_parse_from(arguments).is_err(), "{level}");
        }
        assert!(Cli::try_parse_from(["tidegate", "server", "--level", "-7"]).is_ok());
    }
}
