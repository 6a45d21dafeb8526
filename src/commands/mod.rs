//! The commands, one file each; here is what they share.

mod copy;
mod demo;
mod enroll;
mod machines;
mod points;
mod recover;
mod replicate;
mod server;
mod target;
mod vault;
mod verify;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_model::{Incarnation, Micros};
use tidegate_vault::store::{Access, Store};
use tidegate_vault::{Location, Vault};

use crate::cli::{AgentCommand, Cli, Command, CredentialArgs, EngineArgs, VaultArgs};
use crate::credentials;
use crate::failure::{Failure, from_errors};
use crate::output::Output;
use crate::server::ServerSettings;
use crate::signals::{self, Stop};

from_errors!(
    tidegate_agent::CopyError,
    tidegate_agent::connect::ConnectError,
    tidegate_agent::source::SourceError,
    tidegate_vault::VaultError,
    tidegate_vault::chain::HistoryError,
    tidegate_vault::identity::IdentityError,
    tidegate_vault::keys::KeyError,
    tidegate_vault::log::LogError,
    tidegate_vault::meta::MetaError,
    tidegate_vault::points::ChooseError,
    tidegate_vault::restore::RestoreError,
    tidegate_vault::store::StoreError,
    tidegate_vault::verify::VerifyError,
    crate::server::ServerError,
);

/// Threads of the store client; they wait far more than they work.
const STORE_THREADS: usize = 2;
/// Memory of a server that isn't told otherwise.
const MEMORY_DEFAULT: u64 = 1 << 30;
/// zstd level that isn't told otherwise: most of the gain for a third of level 3's time.
const LEVEL_DEFAULT: i32 = 1;
/// How long a store that takes nothing is borne with, unless told otherwise: an outage of minutes
/// passes by itself.
const STORE_PATIENCE_DEFAULT: u64 = 300;
/// Puts at once: at 16 MiB each enough for 1 GB/s at 100 ms a put.
const PUTS_MAX: usize = 8;

/// Runs a command.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let output = Output::new(&cli.output);
    let stop = signals::listen()
        .map_err(|error| Failure::usage(format!("can't listen to signals: {error}")))?;
    match cli.command {
        Command::Vault(command) => block_on(vault::run(command, output)),
        Command::Enroll(args) => block_on(enroll::run(args, output)),
        Command::Server(args) => block_on(server::run(args, output, stop)),
        Command::Agent(AgentCommand::Copy(args)) => block_on(copy::run(args, output, stop)),
        Command::Replicate(args) => block_on(replicate::run(args, output, stop)),
        Command::Machines(args) => until_stopped(&stop, machines::run(args, output)),
        Command::Points(args) => until_stopped(&stop, points::run(args, output)),
        Command::Recover(args) => until_stopped(&stop, recover::run(args, output)),
        Command::Verify(args) => until_stopped(&stop, verify::run(args, output)),
        Command::Demo(args) => demo::run(&args, output, &stop),
    }
}

/// Runs a command on threads for waiting; executors pin their own.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(STORE_THREADS)
        .thread_name("store")
        .enable_all()
        .build()
        .map_err(|error| Failure::usage(format!("can't start threads: {error}")))?;
    let result = runtime.block_on(work);
    // What a command left behind (a read that nobody waits for) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// The same for a command that only reads or writes what can be written again: it may be dropped
/// wherever it is.
fn until_stopped(
    stop: &Stop,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    block_on(async {
        tokio::select! {
            result = work => result,
            () = stop.asked() => Err(Failure::usage("stopped before it was done")),
        }
    })
}

/// Opens a vault to read.
async fn open(args: &VaultArgs) -> Result<Vault, Failure> {
    open_at(&args.vault, &args.credential, Access::Read).await
}

/// Opens a vault.
async fn open_at(
    location: &Location,
    credential: &CredentialArgs,
    access: Access,
) -> Result<Vault, Failure> {
    let store = Store::open(location, access)?;
    let credential = credentials::existing(credential)?;
    Ok(Vault::open(store, &credential).await?)
}

/// What a server is told by the options that all kinds of it have.
fn server_settings(
    node: tidegate_model::Name,
    engine: &EngineArgs,
) -> Result<ServerSettings, Failure> {
    let memory = engine.memory.unwrap_or(MEMORY_DEFAULT);
    let there = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(ServerSettings {
        node,
        listen: None,
        identity: None,
        memory_bytes: usize::try_from(memory)
            .map_err(|_| Failure::usage("--memory is more than this host can address"))?,
        level: engine.level.unwrap_or(LEVEL_DEFAULT),
        cores: engine.cores.unwrap_or(u16::try_from(there).unwrap_or(u16::MAX)),
        puts_max: PUTS_MAX,
        store_patience: Duration::from_secs(
            engine.store_patience.unwrap_or(STORE_PATIENCE_DEFAULT),
        ),
    })
}

/// A new life of an agent.
fn new_incarnation() -> Result<Incarnation, Failure> {
    Ok(Incarnation::from_bytes(random()?))
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::usage(format!("the system gives no random numbers: {error}")))?;
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
fn host_name() -> tidegate_model::Name {
    let system = rustix::system::uname();
    let text = system.nodename().to_string_lossy();
    name_from(&text).unwrap_or_else(|| "host".parse().expect("'host' is a name"))
}

/// A name made from a text: characters that no name has become '-'.
fn name_from(text: &str) -> Option<tidegate_model::Name> {
    let cleaned: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .take(tidegate_model::limits::NAME_BYTES_MAX)
        .collect();
    cleaned.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).parse().ok()
}
