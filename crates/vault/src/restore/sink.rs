//! Where restored disks go.

use std::io;

use tidegate_model::DiskNumber;

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

    /// Everything was written: make it durable. Only called when nothing went wrong.
    ///
    /// # Errors
    /// What the place they go to reports; the restore has then failed.
    fn finish(&self) -> io::Result<()>;
}
