//! Where restored disks go.

use std::io;

use tidegate_model::{DiskNumber, Extent};

/// Takes the bytes of restored disks. Called from several threads at once, for ranges that don't
/// overlap, in no particular order; together they cover every disk from its first byte to its
/// last.
pub trait Sink: Send + Sync {
    /// These bytes belong there.
    ///
    /// # Errors
    /// What the place they go to reports; the restore stops.
    fn write(&self, disk: DiskNumber, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Zeros belong there. A sink that starts out sparse has nothing to do.
    ///
    /// # Errors
    /// What the place they go to reports; the restore stops.
    fn zero(&self, disk: DiskNumber, offset: u64, length: u64) -> io::Result<()>;

    /// Everything was written: make it durable. Only called when nothing went wrong, and every
    /// writer was flushed. A restore that is dropped meanwhile waits for it: what shows to others
    /// that the disks are whole comes after it.
    ///
    /// # Errors
    /// What the place they go to reports; the restore has then failed.
    fn finish(&self) -> io::Result<()>;

    /// The way to write for the calling thread, with so many buffers, which are at least two. One
    /// that writes while the next bytes are made needs its own; this one waits for each write.
    fn writer(&self, _buffers: usize) -> Box<dyn Writer + '_> {
        Box::new(Waiting::new(self))
    }
}

/// One thread's writes to a sink. It has the buffers, so that bytes are made where they are
/// written from.
///
/// Dropping it waits for what is on its way, and says nothing about it.
pub trait Writer {
    /// A free buffer, with whatever is in it; waits for one.
    ///
    /// # Errors
    /// Of any write before.
    fn buffer(&mut self) -> Result<Vec<u8>, WriteError>;

    /// Writes these parts of a buffer that came from [`Writer::buffer`]; perhaps only later.
    ///
    /// # Errors
    /// Of any write before, or of this one.
    fn write(&mut self, buffer: Vec<u8>, parts: &[Part]) -> Result<(), WriteError>;

    /// Waits until everything is written.
    ///
    /// # Errors
    /// Of any write before.
    fn flush(&mut self) -> Result<(), WriteError>;
}

/// Bytes of a buffer that belong together on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where they begin in the buffer.
    pub begin: usize,
    /// Where they go; its length is theirs, and lies within the buffer.
    pub to: Extent,
}

impl Part {
    /// Its bytes; none when it doesn't lie within the buffer.
    #[must_use]
    pub fn of<'b>(&self, buffer: &'b [u8]) -> Option<&'b [u8]> {
        let length = usize::try_from(self.to.length).ok()?;
        buffer.get(self.begin..self.begin.checked_add(length)?)
    }
}

/// A range that couldn't be written.
#[derive(Debug)]
pub struct WriteError {
    /// The range.
    pub range: Extent,
    /// What the sink reports.
    pub cause: io::Error,
}

/// Writes with [`Sink::write`], one after another.
pub struct Waiting<'s, S: ?Sized> {
    sink: &'s S,
    buffer: Vec<u8>,
}

impl<'s, S: Sink + ?Sized> Waiting<'s, S> {
    /// A writer to this sink.
    pub const fn new(sink: &'s S) -> Self {
        Self { sink, buffer: Vec::new() }
    }
}

impl<S: Sink + ?Sized> Writer for Waiting<'_, S> {
    fn buffer(&mut self) -> Result<Vec<u8>, WriteError> {
        Ok(std::mem::take(&mut self.buffer))
    }

    fn write(&mut self, buffer: Vec<u8>, parts: &[Part]) -> Result<(), WriteError> {
        for part in parts {
            let range = part.to;
            let bytes = part.of(&buffer).ok_or_else(|| io::Error::other("outside of its buffer"));
            bytes
                .and_then(|bytes| self.sink.write(range.disk, range.offset, bytes))
                .map_err(|cause| WriteError { range, cause })?;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        Ok(())
    }
}
