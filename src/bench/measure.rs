//! The run: rounds of load and passes of the floor in turns, and what both come to.

use std::sync::Arc;
use std::time::Duration;

use tidegate_floor::{Costs, Tls};

use super::floor::{self, Floor, median, medians};
use super::load::{Load, LoadSettings, Seat, Sum, histogram};
use super::report::{About, Latency, Line, Memory, Report, Round};
use super::usage::{self, Cpu};
use crate::failure::Failure;
use crate::server::{Server, ServerReport};

/// How a run is made.
pub(crate) struct Plan {
    pub rounds: usize,
    pub length: Duration,
    /// Of the floor.
    pub level: i32,
    pub block_bytes: usize,
    /// Of the server; as many threads run the floor.
    pub cores: usize,
    pub floor_tls: Tls,
    /// Whether the server receives over TLS, and whether it sends to a store.
    pub receives: bool,
    pub sends: bool,
    /// Resident before the server began.
    pub before_bytes: u64,
}

/// One round, raw.
struct Raw {
    sum: Sum,
    cpu: Cpu,
    /// Name, seconds on a core, bytes of each stage.
    stages: Vec<(&'static str, f64, u64)>,
    floor: Costs,
}

/// Connects the load, runs all rounds and takes leave. `server` is the one in this process.
pub(crate) async fn run(
    plan: Plan,
    seats: Vec<Seat>,
    settings: LoadSettings,
    server: Option<&Server>,
    about: About,
) -> Result<Report, Failure> {
    let corpus = settings.corpus.clone();
    let floor = Arc::new(Floor {
        sample: corpus.sample(floor::SAMPLE_BYTES),
        tls: plan.floor_tls.clone(),
        record_bytes: corpus.record_bytes(),
        block_bytes: plan.block_bytes,
        level: plan.level,
        threads: plan.cores,
    });
    let mut load = Load::connect(seats, &settings).await?;
    let mut rounds = Vec::new();
    let mut latencies = histogram();
    let mut before = measure_floor(&floor).await?;
    // The first one warms up: connections, memory, the floor's own pages.
    for number in 0..=plan.rounds {
        let (cpu, stages) = (Cpu::now(), stages(server));
        let sum = load.round(plan.length).await?;
        let cpu = Cpu::now().since(&cpu);
        let stages = since(&stages, server, cpu.shards_on_core());
        let after = measure_floor(&floor).await?;
        let beside: Vec<Costs> = before.iter().chain(&after).copied().collect();
        let taken = load.take_latencies();
        if number > 0 {
            // Of the same bounds, so it fits.
            let _ = latencies.add(&taken);
            rounds.push(Raw { sum, cpu, stages, floor: medians(&beside) });
        }
        before = after;
    }
    load.leave().await;
    let server = server.map(Server::report);
    let latency = Latency::of(&latencies);
    Ok(sum_up(&plan, &rounds, server.as_ref(), latency, about))
}

async fn measure_floor(floor: &Arc<Floor>) -> Result<Vec<Costs>, Failure> {
    if floor.sample.is_empty() {
        return Ok(Vec::new());
    }
    let floor = floor.clone();
    let measured = tokio::task::spawn_blocking(move || floor.measure()).await;
    measured.map_err(|error| Failure::failed(format!("can't measure the floor: {error}")))?
}

fn stages(server: Option<&Server>) -> Vec<(&'static str, f64, u64)> {
    let report = server.map(Server::report);
    let stages = report.into_iter().flat_map(|report| report.stages);
    stages.map(|stage| (stage.stage, stage.seconds, stage.bytes)).collect()
}

fn since(
    before: &[(&'static str, f64, u64)],
    server: Option<&Server>,
    on_core: f64,
) -> Vec<(&'static str, f64, u64)> {
    let both = stages(server).into_iter().zip(before);
    both.map(|((name, seconds, bytes), (_, seconds_before, bytes_before))| {
        (name, (seconds - seconds_before) * on_core, bytes.saturating_sub(*bytes_before))
    })
    .collect()
}

/// The floor of one round, in seconds: each kernel's cost, for the bytes that had to pass it.
fn floor_seconds(plan: &Plan, raw: &Raw) -> f64 {
    let nanos = |name: &str, bytes: u64| {
        floor::kernel(name).map_or(0.0, |kernel| raw.floor[kernel] * float(bytes))
    };
    let stages = raw.stages.iter().map(|(name, _, bytes)| nanos(name, *bytes));
    let received = if plan.receives { raw.sum.sent.payload_bytes } else { 0 };
    let sent = if plan.sends { raw.sum.sent.totals.stored_bytes } else { 0 };
    (stages.sum::<f64>() + nanos("receive", received) + nanos("send", sent)) / 1e9
}

fn sum_up(
    plan: &Plan,
    raws: &[Raw],
    server: Option<&ServerReport>,
    acknowledged: Latency,
    about: About,
) -> Report {
    let embedded = server.is_some();
    let rounds: Vec<Round> = raws
        .iter()
        .map(|raw| {
            let sent = &raw.sum.sent;
            let (server, floor) = (raw.cpu.server().as_secs_f64(), floor_seconds(plan, raw));
            let bytes = float(sent.payload_bytes.max(1));
            Round {
                seconds: raw.sum.seconds,
                writes: sent.writes,
                bytes: sent.bytes,
                payload_bytes: sent.payload_bytes,
                mb_per_s: float(sent.bytes) / raw.sum.seconds / 1e6,
                writes_per_s: float(sent.writes) / raw.sum.seconds,
                load_ns_per_byte: raw.cpu.load.as_secs_f64() * 1e9 / bytes,
                server_ns_per_byte: embedded.then(|| server * 1e9 / bytes),
                writes_per_cpu_second: embedded.then(|| float(sent.writes) / server.max(1e-9)),
                cores_busy: raw.cpu.process.as_secs_f64() / raw.sum.seconds,
                floor_ns_per_byte: embedded.then(|| floor * 1e9 / bytes),
                efficiency: embedded.then(|| floor / server.max(1e-9)),
            }
        })
        .collect();
    let middle = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of));
    let maybe =
        |of: &dyn Fn(&Round) -> Option<f64>| embedded.then(|| median(rounds.iter().filter_map(of)));
    let mut totals = super::report::Totals::default();
    raws.iter().for_each(|raw| totals.add(&raw.sum.sent.totals));
    Report {
        bench: "tidegate bench",
        program: env!("CARGO_PKG_VERSION"),
        about,
        mb_per_s: middle(&|round| round.mb_per_s),
        writes_per_s: middle(&|round| round.writes_per_s),
        writes_per_cpu_second: maybe(&|round| round.writes_per_cpu_second),
        cores_busy: middle(&|round| round.cores_busy),
        load_ns_per_byte: middle(&|round| round.load_ns_per_byte),
        server_ns_per_byte: maybe(&|round| round.server_ns_per_byte),
        floor_ns_per_byte: maybe(&|round| round.floor_ns_per_byte),
        efficiency: maybe(&|round| round.efficiency),
        lines: if embedded { lines(plan, raws) } else { Vec::new() },
        kernels: kernels(raws),
        totals,
        acknowledged,
        put: server.map(|report| report.put),
        commit: server.map(|report| report.commit),
        memory: server.map(|report| Memory {
            bound_bytes: report.memory_bound_bytes as u64,
            before_bytes: plan.before_bytes,
            peak_bytes: usage::memory_bytes("VmHWM"),
        }),
        rounds,
    }
}

/// Each stage, and the rest of the shards' and of the server's time, a byte that was sent.
fn lines(plan: &Plan, raws: &[Raw]) -> Vec<Line> {
    let each = |of: &dyn Fn(&Raw) -> f64| {
        median(raws.iter().map(|raw| of(raw) * 1e9 / float(raw.sum.sent.payload_bytes.max(1))))
    };
    let kernel_seconds = |raw: &Raw, name: &str, bytes: u64| {
        floor::kernel(name).map_or(0.0, |kernel| raw.floor[kernel] * float(bytes) / 1e9)
    };
    let names = raws.first().map_or(Vec::new(), |raw| raw.stages.clone());
    let stage = |(at, (name, ..)): (usize, (&'static str, f64, u64))| Line {
        name,
        share: median(
            raws.iter()
                .map(|raw| float(raw.stages[at].2) / float(raw.sum.sent.payload_bytes.max(1))),
        ),
        ns_per_byte: each(&|raw| raw.stages[at].1),
        floor_ns_per_byte: each(&|raw| kernel_seconds(raw, name, raw.stages[at].2)),
    };
    let staged = |raw: &Raw| raw.stages.iter().map(|(_, seconds, _)| seconds).sum::<f64>();
    let mut lines: Vec<Line> = names.into_iter().enumerate().map(stage).collect();
    let receive = if plan.receives { 1.0 } else { 0.0 };
    lines.push(Line {
        name: "receive, sessions, packs",
        share: 1.0,
        ns_per_byte: each(&|raw| raw.cpu.shards.as_secs_f64() - staged(raw)),
        floor_ns_per_byte: receive
            * each(&|raw| kernel_seconds(raw, "receive", raw.sum.sent.payload_bytes)),
    });
    let stored = |raw: &Raw| if plan.sends { raw.sum.sent.totals.stored_bytes } else { 0 };
    lines.push(Line {
        name: "store client, the rest",
        share: each(&|raw| float(raw.sum.sent.totals.stored_bytes) / 1e9),
        ns_per_byte: each(&|raw| (raw.cpu.server().saturating_sub(raw.cpu.shards)).as_secs_f64()),
        floor_ns_per_byte: each(&|raw| kernel_seconds(raw, "send", stored(raw))),
    });
    lines
}

/// What each bare kernel costs a byte that passes it.
fn kernels(raws: &[Raw]) -> Vec<(&'static str, f64)> {
    let all: Vec<Costs> = raws.iter().map(|raw| raw.floor).collect();
    tidegate_floor::KERNELS.into_iter().zip(medians(&all)).collect()
}

#[allow(clippy::cast_precision_loss)] // figures for people
fn float(number: u64) -> f64 {
    number as f64
}
