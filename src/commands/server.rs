//! `tidegate server`: the process server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidegate_model::HumanBytes;
use tidegate_model::limits::PORT_DEFAULT;
use tidegate_vault::authority::{Enrolment, VALIDITY_DEFAULT};
use tidegate_vault::identity::{Identity, Role};
use tidegate_vault::store::{Access, Store};
use tidegate_vault::{Location, Vault};

use crate::cli::{BackgroundArgs, INTERVAL_SECONDS_MAX, ServerArgs};
use crate::config::{self, ServerConfig};
use crate::failure::Failure;
use crate::output::Output;
use crate::server::{MaintenanceSettings, Server, ServerIdentity};
use crate::signals::Stop;

/// How often the vault is maintained: what came in an hour is folded in seconds, and reading it costs
/// less than a thousandth of storing it.
const MAINTENANCE_SECONDS_DEFAULT: u64 = 3600;

/// Where a server listens that isn't told otherwise.
pub(crate) const LISTEN_DEFAULT: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT_DEFAULT);

#[derive(Serialize)]
struct Listening {
    listening: String,
    node: String,
    memory_bytes: usize,
    memory: Vec<Term>,
    packs: Packs,
    maintenance: Maintained,
}

/// Whether the vault is maintained in the background.
#[derive(Serialize)]
struct Maintained {
    /// How often, in seconds; null where it isn't.
    seconds: Option<u64>,
    /// It would be with so much memory.
    needs_bytes: Option<usize>,
}

impl Maintained {
    fn of(server: &Server, args: &BackgroundArgs) -> Self {
        let seconds = args.maintenance_interval.unwrap_or(MAINTENANCE_SECONDS_DEFAULT);
        let needs =
            (!args.no_maintenance && !server.maintains()).then(|| server.memory_for_maintenance());
        Self { seconds: server.maintains().then_some(seconds), needs_bytes: needs }
    }

    fn text(&self) -> String {
        match (self.seconds, self.needs_bytes) {
            (Some(seconds), _) => {
                format!("the vault is maintained every {seconds} s, more or less by half")
            }
            (None, Some(bytes)) => format!(
                "the vault isn't maintained: give {} (--memory), or run 'tidegate maintain'",
                HumanBytes(bytes as u64)
            ),
            (None, None) => "the vault isn't maintained: run 'tidegate maintain'".to_owned(),
        }
    }
}

/// When packs close, and what that costs in requests.
#[derive(Serialize)]
struct Packs {
    close_bytes: usize,
    close_ms: u64,
    /// Most puts a day while less comes than fills packs, of each shard that has machines.
    puts_a_day_when_idle: u64,
    /// Puts for each 10^9 bytes stored, while packs fill.
    puts_a_gb_when_busy: u64,
}

impl Packs {
    const MS_A_DAY: u64 = 24 * 60 * 60 * 1000;

    fn of(server: &Server) -> Self {
        let (close_bytes, close_ms) = (server.plan().pack_close_bytes, server.pack_age_ms());
        Self {
            close_bytes,
            close_ms,
            puts_a_day_when_idle: Self::MS_A_DAY / close_ms.max(1),
            puts_a_gb_when_busy: 1_000_000_000_u64.div_ceil(close_bytes.max(1) as u64),
        }
    }
}

#[derive(Serialize)]
struct Term {
    name: &'static str,
    bytes: usize,
}

pub(super) async fn run(args: ServerArgs, output: Output, stop: Stop) -> Result<(), Failure> {
    let config = args.config.as_deref().map(config::read).transpose()?.unwrap_or_default();
    let args = merge(args, config)?;
    // A server's work ends when it is asked to stop: nothing failed, whether it began or not.
    let server = tokio::select! {
        biased;
        started = start(&args, output, &stop) => started?,
        () = stop.asked() => return Ok(()),
    };
    stop.asked().await;
    server.stop().await?;
    Ok(())
}

/// Starts it and says where it listens. Dropping this leaves nothing but, perhaps, a run of its
/// name without packs.
async fn start(args: &ServerArgs, output: Output, stop: &Stop) -> Result<Server, Failure> {
    let Some(location) = &args.vault else {
        return Err(Failure::usage("which vault? Give --vault, or 'vault' in the configuration"));
    };
    let vault = super::open_at(location, &args.credential, Access::Write).await?;
    let identity = identity(args, &vault)?;
    let mut settings = super::server_settings(identity.name().clone(), &args.engine)?;
    settings.listen = Some(args.listen.unwrap_or(LISTEN_DEFAULT));
    settings.identity =
        Some(ServerIdentity { certificates: identity.chain(), key: identity.key() });
    settings.maintenance = maintenance(location, &args.background)?;
    let waiting = output.waiting("reading the vault's indexes");
    let server = Server::start(Arc::new(vault), settings, stop).await?;
    waiting.finish_and_clear();
    announce(&server, identity.name().to_string(), &args.background, output)?;
    Ok(server)
}

/// What the command line says wins over what the configuration says.
fn merge(mut args: ServerArgs, config: ServerConfig) -> Result<ServerArgs, Failure> {
    if args.vault.is_none() {
        args.vault =
            config.vault.as_deref().map(str::parse::<Location>).transpose().map_err(|error| {
                Failure::usage(format!("'vault' in the configuration: {error}"))
            })?;
    }
    if args.credential.passphrase_file.is_none() && args.credential.key_file.is_none() {
        args.credential.passphrase_file = config.passphrase_file;
        args.credential.key_file = config.key_file;
    }
    args.listen = args.listen.or(config.listen);
    args.identity = args.identity.or(config.identity);
    args.engine.memory = args.engine.memory.or(config.memory.map(|size| size.0));
    args.engine.level = args.engine.level.or(config.level);
    args.engine.frame = args.engine.frame.or(config.frame);
    args.engine.cores = args.engine.cores.or(config.cores);
    args.engine.store_patience = args.engine.store_patience.or(config.store_patience);
    args.engine.pack_age = args.engine.pack_age.or(config.pack_age);
    args.engine.pack_size = args.engine.pack_size.or(config.pack_size.map(|size| size.0));
    args.engine.lists_interval = args.engine.lists_interval.or(config.lists_interval);
    // An interval on the command line wins over a configuration that wants none.
    args.background.no_maintenance |=
        config.maintenance == Some(false) && args.background.maintenance_interval.is_none();
    args.background.maintenance_interval =
        args.background.maintenance_interval.or(config.maintenance_interval);
    Ok(args)
}

/// How the vault is maintained in the background, if it shall be.
fn maintenance(
    location: &Location,
    args: &BackgroundArgs,
) -> Result<Option<MaintenanceSettings>, Failure> {
    if args.no_maintenance {
        return Ok(None);
    }
    let seconds = args.maintenance_interval.unwrap_or(MAINTENANCE_SECONDS_DEFAULT);
    let seconds = super::within("maintenance-interval", seconds, 1..=INTERVAL_SECONDS_MAX)?;
    let store = Store::open(location, Access::Write)?;
    Ok(Some(MaintenanceSettings { store, interval: Duration::from_secs(seconds) }))
}

/// The identity from its file; without one a fresh one, if the key opens the authority.
fn identity(args: &ServerArgs, vault: &Vault) -> Result<Identity, Failure> {
    let Some(path) = &args.identity else {
        let enrolment = Enrolment {
            name: super::host_name(),
            role: Role::Server,
            validity: VALIDITY_DEFAULT,
            names: Vec::new(),
        };
        let authority = vault.authority().map_err(|error| {
            Failure::from(error).during("the server has no --identity and can't make itself one")
        })?;
        return Ok(authority.issue(&enrolment, super::now())?);
    };
    let identity = Identity::read(path)?;
    if identity.vault() != vault.id() {
        return Err(Failure::usage(format!(
            "the identity {} is of vault {}, but this is vault {}: enroll the server here",
            path.display(),
            identity.vault(),
            vault.id()
        )));
    }
    if identity.role() != Role::Server {
        return Err(Failure::usage(format!(
            "the identity {} is that of a {}: a server needs one from 'enroll --role server'",
            path.display(),
            identity.role()
        )));
    }
    identity.check(super::now())?;
    Ok(identity)
}

fn announce(
    server: &Server,
    node: String,
    background: &BackgroundArgs,
    output: Output,
) -> Result<(), Failure> {
    let address = server.address().map_or_else(String::new, |address| address.to_string());
    let plan = server.plan();
    let terms = plan.terms.iter().map(|term| Term { name: term.name, bytes: term.bytes });
    let listening = Listening {
        listening: address,
        node,
        memory_bytes: plan.total(),
        memory: terms.collect(),
        packs: Packs::of(server),
        maintenance: Maintained::of(server, background),
    };
    output.result(&listening, |listening| {
        let terms = listening.memory.iter().map(|term| {
            format!("  {:<24}{:>10}", term.name, HumanBytes(term.bytes as u64).to_string())
        });
        let terms: Vec<String> = terms.collect();
        format!(
            "listening on {} as {}\nmemory, at most {}:\n{}\npacks of {}, or after {} ms: at most {} puts a \
             GB stored when much comes,\n  and {} a day and shard when little does, besides one for a bookmark\n{}",
            listening.listening,
            listening.node,
            HumanBytes(listening.memory_bytes as u64),
            terms.join("\n"),
            HumanBytes(listening.packs.close_bytes as u64),
            listening.packs.close_ms,
            listening.packs.puts_a_gb_when_busy,
            listening.packs.puts_a_day_when_idle,
            listening.maintenance.text(),
        )
    })
}
