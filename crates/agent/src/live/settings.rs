//! What a live agent is told.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::{DiskNumber, Incarnation, Name, VaultId};
use tidegate_nbd::serve::Address;

use super::drain::Server;
use super::hooks::Hooks;
use crate::copy::Clock;
use crate::retry::RetryPolicy;

/// What a live agent is told.
#[derive(Clone)]
pub struct LiveSettings {
    /// The machine's name.
    pub machine: Name,
    /// The vault in which it is enrolled.
    pub vault: VaultId,
    /// Where the journal, the marks of the disks, the notes and the agent's socket lie.
    pub folder: PathBuf,
    /// Most bytes of the journal.
    pub journal_bytes: u64,
    /// Most bytes in memory of what was sent and isn't committed.
    pub window_bytes: u64,
    /// The disks.
    pub disks: Vec<LiveDisk>,
    /// The servers, in the order in which they are tried.
    pub servers: Arc<Vec<Server>>,
    /// How often there is a crash-consistent bookmark.
    pub bookmark_interval: Duration,
    /// How often there is an application-consistent one, if at all.
    pub application_interval: Option<Duration>,
    /// What freezes the applications for that.
    pub hooks: Hooks,
    /// How connections are tried again.
    pub retry: RetryPolicy,
    /// For the records' times, which never go back whatever the clock does.
    pub clock: Clock,
    /// What tells one start of this host from another.
    pub boot: [u8; 16],
    /// 16 random bytes, each time others: the life of a new journal.
    pub new_incarnation: Arc<dyn Fn() -> Incarnation + Send + Sync>,
}

/// A disk that is served and captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveDisk {
    /// Its number.
    pub number: DiskNumber,
    /// The image file or block device.
    pub path: PathBuf,
    /// Where it is served. Several disks may share an address.
    pub listen: Address,
}

impl fmt::Debug for LiveSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveSettings({}, {} disks)", self.machine, self.disks.len())
    }
}

impl LiveSettings {
    pub(super) fn journal(&self) -> PathBuf {
        self.folder.join("journal")
    }

    pub(super) fn notes(&self) -> PathBuf {
        self.folder.join("notes.json")
    }

    pub(super) fn marks(&self, disk: DiskNumber) -> PathBuf {
        self.folder.join(format!("disk-{disk}.marks"))
    }

    pub(super) fn frozen(&self) -> PathBuf {
        self.folder.join("frozen")
    }

    /// The name under which a disk is exported.
    pub(super) fn export(disk: DiskNumber) -> String {
        format!("disk-{disk}")
    }
}

/// The socket of the agent whose folder it is.
#[must_use]
pub fn socket_of(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}
