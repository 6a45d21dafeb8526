//! Faults that only the C library can make: functions in C that stand in front of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tool;

/// Compiles `source` beside `name` into what a process loads by the variable LD_PRELOAD.
///
/// # Panics
/// If there is no C compiler, or it refuses.
pub fn build(name: &Path, source: &str) -> PathBuf {
    let (text, shim) = (name.with_extension("c"), name.with_extension("so"));
    std::fs::write(&text, source).expect("a file can be written");
    tool(Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&shim, &text]));
    shim
}
