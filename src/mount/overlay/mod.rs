//! The overlay of a mounted point: a sparse file that takes what is written over its disks.
//!
//! Owns the file, its maps and their order on it. Doesn't own what lies beneath: whoever writes a part
//! of a block brings what the rest of it holds.
//!
//! Invariants: a block that the map has lies in the file whole; the map is stored only after what it
//! tells of is durable, and bits of it are only ever set. So after a crash, of the process or of the
//! host, all that was flushed is there, and of what wasn't each block is as it was or as it was
//! written. A file belongs to one point of one vault, with the disks for which it was made, and to
//! one process at a time.
//!
//! Memory: a page for each 128 MiB of disk in which something was written, twice while it is stored.

mod error;
mod header;
mod map;
mod ranges;

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, FallocateFlags, RenameFlags, SeekFrom, fallocate, renameat_with, seek};

pub(crate) use error::OverlayError;
pub(crate) use header::Beneath;

use header::{BLOCK_BYTES, PAGE_BYTES, Place};
use map::{BlockMap, Page};
use ranges::Ranges;

/// Zeros written at once where the file system knows no other way.
const ZEROS: usize = 64 << 10;

/// Gives what lies beneath from an offset on.
pub(crate) type Below<'b> = &'b dyn Fn(u64, &mut [u8]) -> io::Result<()>;

/// What was written over the disks of a point.
pub(crate) struct Overlay {
    file: File,
    disks: Vec<OverlayDisk>,
    /// One flush at a time; whether one has failed.
    flushing: Mutex<()>,
    has_failed: AtomicBool,
}

struct OverlayDisk {
    place: Place,
    map: Mutex<BlockMap>,
    changing: Ranges,
}

impl Overlay {
    /// The overlay in this file, which is made if it isn't there.
    ///
    /// # Errors
    /// [`OverlayError`] when the file is something else, belongs to another point, or is in use.
    pub(crate) fn open(path: &Path, beneath: &Beneath) -> Result<Self, OverlayError> {
        let failed = |what, cause| OverlayError::File { path: path.to_owned(), what, cause };
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, beneath)?,
            Err(cause) => return Err(failed("opened", cause)),
        };
        lock(&file, path)?;
        let mut page = [0; PAGE_BYTES];
        let header = file.read_exact_at(&mut page, 0).map(|()| Beneath::decode(&page));
        let found = match header {
            Ok(Ok(found)) => found,
            Ok(Err(cause)) => return Err(OverlayError::Header { path: path.to_owned(), cause }),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let cause = header::HeaderError::Magic;
                return Err(OverlayError::Header { path: path.to_owned(), cause });
            }
            Err(cause) => return Err(failed("read", cause)),
        };
        if found != *beneath {
            return Err(OverlayError::other(path, found, beneath));
        }
        Self::load(file, beneath).map_err(|cause| failed("read", cause))
    }

    fn load(file: File, beneath: &Beneath) -> io::Result<Self> {
        let (places, length) = beneath.layout();
        if file.metadata()?.len() < length {
            return Err(io::Error::other("it was cut short; bring it back, or name another file"));
        }
        let disks = places.into_iter().map(|place| {
            let map = Mutex::new(load_map(&file, place)?);
            Ok(OverlayDisk { place, map, changing: Ranges::default() })
        });
        let disks = disks.collect::<io::Result<_>>()?;
        Ok(Self { file, disks, flushing: Mutex::new(()), has_failed: AtomicBool::new(false) })
    }

    /// Bytes of disk that the overlay has.
    pub(crate) fn bytes(&self) -> u64 {
        self.disks.iter().map(|disk| disk.map().count() * BLOCK_BYTES).sum()
    }

    /// The first part of a range of a disk of which the same holds: where it ends, and whether the
    /// overlay has it. The range isn't empty.
    pub(crate) fn run(&self, disk: usize, range: Range<u64>) -> (u64, bool) {
        let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        let (end, has) = self.disks[disk].map().run(blocks);
        ((end * BLOCK_BYTES).min(range.end), has)
    }

    /// The same of what the overlay has: where it ends, and whether it is a hole.
    pub(crate) fn stretch(&self, disk: usize, range: Range<u64>) -> io::Result<(u64, bool)> {
        let begin = self.disks[disk].place.data_at;
        let find = |from| match seek(&self.file, from) {
            Ok(at) => Ok((at - begin).min(range.end)),
            Err(rustix::io::Errno::NXIO) => Ok(range.end),
            Err(error) => Err(error),
        };
        let data = find(SeekFrom::Data(begin + range.start))?;
        if data > range.start {
            return Ok((data, true));
        }
        Ok((find(SeekFrom::Hole(begin + range.start))?, false))
    }

    /// Reads what the overlay has.
    pub(crate) fn read(&self, disk: usize, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, self.disks[disk].place.data_at + offset)
    }

    /// Writes; of blocks that become the overlay's only in part, `below` gives the rest.
    pub(crate) fn write(
        &self,
        disk: usize,
        offset: u64,
        data: &[u8],
        below: Below<'_>,
    ) -> io::Result<()> {
        let range = offset..offset + data.len() as u64;
        self.change(disk, range, below, |at| self.file.write_all_at(data, at))
    }

    /// Makes a range zero, with room for it in the file if it `takes_room`; the rest as in
    /// [`Self::write`].
    pub(crate) fn zero(
        &self,
        disk: usize,
        range: Range<u64>,
        takes_room: bool,
        below: Below<'_>,
    ) -> io::Result<()> {
        let length = range.end - range.start;
        self.change(disk, range, below, |at| self.clear(at, length, takes_room))
    }

    fn change(
        &self,
        disk: usize,
        range: Range<u64>,
        below: Below<'_>,
        change: impl FnOnce(u64) -> io::Result<()>,
    ) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let disk = &self.disks[disk];
        let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        let _taken = disk.changing.take(blocks.clone());
        let (first, last) = (blocks.start, blocks.end - 1);
        if !disk.map().has(first) {
            self.bring_up(disk.place, first * BLOCK_BYTES..range.start, below)?;
        }
        if !disk.map().has(last) {
            let end = (blocks.end * BLOCK_BYTES).min(disk.place.bytes);
            self.bring_up(disk.place, range.end..end, below)?;
        }
        change(disk.place.data_at + range.start)?;
        disk.map().set(blocks);
        Ok(())
    }

    /// Copies a part of a block from beneath.
    fn bring_up(&self, place: Place, range: Range<u64>, below: Below<'_>) -> io::Result<()> {
        let mut block = [0; PAGE_BYTES];
        let Some(part) = usize::try_from(range.end.saturating_sub(range.start))
            .ok()
            .filter(|length| *length > 0)
            .and_then(|length| block.get_mut(..length))
        else {
            return Ok(());
        };
        below(range.start, part)?;
        self.file.write_all_at(part, place.data_at + range.start)
    }

    fn clear(&self, at: u64, length: u64, takes_room: bool) -> io::Result<()> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let flags = if takes_room { FallocateFlags::ZERO_RANGE } else { hole };
        match fallocate(&self.file, flags, at, length) {
            Err(rustix::io::Errno::OPNOTSUPP) => {}
            done => return Ok(done?),
        }
        let zeros = [0; ZEROS];
        let (mut at, end) = (at, at + length);
        while at < end {
            let count = usize::try_from(end - at).unwrap_or(ZEROS).min(ZEROS);
            self.file.write_all_at(&zeros[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }

    /// Makes durable all that was written before, whoever wrote it.
    ///
    /// # Errors
    /// What the file system reports; then, and whenever it is called again, for the system forgets
    /// what it couldn't write.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let _turn = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_failed.load(Ordering::SeqCst) {
            return Err(io::Error::other("what was written before couldn't be made durable"));
        }
        let pages: Vec<_> = self.disks.iter().map(|disk| disk.map().take_dirty()).collect();
        let stored = self.store(&pages);
        self.has_failed.store(stored.is_err(), Ordering::SeqCst);
        stored
    }

    fn store(&self, pages: &[Vec<(u64, Box<Page>)>]) -> io::Result<()> {
        self.file.sync_data()?;
        if pages.iter().all(Vec::is_empty) {
            return Ok(());
        }
        for (disk, pages) in self.disks.iter().zip(pages) {
            for (number, page) in pages {
                let at = disk.place.map_at + number * PAGE_BYTES as u64;
                self.file.write_all_at(&page[..], at)?;
            }
        }
        self.file.sync_data()
    }
}

impl OverlayDisk {
    fn map(&self) -> MutexGuard<'_, BlockMap> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a map; of a part that was never stored there is only a hole.
fn load_map(file: &File, place: Place) -> io::Result<BlockMap> {
    let mut map = BlockMap::default();
    let (mut number, mut page) = (0, [0; PAGE_BYTES]);
    while number < place.pages() {
        let at = match seek(file, SeekFrom::Data(place.map_at + number * PAGE_BYTES as u64)) {
            Ok(at) => at,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        number = (at - place.map_at) / PAGE_BYTES as u64;
        if number < place.pages() {
            file.read_exact_at(&mut page, place.map_at + number * PAGE_BYTES as u64)?;
            map.load(number, &page);
        }
        number += 1;
    }
    Ok(map)
}

fn lock(file: &File, path: &Path) -> Result<(), OverlayError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OverlayError::InUse { path: path.to_owned() },
        TryLockError::Error(cause) => {
            OverlayError::File { path: path.to_owned(), what: "locked", cause }
        }
    })
}

/// Makes an overlay that has nothing yet; it gets its name when it is whole and durable.
fn create(path: &Path, beneath: &Beneath) -> Result<File, OverlayError> {
    let failed = |cause| OverlayError::File { path: path.to_owned(), what: "made", cause };
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).open(&partial)
    };
    let file = open().map_err(failed)?;
    let made = fill(&file, beneath).and_then(|()| {
        // What has appeared since we looked stays.
        renameat_with(CWD, &partial, CWD, path, RenameFlags::NOREPLACE)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    });
    made.map_err(|cause| {
        // After its new name there is none, and then this changes nothing.
        let _ = std::fs::remove_file(&partial);
        failed(cause)
    })?;
    Ok(file)
}

fn fill(file: &File, beneath: &Beneath) -> io::Result<()> {
    file.write_all_at(&beneath.encode(), 0)?;
    file.set_len(beneath.layout().1)?;
    file.sync_all()
}
