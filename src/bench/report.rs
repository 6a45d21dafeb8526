//! What a run came to: as JSON, and as text for people.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;
use tidegate_model::{Counted, HumanBytes};

use crate::output::table;
use crate::server::Summary;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct About {
    pub host: String,
    pub cores: usize,
    pub streams: usize,
    pub disks: usize,
    pub write_bytes: u64,
    pub random: bool,
    pub data: String,
    /// Bytes a second; `None`: closed loop.
    pub rate: Option<u64>,
    pub load_threads: usize,
    pub transport: String,
    pub store: String,
    /// The server's zstd level; `None`: what its governor chooses.
    pub level: Option<i32>,
    pub seconds_a_round: f64,
}

/// A run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub bench: &'static str,
    pub program: &'static str,
    pub about: About,
    /// Medians over the rounds. MB are 10^6 bytes of the disks; a byte is one that was sent.
    pub mb_per_s: f64,
    pub writes_per_s: f64,
    pub writes_per_cpu_second: Option<f64>,
    pub cores_busy: f64,
    pub load_ns_per_byte: f64,
    pub server_ns_per_byte: Option<f64>,
    pub floor_ns_per_byte: Option<f64>,
    pub efficiency: Option<f64>,
    /// Where the server's time goes, a byte that was sent.
    pub lines: Vec<Line>,
    /// What the bare kernels cost, a byte that passes them.
    pub kernels: Vec<(&'static str, f64)>,
    pub totals: Totals,
    /// From when a write was meant to be sent until its commit was heard of.
    pub acknowledged: Latency,
    /// Of the server, warm-up and all.
    pub put: Option<Summary>,
    pub commit: Option<Summary>,
    pub memory: Option<Memory>,
    pub rounds: Vec<Round>,
}

/// A part of the server's time.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    pub name: &'static str,
    /// Bytes that pass it, of those sent.
    pub share: f64,
    pub ns_per_byte: f64,
    pub floor_ns_per_byte: f64,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    pub seconds: f64,
    pub writes: u64,
    pub bytes: u64,
    pub payload_bytes: u64,
    pub mb_per_s: f64,
    pub writes_per_s: f64,
    pub writes_per_cpu_second: Option<f64>,
    pub cores_busy: f64,
    pub load_ns_per_byte: f64,
    pub server_ns_per_byte: Option<f64>,
    pub floor_ns_per_byte: Option<f64>,
    pub efficiency: Option<f64>,
}

/// What became of the bytes, over all rounds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Totals {
    pub zero_bytes: u64,
    pub deduplicated_bytes: u64,
    pub kept_bytes: u64,
    pub stored_bytes: u64,
}

impl Totals {
    pub(super) fn add(&mut self, more: &tidegate_wire::Totals) {
        self.zero_bytes += more.zero_bytes;
        self.deduplicated_bytes += more.deduplicated_bytes;
        self.kept_bytes += more.kept_bytes;
        self.stored_bytes += more.stored_bytes;
    }
}

/// The memory of the process.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Memory {
    /// What the server may take at most.
    pub bound_bytes: u64,
    /// Resident before the server began: the corpus, mostly.
    pub before_bytes: u64,
    /// Most that was ever resident, the load's connections among it.
    pub peak_bytes: u64,
}

/// A latency's distribution, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latency {
    pub count: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub p9999_us: u64,
    pub max_us: u64,
    /// Per cent, and the latency that so many don't exceed.
    pub curve: Vec<(f64, u64)>,
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile);
        let mut curve = Vec::new();
        if !histogram.is_empty() {
            // Five points for each halving of what is left.
            let points = histogram.iter_quantiles(5);
            curve.extend(points.map(|at| (at.quantile() * 100.0, at.value_iterated_to())));
        }
        Self {
            count: histogram.len(),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: histogram.max(),
            curve,
        }
    }
}

/// A run for people.
pub(crate) fn text(report: &Report) -> String {
    let about = &report.about;
    let mut text = format!(
        "{}, {} writes{}, {}, {}\n{} to {}, level {}, on {}\n\
         medians of {} of {} s after one that isn't counted\n\n",
        Counted(about.streams, "stream"),
        size(about.write_bytes),
        if about.random { " in no order" } else { "" },
        about.data,
        about.rate.map_or("as fast as they are taken".to_owned(), |rate| {
            format!("{}/s by a schedule", HumanBytes(rate))
        }),
        about.transport,
        about.store,
        about.level.map_or_else(|| "auto".to_owned(), |level| level.to_string()),
        Counted(about.cores, "core"),
        Counted(report.rounds.len(), "round"),
        about.seconds_a_round,
    );
    let _ = writeln!(
        text,
        "{:.0} MB/s, {:.0} writes/s, {:.2} cores busy",
        report.mb_per_s, report.writes_per_s, report.cores_busy
    );
    if !report.lines.is_empty() {
        let _ = writeln!(text, "\n{}", costs(report));
    }
    let latency = &report.acknowledged;
    let row = |name: &str, figures: [u64; 5]| {
        let figures = figures.map(millis);
        std::iter::once(name.to_owned()).chain(figures).collect::<Vec<_>>()
    };
    let mut rows = vec![row(
        "acknowledged",
        [latency.p50_us, latency.p99_us, latency.p999_us, latency.p9999_us, latency.max_us],
    )];
    for (name, summary) in [("pack, to commit", report.commit), ("put", report.put)] {
        let Some(Summary { p50_us, p99_us, p999_us, p9999_us, max_us, .. }) = summary else {
            continue;
        };
        rows.push(row(name, [p50_us, p99_us, p999_us, p9999_us, max_us]));
    }
    let head = ["latency, ms", "50 %", "99 %", "99.9 %", "99.99 %", "most"];
    let _ = writeln!(text, "\n{}", table(&head, &rows));
    if let Some(memory) = report.memory {
        let _ = writeln!(
            text,
            "\nmemory: peak {}, {} before the server; its bound {}",
            HumanBytes(memory.peak_bytes),
            HumanBytes(memory.before_bytes),
            HumanBytes(memory.bound_bytes)
        );
    }
    text.trim_end().to_owned()
}

/// The table of costs, and the efficiency under it.
fn costs(report: &Report) -> String {
    let figure = |figure: f64| format!("{figure:.3}");
    let row = |line: &Line| {
        let ratio = line.floor_ns_per_byte / line.ns_per_byte.max(1e-9);
        let ratio =
            if line.floor_ns_per_byte > 0.0 { format!("{ratio:.2}") } else { "-".to_owned() };
        let (cost, floor) = (figure(line.ns_per_byte), figure(line.floor_ns_per_byte));
        vec![line.name.to_owned(), format!("{:.2}", line.share), cost, floor, ratio]
    };
    let mut rows: Vec<Vec<String>> = report.lines.iter().map(row).collect();
    let (server, floor) = (report.server_ns_per_byte, report.floor_ns_per_byte);
    let (server, floor) = (server.unwrap_or_default(), floor.unwrap_or_default());
    let efficiency = format!("{:.2}", report.efficiency.unwrap_or_default());
    rows.push(vec![
        "server".to_owned(),
        "1.00".to_owned(),
        figure(server),
        figure(floor),
        efficiency,
    ]);
    rows.push(vec![
        "(the load itself)".to_owned(),
        "1.00".to_owned(),
        figure(report.load_ns_per_byte),
        figure(0.0),
        "-".to_owned(),
    ]);
    let head = ["CPU ns a byte sent", "share", "measured", "floor", "efficiency"];
    table(&head, &rows)
}

fn millis(micros: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // a figure for people
    let millis = micros as f64 / 1e3;
    format!("{millis:.1}")
}

/// A size that is a power of two, mostly.
fn size(bytes: u64) -> String {
    if bytes.is_multiple_of(1024) { format!("{} KiB", bytes >> 10) } else { format!("{bytes} B") }
}
