//! The disk behind a tap: an image file or a block device that is written.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use tidegate_model::Micros;
use tidegate_nbd::{Span, StatusFlags};

use super::TapError;
use crate::source::{Footprint, Source, SourceError, SourceIdentity};

/// Bytes of zeros that are written at once where the disk can't do without.
const ZEROS_BYTES: usize = 1 << 20;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// Most spans that are looked for at once.
const SPANS_MAX: usize = 1024;

/// Whether a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    Changed,
    /// The disk is as it was.
    Unchanged,
}

/// A disk that this process has for itself, as far as others keep to locks.
#[derive(Debug)]
pub(super) struct Backing {
    path: PathBuf,
    name: String,
    bytes: u64,
    identity: SourceIdentity,
    is_device: bool,
    file: File,
}

impl Backing {
    pub(super) fn open(path: &Path) -> Result<Self, TapError> {
        let source = Source::open(path)?;
        let is_device = matches!(source.identity(), SourceIdentity::BlockDevice(_));
        let mut how = OpenOptions::new();
        how.read(true).write(true);
        if is_device {
            // The kernel refuses it where a file system or another device is built on it.
            how.custom_flags(OFlags::EXCL.bits().cast_signed());
        }
        let failed = |error| TapError::Open { path: path.to_owned(), error };
        let file = how.open(path).map_err(failed)?;
        if !source.is(&file).map_err(failed)? {
            return Err(SourceError::Replaced { path: path.to_owned() }.into());
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(TapError::InUse { path: path.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let (name, bytes) = (source.name().to_owned(), source.bytes());
        let identity = source.identity();
        Ok(Self { path: path.to_owned(), name, bytes, identity, is_device, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Makes a range read as zeros; without a hole in it where it shall take up room.
    pub(super) fn zero(&self, range: &Range<u64>, allocate: bool) -> io::Result<()> {
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        if !allocate && self.allocate(range, HOLE)? || self.allocate(range, zero)? {
            return Ok(());
        }
        let mut offset = range.start;
        while offset < range.end {
            let count = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(ZEROS_BYTES);
            self.write(offset, &ZEROS[..count])?;
            offset += count as u64;
        }
        Ok(())
    }

    /// Forgets a range, so that it reads as zeros; where the disk can't, nothing is changed.
    pub(super) fn trim(&self, range: &Range<u64>) -> io::Result<Applied> {
        Ok(if self.allocate(range, HOLE)? { Applied::Changed } else { Applied::Unchanged })
    }

    /// Whether the disk could do so.
    fn allocate(&self, range: &Range<u64>, how: FallocateFlags) -> io::Result<bool> {
        match fallocate(&self.file, how, range.start, range.end - range.start) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            // A device takes whole sectors only.
            Err(Errno::INVAL) if self.is_device => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes everything that was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// What shows later whether somebody wrote to it; everything must be durable.
    pub(super) fn footprint(&self) -> io::Result<Footprint> {
        Footprint::of(self.identity, &self.file)
    }

    /// Whether it was written to after `time`, by the host's clock; of devices that can't be told.
    pub(super) fn is_written_after(&self, time: Micros) -> io::Result<bool> {
        if self.is_device {
            return Ok(false);
        }
        let written = self.file.metadata()?.modified()?.duration_since(UNIX_EPOCH);
        Ok(written.is_ok_and(|since| since.as_micros() > u128::from(time.0)))
    }

    /// What a range holds, as far as the file system knows; perhaps not to its end.
    pub(super) fn spans(&self, range: &Range<u64>) -> Vec<Span> {
        let data = |length| Span { length, flags: StatusFlags::NONE };
        if self.is_device {
            return vec![data(range.end - range.start)];
        }
        let mut spans = Vec::new();
        let mut at = range.start;
        while at < range.end && spans.len() < SPANS_MAX {
            // There is a hole at the end of every file, and perhaps no data before it.
            let next_data = match seek(&self.file, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => range.end,
                // A file system that doesn't tell has data only.
                found => found.unwrap_or(at).min(range.end),
            };
            if next_data > at {
                let flags = StatusFlags::HOLE.with(StatusFlags::ZERO);
                spans.push(Span { length: next_data - at, flags });
            }
            let hole = seek(&self.file, SeekFrom::Hole(next_data)).unwrap_or(range.end);
            let hole = hole.clamp(next_data, range.end);
            if hole > next_data {
                spans.push(data(hole - next_data));
            } else if next_data == at {
                // Changed meanwhile by another command: what follows is asked for again.
                break;
            }
            at = hole;
        }
        spans
    }
}

const HOLE: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
