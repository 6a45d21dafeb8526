//! Medians, ratios, and how they are printed.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_pipeline::Stage;

use crate::counting;
use crate::data::{BLOCK_BYTES, Data};
use crate::feed::Round;
use crate::kernels::Kernels;

/// What the columns mean.
pub const LEGEND: &str = "\
ns/B: processor time for a byte that passed the stage; share: these bytes, of all that were sent.
kernel: the bare kernel on the same bytes; ratio: kernel / stage, 1.00 is the floor.
efficiency: the kernels' time, of all processor time but for gathering (a server receives instead).
gain: how many times as fast two are as one, by the wall clock: workers, and threads with the kernels
in turns on each unit; and the first over the second within each round.
cores: processor time / wall time; less than the number of workers where others had the cores,
and then the figures of short stages are rough.";

/// One stage, as one worker ran it.
struct Line {
    name: &'static str,
    nanos_per_byte: f64,
    share: f64,
    kernel: Option<f64>,
}

/// One kind of input, measured.
pub struct Report {
    name: &'static str,
    sent_bytes: usize,
    record_bytes: usize,
    lines: Vec<Line>,
    /// MB (10^6 bytes) a second with one worker and with two.
    rates: [f64; 2],
    /// Efficiency with one worker and with two.
    efficiency: [f64; 2],
    /// Stored bytes to bytes sent, with one worker and with two.
    output: [f64; 2],
    allocations_per_block: f64,
    peak_bytes: u64,
    /// Processor time a wall time, with one worker and with two.
    cores: [f64; 2],
    gain: Gain,
}

/// How many times as fast two are as one.
struct Gain {
    workers: f64,
    kernels: f64,
    /// The first over the second, within each round.
    ratio: f64,
}

impl Report {
    pub fn of(
        data: &Data,
        kernels: &[Kernels],
        kernel_walls: &[[Duration; 2]],
        one: &[Round],
        two: &[Round],
    ) -> Self {
        let sent = float(data.sent_bytes() as u64);
        let lines: Vec<Line> = stage_lines(kernels, one, sent);
        let cost = |line: &Line| line.kernel.unwrap_or(0.0) * line.share;
        let floor: f64 = lines.iter().map(cost).sum();
        let both = |of: &dyn Fn(&Round) -> f64| [one, two].map(|r| median(r.iter().map(of)));
        let efficiency = |round: &Round| {
            let own = round.cpu.as_secs_f64() - round.gather.as_secs_f64() * round.busy().min(1.0);
            floor * sent / 1e9 / own.max(1e-9)
        };
        let blocks = sent / float(BLOCK_BYTES as u64);
        Self {
            name: data.name,
            sent_bytes: data.sent_bytes(),
            record_bytes: data.record_bytes,
            lines,
            rates: both(&|round| sent / round.wall.as_secs_f64() / 1e6),
            efficiency: both(&efficiency),
            output: both(&|round| float(round.output_bytes) / sent),
            cores: both(&Round::busy),
            gain: Gain::of(kernel_walls, one, two),
            allocations_per_block: median(one.iter().map(|r| float(r.allocations))) / blocks,
            peak_bytes: counting::peak_bytes(),
        }
    }

    fn json(&self) -> Value {
        let line = |line: &Line| {
            json!({
                "stage": line.name,
                "ns_per_byte": line.nanos_per_byte,
                "share": line.share,
                "kernel_ns_per_byte": line.kernel,
            })
        };
        json!({
            "data": self.name,
            "bytes": self.sent_bytes,
            "record_bytes": self.record_bytes,
            "stages": self.lines.iter().map(line).collect::<Vec<_>>(),
            "mb_per_s": { "one_worker": self.rates[0], "two_workers": self.rates[1] },
            "efficiency": { "one_worker": self.efficiency[0], "two_workers": self.efficiency[1] },
            "output_ratio": { "one_worker": self.output[0], "two_workers": self.output[1] },
            "allocations_per_block": self.allocations_per_block,
            "peak_bytes": self.peak_bytes,
            "cores": { "one_worker": self.cores[0], "two_workers": self.cores[1] },
            "gain": {
                "workers": self.gain.workers,
                "kernels": self.gain.kernels,
                "ratio": self.gain.ratio,
            },
        })
    }
}

impl Gain {
    fn of(kernel_walls: &[[Duration; 2]], one: &[Round], two: &[Round]) -> Self {
        let over = |one: Duration, two: Duration| one.as_secs_f64() / two.as_secs_f64().max(1e-9);
        let rounds = one.iter().zip(two).map(|(one, two)| over(one.wall, two.wall));
        let (workers, kernels): (Vec<f64>, Vec<f64>) =
            rounds.zip(kernel_walls.iter().map(|[one, two]| over(*one, *two))).unzip();
        let ratios = workers.iter().zip(&kernels).map(|(workers, kernels)| workers / kernels);
        Self {
            ratio: median(ratios),
            workers: median(workers.iter().copied()),
            kernels: median(kernels.iter().copied()),
        }
    }
}

/// The stages as one worker ran them, and what the feeding thread did besides.
fn stage_lines(kernels: &[Kernels], one: &[Round], sent: f64) -> Vec<Line> {
    let stage_line = |(at, stage): (usize, Stage)| {
        let bytes = float(one[0].stages[at].1);
        let kernel = kernels[0]
            .of(stage)
            .map(|_| median(kernels.iter().map(|kernels| kernels.of(stage).unwrap_or_default())));
        let nanos = |round: &Round| float(round.stages[at].0) * round.busy().min(1.0);
        Line {
            name: stage.name(),
            nanos_per_byte: median(one.iter().map(nanos)) / bytes.max(1.0),
            share: bytes / sent,
            kernel,
        }
    };
    let own = |name, pick: fn(&Round) -> Duration| {
        let nanos = |round: &Round| pick(round).as_secs_f64() * 1e9 * round.busy().min(1.0);
        let nanos_per_byte = median(one.iter().map(nanos)) / sent;
        Line { name, nanos_per_byte, share: 1.0, kernel: None }
    };
    let mut lines: Vec<Line> = Stage::ALL.into_iter().enumerate().map(stage_line).collect();
    lines.push(own("gather", |round| round.gather));
    lines.push(own("pack", |round| round.pack));
    lines
}

/// All of them, as one JSON text.
pub fn json(reports: &[Report]) -> Value {
    json!({ "bench": "stages", "inputs": reports.iter().map(Report::json).collect::<Vec<_>>() })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.sent_bytes >> 20;
        writeln!(f, "{} ({mib} MiB in records of {} bytes)", self.name, self.record_bytes)?;
        writeln!(
            f,
            "  {:<10} {:>8} {:>6} {:>8} {:>6}",
            "stage", "ns/B", "share", "kernel", "ratio"
        )?;
        for line in &self.lines {
            write!(f, "  {:<10} {:>8.4} {:>6.2}", line.name, line.nanos_per_byte, line.share)?;
            match line.kernel {
                Some(kernel) if line.share > 0.0 => {
                    let ratio = kernel / line.nanos_per_byte;
                    writeln!(f, " {kernel:>8.4} {ratio:>6.2}")?;
                }
                _ => writeln!(f)?,
            }
        }
        for (workers, at) in [("one worker", 0), ("two workers", 1)] {
            let (rate, cores) = (self.rates[at], self.cores[at]);
            write!(f, "  {workers:<11} {rate:>7.0} MB/s on {cores:.2} cores, efficiency ")?;
            writeln!(f, "{:.2}, stored / sent {:.3}", self.efficiency[at], self.output[at])?;
        }
        let Gain { workers, kernels, ratio } = &self.gain;
        writeln!(f, "  gain: workers {workers:.2}, kernels {kernels:.2}, ratio {ratio:.2}")?;
        let (allocations, peak) = (self.allocations_per_block, self.peak_bytes >> 20);
        writeln!(f, "  {allocations:.2} allocations a 64 KiB block, peak memory {peak} MiB")
    }
}

#[allow(clippy::cast_precision_loss)] // figures for people
fn float(number: u64) -> f64 {
    number as f64
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
