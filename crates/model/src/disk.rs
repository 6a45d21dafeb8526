//! Disks and places on them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::DISKS_MAX;

/// The number of a disk of its machine, below [`DISKS_MAX`].
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "u8", into = "u8")]
pub struct DiskNumber(u8);

/// A disk number of [`DISKS_MAX`] or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("disk number {0} is too large: a machine has disks 0 to {max}", max = DISKS_MAX - 1)]
pub struct DiskNumberError(pub u8);

impl DiskNumber {
    /// The number as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The number as it is written.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for DiskNumber {
    type Error = DiskNumberError;

    fn try_from(number: u8) -> Result<Self, DiskNumberError> {
        if usize::from(number) < DISKS_MAX {
            Ok(Self(number))
        } else {
            Err(DiskNumberError(number))
        }
    }
}

impl From<DiskNumber> for u8 {
    fn from(number: DiskNumber) -> u8 {
        number.0
    }
}

impl fmt::Display for DiskNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its number on its machine.
    pub number: DiskNumber,
    /// Its size in bytes; need not be a multiple of anything.
    pub bytes: u64,
    /// What its machine calls it (a path), at most [`crate::limits::TEXT_BYTES_MAX`] bytes.
    pub name: String,
}

/// A range of bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// The disk.
    pub disk: DiskNumber,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

impl Extent {
    /// The first byte after it; `None` where that doesn't fit 64 bits.
    #[must_use]
    pub const fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }

    /// Whether it lies within a disk of `bytes` bytes.
    #[must_use]
    pub fn lies_within(&self, bytes: u64) -> bool {
        self.end().is_some_and(|end| end <= bytes)
    }
}
