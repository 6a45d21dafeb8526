//! What is served: a disk as the shell sees it.

use std::borrow::Cow;
use std::io;

use crate::{Errno, Span, StatusFlags};

/// Why a disk didn't do what it was asked to, as its client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What the client's program sees.
    pub errno: Errno,
    /// What a person sees, where the client shows it.
    pub text: Cow<'static, str>,
}

impl Failure {
    /// A failure with its words.
    pub fn new(errno: Errno, text: impl Into<Cow<'static, str>>) -> Self {
        Self { errno, text: text.into() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let errno = match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => Errno::NoSpace,
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Errno::NotPermitted,
            Kind::OutOfMemory => Errno::NoMemory,
            Kind::Unsupported => Errno::NotSupported,
            _ => Errno::Io,
        };
        Self::new(errno, error.to_string())
    }
}

/// How zeros are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zeroing {
    /// They are durable before it returns.
    pub durable: bool,
    /// They take up room: no hole may be left.
    pub allocate: bool,
    /// Only if that is faster than writing data; [`Errno::NotSupported`] otherwise.
    pub fast: bool,
}

/// A disk. Its methods are called by many threads at once, with ranges that lie within the export
/// and aren't empty; what a client may ask is what its export offers. They may block: each call holds
/// one thread of one connection.
///
/// Where the export offers `MULTI_CONN`, a flush makes durable what was answered before on any
/// connection.
pub trait Disk: Send + Sync {
    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// [`Failure`], here and below: what the client is told.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Failure>;

    /// Writes `data` at `offset`; `durable`: it is so before this returns.
    ///
    /// # Errors
    /// [`Failure`]
    fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Failure>;

    /// Makes a range read as zeros.
    ///
    /// # Errors
    /// [`Failure`]
    fn zero(&self, offset: u64, bytes: u64, how: Zeroing) -> Result<(), Failure>;

    /// Forgets a range; what it reads as is the disk's to choose.
    ///
    /// # Errors
    /// [`Failure`]
    fn trim(&self, offset: u64, bytes: u64, durable: bool) -> Result<(), Failure>;

    /// Makes durable what was answered before.
    ///
    /// # Errors
    /// [`Failure`]
    fn flush(&self) -> Result<(), Failure>;

    /// Has a range at hand soon. Nothing need be done.
    ///
    /// # Errors
    /// [`Failure`]
    fn cache(&self, _offset: u64, _bytes: u64) -> Result<(), Failure> {
        Ok(())
    }

    /// What a range holds, from `offset` on. At most
    /// [`SPANS_SENT_MAX`](crate::limits::SPANS_SENT_MAX) spans are told; it may be fewer, and end
    /// before the range does.
    ///
    /// # Errors
    /// [`Failure`]
    fn status(&self, _offset: u64, bytes: u64) -> Result<Vec<Span>, Failure> {
        Ok(vec![Span { length: bytes, flags: StatusFlags::NONE }])
    }
}
