//! The stages of the pipeline, fed from memory, against the bare kernels that they must run.
//!
//! ```text
//! cargo bench --bench stages                  all of it, a minute or two
//! cargo bench --bench stages -- --json        the same as JSON
//! cargo bench --bench stages -- --mib 64 --rounds 3 --only programs
//! cargo test --bench stages                   a smoke run of a second, as in the gate
//! ```
//!
//! Asserts nothing about time: what it prints are medians over rounds of one run, and what survives
//! a noisy machine are the ratios. Every round runs the kernels, one worker and two, and the kernels
//! on one thread and on two, one after another; the first round is thrown away. All memory is touched before. The kernels call their
//! crates directly, on the same bytes, in a buffer of a unit's size. Costs are processor time: what
//! the stages measured by the wall clock is scaled by processor time / wall time of their round.
//!
//! TIDEGATE_BENCH_SMOKE=1, `--smoke`, or a run that isn't by `cargo bench`, makes it tiny.

#[path = "stages/counting.rs"]
mod counting;
#[path = "stages/data.rs"]
mod data;
#[path = "stages/feed.rs"]
mod feed;
#[path = "stages/kernels.rs"]
mod kernels;
#[path = "stages/report.rs"]
mod report;

use std::time::Duration;

use data::Data;
use feed::{Host, Round};
use kernels::Kernels;
use report::Report;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// What to run.
struct Options {
    bytes: usize,
    rounds: usize,
    /// The one input to take; all unless it is named.
    only: Option<String>,
    json: bool,
}

impl Options {
    /// From the command line; what cargo adds is passed over.
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let has = |name: &str| arguments.iter().any(|argument| argument == name);
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1)
        };
        let number = |name: &str| value(name)?.parse().ok().filter(|number| *number > 0);
        let is_smoke = has("--smoke")
            || !has("--bench")
            || std::env::var_os("TIDEGATE_BENCH_SMOKE").is_some_and(|value| value != "0");
        let (mib, rounds) = if is_smoke { (1, 1) } else { (96, 5) };
        Self {
            bytes: number("--mib").unwrap_or(mib) << 20,
            rounds: number("--rounds").unwrap_or(rounds),
            only: value("--only").cloned(),
            json: has("--json"),
        }
    }
}

fn main() {
    let options = Options::read();
    let host = Host::new();
    let mut reports = Vec::new();
    for data in data::all(options.bytes, options.only.as_deref()) {
        let report = measure(&host, &data, options.rounds);
        if !options.json {
            println!("{report}");
        }
        reports.push(report);
    }
    if options.json {
        println!("{}", report::json(&reports));
    } else {
        println!("{}", report::LEGEND);
    }
}

fn measure(host: &Host, data: &Data, rounds: usize) -> Report {
    let mut kernels: Vec<Kernels> = Vec::new();
    let mut walls: Vec<[Duration; 2]> = Vec::new();
    let mut one: Vec<Round> = Vec::new();
    let mut two: Vec<Round> = Vec::new();
    counting::forget_peak();
    for _ in 0..=rounds {
        kernels.push(kernels::measure(data));
        one.push(host.run(data, 1));
        two.push(host.run(data, 2));
        walls.push([1, 2].map(|threads| kernels::wall(data, threads)));
    }
    Report::of(data, &kernels[1..], &walls[1..], &one[1..], &two[1..])
}
