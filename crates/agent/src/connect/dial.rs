//! Opens a connection over the network: name, TCP, TLS, upgrade, each with its own limit of time
//! and its own words when it fails.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tidegate_wire::http::Answer;
use tidegate_wire::limits::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, USER_TIMEOUT};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::tls::{self, NotAccepted, TlsIdentity, VerifyServer};
use super::{ConnectError, Connecting, Connector, ServerAddress, upgrade};

/// The limit of each step of connecting: a server under load answers within a second, a packet
/// lost on the way costs 1, 2, 4 s.
const STEP_LIMIT: Duration = Duration::from_secs(10);

/// Connects to a process server's port.
pub struct TlsConnector {
    server: ServerAddress,
    tls: tokio_rustls::TlsConnector,
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsConnector({})", self.server)
    }
}

impl TlsConnector {
    /// Connections to `server` by the machine `identity`, whose servers `verify` judges.
    ///
    /// # Errors
    /// [`ConnectError::OwnIdentity`] when certificate and key can't be used.
    pub fn new(
        server: ServerAddress,
        identity: TlsIdentity,
        verify: VerifyServer,
    ) -> Result<Self, ConnectError> {
        let config = tls::config(identity, verify)?;
        Ok(Self { server, tls: Arc::new(config).into() })
    }

    async fn open(&self) -> Result<TlsStream<TcpStream>, ConnectError> {
        let tcp = self.dial(&self.resolve().await?).await?;
        let handshake = self.tls.connect(tls::server_name(), tcp);
        let answer = self.within("waiting for its TLS handshake", handshake).await?;
        let mut stream = answer.map_err(|error| self.of_tls(error, "shaking hands in TLS"))?;
        let server = self.server.to_string();
        let doing = "waiting for its answer to the upgrade";
        let answer = self.within(doing, upgrade::upgrade(&mut stream, &server)).await?;
        match answer.map_err(|error| self.of_tls(error, doing))? {
            Answer::Switching(_) => Ok(stream),
            Answer::Refused { status: 0, text: error } => {
                Err(ConnectError::NotTidegate { server, error })
            }
            Answer::Refused { status, text } => Err(ConnectError::Status { server, status, text }),
        }
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let server = || self.server.to_string();
        let lookup = tokio::net::lookup_host((self.server.host.as_str(), self.server.port));
        let found: Vec<_> = self
            .within("resolving its name", lookup)
            .await?
            .map_err(|error| ConnectError::Name { server: server(), error })?
            .collect();
        if found.is_empty() {
            let error = io::Error::new(io::ErrorKind::NotFound, "it has no address");
            return Err(ConnectError::Name { server: server(), error });
        }
        Ok(found)
    }

    /// The first address that answers; else the error of the last.
    async fn dial(&self, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
        let mut last = None;
        for address in addresses {
            let connected = self.within("connecting", TcpStream::connect(address)).await;
            let tuned = connected.and_then(|stream| {
                let stream = stream.map_err(|error| self.of_dialling(error))?;
                tune(&stream).map_err(|error| self.of_dialling(error))?;
                Ok(stream)
            });
            match tuned {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ConnectError::Refused { server: self.server.to_string() }))
    }

    async fn within<T>(
        &self,
        doing: &'static str,
        step: impl Future<Output = T>,
    ) -> Result<T, ConnectError> {
        timeout(STEP_LIMIT, step).await.map_err(|_| ConnectError::TimedOut {
            server: self.server.to_string(),
            doing,
            limit: STEP_LIMIT,
        })
    }

    fn of_dialling(&self, error: io::Error) -> ConnectError {
        let server = self.server.to_string();
        match error.kind() {
            io::ErrorKind::ConnectionRefused => ConnectError::Refused { server },
            io::ErrorKind::TimedOut => {
                ConnectError::TimedOut { server, doing: "connecting", limit: STEP_LIMIT }
            }
            _ => ConnectError::Unreachable { server, error },
        }
    }

    fn of_tls(&self, error: io::Error, doing: &'static str) -> ConnectError {
        let server = self.server.to_string();
        let Some(cause) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
            return ConnectError::Broken { server, doing, error };
        };
        match cause {
            rustls::Error::Other(other) => match other.0.downcast_ref::<NotAccepted>() {
                Some(NotAccepted(cause)) => ConnectError::Identity { server, cause: cause.clone() },
                None => ConnectError::Tls { server, error: cause.to_string() },
            },
            rustls::Error::InvalidMessage(_) => {
                ConnectError::NotTls { server, error: cause.to_string() }
            }
            _ => ConnectError::Tls { server, error: cause.to_string() },
        }
    }
}

impl Connector for TlsConnector {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async { Ok(Box::new(self.open().await?) as super::Connection) })
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}
