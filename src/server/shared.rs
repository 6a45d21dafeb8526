//! What all shards of a server share, and the only places where they meet.
//!
//! Directory, table of known blocks, logs' committed marks, unit queue, buffer pools, and the
//! mailboxes of each shard. Everything else has one owner: its shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tidegate_model::{Name, PackNumber, RunId};
use tidegate_pipeline::{Blanks, BufferPool, Effort, Mailbox, MemoryPlan, StageTimes, Unit};
use tidegate_vault::Vault;

use super::directory::Directory;
use super::front::Arrival;
use super::grants::Grants;
use super::latency::Latencies;
use super::maintenance::Told;
use super::resync::Resyncs;
use super::uploads::{PutGate, UploadFailure};
use super::waits::Waits;

/// What a shard hears from others.
#[expect(clippy::large_enum_variant, reason = "nearly all news are units: a box would cost each")]
pub(crate) enum News {
    /// One of its units was worked on elsewhere.
    Unit(Unit),
    /// One of its packs is stored.
    Stored(PackNumber),
    /// One of its packs can't be stored: the run must end.
    Failed(Arc<UploadFailure>),
    /// Nothing new refers to what this condemned list has, nor those before it.
    List(u64),
    /// The server stops: refuse, flush, finish.
    Stop,
}

/// A shard's mailboxes, and what others see of it.
pub(crate) struct ShardPorts {
    pub arrivals: Mailbox<Arrival>,
    pub news: Mailbox<News>,
    /// Thousandths of its core that streams take (not units).
    pub load_permille: AtomicU64,
    /// Thousandths of its pack buffers that are under way to the store.
    pub packs_permille: AtomicU32,
}

/// What all shards share.
pub(crate) struct Shared {
    pub vault: Arc<Vault>,
    pub node: Name,
    pub run: RunId,
    pub block_bytes: u32,
    pub record_bytes_max: u32,
    pub plan: MemoryPlan,
    pub directory: Directory,
    pub shards: Vec<ShardPorts>,
    /// Units for whichever core is idle.
    pub units: Mailbox<Unit>,
    pub small: BufferPool,
    pub large: BufferPool,
    /// For frames of whole blocks in sequence; none where memory is short.
    pub long: BufferPool,
    /// The level to compress at, and how long frames may be.
    pub effort: Arc<Effort>,
    /// Whether the governor chooses them.
    pub is_governed: bool,
    /// What units are made of.
    pub blanks: Blanks,
    /// The store client's threads.
    pub store: tokio::runtime::Handle,
    /// How many puts may be under way at once.
    pub puts: PutGate,
    /// What grants of epochs share.
    pub grants: Grants,
    /// What answers agents that ask what the vault holds; none where memory is short.
    pub resyncs: Option<Resyncs>,
    /// What became of maintenance in the background.
    pub maintenance: Told,
    /// Puts and grants under way.
    pub waits: Waits,
    /// How long a put is tried again.
    pub store_patience: Duration,
    /// A pack closes so long after its first record had come whole.
    pub pack_age: Duration,
    /// How often condemned lists are looked for.
    pub lists_interval: Duration,
    /// An agent that speaks again after so long must come anew: then it is looked whether its machine is
    /// there still.
    pub silence_max: Duration,
    /// The newest condemned list that was read.
    pub condemned_list: AtomicU64,
    pub times: Arc<StageTimes>,
    pub latencies: Latencies,
    /// `None` in a server without a port.
    pub tls: Option<Arc<ServerConfig>>,
    /// How many shards have finished.
    pub finished: AtomicUsize,
    failure: Mutex<Option<Arc<UploadFailure>>>,
    on_failure: Box<dyn Fn() + Send + Sync>,
}

/// What a [`Shared`] is made from, besides what it makes itself.
pub(crate) struct SharedParts {
    pub vault: Arc<Vault>,
    pub node: Name,
    pub run: RunId,
    pub record_bytes_max: u32,
    pub plan: MemoryPlan,
    pub effort: Arc<Effort>,
    pub is_governed: bool,
    pub shards: u16,
    pub store_patience: Duration,
    /// A pack closes so long after its first record had come whole.
    pub pack_age: Duration,
    /// How often condemned lists are looked for.
    pub lists_interval: Duration,
    /// An agent that speaks again after so long must come anew.
    pub silence_max: Duration,
    pub store: tokio::runtime::Handle,
    pub tls: Option<Arc<ServerConfig>>,
    /// Called once, from any thread, when the run can't go on.
    pub on_failure: Box<dyn Fn() + Send + Sync>,
}

/// Connections that wait for their shard's attention.
const ARRIVALS_MAX: usize = 1024;

impl Shared {
    pub(crate) fn new(parts: SharedParts) -> Self {
        let plan = parts.plan;
        let units_max = plan.units_in_flight_per_shard * usize::from(parts.shards);
        // A shard hears of each of its units and packs once, of condemned lists and the server's stop.
        let news_max = units_max + plan.packs_in_flight_per_shard + 16;
        let ports = |_| ShardPorts {
            arrivals: Mailbox::new("arrivals", ARRIVALS_MAX),
            news: Mailbox::new("news", news_max),
            load_permille: AtomicU64::new(0),
            packs_permille: AtomicU32::new(0),
        };
        let grants = Grants::of(&parts.vault);
        let resyncs = Resyncs::of(&parts.vault, &plan);
        Self {
            block_bytes: parts.vault.description().block_bytes,
            vault: parts.vault,
            node: parts.node,
            run: parts.run,
            record_bytes_max: parts.record_bytes_max,
            directory: Directory::new(parts.shards, plan.sessions),
            shards: (0..parts.shards).map(ports).collect(),
            units: Mailbox::new("units", units_max),
            blanks: Blanks::new(units_max),
            small: BufferPool::new("small", plan.small_buffer_bytes, plan.small_buffers),
            large: BufferPool::new("units", plan.large_buffer_bytes, plan.large_buffers),
            puts: PutGate::new(plan.packs_in_flight_per_shard * usize::from(parts.shards)),
            long: BufferPool::new("long units", plan.long_buffer_bytes, plan.long_buffers),
            effort: parts.effort,
            is_governed: parts.is_governed,
            plan,
            store: parts.store,
            grants,
            resyncs,
            maintenance: Told::new(),
            waits: Waits::default(),
            store_patience: parts.store_patience,
            pack_age: parts.pack_age,
            lists_interval: parts.lists_interval,
            silence_max: parts.silence_max,
            condemned_list: AtomicU64::new(0),
            times: Arc::default(),
            latencies: Latencies::default(),
            tls: parts.tls,
            finished: AtomicUsize::new(0),
            failure: Mutex::default(),
            on_failure: parts.on_failure,
        }
    }

    /// The pools of units' buffers that there are.
    pub(crate) fn unit_pools(&self) -> Vec<BufferPool> {
        let pools = [&self.small, &self.large, &self.long];
        pools.into_iter().filter(|pool| pool.count() > 0).cloned().collect()
    }

    /// The mailboxes of a shard.
    pub(crate) fn shard(&self, number: u16) -> &ShardPorts {
        &self.shards[usize::from(number)]
    }

    /// How busy a shard is with streams, from 0 to 1.
    pub(crate) fn load(&self, shard: u16) -> f64 {
        let permille = self.shard(shard).load_permille.load(Ordering::Relaxed);
        f64::from(u32::try_from(permille).unwrap_or(u32::MAX)) / 1000.0
    }

    /// Tells a shard something. Its mailbox has room for all that can be under way.
    pub(crate) fn tell(&self, shard: u16, news: News) {
        let posted = self.shard(shard).news.post(news);
        assert!(posted.is_ok(), "a shard's mailbox holds all that can be under way");
    }

    /// The run can't go on; the first cause is kept.
    pub(crate) fn fail(&self, failure: Arc<UploadFailure>) {
        let first = {
            let mut slot = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            let first = slot.is_none();
            slot.get_or_insert(failure);
            first
        };
        if first {
            (self.on_failure)();
        }
    }

    /// Why the run can't go on, if it can't.
    pub(crate) fn failure(&self) -> Option<Arc<UploadFailure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
