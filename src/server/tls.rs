//! TLS 1.3 over a glommio socket, by polling.
//!
//! Owns the bytes between a socket and rustls. It can be taken apart and put together again on
//! another executor, because the shard that must have a session is known only after its first
//! frame. Doesn't own trust: any client certificate passes here once its holder has proved to hold
//! the key; `front` decides what it is good for, so that a refusal can be read.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::TcpStream as StdTcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::select;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;
use rustls::ServerConnection;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use super::link::{FAREWELL, Goodbye};

/// Bytes that rustls may hold for us before they must be sent: one TLS record of the longest kind.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// The server's TLS settings: version 1.3 only, a client certificate wished for, not required.
///
/// # Errors
/// When the key doesn't fit the certificate.
pub(crate) fn server_config(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(HoldsItsKey { provider: provider.clone() });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, key)?;
    // Sessions live long and reconnect seldom: resumption would only be one more secret to keep.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Accepts every certificate whose holder signed the handshake with its key.
#[derive(Debug)]
struct HoldsItsKey {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for HoldsItsKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A TLS connection on this executor.
pub(crate) struct TlsStream {
    socket: TcpStream,
    tls: ServerConnection,
    first_byte: Option<u8>,
    ended: bool,
}

/// A TLS connection on its way to another executor.
pub(crate) struct Detached {
    socket: StdTcpStream,
    tls: ServerConnection,
    ended: bool,
}

impl TlsStream {
    /// The server's end of a connection that was just accepted.
    pub(crate) fn accept(
        socket: StdTcpStream,
        config: Arc<ServerConfig>,
    ) -> Result<Self, rustls::Error> {
        let mut tls = ServerConnection::new(config)?;
        tls.set_buffer_limit(Some(WRITE_BUFFER_BYTES));
        Ok(Self { socket: attach(socket), tls, first_byte: None, ended: false })
    }

    /// Puts a connection together again on this executor.
    pub(crate) fn from_detached(parts: Detached) -> Self {
        let Detached { socket, tls, ended } = parts;
        Self { socket: attach(socket), tls, first_byte: None, ended }
    }

    /// Takes the connection off this executor.
    pub(crate) fn detach(self) -> io::Result<Detached> {
        let socket = StdTcpStream::from(self.descriptor().try_clone_to_owned()?);
        Ok(Detached { socket, tls: self.tls, ended: self.ended })
    }

    /// The certificates that the client showed, its own first.
    pub(crate) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.peer_certificates().unwrap_or_default()
    }

    /// The first byte that ever came: tells TLS from something else.
    pub(crate) const fn first_byte(&self) -> Option<u8> {
        self.first_byte
    }

    /// Completes the handshake.
    pub(crate) fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.poll_send(context)?.is_pending() {
                return Poll::Pending;
            }
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            std::task::ready!(self.poll_receive(context))?;
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads cleartext: as much as is there, at least one byte; 0 at the end.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.tls.reader().read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.ended {
                        break;
                    }
                    match self.poll_receive(context) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) if filled == 0 => return Poll::Ready(Err(error)),
                        Poll::Pending if filled == 0 => return Poll::Pending,
                        Poll::Ready(Err(_)) | Poll::Pending => break,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(filled))
    }

    /// Takes cleartext to send; gives how much was taken. Ready also means that all that was taken
    /// before is on its way.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_send(context))?;
        let taken = self.tls.writer().write(bytes)?;
        // What can't leave at once leaves with the next call.
        let _ = self.poll_send(context)?;
        Poll::Ready(Ok(taken))
    }

    /// Sends what was taken; ready when all of it has left.
    pub(crate) fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut socket = Polled { socket: &mut self.socket, context };
            match self.tls.write_tls(&mut socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the connection's last bytes and sees to it that they arrive, as far as that can be
    /// done in a few seconds.
    pub(crate) async fn say_last(&mut self, bytes: &[u8], goodbye: Goodbye) {
        let said = async {
            self.send(bytes).await?;
            self.tls.send_close_notify();
            poll_fn(|context| self.poll_send(context)).await?;
            self.leave(goodbye).await
        };
        // Whoever doesn't take them in time goes without.
        let _ = select(Box::pin(said), Timer::new(FAREWELL)).await;
    }

    /// Sends cleartext around TLS, as the connection's last bytes: for a peer that doesn't speak it.
    /// Without any, what TLS itself has to say: the alert that tells what was wrong.
    pub(crate) async fn say_last_plain(&mut self, bytes: &[u8]) {
        let said = async {
            if bytes.is_empty() {
                poll_fn(|context| self.poll_send(context)).await?;
            } else {
                self.socket.write_all(bytes).await?;
            }
            self.leave(Goodbye::OneSided).await
        };
        let _ = select(Box::pin(said), Timer::new(FAREWELL)).await;
    }

    /// Sends cleartext, all of it.
    pub(crate) async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = poll_fn(|context| self.poll_write(context, bytes)).await?;
            bytes = &bytes[count..];
        }
        poll_fn(|context| self.poll_send(context)).await
    }

    /// Ends this end of the socket; reads what the peer still sends, until it ends its own.
    async fn leave(&mut self, goodbye: Goodbye) -> io::Result<()> {
        rustix::net::shutdown(self.descriptor(), Shutdown::Write)?;
        if goodbye == Goodbye::OneSided {
            let mut thrown_away = vec![0; 16 << 10];
            while self.socket.read(&mut thrown_away).await? > 0 {}
        }
        Ok(())
    }

    /// Whether the peer has ended its end of the socket, or the connection is broken.
    pub(crate) fn peer_has_closed(&self) -> bool {
        let mut events = [PollFd::from_borrowed_fd(self.descriptor(), PollFlags::RDHUP)];
        // HUP and ERR are told unasked. A poll that fails tells nothing.
        let told = poll(&mut events, Some(&Timespec::default())).unwrap_or(0);
        told > 0
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `self.socket`, which owns it, and that lives as
        // long as what is borrowed here.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = Polled { socket: &mut self.socket, context };
        let mut first = FirstByte { inner: &mut socket, seen: &mut self.first_byte };
        match self.tls.read_tls(&mut first) {
            Ok(0) => self.ended = true,
            Ok(_) => {
                let processed = self.tls.process_new_packets();
                processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }
}

/// Gives the socket to this executor.
fn attach(socket: StdTcpStream) -> TcpStream {
    // SAFETY: `into_raw_fd` gives up the descriptor, so the new stream is its only owner; and it
    // is a connected TCP socket, which is what the new stream takes it for.
    unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) }
}

/// A polled socket in the shape that rustls wants: "not now" is `WouldBlock`.
struct Polled<'a, 'b, 'c> {
    socket: &'a mut TcpStream,
    context: &'b mut Context<'c>,
}

fn or_would_block(poll: Poll<io::Result<usize>>) -> io::Result<usize> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Polled<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_read(self.context, buffer))
    }
}

impl Write for Polled<'_, '_, '_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write(self.context, buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Remembers the first byte that was read.
struct FirstByte<'a, R> {
    inner: &'a mut R,
    seen: &'a mut Option<u8>,
}

impl<R: Read> Read for FirstByte<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count > 0 {
            self.seen.get_or_insert(buffer[0]);
        }
        Ok(count)
    }
}
