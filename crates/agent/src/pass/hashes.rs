//! The hashes of a disk's blocks, as they are in the journal or the vault: a file with one BLAKE3 hash
//! for each. docs/formats/hashes.md.
//!
//! Invariant: a hash that stands there is that of the block's last record, which is durable. One that is
//! all zeros says nothing of its block. Stores are made by system calls, so they outlive the process in
//! their order; after a crash of the host the journal begins anew, and the hashes with it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tidegate_model::{Checksum, DiskNumber, Incarnation};

use super::PassError;

/// Bytes of a block: the vault's, unless it says otherwise, so that a change of it is a whole one there.
pub(super) const BLOCK_BYTES: u64 = tidegate_model::limits::BLOCK_BYTES_DEFAULT as u64;
/// The same, as memory counts.
pub(super) const BLOCK: usize = tidegate_model::limits::BLOCK_BYTES_DEFAULT as usize;
/// Bytes of a hash: 2,048 times less than its block's.
pub(super) const HASH_BYTES: usize = 32;

/// A block's hash.
pub(super) type Hash = [u8; HASH_BYTES];
/// Nothing is known of the block.
pub(super) const UNKNOWN: Hash = [0; HASH_BYTES];

const MAGIC: [u8; 8] = *b"TGHASHES";
const VERSION: u32 = 1;
/// Bytes before the first hash: a page, so that none lies across two.
const HEADER_BYTES: u64 = 4096;
/// Bytes of what the header says, and of their check.
const FIXED_BYTES: usize = 48;

/// What a file of hashes is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject {
    pub incarnation: Incarnation,
    pub disk: DiskNumber,
    /// The disk's size.
    pub bytes: u64,
    /// Of the disk's name.
    pub name: Checksum,
}

impl Subject {
    fn header(&self) -> [u8; FIXED_BYTES + 8] {
        let mut header = [0; FIXED_BYTES + 8];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12] = self.disk.get();
        header[16..32].copy_from_slice(self.incarnation.as_bytes());
        header[32..40].copy_from_slice(&self.bytes.to_le_bytes());
        header[40..48].copy_from_slice(&self.name.0.to_le_bytes());
        let check = Checksum::of(&header[..FIXED_BYTES]);
        header[FIXED_BYTES..].copy_from_slice(&check.0.to_le_bytes());
        header
    }

    const fn file_bytes(&self) -> u64 {
        HEADER_BYTES + self.bytes.div_ceil(BLOCK_BYTES) * HASH_BYTES as u64
    }
}

/// The hashes of one disk.
#[derive(Debug)]
pub(super) struct Hashes {
    path: PathBuf,
    file: File,
}

impl Hashes {
    /// Those in `path`, if they are this subject's. Otherwise nothing is known of any block: that costs
    /// a capture of all of the disk, and no more.
    pub(super) fn open(path: &Path, subject: Subject) -> Result<Self, PassError> {
        let failed = |doing| move |error| unusable(path, doing, error);
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("opened")(error));
            }
            Ok(file) if is_of(&file, &subject).map_err(failed("read"))? => {
                return Ok(Self { path: path.to_owned(), file });
            }
            Ok(_) => tracing::warn!(
                path = %path.display(), disk = %subject.disk,
                "the hashes aren't of this journal and this disk: it is captured as a whole"
            ),
            Err(_) => {}
        }
        let file = create(path, &subject).map_err(failed("made"))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// The hashes of as many blocks as there is room for, from this one on.
    pub(super) fn read(&self, block: u64, hashes: &mut [Hash]) -> Result<(), PassError> {
        let read = self.file.read_exact_at(hashes.as_flattened_mut(), place(block));
        read.map_err(|error| unusable(&self.path, "read", error))
    }

    /// Forgets what is known of some blocks: before a record of theirs is appended.
    pub(super) fn forget(&self, block: u64, count: usize) -> Result<(), PassError> {
        self.write(block, &vec![UNKNOWN; count])
    }

    /// Notes the hashes of blocks whose records are durable.
    pub(super) fn note(&self, block: u64, hashes: &[Hash]) -> Result<(), PassError> {
        self.write(block, hashes)
    }

    /// Makes them outlive the host.
    pub(super) fn sync(&self) -> Result<(), PassError> {
        self.file.sync_data().map_err(|error| unusable(&self.path, "made durable", error))
    }

    fn write(&self, block: u64, hashes: &[Hash]) -> Result<(), PassError> {
        let written = self.file.write_all_at(hashes.as_flattened(), place(block));
        written.map_err(|error| unusable(&self.path, "written", error))
    }
}

fn is_of(file: &File, subject: &Subject) -> io::Result<bool> {
    let mut header = [0; FIXED_BYTES + 8];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    Ok(header == subject.header() && file.metadata()?.len() == subject.file_bytes())
}

/// A file without hashes, in the place of what may be there.
fn create(path: &Path, subject: &Subject) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let mut how = OpenOptions::new();
    how.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = how.open(&name)?;
    file.write_all_at(&subject.header(), 0)?;
    file.set_len(subject.file_bytes())?;
    std::fs::rename(&name, path)?;
    Ok(file)
}

const fn place(block: u64) -> u64 {
    HEADER_BYTES + block * HASH_BYTES as u64
}

fn unusable(path: &Path, doing: &'static str, error: io::Error) -> PassError {
    PassError::Hashes { path: path.to_owned(), doing, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        let incarnation = Incarnation::from_bytes([3; 16]);
        let disk = DiskNumber::try_from(1).unwrap();
        Subject { incarnation, disk, bytes: 5 * BLOCK_BYTES - 1, name: Checksum(7) }
    }

    fn all(hashes: &Hashes) -> [Hash; 5] {
        let mut read = [UNKNOWN; 5];
        hashes.read(0, &mut read).unwrap();
        read
    }

    #[test]
    fn what_was_noted_is_there_again_and_what_was_forgotten_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hashes");
        let hashes = Hashes::open(&path, subject()).unwrap();
        assert_eq!(all(&hashes), [UNKNOWN; 5]);
        hashes.note(1, &[[1; 32], [2; 32], [3; 32], [4; 32]]).unwrap();
        hashes.forget(2, 2).unwrap();
        drop(hashes);
        let hashes = Hashes::open(&path, subject()).unwrap();
        assert_eq!(all(&hashes), [UNKNOWN, [1; 32], UNKNOWN, UNKNOWN, [4; 32]]);
    }

    #[test]
    fn what_is_of_another_or_torn_says_nothing_of_any_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hashes");
        let others = [
            Subject { incarnation: Incarnation::from_bytes([4; 16]), ..subject() },
            Subject { disk: DiskNumber::try_from(2).unwrap(), ..subject() },
            Subject { bytes: 5 * BLOCK_BYTES, ..subject() },
            Subject { name: Checksum(8), ..subject() },
        ];
        for other in others {
            Hashes::open(&path, subject()).unwrap().note(0, &[[1; 32]; 5]).unwrap();
            assert_eq!(all(&Hashes::open(&path, other).unwrap()), [UNKNOWN; 5], "{other:?}");
            std::fs::remove_file(&path).unwrap();
        }
        let whole = subject().file_bytes();
        for bytes in [0, 8, 55, 4096, whole - 1, whole + 1] {
            Hashes::open(&path, subject()).unwrap().note(0, &[[1; 32]; 5]).unwrap();
            OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes).unwrap();
            assert_eq!(all(&Hashes::open(&path, subject()).unwrap()), [UNKNOWN; 5], "{bytes}");
            std::fs::remove_file(&path).unwrap();
        }
    }
}
