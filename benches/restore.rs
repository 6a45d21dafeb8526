//! `recover` beside a yardstick: threads that decompress the same data and write it, nothing else.
//!
//! ```text
//! cargo bench --bench restore -- --image DISK.img          five rounds, medians
//! cargo bench --bench restore -- --image DISK.img --rounds 3 --memory /dev/shm --json
//! cargo test --bench restore                               a smoke run, as in the gate
//! ```
//!
//! The yardstick holds its frames in memory, compressed beforehand from the image's blocks that
//! aren't zero; `recover` opens a vault in a file store, reads, opens seals, and checks as well. Both
//! write a new sparse file into the same directory, in turns. Round one is thrown away, and what it
//! wrote is compared with the image: a difference ends the bench. Nothing is asserted about time;
//! what survives a noisy machine is the ratio, yardstick / recover, within each round.

#[path = "restore/program.rs"]
mod program;
#[path = "restore/yardstick.rs"]
mod yardstick;

use std::path::PathBuf;
use std::time::Instant;

use program::Program;
use yardstick::Yardstick;

/// What to run.
struct Options {
    image: Option<PathBuf>,
    memory: PathBuf,
    rounds: usize,
    json: bool,
}

impl Options {
    /// From the command line; what cargo adds is passed over.
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let has = |name: &str| arguments.iter().any(|argument| argument == name);
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1).cloned()
        };
        let is_smoke = !has("--bench")
            || std::env::var_os("TIDEGATE_BENCH_SMOKE").is_some_and(|value| value != "0");
        let rounds = value("--rounds").and_then(|text| text.parse().ok());
        Self {
            image: value("--image").filter(|_| !is_smoke).map(PathBuf::from),
            memory: value("--memory").map_or_else(|| "/dev/shm".into(), PathBuf::from),
            rounds: rounds.unwrap_or(if is_smoke { 1 } else { 5 }),
            json: has("--json"),
        }
    }
}

fn main() {
    let options = Options::read();
    let work = tempfile::tempdir_in(&options.memory).expect("a directory can be made in --memory");
    let image = options.image.clone().unwrap_or_else(|| {
        let made = work.path().join("image");
        std::fs::write(&made, yardstick::image()).expect("an image can be written");
        made
    });
    let program = Program::with_vault_of(&image, work.path());
    let yardstick = Yardstick::of(&image);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let out = work.path().join("out");
    let mut rounds: Vec<[f64; 2]> = Vec::new();
    for round in 0..=options.rounds {
        let compare = |who: &str| {
            let differ = round == 0 && !yardstick::equal(&image, &out);
            assert!(!differ, "what {who} wrote isn't the image");
            std::fs::remove_file(&out).expect("what was written can be removed");
        };
        let begun = Instant::now();
        yardstick.write(&out, threads);
        let bare = begun.elapsed().as_secs_f64();
        compare("the yardstick");
        let begun = Instant::now();
        program.recover(&out);
        rounds.push([bare, begun.elapsed().as_secs_f64()]);
        compare("recover");
    }
    let median = |of: &dyn Fn(&[f64; 2]) -> f64| {
        let mut values: Vec<f64> = rounds[1..].iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (bare, recover) = (median(&|r| r[0]), median(&|r| r[1]));
    let ratio = median(&|r| r[0] / r[1]);
    if options.json {
        println!("{{\"yardstick_s\":{bare:.4},\"recover_s\":{recover:.4},\"ratio\":{ratio:.4}}}");
    } else {
        println!("{} of data that isn't zero", tidegate_model::HumanBytes(yardstick.bytes()));
        println!("yardstick, {threads} threads   {bare:8.3} s");
        println!("recover                {recover:8.3} s");
        println!("yardstick / recover    {ratio:8.3}");
    }
}
