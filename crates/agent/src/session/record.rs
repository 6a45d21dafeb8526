//! A record while it isn't committed, and the bytes of a write.

use std::ops::Deref;
use std::sync::Arc;

use tidegate_model::{Checksum, Extent, Micros};
use tidegate_wire::RecordKind;

use crate::reader;

/// What a record costs besides its payload, about: itself, its place in the window, its allocation.
const OVERHEAD_BYTES: u64 = 128;

/// A record that isn't committed: all that its bytes are made of.
#[derive(Debug)]
pub(crate) struct Kept {
    /// When it happened; later than or as late as the record before it.
    pub(crate) time: Micros,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// Anything but a write.
    Record(RecordKind),
    Write(Extent, Payload),
}

/// The bytes of a write, which the window and the outbox share.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// As a disk was read: they lie in a buffer of the reader's pool.
    Read(reader::Payload),
    /// As they were captured, with the checksum of that time.
    Captured(Arc<Vec<u8>>, Checksum),
}

impl Payload {
    /// The checksum taken when the bytes were read or captured.
    pub(crate) const fn checksum(&self) -> Checksum {
        match self {
            Self::Read(payload) => payload.checksum(),
            Self::Captured(_, checksum) => *checksum,
        }
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(payload) => payload,
            Self::Captured(bytes, _) => bytes,
        }
    }
}

impl Kept {
    /// Payload bytes of a write.
    pub(super) const fn payload_bytes(&self) -> u64 {
        match &self.what {
            What::Record(_) => 0,
            What::Write(extent, _) => extent.length,
        }
    }

    /// Bytes of memory that it holds, about.
    pub(super) const fn memory_bytes(&self) -> u64 {
        self.payload_bytes() + OVERHEAD_BYTES
    }

    /// Bytes of the disk that it says something about.
    pub(super) const fn disk_bytes(&self) -> u64 {
        match &self.what {
            What::Write(extent, _) | What::Record(RecordKind::Zero(extent)) => extent.length,
            What::Record(_) => 0,
        }
    }
}
