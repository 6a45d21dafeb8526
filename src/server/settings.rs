//! What a server is told, and why one can't start or go on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidegate_model::{Counted, HumanBytes, Name, Remedy};
use tidegate_pipeline::MemoryError;

use super::maintenance::MaintenanceSettings;
use super::tls;
use super::uploads::UploadFailure;

/// What a server is told. Clocks and chance are the system's.
pub(crate) struct ServerSettings {
    /// The name under which its logs lie.
    pub node: Name,
    /// Where to listen; `None` for a server that serves pipes only.
    pub listen: Option<SocketAddr>,
    /// What it shows to clients; needed when it listens.
    pub identity: Option<ServerIdentity>,
    /// Its memory bound, in bytes.
    pub memory_bytes: usize,
    /// The zstd level; `None` for what the governor chooses.
    pub level: Option<i32>,
    /// Bytes of the longest frames; `None` for what suits the level.
    pub frame_bytes: Option<usize>,
    /// Shards, one a core.
    pub cores: u16,
    /// A store that takes nothing for so long ends the run: agents then try elsewhere.
    pub store_patience: Duration,
    /// A pack closes so long after its first record had come whole.
    pub pack_age: Duration,
    /// A pack closes with so many bytes of frames, or fewer where memory is short.
    pub pack_bytes: usize,
    /// How often it looks which packs are condemned.
    pub lists_interval: Duration,
    /// An agent that speaks again after so long must come anew.
    pub silence_max: Duration,
    /// `None` for a server that leaves the vault to others.
    pub maintenance: Option<MaintenanceSettings>,
}

/// A certificate chain and its key.
pub(crate) struct ServerIdentity {
    pub certificates: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Why a server can't start or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(
        "io_uring can't be used here ({0}): a server needs it. Allow it: sysctl \
         kernel.io_uring_disabled must be 0, and a container's seccomp profile must let \
         io_uring_setup, io_uring_enter and io_uring_register pass (see docker/)"
    )]
    IoUring(#[source] io::Error),
    #[error(
        "too little lockable memory: {allowed} are allowed, {needed} are needed. Raise the limit: \
         ulimit -l, or LimitMEMLOCK= in the service (see tuning/)",
        allowed = HumanBytes(*allowed), needed = HumanBytes(*needed)
    )]
    Lockable { needed: u64, allowed: u64 },
    #[error(
        "{address} is in use: another server, perhaps another Tidegate, listens there. Stop it, or choose another port with --listen"
    )]
    InUse { address: SocketAddr },
    #[error("can't listen at {address}: {source}; choose another address or port with --listen")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("can't accept connections: {0}")]
    Listen(#[source] io::Error),
    #[error("the identity can't be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error(
        "only {} may be used here, {wanted} were asked for: lower --cores, or 'cores' in the \
         configuration", Counted(*there, "core")
    )]
    Cores { wanted: usize, there: usize },
    #[error("a compressor can't be made: {0}")]
    Compressor(#[source] io::Error),
    #[error("an executor can't run: {0}")]
    Executor(String),
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    #[error("the table of logs is full")]
    Logs,
    #[error("can't read the vault's logs: {0}")]
    Refill(#[from] tidegate_vault::log::LogError),
    #[error("can't claim the run in the vault: {0}")]
    Claim(#[from] tidegate_vault::meta::MetaError),
    #[error(transparent)]
    Failed(Arc<UploadFailure>),
}

impl ServerError {
    /// An address that can't be had.
    pub(super) fn bind(address: SocketAddr, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse {
            Self::InUse { address }
        } else {
            Self::Bind { address, source }
        }
    }

    #[allow(clippy::needless_pass_by_value)] // as map_err hands it over
    pub(super) fn join(error: tokio::task::JoinError) -> Self {
        Self::Executor(error.to_string())
    }

    #[allow(clippy::needless_pass_by_value)] // as map_err hands it over
    pub(super) fn executor(error: glommio::GlommioError<()>) -> Self {
        Self::Executor(error.to_string())
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Memory(error) => error.remedy(),
            Self::Refill(error) => error.remedy(),
            Self::Claim(error) => error.remedy(),
            Self::IoUring(_) | Self::Lockable { .. } | Self::Cores { .. } | Self::Tls(_) => {
                Remedy::Refuse
            }
            Self::InUse { .. } | Self::Bind { .. } | Self::Listen(_) => Remedy::Refuse,
            Self::Failed(failure) => failure.remedy(),
            Self::Compressor(_) | Self::Executor(_) | Self::Random(_) | Self::Logs => Remedy::Stop,
        }
    }
}

pub(super) fn tls_config(
    identity: ServerIdentity,
) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    tls::server_config(identity.certificates, identity.key)
}

/// The cores to which executors are pinned: the first of those that the process may use.
pub(super) fn cores(wanted: usize) -> Result<Vec<usize>, ServerError> {
    let allowed = rustix::thread::sched_getaffinity(None)
        .map_err(|error| ServerError::Executor(error.to_string()))?;
    let cores: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    if wanted > cores.len() {
        return Err(ServerError::Cores { wanted, there: cores.len() });
    }
    Ok(cores.into_iter().take(wanted).collect())
}
