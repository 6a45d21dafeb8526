//! Did a disk change while it was read? Decides whether the end of a copy is *clean*.
//!
//! A file: size, modification time and change time (nanoseconds) before and after. A block device:
//! the kernel's counters of writes and discards before and after; writes to a partition count for
//! its disk, but not the other way round. Either: mounted read-write before or after, for then a
//! file system may hold changes that the disk doesn't show yet.
//!
//! What is in doubt is a change: a copy called clean must be one.
//!
//! A [`Footprint`] tells the same of a disk that was let go and is taken up again, perhaps by another
//! process. A device's counters begin anew with each start of the host: then it counts as unchanged as
//! long as nobody wrote to it since.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{DeviceNumber, Mount, Source, SourceError, SourceIdentity};

/// Why a copy of a disk isn't of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The disk, as given.
    pub path: PathBuf,
    /// What was seen.
    pub cause: ChangeCause,
}

/// What showed that a disk changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeCause {
    /// A file system that may write to it.
    Mounted(Mount),
    /// Times, size or counters differ.
    Written,
    /// It can't be told.
    Unknown,
    /// Others may write to it.
    Writable,
}

impl Change {
    /// Of what others may write to while it is read.
    pub(crate) fn writable(path: &Path) -> Self {
        Self { path: path.to_path_buf(), cause: ChangeCause::Writable }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.cause {
            ChangeCause::Mounted(mount) => write!(f, "{mount}"),
            ChangeCause::Written => write!(f, "was written to while it was read"),
            ChangeCause::Unknown => write!(f, "whether it was written to can't be told"),
            ChangeCause::Writable => {
                write!(f, "its export can be written to: serve a moment of it, read-only")
            }
        }
    }
}

/// What is compared before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Marks {
    File { bytes: u64, modified: (i64, i64), changed: (i64, i64) },
    Device { bytes: u64, writes: Vec<u64> },
    Unknown,
}

/// What of a disk shows whether somebody wrote to it; as words, to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footprint(pub(crate) [u64; Footprint::WORDS]);

impl Footprint {
    pub(crate) const WORDS: usize = 6;

    /// A file: modification and change time, each in seconds and nanoseconds.
    const FILE: u64 = 1;
    /// A device: writes and discards, each in requests and sectors, and which disk it is of those that
    /// the device had since the host started.
    const DEVICE: u64 = 2;
    const UNKNOWN: Self = Self([0; Self::WORDS]);

    /// That of a disk as it is; what was written to it must have come to the disk.
    pub(crate) fn of(identity: SourceIdentity, file: &File) -> io::Result<Self> {
        let SourceIdentity::BlockDevice(device) = identity else {
            let metadata = file.metadata()?;
            let (modified, changed) = (metadata.mtime(), metadata.ctime());
            let [modified, changed] = [modified, changed].map(i64::cast_unsigned);
            let nanos = [metadata.mtime_nsec(), metadata.ctime_nsec()].map(i64::cast_unsigned);
            return Ok(Self([Self::FILE, modified, nanos[0], changed, nanos[1], 0]));
        };
        let Some(counters) = write_counters(device) else { return Ok(Self::UNKNOWN) };
        let counter = |index: usize| counters.get(index).copied().unwrap_or(0);
        let disk = disk_sequence(device).unwrap_or(0);
        Ok(Self([Self::DEVICE, counter(0), counter(1), counter(2), counter(3), disk]))
    }

    /// Whether somebody wrote to the disk between `before` and this, as far as it shows; what can't be
    /// told is taken for a change.
    pub(crate) fn tells_change(&self, before: &Self, same_boot: bool) -> bool {
        match (self.0, before.0) {
            ([Self::FILE, ..], _) => self != before,
            ([Self::DEVICE, ..], [Self::DEVICE, ..]) if same_boot => self != before,
            ([Self::DEVICE, counters @ .., _], [Self::DEVICE, ..]) => counters != [0; 4],
            _ => true,
        }
    }
}

/// A disk under watch from before its first byte is read.
#[derive(Debug)]
pub struct ChangeWatch {
    marks: Marks,
    mounts: Vec<Mount>,
}

impl ChangeWatch {
    /// Begins to watch `source`.
    ///
    /// # Errors
    /// When the disk can't be asked.
    pub fn begin(source: &Source) -> Result<Self, SourceError> {
        if matches!(source.identity(), SourceIdentity::BlockDevice(_)) {
            // What lies in the page cache must not be counted as written later. A device that
            // can't sync shows at worst as changed.
            if let Err(error) = source.buffered().sync_data() {
                tracing::debug!(path = %source.path().display(), %error, "sync before reading");
            }
        }
        Ok(Self { marks: marks_of(source)?, mounts: writable_mounts(source) })
    }

    /// What changed since [`ChangeWatch::begin`]; `None` when nothing did.
    ///
    /// # Errors
    /// [`SourceError::Shrank`], and when the disk can't be asked.
    pub fn end(&self, source: &Source) -> Result<Option<Change>, SourceError> {
        self.end_frozen(source, &[])
    }

    /// The same where file systems were frozen from before [`ChangeWatch::begin`] on: one that is
    /// mounted there has written out what it held, and writes nothing.
    ///
    /// # Errors
    /// As [`ChangeWatch::end`].
    pub fn end_frozen(
        &self,
        source: &Source,
        frozen: &[PathBuf],
    ) -> Result<Option<Change>, SourceError> {
        let now = source.bytes_now()?;
        if now < source.bytes() {
            return Err(source.shrank(now));
        }
        let marks = marks_of(source)?;
        let mut mounts = self.mounts.iter().cloned().chain(writable_mounts(source));
        let cause = if let Some(mount) = mounts.find(|mount| !frozen.contains(&mount.point)) {
            ChangeCause::Mounted(mount)
        } else if matches!((&self.marks, &marks), (Marks::Unknown, _) | (_, Marks::Unknown)) {
            ChangeCause::Unknown
        } else if self.marks != marks {
            ChangeCause::Written
        } else {
            return Ok(None);
        };
        Ok(Some(Change { path: source.path().to_path_buf(), cause }))
    }
}

fn writable_mounts(source: &Source) -> Vec<Mount> {
    source.mounts().into_iter().filter(|mount| mount.writable).collect()
}

fn marks_of(source: &Source) -> Result<Marks, SourceError> {
    match source.identity() {
        SourceIdentity::File { .. } => {
            let metadata = source.buffered().metadata().map_err(|error| SourceError::Inspect {
                path: source.path().to_path_buf(),
                doing: "looking at it",
                error,
            })?;
            Ok(Marks::File {
                bytes: metadata.len(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            })
        }
        SourceIdentity::BlockDevice(device) => {
            let bytes = source.bytes_now()?;
            Ok(match write_counters(device) {
                Some(writes) => Marks::Device { bytes, writes },
                None => Marks::Unknown,
            })
        }
    }
}

/// Writes and discards of a device, in requests and sectors.
fn write_counters(device: DeviceNumber) -> Option<Vec<u64>> {
    parse_stat(&fs::read_to_string(format!("/sys/dev/block/{device}/stat")).ok()?)
}

/// The number that the kernel gives each disk that a device gets; partitions have that of theirs. None
/// before Linux 5.15.
fn disk_sequence(device: DeviceNumber) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(format!("/sys/dev/block/{device}/{name}")).ok();
    read("diskseq").or_else(|| read("../diskseq"))?.trim().parse().ok()
}

/// The fields of `stat` that count changes; Documentation/block/stat.rst of the kernel.
fn parse_stat(text: &str) -> Option<Vec<u64>> {
    const WRITES: [usize; 2] = [4, 6];
    const DISCARDS: [usize; 2] = [11, 13];
    let fields: Vec<u64> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let mut counters = Vec::with_capacity(4);
    for index in WRITES {
        counters.push(*fields.get(index)?);
    }
    // Kernels before 4.18 don't count discards.
    counters.extend(DISCARDS.iter().filter_map(|&index| fields.get(index)));
    Some(counters)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_is_left_alone_is_clean_and_one_written_to_is_not() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[1; 8192]).unwrap();
        let source = Source::open(file.path()).unwrap();
        let watch = ChangeWatch::begin(&source).unwrap();
        assert_eq!(watch.end(&source).unwrap(), None);

        // The clock behind a file's times ticks every few milliseconds: write until it did.
        let change = (0..1000).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            file.as_file().set_len(8192).unwrap();
            watch.end(&source).unwrap()
        });
        assert_eq!(change.unwrap().cause, ChangeCause::Written);
    }

    #[test]
    fn of_a_device_only_what_was_written_since_the_host_started_is_known_after_another_start() {
        let device = |writes, disk| Footprint([Footprint::DEVICE, writes, 8 * writes, 0, 0, disk]);
        for (before, now, same_boot, changed) in [
            (device(5, 1), device(5, 1), true, false),
            (device(5, 1), device(6, 1), true, true),
            (device(5, 1), device(5, 2), true, true),
            (device(5, 1), device(0, 7), false, false),
            (device(5, 1), device(1, 7), false, true),
            (device(0, 1), Footprint::UNKNOWN, true, true),
            (Footprint::UNKNOWN, device(0, 1), true, true),
        ] {
            assert_eq!(now.tells_change(&before, same_boot), changed, "{before:?} {now:?}");
        }
    }

    #[test]
    fn growth_is_a_change_and_shrinking_is_an_error() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[1; 8192]).unwrap();
        let source = Source::open(file.path()).unwrap();
        let watch = ChangeWatch::begin(&source).unwrap();
        file.as_file().set_len(8193).unwrap();
        assert_eq!(watch.end(&source).unwrap().unwrap().cause, ChangeCause::Written);
        file.as_file().set_len(8191).unwrap();
        let error = watch.end(&source).unwrap_err();
        assert!(matches!(error, SourceError::Shrank { expected: 8192, found: 8191, .. }));
    }

    #[test]
    fn only_counters_of_changes_are_taken_from_the_statistics() {
        let text = "  1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n";
        assert_eq!(parse_stat(text), Some(vec![5, 7, 12, 14]));
        assert_eq!(parse_stat("1 2 3 4 5 6 7 8 9 10 11"), Some(vec![5, 7]));
        assert_eq!(parse_stat("1 2 3"), None);
    }
}
