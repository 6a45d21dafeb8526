//! The fuzzer's program: feeds the target that the environment names (`TIDEGATE_FUZZ`), and leaves the
//! seeds of it in a folder (`TIDEGATE_FUZZ_SEEDS`) before. `fuzz/run` calls it.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use tidegate_fuzz::{Target, seeds};

static TARGET: OnceLock<Target> = OnceLock::new();

fn begin() {
    let wanted = std::env::var("TIDEGATE_FUZZ").unwrap_or_default();
    let target = Target::ALL.into_iter().find(|target| target.name() == wanted);
    let target = target.expect("TIDEGATE_FUZZ names a target");
    if let Ok(folder) = std::env::var("TIDEGATE_FUZZ_SEEDS") {
        for (number, seed) in seeds::of(target).into_iter().enumerate() {
            let path = Path::new(&folder).join(format!("seed-{number}"));
            std::fs::write(path, seed).expect("the folder for seeds can be written to");
        }
    }
    TARGET.set(target).expect("it is set once");
}

libfuzzer_sys::fuzz_target!(
    init: begin(),
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            target.feed(bytes);
        }
    }
);
