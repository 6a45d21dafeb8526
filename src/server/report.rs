//! What a server has counted: for `GET /healthz`, the demo, and results as JSON.

use std::time::Instant;

use serde::Serialize;
use tidegate_pipeline::Stage;

use super::latency::Summary;
use super::maintenance::MaintenanceReport;
use super::shared::Shared;
use super::waits;

/// A server's counts since its start.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ServerReport {
    /// `ok`, `waiting for the store`, or `failing`: the run can't go on.
    pub status: &'static str,
    /// For how long the put or the grant that was begun first has been waiting for the store.
    pub store_wait_s: f64,
    pub program: &'static str,
    pub run: String,
    pub node: String,
    pub sessions: usize,
    pub memory_bound_bytes: usize,
    pub stages: Vec<StageReport>,
    /// From closing a pack to its being stored.
    pub put: Summary,
    /// From when a pack's first record had come whole to its commit.
    pub commit: Summary,
    pub uploads: UploadsReport,
    pub maintenance: MaintenanceReport,
    pub queues: Vec<QueueReport>,
}

/// Puts at once: as many as the way to the store is found to need.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct UploadsReport {
    pub limit: usize,
    pub under_way: usize,
}

/// A stage's share of the time.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StageReport {
    pub stage: &'static str,
    pub bytes: u64,
    pub seconds: f64,
    pub ns_per_byte: f64,
}

/// A queue's highest fill.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct QueueReport {
    pub queue: &'static str,
    pub high_water: usize,
}

impl ServerReport {
    pub(crate) fn of(shared: &Shared) -> Self {
        let stage = |stage: Stage| {
            let (nanos, bytes) = shared.times.get(stage);
            #[allow(clippy::cast_precision_loss)] // figures for people
            let (nanos, count) = (nanos as f64, bytes.max(1) as f64);
            let (seconds, ns_per_byte) = (nanos / 1e9, nanos / count);
            StageReport { stage: stage.name(), bytes, seconds, ns_per_byte }
        };
        let mut queues =
            vec![QueueReport { queue: "units", high_water: shared.units.high_water() }];
        queues.extend(shared.shards.iter().flat_map(|ports| {
            let arrivals = (ports.arrivals.name(), ports.arrivals.high_water());
            [arrivals, (ports.news.name(), ports.news.high_water())]
                .map(|(queue, high_water)| QueueReport { queue, high_water })
        }));
        let (limit, under_way) = shared.puts.fill();
        let store_wait = shared.waits.longest(Instant::now());
        let status = match shared.failure() {
            Some(_) => "failing",
            None if store_wait > waits::LONG => "waiting for the store",
            None => "ok",
        };
        Self {
            status,
            store_wait_s: store_wait.as_secs_f64(),
            program: env!("CARGO_PKG_VERSION"),
            run: shared.run.to_string(),
            node: shared.node.to_string(),
            sessions: shared.directory.sessions(),
            memory_bound_bytes: shared.plan.total(),
            stages: Stage::ALL.map(stage).into(),
            put: shared.latencies.put.summary(),
            commit: shared.latencies.commit.summary(),
            uploads: UploadsReport { limit, under_way },
            maintenance: shared.maintenance.report(),
            queues,
        }
    }
}
