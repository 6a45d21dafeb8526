//! The process server: hosts the shards of the pipeline on pinned cores, and everything that they
//! need around them. The only home of glommio.
//!
//! ```text
//! listener (thread) ─▶ front (TLS, HTTP, hello) ─▶ directory ─▶ session ─┐
//!                                                                        ▼
//!    store (tokio threads) ◀── uploads ◀── host: Shard ◀── worker ◀── units (any idle core)
//! ```
//!
//! Invariants: a shard's state lives on its executor; shards meet only in [`shared::Shared`];
//! nothing is reserved after the start that the memory plan doesn't name.

mod credit;
mod directory;
mod front;
mod govern;
mod grants;
mod host;
mod http;
mod intake;
mod latency;
mod limits;
mod line;
mod link;
mod listener;
mod lists;
mod maintenance;
mod quiet;
mod refill;
mod report;
mod resync;
mod session;
mod settings;
mod shared;
mod tls;
mod tls_stream;
mod turns;
mod uploads;
mod waits;
mod welcome;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use glommio::ExecutorJoinHandle;
use tidegate_model::limits::RECORD_BYTES_DEFAULT;
use tidegate_model::{LogId, LogName, PackId, RunId};
use tidegate_pipeline::{
    BufferPool, Effort, Governor, KnownBlocks, Logs, MemoryPlan, ShardSetup, Worker, WorkerSetup,
    frame_bytes_for, frame_bytes_max,
};
use tidegate_vault::Vault;
use tidegate_vault::meta::{Run, create_run};
use tidegate_vault::pack::PackWriter;
use tidegate_vault::store::Put;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tracing::{info, warn};

pub(crate) use latency::Summary;
pub(crate) use maintenance::MaintenanceSettings;
pub(crate) use report::ServerReport;
pub(crate) use settings::{ServerError, ServerIdentity, ServerSettings};

use self::front::Arrival;
use self::listener::Listener;
use self::maintenance::Maintenance;
use self::shared::{News, Shared, SharedParts};
use crate::signals::Stop;

/// A pack with nothing but time records closes so long after its first record.
const PACK_AGE_IDLE: Duration = Duration::from_secs(3);

/// A running server.
pub(crate) struct Server {
    shared: Arc<Shared>,
    executors: Vec<ExecutorJoinHandle<()>>,
    listener: Option<Listener>,
    /// Looks for condemned lists.
    lists: Option<JoinHandle<()>>,
    /// Maintains the vault, if it shall.
    maintenance: Option<Maintenance>,
}

impl Server {
    /// Starts a server: claims its run in the vault, learns the known blocks, starts the shards,
    /// then listens, if it has an address.
    ///
    /// # Errors
    /// [`ServerError`] when something that it needs isn't there; nothing keeps running then.
    pub(crate) async fn start(
        vault: Arc<Vault>,
        mut settings: ServerSettings,
        stop: &Stop,
    ) -> Result<Self, ServerError> {
        settings::cores(usize::from(settings.cores))?;
        limits::check(settings.cores)?;
        let (listen, maintained) = (settings.listen, settings.maintenance.take());
        let maintains = maintained.is_some();
        let shared = Arc::new(share(vault, settings, maintains, stop)?);
        // Bind before anything is claimed in the vault: a port in use leaves no trace there.
        let socket = listen.map(listener::bind).transpose()?;
        let mut server = Self::begin(shared, socket).await?;
        server.maintenance =
            maintained.and_then(|settings| Maintenance::start(&server.shared, settings));
        Ok(server)
    }

    /// Starts what shares `shared`, from the run's claim on. After an error nothing of it runs.
    async fn begin(shared: Arc<Shared>, socket: Option<TcpListener>) -> Result<Self, ServerError> {
        claim_run(&shared).await?;
        let logs = Logs::default();
        // Its own first: those of the vault are known as far as slots are left.
        if log_names(&shared).any(|name| logs.add(&name).is_none()) {
            return Err(ServerError::Logs);
        }
        let known = Arc::new(KnownBlocks::new(shared.plan.table_bytes));
        // Lists before blocks: nothing is made known that may be deleted.
        let collected = lists::read(&shared).await?;
        refill::refill(shared.grants.reader(), &known, &logs, &collected).await?;
        let mut server =
            Self { shared, executors: Vec::new(), listener: None, lists: None, maintenance: None };
        match server.run(&known, &logs, socket).await {
            Ok(()) => Ok(server),
            Err(error) => {
                if let Err(error) = server.end().await {
                    warn!(%error, "a shard didn't end as it should");
                }
                Err(error)
            }
        }
    }

    /// Starts the shards, then listens. What it started before an error runs on.
    async fn run(
        &mut self,
        known: &Arc<KnownBlocks>,
        logs: &Logs,
        socket: Option<TcpListener>,
    ) -> Result<(), ServerError> {
        start_executors(&self.shared, known, logs, &mut self.executors).await?;
        self.lists = Some(lists::watch(&self.shared, logs));
        self.listener = socket.map(|socket| listen(&self.shared, socket)).transpose()?;
        Ok(())
    }

    /// The address at which it listens.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().map(Listener::address)
    }

    /// After how many milliseconds a pack closes.
    pub(crate) fn pack_age_ms(&self) -> u64 {
        micros(self.shared.pack_age) / 1000
    }

    /// Whether it maintains the vault.
    pub(crate) fn maintains(&self) -> bool {
        self.maintenance.is_some()
    }

    /// With how many bytes of memory it could.
    pub(crate) fn memory_for_maintenance(&self) -> usize {
        let (shards, record) = (self.shared.shards.len(), self.shared.record_bytes_max as usize);
        MemoryPlan::enough_for_maintenance(shards, record)
    }

    /// The memory plan.
    pub(crate) fn plan(&self) -> &MemoryPlan {
        &self.shared.plan
    }

    /// What it has counted so far.
    pub(crate) fn report(&self) -> ServerReport {
        ServerReport::of(&self.shared)
    }

    /// Serves a stream from inside this process.
    pub(crate) fn connect_pipe(&self, pipe: DuplexStream) {
        let posted = self.shared.shard(0).arrivals.post(Arrival::Pipe(pipe));
        assert!(posted.is_ok(), "pipes are few");
    }

    /// Stops: no new connections, sessions are told, what they sent is stored, logs are closed.
    ///
    /// # Errors
    /// Why the run couldn't go on, if that is why it stops.
    pub(crate) async fn stop(self) -> Result<ServerReport, ServerError> {
        let shared = self.shared.clone();
        self.end().await?;
        match shared.failure() {
            Some(failure) => Err(ServerError::Failed(failure)),
            None => Ok(ServerReport::of(&shared)),
        }
    }

    /// Tells what runs to end, and waits for that.
    async fn end(mut self) -> Result<(), ServerError> {
        drop(self.listener.take());
        if let Some(maintenance) = self.maintenance.take() {
            maintenance.end().await;
        }
        if let Some(lists) = self.lists.take() {
            lists.abort();
            let _ = lists.await;
        }
        let executors = self.executors;
        // Shards wait for each other at their end; those that weren't started have nothing to finish.
        let missing = self.shared.shards.len() - executors.len();
        self.shared.finished.fetch_add(missing, Ordering::SeqCst);
        for number in 0..executors.len() {
            self.shared.tell(u16::try_from(number).unwrap_or(0), News::Stop);
        }
        let joined = tokio::task::spawn_blocking(move || {
            executors.into_iter().map(ExecutorJoinHandle::join).collect::<Result<Vec<_>, _>>()
        });
        joined.await.map_err(ServerError::join)?.map_err(ServerError::executor)?;
        Ok(())
    }
}

/// What the shards of a server with these settings share: the memory is divided here.
fn share(
    vault: Arc<Vault>,
    settings: ServerSettings,
    maintains: bool,
    stop: &Stop,
) -> Result<Shared, ServerError> {
    let shards = settings.cores;
    let block_bytes = vault.description().block_bytes;
    let record_bytes_max = RECORD_BYTES_DEFAULT.max(block_bytes);
    let frame_bytes_max = frame_bytes_max(block_bytes);
    // A governor may want the longest frames that there can be.
    let frame_bytes = settings
        .frame_bytes
        .unwrap_or_else(|| settings.level.map_or(frame_bytes_max, frame_bytes_for))
        .min(frame_bytes_max);
    let level = settings.level.unwrap_or_else(|| Governor::default().level());
    let effort = Arc::new(Effort::new(level, settings.frame_bytes, frame_bytes));
    // One without a port serves no agent that would ask.
    let divide = match settings.listen {
        _ if maintains => MemoryPlan::with_maintenance,
        Some(_) => MemoryPlan::with_resync,
        None => MemoryPlan::with_frames,
    };
    let mut plan =
        divide(settings.memory_bytes, usize::from(shards), record_bytes_max as usize, frame_bytes)?;
    plan.pack_close_bytes = plan.pack_close_bytes.min(settings.pack_bytes);
    let tls = settings.identity.map(settings::tls_config).transpose()?;
    let run = RunId::from_bytes(random()?);
    let on_failure = stop.clone();
    Ok(Shared::new(SharedParts {
        vault,
        node: settings.node,
        run,
        record_bytes_max,
        plan,
        effort,
        is_governed: settings.level.is_none(),
        shards,
        store_patience: settings.store_patience,
        pack_age: settings.pack_age,
        lists_interval: settings.lists_interval,
        silence_max: settings.silence_max,
        store: tokio::runtime::Handle::current(),
        tls,
        on_failure: Box::new(move || on_failure.stop()),
    }))
}

fn listen(shared: &Arc<Shared>, socket: TcpListener) -> Result<Listener, ServerError> {
    let connections_max = shared.plan.connections;
    let to = shared.clone();
    let mut next = 0;
    let hand_over = move |socket, peer, guard| {
        // Where the handshake is done; the session's shard is found after its first frame.
        let shard = next % to.shards.len();
        next += 1;
        if to.shards[shard].arrivals.post(Arrival::Socket { socket, peer, guard }).is_err() {
            warn!(%peer, "closed a connection: its shard is too busy to answer");
        }
    };
    Listener::start(socket, connections_max, hand_over).map_err(ServerError::Listen)
}

/// Claims the run, before anything is sealed under its name.
async fn claim_run(shared: &Shared) -> Result<(), ServerError> {
    let run = Run {
        run: shared.run,
        node: shared.node.clone(),
        started: host::wall_clock(),
        key_version: shared.vault.ring().current(),
        shards: u16::try_from(shared.shards.len()).unwrap_or(u16::MAX),
        program: concat!("tidegate ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let put = create_run(shared.vault.store(), shared.vault.ring(), &run).await?;
    // 128 random bits: never, unless the system's randomness is broken. Then nothing may be sealed.
    if put == Put::Exists {
        return Err(ServerError::Random("a run of this id exists already".to_owned()));
    }
    info!(run = %shared.run, node = %shared.node, "the run is claimed");
    Ok(())
}

/// Starts the shards into `executors`: those before one that can't be started are there after an
/// error, too.
async fn start_executors(
    shared: &Arc<Shared>,
    known: &Arc<KnownBlocks>,
    logs: &Logs,
    executors: &mut Vec<ExecutorJoinHandle<()>>,
) -> Result<(), ServerError> {
    let key_version = shared.vault.ring().current();
    let names: Vec<LogName> = log_names(shared).collect();
    let ciphers = |name: &LogName| {
        let ciphers = shared.vault.ring().log_ciphers(key_version, name.id);
        ciphers.expect("the ring has its own current version")
    };
    let worker_setup = WorkerSetup {
        block_bytes: shared.block_bytes,
        effort: shared.effort.clone(),
        key_version,
        ciphers: names.iter().map(ciphers).collect(),
        namer: shared.vault.ring().block_namer(),
        known: known.clone(),
        logs: logs.clone(),
        times: shared.times.clone(),
    };
    for (shard, (core, name)) in settings::cores(names.len())?.into_iter().zip(&names).enumerate() {
        let setup = shard_setup(shared, shard, name, ciphers(name), logs)?;
        let worker = Worker::new(worker_setup.clone(), &shared.unit_pools())
            .map_err(ServerError::Compressor)?;
        let shared = shared.clone();
        let number = setup.shard;
        let run = move || host::run(shared, number, setup, worker);
        let executor = turns::start(turns::executor(shard, core), run).await;
        executors.push(executor.map_err(ServerError::executor)?);
    }
    Ok(())
}

fn shard_setup(
    shared: &Shared,
    shard: usize,
    name: &LogName,
    ciphers: tidegate_vault::seal::LogCiphers,
    logs: &Logs,
) -> Result<ShardSetup, ServerError> {
    let plan = &shared.plan;
    let key_version = shared.vault.ring().current();
    let vault = shared.vault.id();
    let mut seed = random()?;
    Ok(ShardSetup {
        shard: u16::try_from(shard).unwrap_or(u16::MAX),
        writer: PackWriter::new(vault, name.clone(), key_version, shared.block_bytes, ciphers),
        slot: logs.add(name).ok_or(ServerError::Logs)?,
        logs: logs.clone(),
        pack_buffers: BufferPool::new("packs", plan.pack_buffer_bytes, plan.pack_buffers_per_shard),
        pack_close_bytes: plan.pack_close_bytes,
        pack_age: micros(shared.pack_age),
        pack_age_idle: micros(PACK_AGE_IDLE.max(shared.pack_age)),
        packs_in_flight_max: plan.packs_in_flight_per_shard,
        units_in_flight_max: plan.units_in_flight_per_shard,
        blanks: shared.blanks.clone(),
        condemned_list: shared.condemned_list.load(Ordering::Acquire),
        pack_ids: Box::new(move || {
            // Without the system's randomness the last id, counted on, still differs from all others.
            if let Ok(fresh) = random() {
                seed = fresh;
            } else {
                seed = (u128::from_le_bytes(seed).wrapping_add(1)).to_le_bytes();
            }
            PackId::from_bytes(seed)
        }),
    })
}

/// The logs of the shards.
fn log_names(shared: &Shared) -> impl Iterator<Item = LogName> {
    let shards = 0..u16::try_from(shared.shards.len()).unwrap_or(u16::MAX);
    shards.map(|shard| LogName { node: shared.node.clone(), id: LogId { run: shared.run, shard } })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// 16 random bytes.
fn random() -> Result<[u8; 16], ServerError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ServerError::Random(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
