//! What a live agent is told.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::{DiskNumber, Name, VaultId};
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
    /// When passes are made, and what runs around them.
    pub passes: PassSettings,
    /// How connections are tried again.
    pub retry: RetryPolicy,
    /// For the records' times, which never go back whatever the clock does.
    pub clock: Clock,
    /// What tells one start of this host from another.
    pub boot: [u8; 16],
    /// 16 random bytes, each time others: for the life of a new journal, and the agent's runs.
    pub random: Arc<dyn Fn() -> [u8; 16] + Send + Sync>,
}

/// A disk that is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveDisk {
    /// Its number.
    pub number: DiskNumber,
    /// The image file or block device.
    pub path: PathBuf,
    /// How.
    pub source: DiskSource,
}

/// How a disk is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// It is served over NBD, and what is written there is recorded.
    Tap {
        /// Where it is served. Several disks may share an address.
        listen: Address,
    },
    /// It is compared with the last pass.
    Scan {
        /// What is read in its place, if it isn't read itself: a snapshot of it.
        snapshot: Option<PathBuf>,
    },
    /// A hypervisor's bitmap says what changed. `path` is a qcow2 image.
    Bitmap(BitmapSource),
}

/// Where a disk with a bitmap is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BitmapSource {
    /// An export that somebody serves while a pass is made.
    Export {
        /// Where.
        address: Address,
        /// Its name.
        export: String,
        /// The bitmap's name.
        bitmap: String,
    },
    /// A running QEMU makes the export and the bitmaps.
    Monitor {
        /// The socket of its monitor.
        monitor: PathBuf,
        /// Where it serves NBD, or shall.
        address: Address,
        /// Its name for the disk's node.
        node: String,
        /// What is overwritten while a pass reads is kept in a file in this folder.
        scratch: Option<PathBuf>,
    },
}

impl DiskSource {
    /// As the configuration has it.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Tap { .. } => "nbd",
            Self::Scan { .. } => "scan",
            Self::Bitmap(_) => "bitmap",
        }
    }
}

/// When passes are made, and what runs around them.
#[derive(Debug, Clone, Default)]
pub struct PassSettings {
    /// How often; by hand only where nothing is said.
    pub every: Option<Duration>,
    /// A program and its arguments, run before a pass: it makes the snapshots that are read.
    pub before: Vec<String>,
    /// The same, run after one: it takes them away.
    pub after: Vec<String>,
    /// How long each may take.
    pub limit: Duration,
    /// Whether applications are frozen while what is read is made; where a disk is read itself, for the
    /// whole pass.
    pub application: bool,
}

/// A machine without disks and servers, with a bookmark each minute, whose agent has this folder.
#[cfg(test)]
pub(super) fn for_tests(folder: &Path) -> LiveSettings {
    use std::sync::atomic::{AtomicU8, Ordering};
    static NEXT: AtomicU8 = AtomicU8::new(1);
    LiveSettings {
        machine: "db-1".parse().unwrap(),
        vault: VaultId::from_bytes([7; 16]),
        folder: folder.to_owned(),
        journal_bytes: 64 << 20,
        window_bytes: 1 << 20,
        disks: Vec::new(),
        servers: Arc::default(),
        bookmark_interval: Duration::from_secs(60),
        application_interval: None,
        passes: PassSettings::default(),
        hooks: Hooks::default(),
        retry: RetryPolicy::default(),
        clock: Arc::new(|| tidegate_model::Micros(u64::MAX >> 1)),
        boot: [1; 16],
        random: Arc::new(|| [NEXT.fetch_add(1, Ordering::Relaxed); 16]),
    }
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

    pub(super) fn hashes(&self, disk: DiskNumber) -> PathBuf {
        self.folder.join(format!("disk-{disk}.hashes"))
    }

    /// The note of which bitmap the next pass begins with.
    pub(super) fn bitmap(&self, disk: DiskNumber) -> PathBuf {
        self.folder.join(format!("disk-{disk}.bitmap"))
    }

    /// Where what is overwritten while a pass reads is kept, unless another folder is named.
    pub(super) fn scratch(&self, disk: DiskNumber, folder: Option<&Path>) -> PathBuf {
        folder.unwrap_or(&self.folder).join(format!("tidegate-{}-{disk}.scratch", self.machine))
    }

    pub(super) fn passing(&self) -> PathBuf {
        self.folder.join("passing")
    }

    pub(super) fn frozen(&self) -> PathBuf {
        self.folder.join("frozen")
    }

    /// The name under which a disk is exported.
    pub(super) fn export(disk: DiskNumber) -> String {
        format!("disk-{disk}")
    }
}

impl LiveDisk {
    /// Where it is served, if it is.
    pub(super) const fn listen(&self) -> Option<&Address> {
        match &self.source {
            DiskSource::Tap { listen } => Some(listen),
            DiskSource::Scan { .. } | DiskSource::Bitmap(_) => None,
        }
    }
}

/// The socket of the agent whose folder it is.
#[must_use]
pub fn socket_of(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}
