//! Order and time: LSNs, epochs, points, pieces, microseconds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A machine's own sequence number, one for all its disks; the first of an epoch is 1, and 0
/// means "none yet".
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first.
    pub const NONE: Self = Self(0);

    /// The one after this. LSNs don't wrap: at a thousand million a second they last 584 years.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One unbroken sequence of a machine's LSNs, granted by the vault; the first is 1, and 0 means "none".
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u32);

impl Epoch {
    /// No epoch yet.
    pub const NONE: Self = Self(0);

    /// The epoch after this one; the last number is its own successor.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in a machine's history, written `EPOCH:LSN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Point {
    /// The epoch.
    pub epoch: Epoch,
    /// The last LSN that counts.
    pub lsn: Lsn,
}

/// Why a text is no point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a point: EPOCH:LSN is needed, as in 3:118204")]
pub struct PointError {
    /// What was given.
    pub text: String,
}

impl FromStr for Point {
    type Err = PointError;

    fn from_str(text: &str) -> Result<Self, PointError> {
        let parse = || {
            let (epoch, lsn) = text.split_once(':')?;
            Some(Self { epoch: Epoch(epoch.parse().ok()?), lsn: Lsn(lsn.parse().ok()?) })
        };
        parse().ok_or_else(|| PointError { text: text.chars().take(64).collect() })
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.lsn)
    }
}

/// Microseconds since 1970-01-01 00:00:00 UTC.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Micros(pub u64);

/// Which part of a record this is: piece `number` (from 0) of `count`. An LSN counts when all its
/// pieces are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Piece {
    /// From 0.
    pub number: u16,
    /// At least 1.
    pub count: u16,
}

impl Piece {
    /// A record that wasn't cut.
    pub const WHOLE: Self = Self { number: 0, count: 1 };

    /// Whether it is the last of its record.
    #[must_use]
    pub const fn is_last(self) -> bool {
        self.number + 1 == self.count
    }
}
