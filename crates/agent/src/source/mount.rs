//! Is a disk in use? Finds the mounts of a disk, of its partitions, of what stands on it (device
//! mapper, RAID), and of the loop devices whose backing file it is.
//!
//! The kernel's tables are read as text from `/proc/self/mountinfo` and `/sys`; nothing is opened
//! or locked. A mount in another mount namespace isn't seen: the change counters are what decides
//! in the end whether a copy is clean (see [`super::ChangeWatch`]).

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::SourceIdentity;

/// A device as the kernel numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    /// The driver.
    pub major: u32,
    /// The device of that driver.
    pub minor: u32,
}

impl DeviceNumber {
    /// From `st_dev` or `st_rdev`.
    pub(super) fn of_raw(raw: u64) -> Self {
        Self { major: rustix::fs::major(raw), minor: rustix::fs::minor(raw) }
    }

    /// From the text `MAJOR:MINOR`.
    fn of_text(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// A place where a disk, or a part of it, is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount point.
    pub point: PathBuf,
    /// What is mounted there, as the kernel calls it.
    pub device: String,
    /// Whether the file system may write to the disk.
    pub writable: bool,
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.writable { "read-write" } else { "read-only" };
        write!(f, "{} is mounted {how} at {}", self.device, self.point.display())
    }
}

/// Where the disk is mounted; empty as well when the kernel's tables can't be read.
pub(super) fn mounts_of(identity: SourceIdentity) -> Vec<Mount> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_else(|error| {
        tracing::warn!(%error, "/proc/self/mountinfo can't be read: mounts stay unknown");
        Vec::new()
    });
    let devices = devices_of(identity, Path::new("/sys"));
    let entries = parse_mountinfo(&String::from_utf8_lossy(&table));
    entries.into_iter().filter(|e| e.is_on(&devices)).map(|e| e.mount).collect()
}

/// One line of mountinfo.
struct Entry {
    device: DeviceNumber,
    mount: Mount,
}

impl Entry {
    /// By number, or by the source's node: some file systems (btrfs) show a number of their own.
    fn is_on(&self, devices: &BTreeSet<DeviceNumber>) -> bool {
        if devices.contains(&self.device) {
            return true;
        }
        if devices.is_empty() || !self.mount.device.starts_with("/dev/") {
            return false;
        }
        fs::metadata(&self.mount.device).is_ok_and(|node| {
            node.file_type().is_block_device()
                && devices.contains(&DeviceNumber::of_raw(node.rdev()))
        })
    }
}

/// The lines of mountinfo that make sense; proc(5) gives their fields.
fn parse_mountinfo(text: &str) -> Vec<Entry> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Entry> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(2);
    let device = DeviceNumber::of_text(front.next()?)?;
    let point = unescape(front.nth(1)?);
    let mut back = back.split(' ').skip(1);
    let source = unescape(back.next()?);
    // The options of the superblock: a read-only mount of a writable one may be written elsewhere.
    let writable = back.next()?.split(',').any(|option| option == "rw");
    let mount = Mount { point: point.into(), device: source, writable };
    Some(Entry { device, mount })
}

/// Undoes the kernel's `\040` for a blank and its like.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes
            .get(at + 1..at + 4)
            .filter(|_| bytes[at] == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// The devices whose mounts concern the disk.
fn devices_of(identity: SourceIdentity, sys: &Path) -> BTreeSet<DeviceNumber> {
    let mut found = BTreeSet::new();
    match identity {
        SourceIdentity::BlockDevice(device) => {
            add_with_all_above(device, sys, &mut found);
            if let Some(backing) = backing_file_of(&block_folder(device, sys)) {
                add_loops_of(backing, sys, &mut found);
            }
        }
        SourceIdentity::File { .. } => add_loops_of(identity, sys, &mut found),
    }
    found
}

fn block_folder(device: DeviceNumber, sys: &Path) -> PathBuf {
    sys.join("dev/block").join(device.to_string())
}

/// The loop devices that show this file.
fn add_loops_of(file: SourceIdentity, sys: &Path, found: &mut BTreeSet<DeviceNumber>) {
    for folder in folders_in(&sys.join("block")) {
        if backing_file_of(&folder) == Some(file)
            && let Some(device) = number_in(&folder)
        {
            add_with_all_above(device, sys, found);
        }
    }
}

fn backing_file_of(folder: &Path) -> Option<SourceIdentity> {
    let path = fs::read_to_string(folder.join("loop/backing_file")).ok()?;
    Some(super::identity_of(&fs::metadata(path.trim_end_matches('\n')).ok()?))
}

/// A device, its partitions, and the devices that are made of them. A device is taken up once, so
/// this ends.
fn add_with_all_above(device: DeviceNumber, sys: &Path, found: &mut BTreeSet<DeviceNumber>) {
    if !found.insert(device) {
        return;
    }
    let folder = block_folder(device, sys);
    let partitions = folders_in(&folder).into_iter().filter(|f| f.join("partition").exists());
    let holders = folders_in(&folder.join("holders"));
    for above in partitions.chain(holders) {
        if let Some(device) = number_in(&above) {
            add_with_all_above(device, sys, found);
        }
    }
}

fn number_in(folder: &Path) -> Option<DeviceNumber> {
    DeviceNumber::of_text(&fs::read_to_string(folder.join("dev")).ok()?)
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    const fn device(major: u32, minor: u32) -> DeviceNumber {
        DeviceNumber { major, minor }
    }

    #[test]
    fn a_line_gives_device_place_and_whether_it_may_be_written() {
        let text = "36 35 98:1 /mnt1 /mnt/a\\040b ro,noatime shared:1 - ext3 /dev/root rw,x=y\n\
                    broken line\n\
                    37 35 7:0 / /m ro - xfs /dev/loop0 ro\n";
        let entries = parse_mountinfo(text);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].device, device(98, 1));
        assert_eq!(
            entries[0].mount,
            Mount { point: "/mnt/a b".into(), device: "/dev/root".into(), writable: true }
        );
        assert!(!entries[1].mount.writable);
        assert_eq!(entries[1].mount.to_string(), "/dev/loop0 is mounted read-only at /m");
    }

    #[test]
    fn partitions_holders_and_loop_devices_of_a_disk_count_as_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        put(sys.join("dev/block/8:0/sda1/partition"), "1\n");
        put(sys.join("dev/block/8:0/sda1/dev"), "8:1\n");
        put(sys.join("dev/block/8:0/queue/dev"), "9:9\n");
        put(sys.join("dev/block/8:1/holders/dm-0/dev"), "254:0\n");
        let found = devices_of(SourceIdentity::BlockDevice(device(8, 0)), sys);
        assert_eq!(found, BTreeSet::from([device(8, 0), device(8, 1), device(254, 0)]));

        let image = sys.join("image");
        put(image.clone(), "bytes");
        put(sys.join("block/loop3/loop/backing_file"), &format!("{}\n", image.display()));
        put(sys.join("block/loop3/dev"), "7:3\n");
        put(sys.join("block/loop4/loop/backing_file"), "/elsewhere\n");
        put(sys.join("block/loop4/dev"), "7:4\n");
        put(sys.join("dev/block/7:3/loop3p1/partition"), "1\n");
        put(sys.join("dev/block/7:3/loop3p1/dev"), "259:0\n");
        let file = super::super::identity_of(&fs::metadata(&image).unwrap());
        assert_eq!(devices_of(file, sys), BTreeSet::from([device(7, 3), device(259, 0)]));
    }

    #[test]
    fn devices_that_stand_on_each_other_end_the_search() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path().join("dev/block/8:0/holders/x/dev"), "8:1\n");
        put(dir.path().join("dev/block/8:1/holders/y/dev"), "8:0\n");
        let found = devices_of(SourceIdentity::BlockDevice(device(8, 0)), dir.path());
        assert_eq!(found.len(), 2);
    }
}
