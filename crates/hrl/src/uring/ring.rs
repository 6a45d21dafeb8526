//! One batch of writes through io_uring.
//!
//! Each file has a chain: its writes, then an fdatasync, each begun when the one before it succeeded.
//! Chains of different files run beside each other. All of them go to the kernel in one submission, or
//! in several where there are more than the ring has room for.
//!
//! A write that was cut short breaks its chain. Then the file is written again the plain way, which
//! changes nothing where the bytes are there already and gives the reason where they can't be. The same
//! where there was no room and some could be had. An fdatasync alone is never tried again: the kernel may
//! have dropped what it couldn't write.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};

use super::DiskFile;
use super::aside::{Aside, is_no_room};
use super::error::UringError;
use crate::storage::Write;

/// Entries of the ring: every disk of a machine, the order file, and an fdatasync for each fit at
/// once.
const DEPTH: u32 = 256;
/// Most writes of one chain; more of one file are several chains.
const CHAIN_WRITES_MAX: usize = 64;

/// A ring for batches.
pub(super) struct Ring(IoUring);

/// One file's writes that are submitted as one.
struct Chain<'a> {
    file: &'a File,
    parts: &'a [(u64, Vec<u8>)],
    outcome: Outcome,
}

/// What became of a chain, worse ones last.
#[derive(Debug, Default)]
enum Outcome {
    #[default]
    Durable,
    /// A write was cut short or put off.
    Again,
    Failed(io::Error),
}

impl Ring {
    pub(super) fn new() -> Result<Self, UringError> {
        IoUring::new(DEPTH).map(Self).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => UringError::Forbidden { error },
            _ => UringError::Ring { error },
        })
    }

    /// Writes everything, and returns when it is durable. What finds no room takes what is set aside.
    pub(super) fn write(&mut self, writes: Vec<Write<DiskFile>>, aside: &Aside) -> io::Result<()> {
        // What the kernel may still read must outlive even a failure to wait for it.
        let writes = ManuallyDrop::new(writes);
        let mut chains: Vec<Chain<'_>> = writes.iter().flat_map(chains_of).collect();
        let mut first = 0;
        while first < chains.len() {
            let mut entries = 0;
            let fits = chains[first..].iter().take_while(|chain| {
                entries += chain.parts.len() + 1;
                entries <= DEPTH as usize
            });
            let end = first + fits.count();
            self.submit(&mut chains[first..end])?;
            first = end;
        }
        let result = chains.into_iter().try_for_each(|chain| chain.conclude(aside));
        drop(ManuallyDrop::into_inner(writes));
        result
    }

    /// Submits the chains and waits for all of them. An error means that the kernel can't be asked; it
    /// may still be reading.
    fn submit(&mut self, chains: &mut [Chain<'_>]) -> io::Result<()> {
        let mut in_flight = 0_usize;
        for (index, chain) in chains.iter().enumerate() {
            for entry in chain.entries(index) {
                // SAFETY: the entry names bytes and a file of the caller's `writes`, which are freed
                // only after every completion has arrived, and are leaked if that can't be known.
                let pushed = unsafe { self.0.submission().push(&entry) };
                assert!(pushed.is_ok(), "the chains were chosen to fit the ring");
                in_flight += 1;
            }
        }
        let all = in_flight;
        while in_flight > 0 {
            match self.0.submit_and_wait(1) {
                // Links end with a submission: what was taken in parts may have been synced too early.
                Ok(taken) if taken > 0 && taken < all => {
                    chains.iter_mut().for_each(|chain| chain.worsen(Outcome::Again));
                }
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
                    ) => {}
                Err(error) => return Err(error),
            }
            for completed in self.0.completion() {
                in_flight -= 1;
                let (index, part) = place(completed.user_data());
                if let Some(chain) = chains.get_mut(index) {
                    chain.completed(part, completed.result());
                }
            }
        }
        Ok(())
    }
}

fn chains_of(write: &Write<DiskFile>) -> impl Iterator<Item = Chain<'_>> {
    let file = &*write.file.0;
    // A file without writes is synced all the same.
    let chunks = write.parts.len().div_ceil(CHAIN_WRITES_MAX).max(1);
    (0..chunks).map(move |chunk| {
        let rest = &write.parts[chunk * CHAIN_WRITES_MAX..];
        let parts = &rest[..rest.len().min(CHAIN_WRITES_MAX)];
        Chain { file, parts, outcome: Outcome::Durable }
    })
}

/// Which part of which chain a completion is of; the part behind the last is the fdatasync.
const fn tag(chain: usize, part: usize) -> u64 {
    (chain as u64) << 32 | part as u64
}

const fn place(tag: u64) -> (usize, usize) {
    ((tag >> 32) as usize, (tag & 0xffff_ffff) as usize)
}

impl Chain<'_> {
    fn entries(&self, index: usize) -> impl Iterator<Item = Entry> {
        let file = types::Fd(self.file.as_raw_fd());
        let writes = self.parts.iter().enumerate().map(move |(part, (offset, bytes))| {
            // What is longer than a write may be comes back short, and is written again.
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let entry = opcode::Write::new(file, bytes.as_ptr(), length).offset(*offset).build();
            entry.flags(Flags::IO_LINK).user_data(tag(index, part))
        });
        let sync = opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build();
        writes.chain([sync.user_data(tag(index, self.parts.len()))])
    }

    fn completed(&mut self, part: usize, result: i32) {
        let bytes = self.parts.get(part).map_or(0, |(_, bytes)| bytes.len());
        let outcome = match (u32::try_from(result), -result) {
            (Ok(written), _) if written as usize == bytes => Outcome::Durable,
            (Ok(_), _) | (_, libc::ECANCELED | libc::EINTR | libc::EAGAIN) => Outcome::Again,
            (Err(_), errno) => Outcome::Failed(io::Error::from_raw_os_error(errno)),
        };
        self.worsen(outcome);
    }

    fn worsen(&mut self, outcome: Outcome) {
        match (&self.outcome, &outcome) {
            (Outcome::Failed(_), _) | (Outcome::Again, Outcome::Durable) => {}
            _ => self.outcome = outcome,
        }
    }

    fn conclude(mut self, aside: &Aside) -> io::Result<()> {
        match std::mem::take(&mut self.outcome) {
            Outcome::Durable => Ok(()),
            Outcome::Failed(error) if is_no_room(&error) => {
                // Another chain may have taken it already.
                aside.take();
                self.write_again()
            }
            Outcome::Failed(error) => Err(error),
            Outcome::Again => aside.or_taken(|| self.write_again()),
        }
    }

    fn write_again(&self) -> io::Result<()> {
        let mut parts = self.parts.iter();
        parts.try_for_each(|(offset, bytes)| self.file.write_all_at(bytes, *offset))?;
        self.file.sync_data()
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::path::Path;

    use super::*;

    fn file(path: &Path) -> DiskFile {
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(true).truncate(false).open(path).unwrap().into()
    }

    #[test]
    fn more_writes_than_the_ring_has_room_for_are_all_done() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ring, none) = (Ring::new().unwrap(), Aside::in_directory(folder.path()));
        let paths: Vec<_> = (0..200).map(|n| folder.path().join(n.to_string())).collect();
        let parts = |n: u8| (0..150_u8).map(|p| (u64::from(p) * 100, vec![n ^ p; 100])).collect();
        let writes =
            paths.iter().zip(0..).map(|(path, n)| Write { file: file(path), parts: parts(n) });
        ring.write(writes.collect(), &none).unwrap();
        for (path, n) in paths.iter().zip(0..) {
            let expected: Vec<u8> = parts(n).into_iter().flat_map(|(_, bytes)| bytes).collect();
            assert!(std::fs::read(path).unwrap() == expected, "file {n}");
        }
        // A file without writes is made durable, and nothing else.
        let parts = Vec::new();
        ring.write(vec![Write { file: file(&paths[0]), parts }], &none).unwrap();
        ring.write(Vec::new(), &none).unwrap();
    }

    #[test]
    fn a_write_that_can_not_be_done_is_told_with_its_reason_and_the_ring_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ring, none) = (Ring::new().unwrap(), Aside::in_directory(folder.path()));
        let full: DiskFile = OpenOptions::new().write(true).open("/dev/full").unwrap().into();
        let good = folder.path().join("good");
        let writes = |bytes: &[u8]| {
            let parts = vec![(0, bytes.to_vec())];
            vec![
                Write { file: full.clone(), parts: parts.clone() },
                Write { file: file(&good), parts },
            ]
        };
        let error = ring.write(writes(b"one"), &none).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
        ring.write(writes(b"two").split_off(1), &none).unwrap();
        assert_eq!(std::fs::read(&good).unwrap(), b"two");
    }

    #[test]
    fn a_chain_is_no_better_than_its_worst_part() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder.path().join("file"));
        let write = Write { file, parts: vec![(0, vec![1; 100]), (100, vec![2; 100])] };
        let chain = |results: &[i32]| {
            let mut chain = chains_of(&write).next().unwrap();
            for (part, result) in results.iter().enumerate() {
                chain.completed(part, *result);
            }
            chain.outcome
        };
        assert!(matches!(chain(&[100, 100, 0]), Outcome::Durable));
        assert!(matches!(chain(&[100, 99, -libc::ECANCELED]), Outcome::Again));
        assert!(matches!(chain(&[-libc::EIO, -libc::ECANCELED]), Outcome::Failed(_)));
        assert!(matches!(chain(&[100, 100, -libc::EIO]), Outcome::Failed(_)));
        // What was cut short is written once more.
        let mut again = chains_of(&write).next().unwrap();
        again.worsen(Outcome::Again);
        again.conclude(&Aside::in_directory(folder.path())).unwrap();
        let mut bytes = [0; 200];
        std::os::unix::fs::FileExt::read_exact_at(&*write.file.0, &mut bytes, 0).unwrap();
        assert_eq!(bytes, *[[1; 100], [2; 100]].as_flattened());
    }
}
