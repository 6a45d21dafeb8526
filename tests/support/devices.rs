//! Block devices and mounted file systems of a test: loop devices over files, mounts of them, and
//! small file systems that can be filled. Each guard undoes exactly what it did, in the reverse
//! order: unmount, detach this one device, remove the files.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{not_run, scratch, tool, try_tool};

/// How long an unmount is tried again while something still holds the file system.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(30);

/// Whether this machine can have loop devices and mounts. If not, says why `test` doesn't run.
#[track_caller]
pub fn usable(test: &str) -> bool {
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    file.as_file().set_len(1 << 20).expect("it can be made longer");
    let attached = Loop::try_attach(file.path(), &[]);
    let could = rustix::process::getuid().is_root() && Path::new("/dev/loop-control").exists();
    match attached {
        Ok(_) => true,
        Err(error) => {
            not_run(test, &format!("it needs root and a loop device: {error}"), could);
            false
        }
    }
}

/// A loop device over a file; this one device is detached when dropped.
#[derive(Debug)]
pub struct Loop {
    device: PathBuf,
}

impl Loop {
    #[track_caller]
    pub fn attach(file: &Path) -> Self {
        Self::try_attach(file, &[]).unwrap_or_else(|error| panic!("{error}"))
    }

    /// One that refuses to be written to.
    #[track_caller]
    pub fn attach_read_only(file: &Path) -> Self {
        Self::try_attach(file, &["--read-only"]).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_attach(file: &Path, options: &[&str]) -> Result<Self, String> {
        // Looking for a free device and taking it are two steps of the kernel: one test at a time.
        let _turn = Turn::take("loop");
        let mut command = Command::new("losetup");
        command.args(["--find", "--show"]).args(options).arg(file);
        let device = PathBuf::from(try_tool(&mut command)?.trim());
        Ok(Self { device })
    }

    pub fn device(&self) -> &Path {
        &self.device
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = try_tool(Command::new("losetup").arg("-d").arg(&self.device)) {
            eprintln!("left behind: {error}");
        }
    }
}

/// A turn that only one test at a time has, over all processes of a test run.
pub struct Turn {
    _file: File,
}

impl Turn {
    #[track_caller]
    pub fn take(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.lock"));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.expect("a lock file can be made beside the build");
        file.lock().expect("a lock file can be locked");
        Self { _file: file }
    }
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Mounts `device` at the directory `at`, with `options` as mount takes them.
    #[track_caller]
    pub fn new(device: &Path, at: &Path, options: &str) -> Self {
        tool(Command::new("mount").args(["-o", options]).arg(device).arg(at));
        Self::made(at)
    }

    /// What something else has mounted there.
    pub fn made(at: &Path) -> Self {
        Self { at: at.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let end = Instant::now() + UNMOUNT_LIMIT;
        while let Err(error) = try_tool(Command::new("umount").arg(&self.at)) {
            if Instant::now() > end {
                eprintln!("left behind: {error}");
                return;
            }
            // Nothing tells when the last user of a file system has gone.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A file system of its own, on a loop device over a file. Fields are dropped in their order.
#[derive(Debug)]
pub struct FileSystem {
    mount: Mount,
    device: Loop,
    files: TempDir,
}

impl FileSystem {
    /// A new ext4 of `bytes`, without blocks that only root may use, for a full disk to be full.
    #[track_caller]
    pub fn ext4(bytes: u64) -> Self {
        let files = scratch();
        let backing = files.path().join("backing");
        File::create(&backing).and_then(|file| file.set_len(bytes)).expect("a file can be made");
        tool(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&backing));
        Self::mounted(files)
    }

    /// What a file holds, mounted from a copy of it: the state of a disk at a moment.
    #[track_caller]
    pub fn of_copy(image: &Path) -> Self {
        let files = scratch();
        super::images::copy(image, &files.path().join("backing"));
        Self::mounted(files)
    }

    #[track_caller]
    fn mounted(files: TempDir) -> Self {
        let at = files.path().join("mount");
        std::fs::create_dir(&at).expect("a directory can be made");
        let device = Loop::attach(&files.path().join("backing"));
        let mount = Mount::new(device.device(), &at, "rw");
        Self { mount, device, files }
    }

    pub fn path(&self) -> &Path {
        self.mount.path()
    }

    pub fn device(&self) -> &Path {
        self.device.device()
    }

    /// The file under the loop device.
    pub fn backing(&self) -> PathBuf {
        self.files.path().join("backing")
    }

    /// The bytes that are free.
    pub fn free_bytes(&self) -> u64 {
        let state = rustix::fs::statvfs(self.path()).expect("a mounted file system has a size");
        state.f_bavail * state.f_frsize
    }

    /// Takes all but about `left_bytes` of the space with a file and returns its path; removing it
    /// makes room again.
    #[track_caller]
    pub fn fill(&self, left_bytes: u64) -> PathBuf {
        let ballast = self.path().join("ballast");
        let bytes = self.free_bytes().saturating_sub(left_bytes);
        let file = File::create(&ballast).expect("a file can be made");
        let reserve = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&file, reserve, 0, bytes).expect("free space can be taken");
        ballast
    }
}
