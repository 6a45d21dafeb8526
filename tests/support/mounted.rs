//! A recovery point that is mounted: the program's `mount`, and the tools of others that use it.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::process::{Output, Running, Tidegate};
use super::site::{Site, shown};

/// How long a mount may take until it serves, and until it has ended.
const LIMIT: Duration = Duration::from_secs(60);

/// A mount that serves on a socket of its own; killed when dropped.
pub struct Mounted {
    pub socket: PathBuf,
    /// What it printed.
    pub told: Value,
    running: Running,
}

impl Site {
    /// `mount` of a machine, ready to run.
    pub fn mount(&self, machine: &str, options: &[&str]) -> Tidegate {
        self.mount_at(&format!("unix:{}", shown(&self.socket())), machine, options)
    }

    /// The same elsewhere.
    pub fn mount_at(&self, address: &str, machine: &str, options: &[&str]) -> Tidegate {
        self.command(&["mount", machine, "--nbd", address]).args(options)
    }

    /// Where mounts of this test serve.
    pub fn socket(&self) -> PathBuf {
        self.path("nbd.sock")
    }

    /// Mounts a machine, and waits until it is served.
    #[track_caller]
    pub fn mounted(&self, machine: &str, options: &[&str]) -> Mounted {
        Mounted::start(self.mount(machine, options), self.socket())
    }

    /// The same on a port of the loopback; there is no socket in the file system.
    #[track_caller]
    pub fn mounted_on_a_port(&self, machine: &str) -> Mounted {
        Mounted::start(self.mount_at("tcp:127.0.0.1:0", machine, &[]), PathBuf::new())
    }
}

fn told(line: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(line).ok()?;
    value.get("exports")?;
    Some(value)
}

impl Mounted {
    #[track_caller]
    fn start(mount: Tidegate, socket: PathBuf) -> Self {
        let running = mount.start();
        let line = running.wait_for_line("what it serves", LIMIT, |line| told(line).is_some());
        let told = told(&line).expect("the line was chosen because it tells");
        Self { socket, told, running }
    }

    /// Where it says that a client finds a disk.
    #[track_caller]
    pub fn told_uri(&self, disk: usize) -> &str {
        let uri = self.told["exports"][disk]["uri"].as_str();
        uri.unwrap_or_else(|| panic!("no disk {disk} in {}", self.told))
    }

    /// Where a client finds an export.
    pub fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", shown(&self.socket))
    }

    /// Copies an export to a file with nbdcopy.
    #[track_caller]
    pub fn copied(&self, export: &str, to: &Path) {
        run("nbdcopy", &["--connections=4", &self.uri(export), shown(to)]);
    }

    /// Asks it to stop, and waits until it has, as it was asked to.
    #[track_caller]
    pub fn stop(self) -> Output {
        self.running.signal(Signal::TERM);
        self.running.wait(LIMIT).success()
    }

    /// `kill -9`.
    #[track_caller]
    pub fn kill(self) -> Output {
        self.running.kill()
    }
}

impl Deref for Mounted {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

/// Runs a tool that must succeed, and gives all that it prints.
#[track_caller]
pub fn run(tool: &str, arguments: &[&str]) -> String {
    let (success, text) = tried(tool, arguments);
    assert!(success, "{tool} {arguments:?} failed: {text}");
    text
}

/// Runs a tool; whether it succeeded, and all that it prints.
#[track_caller]
pub fn tried(tool: &str, arguments: &[&str]) -> (bool, String) {
    // Whatever hangs, the test doesn't.
    let output = Command::new("timeout").arg("120").arg(tool).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("timeout can't be run: {error}"));
    let missing = output.status.code() == Some(127);
    assert!(!missing, "{tool} isn't on this machine: `make tools` installs it");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Runs qemu-io with these commands on an export; nothing may fail.
#[track_caller]
pub fn qemu_io(uri: &str, commands: &[&str]) -> String {
    let mut arguments: Vec<&str> = commands.iter().flat_map(|command| ["-c", *command]).collect();
    arguments.extend(["-f", "raw", uri]);
    let shown = run("qemu-io", &arguments);
    assert!(!shown.contains("failed"), "{commands:?}: {shown}");
    shown
}
