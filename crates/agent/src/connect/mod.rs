//! Where an agent's connections come from.
//!
//! The driver knows only [`Connector`]: something that gives a duplex stream on which frames can be
//! exchanged at once. [`TlsConnector`] gives one over TCP, TLS 1.3 and an HTTP upgrade; the
//! in-process `replicate` gives one end of a pipe.
//!
//! This crate doesn't know how identities are issued. Whether a server's certificates are
//! acceptable is a closure's decision ([`VerifyServer`]); that the server holds the key of its
//! certificate is checked here, on every handshake.

mod dial;
mod error;
mod tls;
mod upgrade;

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::str::FromStr;

use tidegate_model::limits::PORT_DEFAULT;
use tokio::io::{AsyncRead, AsyncWrite};

pub use dial::TlsConnector;
pub use error::ConnectError;
pub use tls::{TlsIdentity, VerifyServer};

/// A duplex stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream of any kind, ready for frames.
pub type Connection = Box<dyn Stream>;

/// What [`Connector::connect`] returns.
pub type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<Connection, ConnectError>> + Send + 'a>>;

/// Something that connects an agent with a server, as often as asked.
pub trait Connector: Send + Sync {
    /// Opens a connection on which the agent speaks first: frames, nothing before them. Dropping
    /// the future gives the attempt up.
    fn connect(&self) -> Connecting<'_>;
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for ServerAddress {
    type Err = ConnectError;

    fn from_str(text: &str) -> Result<Self, ConnectError> {
        let refuse = || ConnectError::Address { text: text.chars().take(300).collect() };
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(refuse)?;
                match after {
                    "" => (host, None),
                    _ => (host, Some(after.strip_prefix(':').ok_or_else(refuse)?)),
                }
            }
            // More than one colon without brackets: an IPv6 address.
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map_or(Ok(PORT_DEFAULT), |port| port.parse().map_err(|_| refuse()))?;
        let is_host =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || host.len() > 255 || port == 0 || !host.chars().all(is_host) {
            return Err(refuse());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
