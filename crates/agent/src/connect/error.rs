//! Why no session could be opened: each cause in its own words, with what to do.

use std::io;
use std::time::Duration;

use tidegate_model::Remedy;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The text is no address.
    #[error("'{text}' is no server address: write HOST, HOST:PORT or [IPV6]:PORT")]
    Address {
        /// What was given.
        text: String,
    },
    /// The name doesn't resolve.
    #[error("{server}: the name can't be resolved ({error}); check its spelling and the DNS")]
    Name {
        /// Host and port.
        server: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// Nothing listens.
    #[error(
        "{server}: connection refused, so nothing listens there; start `tidegate server` or check \
         the port"
    )]
    Refused {
        /// Host and port.
        server: String,
    },
    /// No way there.
    #[error("{server}: can't be reached ({error}); check the network, routes and firewalls")]
    Unreachable {
        /// Host and port.
        server: String,
        /// What the system said.
        error: io::Error,
    },
    /// No answer.
    #[error(
        "{server}: no answer within {} s while {doing}; check the address and that a firewall lets \
         it through", .limit.as_secs()
    )]
    TimedOut {
        /// Host and port.
        server: String,
        /// What was waited for.
        doing: &'static str,
        /// How long.
        limit: Duration,
    },
    /// Something else answers there.
    #[error(
        "{server}: what answers there doesn't speak TLS ({error}); check that it is a Tidegate \
         server's port"
    )]
    NotTls {
        /// Host and port.
        server: String,
        /// What was wrong with its answer.
        error: String,
    },
    /// The server isn't who it should be.
    #[error("{server}: the server's identity isn't accepted: {cause}")]
    Identity {
        /// Host and port.
        server: String,
        /// Why, and what to do.
        cause: String,
    },
    /// TLS failed otherwise.
    #[error("{server}: TLS failed: {error}; check both ends' identities and versions")]
    Tls {
        /// Host and port.
        server: String,
        /// What failed.
        error: String,
    },
    /// The server answers, and says no.
    #[error("{server}: the server refused with status {status}: {text}")]
    Status {
        /// Host and port.
        server: String,
        /// The HTTP status.
        status: u16,
        /// The server's words.
        text: String,
    },
    /// The answer isn't one of a Tidegate server.
    #[error("{server}: the answer isn't one of a Tidegate server ({error}); check the address")]
    NotTidegate {
        /// Host and port.
        server: String,
        /// What was wrong with it.
        error: String,
    },
    /// The connection broke while it was being set up.
    #[error(
        "{server}: the connection broke while {doing}: {error}; see the server's log, and the network"
    )]
    Broken {
        /// Host and port.
        server: String,
        /// What was waited for.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The agent's own certificate or key can't be used.
    #[error("this agent's identity can't be used: {error}; enrol the machine again")]
    OwnIdentity {
        /// Why not.
        error: String,
    },
    /// A connector of another kind failed (a pipe within the process).
    #[error("{text}")]
    Other {
        /// What happened, and what to do.
        text: String,
        /// What the caller must do.
        remedy: Remedy,
    },
}

impl ConnectError {
    /// What the caller must do. [`Remedy::Retry`] is for what passes when a server starts again or
    /// a network comes back.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Name { .. }
            | Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Broken { .. } => Remedy::Retry,
            Self::Status { status, .. } => match status {
                408 | 429 | 500..=599 => Remedy::Retry,
                _ => Remedy::Refuse,
            },
            Self::Other { remedy, .. } => *remedy,
            Self::Address { .. }
            | Self::NotTls { .. }
            | Self::Identity { .. }
            | Self::Tls { .. }
            | Self::NotTidegate { .. }
            | Self::OwnIdentity { .. } => Remedy::Refuse,
        }
    }
}
