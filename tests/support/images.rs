//! Disks with something real on them: file systems of this host's files, of a database, random
//! bytes, and sparse disks far larger than what they hold.
//!
//! The large ones are made once and kept beside the build; they are shared by all tests and must
//! not be written to: `copy` makes one's own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::devices::Turn;
use super::random::Rng;
use super::{postgres, scratch_in, tool};

/// Bytes written at once.
const PIECE_BYTES: usize = 1 << 20;

/// What a file or a directory costs besides its blocks.
const INODE_BYTES: u64 = 512;

/// The largest file that is taken from the host: one giant would crowd out all variety.
const HOST_FILE_BYTES_MAX: u64 = 64 << 20;

/// An ext4 file system of `bytes` with this host's files on three quarters of it, never mounted.
#[track_caller]
pub fn host_ext4(bytes: u64) -> PathBuf {
    kept(&format!("host-ext4-{bytes}"), |part| {
        let staging = scratch_in(part.parent().expect("it lies in a directory"), 0o755);
        let files = take_files(staging.path(), bytes / 4 * 3);
        assert!(files > 100, "this host has hardly any readable files below /usr");
        empty(part, bytes);
        // A fixed id, hash seed and clock: what is left to differ are the times of the files.
        let id = "6f1d5c70-6c1e-4b7e-9b46-6a2f3f2f6b11";
        tool(
            Command::new("mkfs.ext4")
                .args(["-q", "-F", "-m", "0", "-i", "4096", "-U", id, "-E"])
                .arg(format!("hash_seed={id},lazy_itable_init=0,root_owner=0:0"))
                .arg("-d")
                .arg(staging.path())
                .arg(part)
                .env("E2FSPROGS_FAKE_TIME", "1767225600"),
        );
    })
}

/// An xfs file system with the data directory of a PostgreSQL that pgbench has worked on. Needs a
/// loop device: ask `devices::usable` first.
#[track_caller]
pub fn postgres_xfs() -> PathBuf {
    kept("postgres-xfs", |part| {
        empty(part, 1 << 30);
        tool(Command::new("mkfs.xfs").args(["-q", "-f"]).arg(part));
        postgres::fill(part);
    })
}

/// Writes a file of what doesn't compress, which follows from the seed.
#[track_caller]
pub fn random(path: &Path, bytes: u64, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut file = File::create(path).expect("an image can be made");
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        rng.fill(&mut piece[..count]);
        file.write_all(&piece[..count]).expect("there is room for an image");
        left -= count as u64;
    }
}

/// Makes a disk of `bytes` that is one hole but for random data at `places` (offset, length).
#[track_caller]
pub fn sparse(path: &Path, bytes: u64, places: &[(u64, u64)], seed: u64) {
    empty(path, bytes);
    let mut rng = Rng::new(seed);
    for &(offset, length) in places {
        let end = offset.checked_add(length);
        assert!(end.is_some_and(|end| end <= bytes), "{offset}+{length} is beyond the disk");
        let mut data = vec![0; usize::try_from(length).expect("a place fits memory")];
        rng.fill(&mut data);
        patch(path, offset, &data);
    }
}

/// A sparse disk of 64 GiB with data at its beginning, across a block's border, in its middle, and
/// in its last bytes.
#[track_caller]
pub fn sparse_64_gib(path: &Path, seed: u64) {
    const DISK: u64 = 64 << 30;
    let places =
        [(0, 4096), ((1 << 30) - 1000, 70_000), (DISK / 2 + 123, 1 << 20), (DISK - 4096, 4096)];
    sparse(path, DISK, &places, seed);
}

/// Writes `bytes` at `offset` of an image or device that is there.
#[track_caller]
pub fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("an image can be written to");
    file.write_all_at(bytes, offset).expect("an image can be written to at any place");
}

/// Copies an image or device, holes as holes, writable.
#[track_caller]
pub fn copy(from: &Path, to: &Path) {
    tool(Command::new("cp").args(["--sparse=auto", "--reflink=auto"]).arg(from).arg(to));
    tool(Command::new("chmod").arg("u+w").arg(to));
}

/// Makes an image that is one hole.
#[track_caller]
pub fn empty(path: &Path, bytes: u64) {
    let made = File::create(path).and_then(|file| file.set_len(bytes));
    made.unwrap_or_else(|error| panic!("can't make {}: {error}", path.display()));
}

/// An image that is made once: by one test, while others wait for it.
#[track_caller]
fn kept(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
    fs::create_dir_all(&directory).expect("a directory can be made beside the build");
    let image = directory.join(format!("{name}.img"));
    let _turn = Turn::take(name);
    if !image.exists() {
        // Under another name until it is whole, for a test may be stopped at any moment.
        let part = directory.join(format!("{name}.part"));
        make(&part);
        let file = File::open(&part).expect("what was made is there");
        let mut mode = file.metadata().expect("it has a mode").permissions();
        mode.set_readonly(true);
        fs::set_permissions(&part, mode).expect("a mode can be set");
        fs::rename(&part, &image).expect("a file can be renamed");
    }
    image
}

/// Copies files of this host into `staging` until `budget_bytes` are used; gives how many.
fn take_files(staging: &Path, budget_bytes: u64) -> usize {
    let mut taken = Taken { files: 0, left_bytes: budget_bytes };
    for root in ["/etc", "/usr", "/opt", "/var/lib"] {
        let source = Path::new(root);
        if source.is_dir() {
            taken.directory(source, &staging.join(&root[1..]));
        }
    }
    taken.files
}

struct Taken {
    files: usize,
    left_bytes: u64,
}

impl Taken {
    fn directory(&mut self, from: &Path, to: &Path) {
        let Ok(entries) = fs::read_dir(from) else { return };
        if !self.pay(4096) {
            return;
        }
        fs::create_dir_all(to).expect("a directory can be made");
        let mut entries: Vec<_> = entries.flatten().collect();
        // In the order of names, so that the same host gives the same files.
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            // Even an empty file doesn't fit any more: the rest of the host needn't be read.
            if self.left_bytes < 4096 + INODE_BYTES {
                return;
            }
            let target = to.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.directory(&entry.path(), &target),
                Ok(kind) if kind.is_file() => self.file(&entry.path(), &target),
                _ => {}
            }
        }
    }

    /// What can't be read or has gone meanwhile is left out.
    fn file(&mut self, from: &Path, to: &Path) {
        let Ok(bytes) = from.metadata().map(|metadata| metadata.len()) else { return };
        if bytes > HOST_FILE_BYTES_MAX || !self.pay(bytes) {
            return;
        }
        match fs::copy(from, to) {
            Ok(_) => self.files += 1,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                panic!("no room for an image: {error}")
            }
            Err(_) => {}
        }
    }

    /// Takes the cost of so many bytes from what is left, if it is there.
    fn pay(&mut self, bytes: u64) -> bool {
        let cost = bytes.next_multiple_of(4096) + INODE_BYTES;
        let left = self.left_bytes.checked_sub(cost);
        self.left_bytes = left.unwrap_or(self.left_bytes);
        left.is_some()
    }
}
