//! What a check of a vault found.

use std::collections::BTreeMap;
use std::fmt;

use tidegate_model::{Epoch, FrameNumber, LogName, Lsn, Name, PackNumber, Point};

use crate::layout;
use crate::log::PackPlace;

/// What was counted, of packs that count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Runs of process servers.
    pub runs: u64,
    /// Logs.
    pub logs: u64,
    /// Packs.
    pub packs: u64,
    /// Packs beyond a gap, left by a crash or on their way: they don't count.
    pub leftovers: u64,
    /// Frames.
    pub frames: u64,
    /// Records, each piece one.
    pub records: u64,
    /// References.
    pub references: u64,
    /// Layers of what is folded.
    pub layers: u64,
    /// Dense packs that they name.
    pub dense_packs: u64,
    /// Bytes of disks that frames hold, before they were made smaller.
    pub kept_bytes: u64,
    /// Bytes of the packs.
    pub stored_bytes: u64,
    /// Blocks that are kept though one of the same name was kept before.
    pub duplicate_blocks: u64,
    /// Their bytes, before they were made smaller.
    pub duplicate_bytes: u64,
}

/// Where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spot {
    /// A pack, as a whole.
    Pack(PackPlace),
    /// Packs that aren't there, the first and the last of them.
    Packs(LogName, PackNumber, PackNumber),
    /// A frame of a pack.
    Frame(PackPlace, FrameNumber),
    /// A machine's epoch.
    Epoch(Name, Epoch),
    /// Another object, by its path.
    Object(String),
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pack(place) => place.fmt(f),
            Self::Packs(log, first, last) if first == last => {
                PackPlace { log: log.clone(), number: *first }.fmt(f)
            }
            Self::Packs(log, first, last) => {
                let first = PackPlace { log: log.clone(), number: *first };
                write!(f, "{first} to {last}")
            }
            Self::Frame(place, frame) => write!(f, "frame {frame} in {place}"),
            Self::Epoch(machine, epoch) => write!(f, "epoch {epoch} of {machine}"),
            Self::Object(path) => f.write_str(path),
        }
    }
}

/// A machine that damage touches.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Touch {
    /// The machine.
    pub machine: Name,
    /// Its recovery points at or after what is damaged. A later write may have replaced it before
    /// a point: restoring such a point still works.
    pub points: Vec<Point>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub spot: Spot,
    /// What, as a sentence that names the place.
    pub what: String,
    /// Which machines and points it touches.
    pub touches: Vec<Touch>,
    /// The first LSN of each epoch that it touches.
    pub(super) first: BTreeMap<(Name, Epoch), Lsn>,
}

impl Finding {
    pub(super) fn new(spot: Spot, what: impl fmt::Display) -> Self {
        Self { spot, what: what.to_string(), touches: Vec::new(), first: BTreeMap::new() }
    }
}

/// A log that doesn't say where it ends. No damage by itself: a server that runs, or was killed,
/// leaves such a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLog {
    /// The log.
    pub log: LogName,
    /// The last pack that counts; `None` when there is none, though a machine was to be written
    /// there.
    pub after: Option<PackNumber>,
    /// Whether other logs of its run do say where they end: then the server was stopped in order,
    /// and was interrupted at that, or this log has lost its end.
    pub others_end: bool,
}

impl fmt::Display for OpenLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = layout::log(&self.log);
        match self.after {
            Some(pack) => write!(f, "{folder}: what came after pack {pack} isn't known")?,
            None => write!(
                f,
                "{folder}: it has no packs: its sessions brought nothing, or all is lost"
            )?,
        }
        if self.others_end {
            f.write_str("; other logs of its run were closed, so this one may have lost its end")?;
        }
        Ok(())
    }
}

/// A machine, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineReport {
    /// The machine.
    pub machine: Name,
    /// How many recovery points it has.
    pub points: usize,
    /// What can't be offered, in words. An initial copy that hasn't ended is no damage.
    pub gaps: Vec<String>,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What was counted.
    pub counts: Counts,
    /// What is wrong.
    pub damage: Vec<Finding>,
    /// Logs without a closing pack: losses at their ends show only where something else tells of
    /// them.
    pub open_logs: Vec<OpenLog>,
    /// Objects that are none of ours, by their paths; they do no harm.
    pub strays: Vec<String>,
    /// The machines.
    pub machines: Vec<MachineReport>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}
