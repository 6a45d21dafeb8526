//! A file system on a disk that an agent serves, as this host can use it: nbdfuse makes the export a
//! file, and a loop device makes that a block device. What is flushed there is flushed at the agent.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::devices::{Loop, Mount, usable as devices_usable};
use super::process::Running;
use super::{not_run, public_scratch, refusals};

/// Whether this machine can do so. If not, says why `test` doesn't run.
#[track_caller]
pub fn usable(test: &str) -> bool {
    if !devices_usable(test) {
        return false;
    }
    let there = Path::new("/dev/fuse").exists();
    if !there {
        not_run(test, "it needs /dev/fuse, for nbdfuse", false);
    }
    there
}

/// A mounted file system on an export. It goes also when the export is gone. Fields are dropped in their
/// order.
pub struct Tapped {
    mount: Mount,
    _device: Loop,
    _file: Mount,
    _nbdfuse: Running,
    _directory: TempDir,
}

impl Tapped {
    /// Mounts the file system that is on an export, which replays its journal if it has to.
    #[track_caller]
    pub fn new(uri: &str) -> Self {
        let directory = public_scratch();
        let at = |name: &str| directory.path().join(name);
        for name in ["export", "mount"] {
            std::fs::create_dir(at(name)).expect("a directory can be made");
        }
        let file = at("export").join("disk");
        let mut command = Command::new("nbdfuse");
        command.arg(&file).arg(uri);
        let nbdfuse = Running::start(command);
        refusals::wait_until("the export as a file", || {
            assert!(!nbdfuse.ended(), "nbdfuse ended: {}", nbdfuse.printed());
            file.exists()
        });
        let file_mount = Mount::made(&at("export"));
        let device = Loop::attach(&file);
        let mount = Mount::new(device.device(), &at("mount"), "rw");
        let (_device, _file, _nbdfuse) = (device, file_mount, nbdfuse);
        Self { mount, _device, _file, _nbdfuse, _directory: directory }
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.mount.path().to_owned()
    }
}
