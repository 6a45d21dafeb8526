//! An NBD export with a dirty bitmap, as passes read it: the ranges that the bitmap names, and their data.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_nbd::TransmissionFlags;
use tidegate_nbd::client::{Client, Wanted};
use tidegate_nbd::serve::Address;

use super::{Origin, PassError, Reading};
use crate::source::Change;

/// How long a server may take for an answer.
const LIMIT: Duration = Duration::from_secs(60);
/// What begins the name of a dirty bitmap's context.
const BITMAP: &str = "qemu:dirty-bitmap:";
/// The flag of a dirty span.
const DIRTY: u32 = 1;

/// An export with a bitmap, which somebody serves while a pass is made.
#[derive(Debug, Clone)]
pub struct ExportOrigin {
    /// The image, by which the vault knows the disk.
    pub path: PathBuf,
    /// The disk's size, as it was declared.
    pub bytes: u64,
    /// Where it is served.
    pub address: Address,
    /// The export's name.
    pub export: String,
    /// The bitmap's name.
    pub bitmap: String,
}

impl Origin for ExportOrigin {
    fn begin(&self) -> Result<Box<dyn Reading>, PassError> {
        Ok(Box::new(ExportReading { origin: self.clone(), opened: None }))
    }
}

struct ExportReading {
    origin: ExportOrigin,
    opened: Option<Dirty>,
}

impl ExportReading {
    fn opened(&mut self) -> &mut Dirty {
        self.opened.as_mut().expect("it is opened before it is read")
    }
}

impl Reading for ExportReading {
    fn open(&mut self) -> Result<(), PassError> {
        let ExportOrigin { path, bytes, address, export, bitmap } = &self.origin;
        self.opened = Some(Dirty::open(address, export, Some(bitmap), path, *bytes)?);
        Ok(())
    }

    fn next(&mut self, at: u64) -> Result<Option<Range<u64>>, PassError> {
        self.opened().next(at)
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), PassError> {
        self.opened().read(offset, into)
    }

    /// As for a snapshot: what was made before the pass is read.
    fn moment(&self) -> Option<String> {
        Some(String::new())
    }

    fn changed(&self, _frozen: &[PathBuf]) -> Result<Option<Change>, PassError> {
        // One that can be written to may have been; QEMU serves none read-only with a bitmap that grows.
        let can_move = self.opened.as_ref().is_none_or(|opened| !opened.is_read_only());
        Ok(can_move.then(|| Change::writable(&self.origin.path)))
    }
}

/// An open export, and the ranges of it that are dirty.
pub(super) struct Dirty {
    client: Client,
    /// Whether there is a bitmap; without one everything counts as dirty.
    has_bitmap: bool,
    /// What the bitmap was found to say: from here on, in order.
    known: Range<u64>,
    dirty: Vec<Range<u64>>,
}

impl Dirty {
    pub(super) fn open(
        address: &Address,
        export: &str,
        bitmap: Option<&str>,
        path: &Path,
        expected: u64,
    ) -> Result<Self, PassError> {
        let contexts = bitmap.map(|bitmap| format!("{BITMAP}{bitmap}")).into_iter().collect();
        let wanted = Wanted { export: export.to_owned(), contexts };
        let client = Client::connect(address, &wanted, LIMIT)?;
        let found = client.agreed().bytes;
        if found != expected {
            return Err(PassError::Size { path: path.to_owned(), found, expected });
        }
        Ok(Self { client, has_bitmap: bitmap.is_some(), known: 0..0, dirty: Vec::new() })
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.client.agreed().flags.has(TransmissionFlags::READ_ONLY)
    }

    pub(super) fn next(&mut self, at: u64) -> Result<Option<Range<u64>>, PassError> {
        let end = self.client.agreed().bytes;
        if !self.has_bitmap {
            return Ok((at < end).then_some(at..end));
        }
        let mut at = at;
        while at < end {
            if !self.known.contains(&at) {
                self.look(at..end)?;
            }
            if let Some(range) = self.dirty.iter().find(|range| range.end > at) {
                return Ok(Some(range.start.max(at)..range.end));
            }
            at = self.known.end;
        }
        Ok(None)
    }

    /// Asks what the bitmap says from there on.
    fn look(&mut self, range: Range<u64>) -> Result<(), PassError> {
        self.dirty.clear();
        let mut at = range.start;
        for span in self.client.status(&range, 0)? {
            if span.flags.0 & DIRTY != 0 {
                self.dirty.push(at..at + span.length);
            }
            at += span.length;
        }
        if at == range.start {
            return Err(PassError::Silent(range.start));
        }
        self.known = range.start..at;
        Ok(())
    }

    pub(super) fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), PassError> {
        Ok(self.client.read(offset, into)?)
    }
}
