//! Where recovered disks go: new files, sparse where zero, or a block device.
//!
//! Written through io_uring ([`ring`]), or with plain writes where that is forbidden.
//!
//! A file gets its name only when it is whole and durable, in a step of its own ([`Target::name`]);
//! until then it is `NAME.RANDOM.partial`, which is removed when the recovery fails or is stopped, and
//! so are directories that were made for it. What is there already is left alone unless forced; what
//! is neither a file nor a block device always is.

mod ring;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use tidegate_model::{Disk, DiskNumber, HumanBytes, Remedy};
use tidegate_vault::MadeFolders;
use tidegate_vault::restore::{Sink, Waiting, Writer};

use crate::failure::Failure;
use ring::RingWriter;

/// Of directories that are made: the usual, from which the user's mask is taken.
const DIRECTORY_MODE: u32 = 0o777;
/// Zeros written at once where a device can't be told to forget.
const ZEROS: usize = 1 << 20;

/// Where the disks of one recovery go.
pub(super) struct Target {
    disks: BTreeMap<DiskNumber, Place>,
    /// Made for them; gone with them when they don't become whole.
    _made: MadeFolders,
}

struct Place {
    /// The device, or the file as it is called when it is whole.
    path: PathBuf,
    file: File,
    /// A new file reads as zeros where nothing was written.
    starts_zero: bool,
    /// What a new file is called until then.
    partial: Option<Partial>,
}

struct Partial {
    path: PathBuf,
    /// Whether another file of the whole one's name may go.
    replaces: bool,
}

impl Target {
    /// All disks, each as `disk-N.img` in a directory, which is made if it isn't there.
    pub(super) fn directory(path: &Path, disks: &[Disk], force: bool) -> Result<Self, Failure> {
        let made = MadeFolders::make(path, DIRECTORY_MODE);
        let made = made.map_err(|error| failed("make the directory", path, &error))?;
        let file_of = |disk: &Disk| path.join(format!("disk-{}.img", disk.number));
        // Better to know before the first of many hours is spent.
        disks.iter().try_for_each(|disk| check_free(&file_of(disk), force).map(drop))?;
        let mut target = Self { disks: BTreeMap::new(), _made: made };
        for disk in disks {
            target.disks.insert(disk.number, new_file(&file_of(disk), disk.bytes, force)?);
        }
        Ok(target)
    }

    /// One disk, as a file or onto a block device.
    pub(super) fn single(path: &Path, disk: &Disk, force: bool) -> Result<Self, Failure> {
        let is_device = fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device());
        let place = if is_device {
            device(path, disk.bytes, force)?
        } else {
            new_file(path, disk.bytes, force)?
        };
        Ok(Self { disks: BTreeMap::from([(disk.number, place)]), _made: MadeFolders::default() })
    }

    /// Gives new files their names, once all disks are whole and durable.
    pub(super) fn name(&self) -> Result<(), Failure> {
        self.disks.values().try_for_each(Place::name)
    }

    /// The failure of a write to a disk, or of what ends them all when none is named.
    pub(super) fn not_written(
        &self,
        disk: Option<DiskNumber>,
        text: &str,
        cause: &io::Error,
    ) -> Failure {
        let place = disk.and_then(|disk| self.disks.get(&disk));
        let at = place.map_or_else(String::new, |place| format!("{}: ", place.path.display()));
        let (advice, _) = advice(cause);
        Failure::failed(format!("{at}{text}; {advice}"))
    }

    fn place(&self, disk: DiskNumber) -> io::Result<&Place> {
        self.disks.get(&disk).ok_or_else(|| io::Error::other("no place was made for this disk"))
    }
}

impl Sink for Target {
    fn write(&self, disk: DiskNumber, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.place(disk)?.file.write_all_at(bytes, offset)
    }

    fn zero(&self, disk: DiskNumber, offset: u64, length: u64) -> io::Result<()> {
        let place = self.place(disk)?;
        if place.starts_zero || length == 0 {
            return Ok(());
        }
        // A device may know how to zero a range without being sent the zeros.
        match fallocate(&place.file, FallocateFlags::ZERO_RANGE, offset, length) {
            Ok(()) => Ok(()),
            Err(_) => write_zeros(&place.file, offset, length),
        }
    }

    fn writer(&self, buffers: usize) -> Box<dyn Writer + '_> {
        match RingWriter::new(self, buffers) {
            Ok(writer) => Box::new(writer),
            // Forbidden in many containers. It only costs speed: nothing that a person must do.
            Err(error) => {
                tracing::info!(%error, "disks are written without io_uring: each write is waited for");
                Box::new(Waiting::new(self))
            }
        }
    }

    fn finish(&self) -> io::Result<()> {
        self.disks.values().try_for_each(|place| {
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", place.path.display()))
            };
            place.file.sync_all().map_err(named)
        })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        for partial in self.disks.values().filter_map(|place| place.partial.as_ref()) {
            // After name() there is none, and then this changes nothing.
            let _ = fs::remove_file(&partial.path);
        }
    }
}

fn write_zeros(file: &File, mut offset: u64, mut length: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS];
    while length > 0 {
        let count = usize::try_from(length).unwrap_or(ZEROS).min(ZEROS);
        file.write_all_at(&zeros[..count], offset)?;
        offset += count as u64;
        length -= count as u64;
    }
    Ok(())
}

impl Place {
    /// Gives a new file its name, and makes that durable.
    fn name(&self) -> Result<(), Failure> {
        let Some(Partial { path: partial, replaces }) = &self.partial else { return Ok(()) };
        let renamed = if *replaces {
            fs::rename(partial, &self.path)
        } else {
            // What has appeared since we looked stays.
            renameat_with(CWD, partial, CWD, &self.path, RenameFlags::NOREPLACE)
                .map_err(io::Error::from)
        };
        renamed.and_then(|()| sync_folder_of(&self.path)).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => is_there(&self.path),
            _ => failed("give its name to", &self.path, &error),
        })
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The directory that has a file's name; of a single name it is the current one.
fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn is_there(path: &Path) -> Failure {
    Failure::usage(format!("{} is there already: --force overwrites it", path.display()))
}

/// Whether a file may be made there. Gives its path without the symbolic link that it may be.
fn check_free(path: &Path, force: bool) -> Result<PathBuf, Failure> {
    let refuse = |why: &str| Err(Failure::usage(format!("{} {why}", path.display())));
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            refuse("is a directory: with --disk, name a file or a block device")
        }
        Ok(meta) if !meta.is_file() => {
            refuse("is neither a file nor a block device: name another target")
        }
        Ok(_) if !force => Err(is_there(path)),
        Ok(_) => fs::canonicalize(path).map_err(|error| failed("find", path, &error)),
        // A link that leads nowhere would be replaced by the disk.
        Err(_) if fs::symlink_metadata(path).is_ok() => {
            refuse("is a link that leads nowhere: name another target")
        }
        Err(_) => Ok(path.to_path_buf()),
    }
}

fn new_file(path: &Path, bytes: u64, force: bool) -> Result<Place, Failure> {
    let whole = check_free(path, force)?;
    let mut partial = whole.clone().into_os_string();
    partial.push(format!(".{:08x}.partial", u32::from_le_bytes(super::random()?)));
    let partial = PathBuf::from(partial);
    // New, and no link: nobody else's file is written to.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&partial)
        .map_err(|error| failed("make", &whole, &error))?;
    file.set_len(bytes).map_err(|error| {
        let _ = fs::remove_file(&partial);
        failed("size", &whole, &error)
    })?;
    let partial = Some(Partial { path: partial, replaces: force });
    Ok(Place { path: whole, file, starts_zero: true, partial })
}

fn device(path: &Path, bytes: u64, force: bool) -> Result<Place, Failure> {
    if !force {
        return Err(Failure::usage(format!(
            "{} is a block device: --force overwrites all that is on it",
            path.display()
        )));
    }
    // O_EXCL on a block device: refuse one that is mounted or otherwise in use.
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open(path).map_err(
            |error| match error.raw_os_error() {
                Some(libc::EBUSY) => {
                    Failure::usage(format!("{} is in use: unmount it first", path.display()))
                }
                _ => failed("open", path, &error),
            },
        )?;
    let there = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))
        .map_err(|error| failed("find the size of", path, &error.into()))?;
    if there < bytes {
        return Err(Failure::usage(format!(
            "{} has {}, the disk needs {}: use a larger one",
            path.display(),
            HumanBytes(there),
            HumanBytes(bytes)
        )));
    }
    Ok(Place { path: path.to_path_buf(), file, starts_zero: false, partial: None })
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    let (advice, remedy) = advice(error);
    Failure::new(format!("can't {what} {}: {error}; {advice}", path.display()), remedy)
}

/// What to do about a place that can't be written to.
fn advice(error: &io::Error) -> (&'static str, Remedy) {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ("make room there, or recover to another place", Remedy::Stop)
        }
        io::ErrorKind::FileTooLarge => {
            let advice = "its file system or a limit of this process (ulimit -f) takes no file so \
                long: raise the limit, or recover to another place";
            (advice, Remedy::Stop)
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ("name a place that this user may write to, or run as one who may", Remedy::Refuse)
        }
        io::ErrorKind::NotFound => ("make its directory first", Remedy::Refuse),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            ("a part of its path is a file: name another place", Remedy::Refuse)
        }
        _ => ("see the kernel's log (dmesg) for what is wrong with it", Remedy::Stop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_directory_to_make_durable() {
        for (path, folder) in [("disk.img", "."), ("a/disk.img", "a"), ("/disk.img", "/")] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder), "{path}");
            assert!(folder == "a" || sync_folder_of(Path::new(path)).is_ok(), "{path}");
        }
    }
}
