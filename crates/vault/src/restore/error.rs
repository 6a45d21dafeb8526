//! Why a machine couldn't be brought back.

use std::io;

use tidegate_model::{DiskNumber, Extent, FrameNumber, Name, Remedy};

use crate::chain::{Broken, HistoryError, Loss};
use crate::log::{LogError, PackPlace};

/// Why a machine couldn't be brought back. Whatever it is, nothing may be taken for restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The machine's history couldn't be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A log couldn't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// LSNs before the point are missing.
    #[error("{machine} can't be brought back: {cause}")]
    Broken {
        /// The machine.
        machine: Name,
        /// What is missing.
        cause: Broken,
    },
    /// The same, and what is damaged.
    #[error("{machine} can't be brought back: {cause}; {loss}")]
    Lost {
        /// The machine.
        machine: Name,
        /// What is missing.
        cause: Broken,
        /// The first thing that is wrong with what holds it.
        loss: Box<Loss>,
    },
    /// A disk was written to and never declared.
    #[error(
        "{machine} has writes to disk {disk}, whose size was never declared: the vault is damaged"
    )]
    Undeclared {
        /// The machine.
        machine: Name,
        /// The disk.
        disk: DiskNumber,
    },
    /// The machine has no such disk.
    #[error("{machine} has no disk {disk} at this point: it has {}", listed(.there))]
    NoDisk {
        /// The machine.
        machine: Name,
        /// What was asked for.
        disk: DiskNumber,
        /// What there is.
        there: Vec<DiskNumber>,
    },
    /// What holds a range of a disk couldn't be read.
    #[error("{what}; it holds bytes {} to {} of disk {} of {machine}", .range.offset, .range.offset + .range.length, .range.disk)]
    Damaged {
        /// The machine.
        machine: Name,
        /// The first range of a disk that it holds.
        range: Extent,
        /// What is wrong.
        what: Box<Damage>,
    },
    /// The sink failed.
    #[error("bytes {} to {} of disk {} of {machine} can't be written: {cause}", .range.offset, .range.offset + .range.length, .range.disk)]
    Sink {
        /// The machine.
        machine: Name,
        /// The range.
        range: Extent,
        /// What the sink reports.
        cause: io::Error,
    },
    /// The sink failed at its end.
    #[error("what was restored of {machine} can't be made durable: {cause}")]
    Finish {
        /// The machine.
        machine: Name,
        /// What the sink reports.
        cause: io::Error,
    },
}

/// What is wrong with what holds a range of a disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The pack or frame.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is no such kept record.
    #[error(
        "kept record {ordinal} of frame {frame} in {place} isn't there, or is another (name, checksum or length differ)"
    )]
    Record {
        /// The pack.
        place: PackPlace,
        /// The frame.
        frame: FrameNumber,
        /// The record in it.
        ordinal: u32,
    },
    /// Its content isn't what was captured.
    #[error(
        "kept record {ordinal} of frame {frame} in {place} doesn't have the checksum that was taken when it was captured"
    )]
    Checksum {
        /// The pack.
        place: PackPlace,
        /// The frame.
        frame: FrameNumber,
        /// The record in it.
        ordinal: u32,
    },
}

impl Damage {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Log(error) => error.remedy(),
            Self::Record { .. } | Self::Checksum { .. } => Remedy::Repair,
        }
    }
}

fn listed(disks: &[DiskNumber]) -> String {
    let numbers: Vec<String> = disks.iter().map(ToString::to_string).collect();
    if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") }
}

impl RestoreError {
    /// What is missing, and the first of what may be why.
    pub(super) fn broken(machine: Name, cause: Broken, losses: &[Loss]) -> Self {
        match losses.first() {
            Some(loss) if !cause.is_let_go() => {
                Self::Lost { machine, cause, loss: Box::new(loss.clone()) }
            }
            _ => Self::Broken { machine, cause },
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::History(error) => error.remedy(),
            Self::Log(error) => error.remedy(),
            Self::Damaged { what, .. } => what.remedy(),
            Self::NoDisk { .. } => Remedy::Refuse,
            Self::Broken { cause, .. } if cause.is_let_go() => Remedy::Refuse,
            Self::Broken { .. } | Self::Lost { .. } | Self::Undeclared { .. } => Remedy::Repair,
            Self::Sink { .. } | Self::Finish { .. } => Remedy::Stop,
        }
    }
}
