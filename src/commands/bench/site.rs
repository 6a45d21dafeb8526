//! Where a load goes: a server in this process with its vault, or one that runs elsewhere; and what
//! each stream shows to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_agent::connect::{
    ConnectError, Connecting, Connection, Connector, ServerAddress, TlsConnector, TlsIdentity,
};
use tidegate_floor::Tls;
use tidegate_model::{Epoch, Lsn, Name, Token, VaultId};
use tidegate_vault::authority::{Authority, Enrolment};
use tidegate_vault::identity::{Identity, Role};
use tidegate_vault::keys::Credential;
use tidegate_vault::store::{Access, Slowness, Store};
use tidegate_vault::{InitOptions, Vault};
use tidegate_wire::limits::PROTOCOL_VERSION;
use tidegate_wire::{Begins, Hello};
use tokio::io::DuplexStream;
use zeroize::Zeroizing;

use super::super::copy::judge_servers;
use crate::bench::Seat;
use crate::cli::BenchRunArgs;
use crate::failure::Failure;
use crate::server::{Server, ServerIdentity, ServerSettings};
use crate::signals::Stop;

/// Bytes that a pipe holds, as that of `replicate`.
const PIPE_BYTES: usize = 256 << 10;
/// What is issued here ends with the process.
const VALIDITY: Duration = Duration::from_secs(86_400);

/// Where a load goes.
pub(super) struct Site {
    /// The server in this process.
    pub server: Option<Server>,
    pub floor_tls: Tls,
    pub store: String,
    /// The server's level; `None` for what its governor chooses.
    pub level: Option<i32>,
    pub cores: usize,
    pub block_bytes: usize,
    vault: Vault,
}

impl Site {
    /// Starts the server, unless one was named.
    pub(super) async fn make(args: &BenchRunArgs, stop: &Stop) -> Result<Self, Failure> {
        super::streams(args)?;
        let thrown_away = throw_away(slowness(args)).await?;
        let floor_tls = floor_tls(&thrown_away)?;
        let vault = match &args.vault {
            Some(place) => super::super::open_at(place, &args.credential, Access::Write).await?,
            None => thrown_away,
        };
        let mut settings = super::super::server_settings(name("bench", 0)?, &args.engine)?;
        // The floor compresses at one level: a server that chooses is beside it, and must be asked for.
        if args.engine.level.is_none() {
            settings.level = Some(super::super::LEVEL_REPLICATE);
        }
        let level = settings.level;
        let cores = settings.cores.into();
        let block_bytes = vault.description().block_bytes as usize;
        if args.server.is_some() {
            let store = "its store".to_owned();
            return Ok(Self { server: None, floor_tls, store, level, cores, block_bytes, vault });
        }
        if !args.pipe {
            let identity = issue(&vault.authority()?, name("bench", 0)?, Role::Server, Vec::new())?;
            settings.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
            settings.identity =
                Some(ServerIdentity { certificates: identity.chain(), key: identity.key() });
        }
        let server = start(vault.clone(), settings, stop).await?;
        let store = match &args.vault {
            Some(place) => place.to_string(),
            None => told(slowness(args)),
        };
        Ok(Self { server: Some(server), floor_tls, store, level, cores, block_bytes, vault })
    }

    /// What each stream connects with.
    pub(super) fn seats(&self, args: &BenchRunArgs) -> Result<Vec<Seat>, Failure> {
        if let Some(server) = &args.server {
            return args.identity.iter().map(|path| remote_seat(server, path)).collect();
        }
        let authority = self.vault.authority()?;
        let mut seats = Vec::new();
        // Machines of a vault that stays differ from one run to the next.
        let run = u64::from_le_bytes(super::super::random()?);
        for number in 0..super::streams(args)? {
            let machine = name(&format!("bench-{run:016x}"), number)?;
            let connector: Arc<dyn Connector> = match &self.server {
                Some(server) if args.pipe => Arc::new(Pipe::new(server)),
                server => {
                    let address = server.as_ref().and_then(Server::address);
                    let address = address.ok_or_else(|| Failure::failed("no server listens"))?;
                    let identity = issue(&authority, machine.clone(), Role::Machine, Vec::new())?;
                    Arc::new(tls_connector(&identity, &address.to_string())?)
                }
            };
            seats.push(Seat { connector, hello: hello(machine, self.vault.id())? });
        }
        Ok(seats)
    }

    /// Stops the server, if it is ours.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        if let Some(server) = self.server {
            server.stop().await?;
        }
        Ok(())
    }
}

/// What is resident before there is a server; the peak is counted from here.
pub(super) fn memory_before() -> u64 {
    crate::bench::memory_before()
}

pub(super) async fn start(
    vault: Vault,
    settings: ServerSettings,
    stop: &Stop,
) -> Result<Server, Failure> {
    let starting = async { Ok(Server::start(Arc::new(vault), settings, stop).await?) };
    super::super::unless_stopped(stop, starting).await
}

fn slowness(args: &BenchRunArgs) -> Slowness {
    Slowness {
        latency: Duration::from_millis(args.store_latency_ms),
        bytes_per_second: args.store_rate.unwrap_or(0),
    }
}

fn told(slowness: Slowness) -> String {
    let mut told = "a store that discards".to_owned();
    if !slowness.latency.is_zero() {
        told += &format!(", {} ms a put", slowness.latency.as_millis());
    }
    if slowness.bytes_per_second > 0 {
        told += &format!(", {} MB/s", slowness.bytes_per_second / 1_000_000);
    }
    told
}

/// A vault in a store that discards; nobody will ever open it again.
pub(super) async fn throw_away(slowness: Slowness) -> Result<Vault, Failure> {
    let key = Zeroizing::new(super::super::random::<32>()?.to_vec());
    let credential = Credential::key_file(key)?;
    let options = InitOptions::new(super::super::now());
    Ok(Vault::init(Store::discarding(slowness), &options, &credential).await?.0)
}

fn floor_tls(vault: &Vault) -> Result<Tls, Failure> {
    let names = vec![tidegate_floor::NAME.to_owned()];
    let identity = issue(&vault.authority()?, name("floor", 0)?, Role::Server, names)?;
    Tls::new(vault.authority_certificate(), identity.chain(), identity.key())
        .map_err(|error| Failure::failed(format!("the floor has no TLS: {error}")))
}

pub(super) fn issue(
    authority: &Authority,
    name: Name,
    role: Role,
    names: Vec<String>,
) -> Result<Identity, Failure> {
    let enrolment = Enrolment { name, role, validity: VALIDITY, names };
    Ok(authority.issue(&enrolment, super::super::now())?)
}

pub(super) fn name(of: &str, number: usize) -> Result<Name, Failure> {
    let name = format!("{of}-{number}").parse();
    name.map_err(|error| Failure::failed(format!("a stream has no name: {error}")))
}

fn hello(machine: Name, vault: VaultId) -> Result<Hello, Failure> {
    Ok(Hello {
        version: PROTOCOL_VERSION,
        vault,
        incarnation: super::super::new_incarnation()?,
        epoch: Epoch::NONE,
        committed: Lsn::NONE,
        features: 0,
        begins: Begins::Copy,
        parent: None,
        token: Token::NONE,
        machine,
    })
}

pub(super) fn tls_connector(identity: &Identity, server: &str) -> Result<TlsConnector, Failure> {
    let server: ServerAddress = server.parse()?;
    let tls = TlsIdentity { certificates: identity.chain(), key: identity.key() };
    Ok(TlsConnector::new(server, tls, judge_servers(identity))?)
}

fn remote_seat(server: &str, path: &std::path::Path) -> Result<Seat, Failure> {
    let identity = Identity::read(path)?;
    identity.check(super::super::now())?;
    let connector = Arc::new(tls_connector(&identity, server)?);
    Ok(Seat { connector, hello: hello(identity.name().clone(), identity.vault())? })
}

/// A pipe into the server of this process; it connects once.
struct Pipe(Mutex<Option<DuplexStream>>);

impl Pipe {
    fn new(server: &Server) -> Self {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        server.connect_pipe(theirs);
        Self(Mutex::new(Some(ours)))
    }
}

impl Connector for Pipe {
    fn connect(&self) -> Connecting<'_> {
        let pipe = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let pipe = pipe.map(|pipe| Box::new(pipe) as Connection);
        let refused = || ConnectError::Refused { server: "the pipe".to_owned() };
        Box::pin(async move { pipe.ok_or_else(refused) })
    }
}
