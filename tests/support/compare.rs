//! Comparing disks byte for byte, however large and sparse: ranges that are holes on both sides are
//! equal without being read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{SeekFrom, seek};

/// Read at once from each side.
const PIECE_BYTES: u64 = 1 << 20;

/// How two disks differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// One is longer.
    Length { left: u64, right: u64 },
    /// The first byte that isn't the same.
    Byte { offset: u64, left: u8, right: u8 },
}

/// Fails with the first difference, if there is one.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    if let Some(difference) = difference(left, right) {
        panic!("{} and {} differ: {difference:?}", left.display(), right.display());
    }
}

/// The first difference of two files or block devices.
#[track_caller]
pub fn difference(left: &Path, right: &Path) -> Option<Difference> {
    let open = |path: &Path| {
        File::open(path).unwrap_or_else(|error| panic!("can't open {}: {error}", path.display()))
    };
    first_difference(&open(left), &open(right))
        .unwrap_or_else(|error| panic!("{} or {}: {error}", left.display(), right.display()))
}

/// Compares only the first `bytes` bytes, for a copy on a device that is larger than its source.
#[track_caller]
pub fn assert_same_up_to(left: &Path, right: &Path, bytes: u64) {
    let open = |path: &Path| File::open(path).expect("both sides can be opened");
    let found = compare(&open(left), &open(right), bytes).expect("both sides can be read");
    if let Some(difference) = found {
        panic!("{} and {} differ: {difference:?}", left.display(), right.display());
    }
}

fn first_difference(left: &File, right: &File) -> io::Result<Option<Difference>> {
    let (left_bytes, right_bytes) = (length(left)?, length(right)?);
    if left_bytes != right_bytes {
        return Ok(Some(Difference::Length { left: left_bytes, right: right_bytes }));
    }
    compare(left, right, left_bytes)
}

fn compare(left: &File, right: &File, end: u64) -> io::Result<Option<Difference>> {
    let piece_bytes = usize::try_from(PIECE_BYTES).expect("a piece fits memory");
    let mut buffers = (vec![0; piece_bytes], vec![0; piece_bytes]);
    let mut offset = 0;
    loop {
        let Some(data) =
            data_after(left, offset)?.into_iter().chain(data_after(right, offset)?).min()
        else {
            return Ok(None);
        };
        if data >= end {
            return Ok(None);
        }
        offset = data;
        let wanted = PIECE_BYTES.min(end - offset);
        let wanted = usize::try_from(wanted).expect("a piece fits memory");
        let (a, b) = (&mut buffers.0[..wanted], &mut buffers.1[..wanted]);
        left.read_exact_at(a, offset)?;
        right.read_exact_at(b, offset)?;
        if a != b {
            let at = a.iter().zip(b.iter()).position(|(a, b)| a != b).expect("they differ");
            let offset = offset + at as u64;
            return Ok(Some(Difference::Byte { offset, left: a[at], right: b[at] }));
        }
        offset += wanted as u64;
    }
}

/// Where the next data at or after `offset` begins; none if only a hole follows.
fn data_after(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        // Where holes aren't known (some devices and file systems) everything is data.
        Err(rustix::io::Errno::INVAL) => Ok(Some(offset)),
        Err(error) => Err(error.into()),
    }
}

/// The length of a file or of a block device.
pub fn length(file: &File) -> io::Result<u64> {
    Ok(seek(file, SeekFrom::End(0))?)
}

/// The bytes that a sparse file takes on its disk.
pub fn allocated_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // st_blocks counts in 512 bytes whatever the file system's block is.
    path.metadata().expect("the file is there").blocks() * 512
}

/// The lengths of all files below a directory: what a vault in it stores.
pub fn stored_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("the directory can be read");
    entries
        .map(|entry| {
            let entry = entry.expect("its entries can be read");
            let kind = entry.file_type().expect("an entry has a type");
            if kind.is_dir() {
                stored_bytes(&entry.path())
            } else {
                entry.metadata().map_or(0, |metadata| metadata.len())
            }
        })
        .sum()
}
