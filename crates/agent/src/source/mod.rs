//! A disk to be copied: a raw image file or a block device, opened for reading.
//!
//! Owns what is asked of a disk besides its bytes: what it is, how long it is, who else uses it
//! ([`Mount`]) and whether it changed meanwhile ([`ChangeWatch`]). It reads no data; that is
//! [`crate::reader`]'s.
//!
//! A disk's size is what it was when it was opened. Growth is a change (the copy isn't clean);
//! shrinking is an error.

mod change;
mod error;
mod mount;

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_model::limits::{DISK_BYTES_MAX, TEXT_BYTES_MAX};

pub(crate) use change::Footprint;
pub use change::{Change, ChangeWatch};
pub use error::SourceError;
pub use mount::{DeviceNumber, Mount};

/// Every O_DIRECT read of ours is aligned to this, in memory and on the disk. No disk in use has
/// larger logical sectors; one that has is read through the page cache.
pub const DIRECT_ALIGN_BYTES: u32 = 4096;

/// What a source is, so that one disk under two names is known as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceIdentity {
    /// A file: its file system and its inode there.
    File {
        /// The file system's device.
        device: DeviceNumber,
        /// The inode's number.
        inode: u64,
    },
    /// A block device.
    BlockDevice(DeviceNumber),
}

/// A disk opened for reading. Cheap to share; closed when the last user drops it.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    name: String,
    bytes: u64,
    identity: SourceIdentity,
    buffered: Arc<File>,
    direct: Option<Arc<File>>,
}

impl Source {
    /// Opens the image file or block device at `path`.
    ///
    /// # Errors
    /// Whatever makes it no disk that can be read; see [`SourceError`].
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let failed = |doing| move |error| SourceError::of_opening(path.to_path_buf(), doing, error);
        // Looked at before it is opened: opening a pipe without a writer would wait for ever.
        let seen = std::fs::metadata(path).map_err(failed("looking at it"))?;
        refuse_what_is_no_disk(path, seen.file_type())?;
        let mut file = File::open(path).map_err(failed("opening it"))?;
        let opened = file.metadata().map_err(failed("looking at it"))?;
        if identity_of(&opened) != identity_of(&seen) {
            return Err(SourceError::Replaced { path: path.to_path_buf() });
        }
        // For a block device the end is its size, as BLKGETSIZE64 would say.
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed("finding its size"))?;
        if bytes == 0 {
            return Err(SourceError::Empty { path: path.to_path_buf() });
        }
        if bytes > DISK_BYTES_MAX {
            return Err(SourceError::TooLarge { path: path.to_path_buf(), bytes });
        }
        let direct = open_direct(path, &opened, &file);
        let canonical = std::fs::canonicalize(path).map_err(failed("resolving its path"))?;
        Ok(Self {
            path: path.to_path_buf(),
            name: name_of(&canonical),
            bytes,
            identity: identity_of(&opened),
            buffered: Arc::new(file),
            direct: direct.map(Arc::new),
        })
    }

    /// The path as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its canonical path, the name under which the vault knows the disk; the end of it where it
    /// is longer than [`TEXT_BYTES_MAX`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size when it was opened.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it is.
    #[must_use]
    pub const fn identity(&self) -> SourceIdentity {
        self.identity
    }

    /// Where it, a part of it, or something built on it is mounted, as far as this process's mount
    /// namespace shows. A caller warns about every one.
    #[must_use]
    pub fn mounts(&self) -> Vec<Mount> {
        mount::mounts_of(self.identity)
    }

    /// Whether a file that was opened is this disk.
    pub(crate) fn is(&self, file: &File) -> std::io::Result<bool> {
        Ok(identity_of(&file.metadata()?) == self.identity)
    }

    /// For reads through the page cache.
    pub(crate) const fn buffered(&self) -> &Arc<File> {
        &self.buffered
    }

    /// For reads past the page cache, when the file system and the device allow such.
    pub(crate) const fn direct(&self) -> Option<&Arc<File>> {
        self.direct.as_ref()
    }

    /// Where it ends now.
    pub(crate) fn bytes_now(&self) -> Result<u64, SourceError> {
        let failed = |error| SourceError::Inspect {
            path: self.path.clone(),
            doing: "finding its size",
            error,
        };
        match self.identity {
            SourceIdentity::File { .. } => Ok(self.buffered.metadata().map_err(failed)?.len()),
            SourceIdentity::BlockDevice(_) => {
                (&*self.buffered).seek(SeekFrom::End(0)).map_err(failed)
            }
        }
    }

    /// The error for an end at `found` where there should be more.
    pub(crate) fn shrank(&self, found: u64) -> SourceError {
        SourceError::Shrank { path: self.path.clone(), expected: self.bytes, found }
    }
}

fn refuse_what_is_no_disk(path: &Path, kind: FileType) -> Result<(), SourceError> {
    let what = if kind.is_file() || kind.is_block_device() {
        return Ok(());
    } else if kind.is_dir() {
        return Err(SourceError::Directory { path: path.to_path_buf() });
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_fifo() {
        "pipe"
    } else if kind.is_char_device() {
        "character device"
    } else {
        "special file"
    };
    Err(SourceError::NotADisk { path: path.to_path_buf(), what })
}

fn identity_of(metadata: &Metadata) -> SourceIdentity {
    if metadata.file_type().is_block_device() {
        SourceIdentity::BlockDevice(DeviceNumber::of_raw(metadata.rdev()))
    } else {
        let device = DeviceNumber::of_raw(metadata.dev());
        SourceIdentity::File { device, inode: metadata.ino() }
    }
}

/// A second opening of the same disk for O_DIRECT; `None` where that isn't to be had. Losing it
/// costs speed only, so no error leaves here.
fn open_direct(path: &Path, opened: &Metadata, file: &File) -> Option<File> {
    if opened.file_type().is_block_device() {
        let sector_bytes = rustix::fs::ioctl_blksszget(file).ok()?;
        if sector_bytes > DIRECT_ALIGN_BYTES {
            return None;
        }
    }
    let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let direct = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    (identity_of(&direct.metadata().ok()?) == identity_of(opened)).then_some(direct)
}

/// The last [`TEXT_BYTES_MAX`] bytes of a path: its end tells more than its beginning.
fn name_of(canonical: &Path) -> String {
    let name = canonical.to_string_lossy();
    let mut start = name.len().saturating_sub(TEXT_BYTES_MAX);
    while !name.is_char_boundary(start) {
        start += 1;
    }
    name[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn error_of(path: &Path) -> SourceError {
        Source::open(path).unwrap_err()
    }

    #[test]
    fn what_is_no_disk_is_refused_each_with_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let _socket = UnixListener::bind(at("socket")).unwrap();
        File::create(at("empty")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();

        assert!(matches!(error_of(&at("missing")), SourceError::Missing { .. }));
        assert!(matches!(error_of(dir.path()), SourceError::Directory { .. }));
        assert!(matches!(error_of(&at("empty")), SourceError::Empty { .. }));
        assert!(matches!(error_of(&at("socket")), SourceError::NotADisk { what: "socket", .. }));
        assert!(matches!(error_of(&at("pipe")), SourceError::NotADisk { what: "pipe", .. }));
        let text = error_of(Path::new("/dev/null")).to_string();
        assert_eq!(
            text,
            "/dev/null: is a character device; name a raw image file or a block device"
        );
    }

    #[test]
    fn one_disk_under_two_names_has_one_identity_and_its_canonical_name() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, b"bytes").unwrap();
        symlink(&image, dir.path().join("link")).unwrap();
        let (one, two) = (Source::open(&image), Source::open(&dir.path().join("link")));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.identity(), two.identity());
        assert_eq!(one.name(), two.name());
        assert_eq!(one.bytes(), 5);
        assert!(one.mounts().is_empty());
    }

    #[test]
    fn a_long_name_keeps_its_end_and_stays_text() {
        let long = format!("/{}é/end", "ü".repeat(TEXT_BYTES_MAX));
        let name = name_of(Path::new(&long));
        assert!(name.len() <= TEXT_BYTES_MAX && name.ends_with("é/end"));
    }
}
