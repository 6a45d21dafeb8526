//! What the tests of the whole stand on: the program as real processes, a real object store, real
//! disks and file systems, and faults. Included by each test file with `mod support;`.
//!
//! Owns everything that it starts, mounts or attaches: a guard for each, which undoes it when it is
//! dropped, after a panic too. Knows nothing of Tidegate's formats and calls none of its crates, but
//! for `peer`, which speaks its protocol by hand: what is tested here is what a user has.
//!
//! Nothing is left out silently. What needs root or loop devices asks first (`devices::usable`), and
//! what can't run is told by `not_run`; everything else that is missing fails with the command that
//! installs it.

// Each test file is a program of its own and takes what it needs of this.
#![allow(dead_code)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

pub mod agent_log;
pub mod azurite;
pub mod compare;
pub mod devices;
pub mod faults;
pub mod gate;
pub mod guest;
pub mod images;
pub mod live;
pub mod mounted;
pub mod nbd_client;
pub mod peer;
pub mod postgres;
pub mod process;
pub mod random;
pub mod refusals;
pub mod shim;
pub mod site;
pub mod store_proxy;
pub mod tapped;
pub mod terminal;
pub mod tls;

use tempfile::TempDir;

/// A directory for one test, removed when dropped. It lies beside the build, because a test's disks
/// may be too large for a temporary directory in memory.
pub fn scratch() -> TempDir {
    scratch_in(Path::new(env!("CARGO_TARGET_TMPDIR")), 0o700)
}

/// The same, for processes of other users to enter: in the system's temporary directory.
pub fn public_scratch() -> TempDir {
    scratch_in(&std::env::temp_dir(), 0o755)
}

fn scratch_in(parent: &Path, mode: u32) -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(mode);
    tempfile::Builder::new()
        .prefix("tidegate-test-")
        .permissions(permissions)
        .tempdir_in(parent)
        .unwrap_or_else(|error| {
            panic!("no directory for the test in {}: {error}", parent.display())
        })
}

/// Says that a test doesn't run here, and why: in its output, and in the list that `make test` shows
/// at its end. Where it `could` run, because only something of the machine's set-up is amiss, it
/// fails in CI.
#[track_caller]
pub fn not_run(test: &str, why: &str, could: bool) {
    let ci = std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false");
    assert!(!(ci && could), "{test} must run in CI: {why}");
    eprintln!("NOT RUN: {test}: {why}");
    let list = Path::new(env!("CARGO_TARGET_TMPDIR")).join("not-run");
    let list = OpenOptions::new().create(true).append(true).open(list);
    let line = format!("{test}: {why}\n");
    list.and_then(|mut list| list.write_all(line.as_bytes())).expect("the list can be written");
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a tool of the system to its end and gives its output; a failure is shown whole.
#[track_caller]
pub fn tool(command: &mut Command) -> String {
    try_tool(command).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a tool of the system to its end; the error says what was called and what it answered.
pub fn try_tool(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?} can't be started ({error}): run `make tools`"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed with {}: {}", output.status, said.trim()))
}
