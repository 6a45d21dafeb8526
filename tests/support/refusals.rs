//! What a test of bad input or bad luck asks of a site besides: that a call fails as it should, and
//! that everything else is as it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::compare::assert_same;
use super::process::{Output, Tidegate};
use super::site::Site;
pub use super::site::shown;

/// How long anything is waited for; far more than it takes.
pub const LIMIT: Duration = Duration::from_secs(120);
/// What is waited for is looked at so often: the moment of a kill is no more exact than this.
const TICK: Duration = Duration::from_micros(500);

impl Site {
    /// `recover` of a machine's first disk, ready to run.
    pub fn recover(&self, machine: &str, at: &str, to: &Path) -> Tidegate {
        self.command(&["recover", machine, "--disk", "0", "--at", at, "--to", shown(to)])
    }

    /// Fails unless a machine's first disk comes back at a point as it is in `disk`.
    #[track_caller]
    pub fn assert_recovers_at(&self, machine: &str, at: &str, disk: &Path) {
        let to = self.path(&format!("{machine}.recovered"));
        self.recover(machine, at, &to).run().success();
        assert_same(disk, &to);
        fs::remove_file(to).expect("what was recovered can be removed");
    }

    /// Fails unless `recover` fails and leaves no file; gives what it said.
    #[track_caller]
    pub fn fails_to_recover(&self, machine: &str, at: &str) -> Output {
        let to = self.path("not recovered");
        let output = self.recover(machine, at, &to).run().failure();
        assert!(!to.exists(), "a failed recovery left {}:\n{output}", to.display());
        let beside = to.parent().expect("it lies in the scratch").read_dir().expect("it is there");
        let parts = beside
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("not recovered"));
        assert_eq!(parts.count(), 0, "a part was left:\n{output}");
        output
    }

    /// The last recovery point of a machine, as EPOCH:LSN.
    #[track_caller]
    pub fn last_point(&self, machine: &str) -> String {
        let listed = self.call(&["points", machine]).json();
        let point = listed["points"].as_array().and_then(|points| points.last()?["point"].as_str());
        point.unwrap_or_else(|| panic!("no point in {listed}")).to_owned()
    }

    /// The files of all packs, in order.
    #[track_caller]
    pub fn packs(&self) -> Vec<PathBuf> {
        let log = self.vault_path().join("log");
        let files = if log.exists() { contents(&log) } else { Vec::new() };
        files.into_iter().map(|(path, _)| path).collect()
    }
}

/// The id of a vault, as an identity file says it.
#[track_caller]
pub fn vault_of(identity: &Path) -> String {
    let file = fs::read(identity).expect("an identity file can be read");
    let file: serde_json::Value = serde_json::from_slice(&file).expect("it is JSON");
    file["vault"].as_str().expect("it names its vault").to_owned()
}

/// Every file below a directory, with its content: to see that nothing was changed.
#[track_caller]
pub fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder can be read").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.clone(), fs::read(&path).expect("a file can be read")));
            }
        }
    }
    found.sort();
    found
}

/// Waits until something has happened, with a limit.
#[track_caller]
pub fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !happened() {
        assert!(Instant::now() < end, "{what}: not within {LIMIT:?}");
        // Files and logs tell nobody that they have come.
        std::thread::sleep(TICK);
    }
}
