//! Why nothing is served.

use std::io;
use std::path::PathBuf;

use super::Address;

/// Why a server can't begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another server is there.
    #[error("{0} is in use by a server that runs: stop it, or choose another address")]
    InUse(Address),
    /// Something else has the socket's path.
    #[error("{0} is there and isn't a socket: remove it, or choose another path")]
    NotASocket(PathBuf),
    /// The address can't be listened on.
    #[error("{address} can't be listened on: {doing} failed: {error}")]
    Listen {
        /// The address.
        address: Address,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The system gives no thread.
    #[error("a thread to serve NBD clients can't be started: {0}; see to the limit of processes")]
    Thread(#[source] io::Error),
    /// One command could need more memory than a connection may have.
    #[error(
        "the export '{export}' takes {payload_max} bytes at once, but a connection may have \
         {bytes_max}: give connections as much"
    )]
    Narrow {
        /// The export.
        export: String,
        /// Most bytes of one of its commands.
        payload_max: u32,
        /// What a connection may have.
        bytes_max: u32,
    },
}
