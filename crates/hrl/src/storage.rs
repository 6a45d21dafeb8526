//! The edge of the journal: what it needs of a file system, as traits, so that tests can put in its
//! place one that crashes. The real one is [`crate::uring`].

use std::io;

/// A file that can be read at any place, by several at once.
pub trait ReadAt {
    /// Reads some bytes from `offset` on; 0 at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// How many bytes the file has.
    ///
    /// # Errors
    /// What the system says.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills as much of `into` as the file has from `offset` on, and says how much.
    ///
    /// # Errors
    /// What the system says.
    fn fill_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.read_at(offset + filled as u64, &mut into[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl<R: ReadAt> ReadAt for &R {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        (*self).read_at(offset, into)
    }

    fn bytes(&self) -> io::Result<u64> {
        (*self).bytes()
    }
}

/// What is to be written to one file.
#[derive(Debug)]
pub struct Write<F> {
    /// The file.
    pub file: F,
    /// Where in it, and what; no two overlap. Where there is none the file is only made durable.
    pub parts: Vec<(u64, Vec<u8>)>,
}

/// One directory with the files of one journal, which nobody else touches. Clones are of the same.
///
/// What is promised of durability, and no more: the bytes of [`Storage::write`] when it has returned
/// without an error, and names made or removed before [`Storage::sync_names`] when that has. All else
/// may be there after a crash of the host or not, in any order and in parts. When only the process
/// ends, everything is there.
pub trait Storage: Clone {
    /// An open file.
    type File: ReadAt + Clone + std::fmt::Debug;

    /// The names of all files.
    ///
    /// # Errors
    /// What the system says, here and below.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens a file to read and write.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Makes an empty file, of a name that isn't there.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Cuts a file to `bytes`, durable with the next write to it.
    fn truncate(&self, file: &Self::File, bytes: u64) -> io::Result<()>;

    /// Makes durable which names there are.
    fn sync_names(&self) -> io::Result<()>;

    /// Whether so many bytes of room are set aside, which a write that finds no other room takes; sets
    /// them aside where they aren't. Where that isn't done at all, there is always room until a write
    /// fails.
    fn has_room(&self, _bytes: u64) -> bool {
        true
    }

    /// Writes a batch, each file named once, in one go, and returns when all of it is durable.
    fn write(&self, writes: Vec<Write<Self::File>>) -> io::Result<()>;
}
