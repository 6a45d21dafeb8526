//! The commands, one file each; here is what they share.

mod agent;
mod bench;
mod chosen;
mod copy;
mod demo;
mod enroll;
mod hrl;
mod machines;
mod maintain;
mod mount;
mod pinned;
mod points;
mod policy;
mod recover;
mod replicate;
mod server;
mod target;
mod vault;
mod verify;

#[cfg(test)]
pub(crate) use self::mount::MEMORY_DEFAULT as MOUNT_MEMORY_DEFAULT;
#[cfg(test)]
pub(crate) use self::server::LISTEN_DEFAULT;

use std::fmt::Display;
use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_model::limits::{
    NAME_BYTES_MAX, PACK_CLOSE_BYTES_DEFAULT, PATIENCE_SECONDS_MAX, STORE_PATIENCE_SECONDS,
};
use tidegate_model::{ExactBytes, Incarnation, Micros, Name};
use tidegate_vault::store::{Access, Store};
use tidegate_vault::{Location, Vault};

use crate::cli::{AgentCommand, Cli, Command, CredentialArgs, EngineArgs, HrlCommand, VaultArgs};
use crate::credentials;
use crate::failure::{Failure, from_errors};
use crate::output::Output;
use crate::server::ServerSettings;
use crate::signals::{self, Stop};

from_errors!(
    tidegate_agent::CopyError,
    tidegate_agent::connect::ConnectError,
    tidegate_agent::live::ControlError,
    tidegate_agent::live::LiveError,
    tidegate_agent::source::SourceError,
    tidegate_vault::VaultError,
    tidegate_vault::chain::HistoryError,
    tidegate_vault::fold::FoldError,
    tidegate_vault::gc::GcError,
    tidegate_vault::identity::IdentityError,
    tidegate_vault::keys::KeyError,
    tidegate_vault::log::LogError,
    tidegate_vault::meta::MetaError,
    tidegate_vault::points::ChooseError,
    tidegate_vault::restore::RestoreError,
    tidegate_vault::store::ClockError,
    tidegate_vault::store::StoreError,
    tidegate_vault::verify::VerifyError,
    crate::mount::OverlayError,
    crate::server::ServerError,
);

/// Threads of the store client; they wait far more than they work.
const STORE_THREADS: usize = 2;
/// Threads beside them for what blocks: files of a vault in a directory, names of hosts, disks that
/// are written back. 16 small reads at once are the most that anything asks for but a recovery,
/// whose large ones keep fewer threads busy; what finds no thread free waits its turn.
const BLOCKING_THREADS_MAX: usize = 16;
/// Memory of a server that isn't told otherwise: the table in it knows 5 million blocks (350 GB at
/// 64 KiB each), and there is room for what some cores work on.
pub(crate) const MEMORY_DEFAULT: u64 = 1 << 30;
/// zstd level of `replicate` that isn't told otherwise: most of the gain for a third of level 3's
/// time. Its store is often as near as its disks, where a governor would store a third more.
pub(crate) const LEVEL_REPLICATE: i32 = 1;
/// How long a pack may wait, in milliseconds: the knee between what a disaster costs and what
/// requests cost. Below the least a store's own time is the longer; beyond the most an agent would
/// take the server for dead.
pub(crate) const PACK_AGE_MS_DEFAULT: u64 = 250;
/// How often a server reads condemned lists. A collection bears with silence for an hour.
const LISTS_SECONDS_DEFAULT: u64 = 60;
/// The longest that it may leave that.
pub(crate) const LISTS_SECONDS_MAX: u64 = 600;
pub(crate) const PACK_AGE_MS_MIN: u64 = 10;
pub(crate) const PACK_AGE_MS_MAX: u64 = 10_000;
/// How large packs may be made; the plan may have to make them smaller.
const PACK_BYTES_BOUNDS: RangeInclusive<ExactBytes> =
    ExactBytes(1 << 20)..=ExactBytes(PACK_CLOSE_BYTES_DEFAULT as u64);
/// Most cores: as many as the largest hosts have.
pub(crate) const CORES_MAX: u16 = 1024;

/// Runs a command.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let output = Output::new(&cli.output);
    let stop = signals::listen()
        .map_err(|error| Failure::failed(format!("can't listen to signals: {error}")))?;
    match cli.command {
        Command::Vault(command) => block_on(vault::run(command, output, stop)),
        Command::Enroll(args) => until_stopped(&stop, enroll::run(args, output)),
        Command::Server(args) => block_on(server::run(args, output, stop)),
        Command::Agent(AgentCommand::Copy(args)) => block_on(copy::run(args, output, stop)),
        Command::Agent(AgentCommand::Run(args)) => block_on(agent::run(args, output, stop)),
        Command::Agent(AgentCommand::Status(args)) => {
            until_stopped(&stop, agent::status(args, output))
        }
        Command::Agent(AgentCommand::Resync(args)) => {
            until_stopped(&stop, agent::resync(args, output))
        }
        Command::Agent(AgentCommand::Bookmark(args)) => {
            until_stopped(&stop, agent::bookmark(args, output))
        }
        Command::Agent(AgentCommand::Pass(args)) => until_stopped(&stop, agent::pass(args, output)),
        Command::Replicate(args) => block_on(replicate::run(args, output, stop)),
        Command::Machines(args) => until_stopped(&stop, machines::run(args, output)),
        Command::Points(args) => until_stopped(&stop, points::run(args, output)),
        Command::Recover(args) => block_on(recover::run(args, output, stop)),
        Command::Mount(args) => block_on(mount::run(args, output, stop)),
        Command::Verify(args) => until_stopped(&stop, verify::run(args, output)),
        Command::Maintain(args) => until_stopped(&stop, maintain::run(args, output)),
        Command::Policy(command) => until_stopped(&stop, policy::run(command, output)),
        Command::Hrl(HrlCommand::Show(args)) => until_stopped(&stop, hrl::show(args, output)),
        Command::Demo(args) => block_on(demo::run(args, output, stop)),
        Command::Bench(args) => block_on(bench::run(*args, output, stop)),
    }
}

/// Runs a command on threads for waiting; executors pin their own.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(STORE_THREADS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("store")
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("can't start threads: {error}")))?;
    let result = runtime.block_on(work);
    // What a command left behind (a read that nobody waits for) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// The same for a command that only reads, or writes what can be written again: it may be dropped
/// wherever it is.
fn until_stopped(
    stop: &Stop,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    block_on(unless_stopped(stop, work))
}

/// Work that may be dropped wherever it waits, until somebody asks to stop. What is done by then
/// counts as done.
async fn unless_stopped<T>(
    stop: &Stop,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        result = work => result,
        () = stop.asked() => Err(Failure::stopped()),
    }
}

/// Opens a vault to read.
async fn open(args: &VaultArgs) -> Result<Vault, Failure> {
    open_at(&args.vault, &args.credential, Access::Read).await
}

/// Opens a vault to read and, where that is allowed, to pin what is read.
async fn open_to_pin(args: &VaultArgs) -> Result<Vault, Failure> {
    open_at(&args.vault, &args.credential, Access::Write).await
}

/// Opens a vault.
async fn open_at(
    location: &Location,
    credential: &CredentialArgs,
    access: Access,
) -> Result<Vault, Failure> {
    let store = Store::open(location, access)?;
    let credential = credentials::existing(credential).await?;
    Ok(Vault::open(store, &credential).await?)
}

/// What a server is told by the options that all kinds of it have.
fn server_settings(node: Name, engine: &EngineArgs) -> Result<ServerSettings, Failure> {
    let memory = engine.memory.unwrap_or(MEMORY_DEFAULT);
    let there = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let there = u16::try_from(there).unwrap_or(CORES_MAX).min(CORES_MAX);
    let patience = engine.store_patience.unwrap_or(STORE_PATIENCE_SECONDS);
    let pack_size = engine.pack_size.map_or(*PACK_BYTES_BOUNDS.end(), ExactBytes);
    let pack_size = within("pack-size", pack_size, PACK_BYTES_BOUNDS)?.0;
    // Checked here and not by the options alone: they may come from a configuration.
    Ok(ServerSettings {
        node,
        listen: None,
        identity: None,
        memory_bytes: usize::try_from(memory)
            .map_err(|_| Failure::usage("--memory is more than this host can address"))?,
        level: engine.level.and_then(|level| level.0.fixed()),
        frame_bytes: engine
            .frame
            .and_then(|frame| frame.0.fixed())
            .and_then(|bytes| usize::try_from(bytes).ok()),
        cores: within("cores", engine.cores.unwrap_or(there), 1..=CORES_MAX)?,
        store_patience: Duration::from_secs(within(
            "store-patience",
            patience,
            1..=PATIENCE_SECONDS_MAX,
        )?),
        pack_age: Duration::from_millis(within(
            "pack-age",
            engine.pack_age.unwrap_or(PACK_AGE_MS_DEFAULT),
            PACK_AGE_MS_MIN..=PACK_AGE_MS_MAX,
        )?),
        pack_bytes: usize::try_from(pack_size).unwrap_or(usize::MAX),
        lists_interval: Duration::from_secs(within(
            "lists-interval",
            engine.lists_interval.unwrap_or(LISTS_SECONDS_DEFAULT),
            1..=LISTS_SECONDS_MAX,
        )?),
        silence_max: machines::SILENCE_MAX,
        maintenance: None,
    })
}

/// A setting that must lie within its bounds.
fn within<T: PartialOrd + Display>(
    name: &str,
    value: T,
    bounds: RangeInclusive<T>,
) -> Result<T, Failure> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let (least, most) = bounds.into_inner();
    Err(Failure::usage(format!("{name} {value} can't be had: give {least} to {most}")))
}

/// A new life of an agent.
fn new_incarnation() -> Result<Incarnation, Failure> {
    Ok(Incarnation::from_bytes(random()?))
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format!("the system gives no random numbers: {error}")))?;
    Ok(bytes)
}

/// Now, by this host's clock.
fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// This process's clock, for those who are given one.
fn clock() -> tidegate_agent::Clock {
    Arc::new(now)
}

/// Processor time, user and system, of `who`: `RUSAGE_SELF` or `RUSAGE_CHILDREN`.
fn cpu_seconds(who: libc::c_int) -> f64 {
    // SAFETY: getrusage fills the struct that it is given, which is plain old data; all zero is a
    // value of it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &raw mut usage);
        usage
    };
    #[allow(clippy::cast_precision_loss)] // a figure for people
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The name of this host, made into one that a machine or node can have.
fn host_name() -> Name {
    let system = rustix::system::uname();
    let text = system.nodename().to_string_lossy();
    name_from(&text).unwrap_or_else(|| "host".parse().expect("'host' is a name"))
}

/// A name made from a text: characters that no name has become '-'.
fn name_from(text: &str) -> Option<Name> {
    let cleaned: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .take(NAME_BYTES_MAX)
        .collect();
    cleaned.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_configuration_have_the_bounds_of_the_options() {
        let usual = EngineArgs::default;
        let settle = |engine| server_settings(host_name(), &engine);
        assert!(settle(usual()).is_ok());
        for bad in [
            EngineArgs { cores: Some(0), ..usual() },
            EngineArgs { store_patience: Some(0), ..usual() },
            EngineArgs { pack_age: Some(PACK_AGE_MS_MAX + 1), ..usual() },
            EngineArgs { pack_size: Some(1 << 10), ..usual() },
            EngineArgs { pack_size: Some(1 << 30), ..usual() },
        ] {
            assert!(settle(bad).is_err());
        }
    }

    #[test]
    fn a_size_that_cant_be_had_is_answered_with_sizes_as_they_are_typed() {
        let refused = server_settings(
            host_name(),
            &EngineArgs { pack_size: Some(512 << 10), ..EngineArgs::default() },
        );
        let text = refused.err().map(|failure| failure.to_string()).unwrap_or_default();
        assert_eq!(text, "pack-size 512KiB can't be had: give 1MiB to 16MiB");
    }
}
