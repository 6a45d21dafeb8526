//! How an agent is, as it tells others.

use serde::{Deserialize, Serialize};
use tidegate_model::{BookmarkKind, Epoch, Incarnation, Lsn, Micros};

/// How an agent is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The machine's name.
    pub machine: String,
    /// The life of its journal.
    pub incarnation: Incarnation,
    /// Its epoch; 0 before the first server granted one.
    pub epoch: Epoch,
    /// The server that is connected, or was tried last.
    pub server: String,
    /// Whether it has accepted this agent.
    pub connected: bool,
    /// Why not.
    pub trouble: Option<String>,
    /// The last LSN that was captured.
    pub captured: Lsn,
    /// The last that the vault has.
    pub committed: Lsn,
    /// Records that the vault doesn't have yet.
    pub backlog_records: u64,
    /// Bytes of the journal that hold them, and of the segment that they are in.
    pub backlog_bytes: u64,
    /// What the journal may have.
    pub journal_bytes_max: u64,
    /// For how long the oldest of them has waited: what would be lost with the machine.
    pub lag_ms: u64,
    /// Bytes a second that the vault took in the last seconds, zeros included.
    pub bytes_per_second: u64,
    /// Bytes sent to servers since this agent, or its incarnation, began.
    pub bytes_sent: u64,
    /// The initial copy, or the resync.
    pub copy: CopyStatus,
    /// The disks.
    pub disks: Vec<DiskStatus>,
    /// Passes, where there are disks that are captured so.
    pub passes: Option<PassStatus>,
    /// The newest bookmark of this run of the agent.
    pub bookmark: Option<Marked>,
}

/// How far the initial copy or the resync is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CopyStatus {
    /// The disks are compared with what the vault has of them, as far as it has.
    pub resync: bool,
    /// Of all disks.
    pub bytes_total: u64,
    /// Captured, or found in the vault.
    pub bytes_copied: u64,
    /// The bookmark that ended it.
    pub end: Option<Lsn>,
    /// At the rate so far; none before there is one, and after the end.
    pub seconds_left: Option<u64>,
}

/// What a disk is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Every change is recorded, with its data.
    Data,
    /// The journal was full: only where was written to is known, until there is room again.
    Bitmap,
    /// What changed is captured now and then.
    Pass,
}

/// Passes over disks that aren't served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PassStatus {
    /// Seconds between them; none where they are made by hand only.
    pub every: Option<u64>,
    /// The life of the agent that numbers them, from 1 on: another one begins again.
    pub life: u64,
    /// The one that is being made.
    pub running: Option<RunningPass>,
    /// The last one of this run of the agent.
    pub last: Option<LastPass>,
}

/// A pass that is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningPass {
    /// Its number in this run of the agent.
    pub number: u64,
    /// When it began.
    pub since: Micros,
}

/// A pass that has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastPass {
    /// Its number in this run of the agent.
    pub number: u64,
    /// When it ended.
    pub time: Micros,
    /// Whether its end is a moment of the disks, and so a recovery point.
    pub clean: bool,
    /// Why not, where everything was captured all the same.
    pub fuzzy: Option<String>,
    /// Why it came to nothing.
    pub failed: Option<String>,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes of the blocks that had changed.
    pub changed_bytes: u64,
    /// Bytes of them that weren't zeros.
    pub data_bytes: u64,
    /// The bookmark at its end.
    pub marked: Option<Marked>,
}

/// How one disk is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Its number.
    pub number: u8,
    /// Where it lies.
    pub path: String,
    /// How it is captured.
    pub source: String,
    /// Where it is served, if it is.
    pub listen: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// What it is doing.
    pub mode: Mode,
    /// In bitmap mode, what must be read again.
    pub dirty_bytes: u64,
    /// In bitmap mode, since when.
    pub since: Option<Micros>,
    /// In passes, up to which byte the one has come that is being made, or was made last.
    pub looked: Option<u64>,
}

/// A bookmark that is in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// The epoch, where it is known; 0 before the first server granted one.
    pub epoch: Epoch,
    /// Its LSN: with the epoch, the recovery point.
    pub lsn: Lsn,
    /// When.
    pub time: Micros,
    /// What it promises.
    pub kind: BookmarkKind,
    /// A person's name for it.
    pub name: String,
}
