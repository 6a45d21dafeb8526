//! An image file, a block device, or a snapshot of one, as passes read it.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use super::{Origin, PassError, Reading};
use crate::source::{Change, ChangeWatch, DIRECT_ALIGN_BYTES, Source, SourceError, SourceIdentity};

/// Where a disk lies that is compared as a whole.
#[derive(Debug, Clone)]
pub struct FileOrigin {
    /// The disk.
    pub path: PathBuf,
    /// Its size, as it was declared.
    pub bytes: u64,
    /// What is read in its place: a snapshot of it, which is there while a pass is made.
    pub snapshot: Option<PathBuf>,
}

impl Origin for FileOrigin {
    fn begin(&self) -> Result<Box<dyn Reading>, PassError> {
        let opened = match self.snapshot {
            Some(_) => None,
            None => Some(Opened::open(&self.path, self.bytes)?),
        };
        Ok(Box::new(FileReading { origin: self.clone(), opened }))
    }
}

/// What is read, under watch.
struct Opened {
    source: Source,
    watch: ChangeWatch,
}

impl Opened {
    fn open(path: &Path, expected: u64) -> Result<Self, PassError> {
        let source = Source::open(path)?;
        let found = source.bytes();
        if found != expected {
            return Err(PassError::Size { path: path.to_owned(), found, expected });
        }
        let watch = ChangeWatch::begin(&source)?;
        Ok(Self { source, watch })
    }
}

struct FileReading {
    origin: FileOrigin,
    /// A snapshot isn't there before it is made.
    opened: Option<Opened>,
}

impl FileReading {
    fn opened(&self) -> &Opened {
        self.opened.as_ref().expect("it is opened before it is read")
    }
}

impl Reading for FileReading {
    fn open(&mut self) -> Result<(), PassError> {
        if let Some(snapshot) = &self.origin.snapshot {
            self.opened = Some(Opened::open(snapshot, self.origin.bytes)?);
        }
        Ok(())
    }

    fn next(&mut self, at: u64) -> Result<Option<Range<u64>>, PassError> {
        Ok((at < self.origin.bytes).then_some(at..self.origin.bytes))
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), PassError> {
        let source = &self.opened().source;
        let aligned = (into.len() as u64).is_multiple_of(u64::from(DIRECT_ALIGN_BYTES));
        let read = match source.direct() {
            // What is written to a device by a file system isn't seen through the device's own pages.
            Some(direct) if aligned && is_device(source) => direct.read_exact_at(into, offset),
            _ => {
                forget_cached(source, offset, into.len());
                source.buffered().read_exact_at(into, offset)
            }
        };
        read.map_err(|error| {
            let path = source.path().to_owned();
            SourceError::Read { path, offset, error }.into()
        })
    }

    /// Snapshots are made by one program, together.
    fn moment(&self) -> Option<String> {
        self.origin.snapshot.as_ref().map(|_| String::new())
    }

    fn changed(&self, frozen: &[PathBuf]) -> Result<Option<Change>, PassError> {
        let Opened { source, watch } = self.opened();
        Ok(watch.end_frozen(source, frozen)?)
    }
}

fn is_device(source: &Source) -> bool {
    matches!(source.identity(), SourceIdentity::BlockDevice(_))
}

/// Lets a device be read anew where it can't be read past its pages.
fn forget_cached(source: &Source, offset: u64, bytes: usize) {
    if is_device(source) {
        let bytes = std::num::NonZeroU64::new(bytes as u64);
        // Where it can't be told so, what is read may be older than what others wrote.
        if let Err(error) = fadvise(source.buffered(), offset, bytes, Advice::DontNeed) {
            tracing::debug!(path = %source.path().display(), %error, "pages weren't given up");
        }
    }
}
