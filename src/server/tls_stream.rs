//! TLS 1.3 over a glommio socket, by polling, on buffers of the caller.
//!
//! Received bytes are read in large pieces into the shard's buffer and decrypted there (rustls'
//! unbuffered interface); what a connection keeps for itself is the beginning of a record whose end
//! hasn't come. It can be taken apart and put together again on another executor, because the shard
//! that must have a session is known only after its first frame.

use std::future::poll_fn;
use std::io;
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
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};

use super::link::{FAREWELL, Goodbye};

/// Cleartext that is encrypted at once: the longest record.
const RECORD_BYTES_MAX: usize = 16 << 10;
/// What encryption adds to a record: header, content type, tag.
const RECORD_OVERHEAD_BYTES: usize = 5 + 1 + 16;

/// A TLS connection on this executor.
pub(crate) struct TlsStream {
    socket: TcpStream,
    state: TlsState,
}

/// A TLS connection on its way to another executor.
pub(crate) struct Detached {
    socket: StdTcpStream,
    state: TlsState,
}

/// All of a connection but its socket.
struct TlsState {
    tls: UnbufferedServerConnection,
    /// The beginning of a record whose end hasn't come.
    incoming: Vec<u8>,
    /// Encrypted bytes; `sent` of them have left.
    outgoing: Vec<u8>,
    sent: usize,
    first_byte: Option<u8>,
    /// The peer has said that nothing follows.
    ended: bool,
}

impl TlsStream {
    /// The server's end of a connection that was just accepted.
    pub(crate) fn accept(
        socket: StdTcpStream,
        config: Arc<ServerConfig>,
    ) -> Result<Self, rustls::Error> {
        let state = TlsState {
            tls: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            first_byte: None,
            ended: false,
        };
        Ok(Self { socket: attach(socket), state })
    }

    /// Puts a connection together again on this executor.
    pub(crate) fn from_detached(parts: Detached) -> Self {
        Self { socket: attach(parts.socket), state: parts.state }
    }

    /// Takes the connection off this executor.
    pub(crate) fn detach(self) -> io::Result<Detached> {
        let socket = StdTcpStream::from(self.descriptor().try_clone_to_owned()?);
        Ok(Detached { socket, state: self.state })
    }

    /// The certificates that the client showed, its own first.
    pub(crate) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.state.tls.peer_certificates().unwrap_or_default()
    }

    /// The first byte that ever came: tells TLS from something else.
    pub(crate) const fn first_byte(&self) -> Option<u8> {
        self.state.first_byte
    }

    /// Completes the handshake. `early` gets the cleartext that comes right behind it.
    pub(crate) fn poll_handshake(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
        early: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        loop {
            std::task::ready!(self.poll_flush(context))?;
            if !self.state.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            let filled = std::task::ready!(self.poll_fill(context, buffer))?;
            if filled == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.open(&mut buffer[..filled], &mut |bytes| early.extend_from_slice(bytes))?;
        }
    }

    /// Fills `buffer`, which must hold more than a record, with what has come; gives how many bytes
    /// of it are for [`Self::open`]: 0 at the end.
    pub(crate) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.state.ended {
            return Poll::Ready(Ok(0));
        }
        let kept = self.state.incoming.len();
        if kept >= buffer.len() {
            let cause = "the peer's TLS message is longer than any that is known";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, cause)));
        }
        let read = Pin::new(&mut self.socket).poll_read(context, &mut buffer[kept..]);
        let read = std::task::ready!(read)?;
        if read == 0 {
            self.state.ended = true;
            return Poll::Ready(Ok(0));
        }
        buffer[..kept].copy_from_slice(&self.state.incoming);
        self.state.incoming.clear();
        self.state.first_byte.get_or_insert(buffer[0]);
        Poll::Ready(Ok(kept + read))
    }

    /// Decrypts what [`Self::poll_fill`] gave, and hands the cleartext to `take`, in order.
    ///
    /// # Errors
    /// When it isn't what TLS allows. An alert that says so waits to be sent.
    pub(crate) fn open(
        &mut self,
        filled: &mut [u8],
        take: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        self.state
            .open(filled, take)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Takes cleartext to send; gives how much was taken. Ready also means that all that was taken
    /// before is on its way.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_flush(context))?;
        let taken = bytes.len().min(RECORD_BYTES_MAX);
        self.state.seal(&bytes[..taken])?;
        // What can't leave at once leaves with the next call.
        if let Poll::Ready(Err(error)) = self.poll_flush(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    /// Sends what was taken; ready when all of it has left.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let TlsState { outgoing, sent, .. } = &mut self.state;
        while *sent < outgoing.len() {
            let write = Pin::new(&mut self.socket).poll_write(context, &outgoing[*sent..]);
            *sent += std::task::ready!(write)?;
        }
        outgoing.clear();
        *sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Sends cleartext, all of it.
    pub(crate) async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = poll_fn(|context| self.poll_write(context, bytes)).await?;
            bytes = &bytes[count..];
        }
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// Sends the connection's last bytes and sees to it that they arrive, as far as that can be
    /// done in a few seconds.
    pub(crate) async fn say_last(&mut self, bytes: &[u8], goodbye: Goodbye) {
        let said = async {
            self.send(bytes).await?;
            self.state.seal_end()?;
            poll_fn(|context| self.poll_flush(context)).await?;
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
                poll_fn(|context| self.poll_flush(context)).await?;
            } else {
                self.socket.write_all(bytes).await?;
            }
            self.leave(Goodbye::OneSided).await
        };
        let _ = select(Box::pin(said), Timer::new(FAREWELL)).await;
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
}

impl TlsState {
    /// Decrypts the records in `bytes`; keeps the one that isn't whole.
    fn open(&mut self, bytes: &mut [u8], take: &mut dyn FnMut(&[u8])) -> Result<(), rustls::Error> {
        let mut at = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                self.tls.process_tls_records(&mut bytes[at..]);
            at += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        at += record.discard;
                        take(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing)?,
                // It is in `outgoing`, and leaves before anything else is said.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::Closed) => {
                    self.ended = true;
                    return Ok(());
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => break,
                Ok(_) => return Err(rustls::Error::General("early data isn't allowed".to_owned())),
                Err(error) => {
                    self.queue_alert();
                    return Err(error);
                }
            }
        }
        self.incoming.extend_from_slice(&bytes[at..]);
        Ok(())
    }

    /// After an error rustls has an alert to send, if it has anything.
    fn queue_alert(&mut self) {
        let mut nothing = [0; 0];
        let status = self.tls.process_tls_records(&mut nothing);
        if let Ok(ConnectionState::EncodeTlsData(data)) = status.state {
            // Without the alert the peer sees an end without a reason.
            let _ = encode(data, &mut self.outgoing);
        }
    }

    /// Encrypts cleartext, at most a record's.
    fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes.len() + RECORD_OVERHEAD_BYTES, |traffic, room| {
            traffic.encrypt(bytes, room)
        })
    }

    /// Says that nothing follows.
    fn seal_end(&mut self) -> io::Result<()> {
        self.write(RECORD_OVERHEAD_BYTES + 2, |traffic, room| traffic.queue_close_notify(room))
    }

    /// Lets `encrypt` write into `room_bytes` bytes behind what waits to be sent, or as many as it
    /// wants.
    fn write(
        &mut self,
        room_bytes: usize,
        mut encrypt: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        loop {
            // With what came of the next record: rustls may know its beginning already.
            let UnbufferedStatus { discard, state } =
                self.tls.process_tls_records(&mut self.incoming);
            match state.map_err(io::Error::other)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    return append(&mut self.outgoing, room_bytes, |room| {
                        encrypt(&mut traffic, room).map_err(|error| match error {
                            EncryptError::InsufficientSize(needs) => Some(needs.required_size),
                            EncryptError::EncryptExhausted => None,
                        })
                    });
                }
                ConnectionState::EncodeTlsData(data) => {
                    encode(data, &mut self.outgoing).map_err(io::Error::other)?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                _ => return Err(io::ErrorKind::NotConnected.into()),
            }
            self.incoming.drain(..discard);
        }
    }
}

/// Appends what rustls has to say.
fn encode(
    mut data: EncodeTlsData<'_, ServerConnectionData>,
    outgoing: &mut Vec<u8>,
) -> Result<(), rustls::Error> {
    append(outgoing, RECORD_BYTES_MAX, |room| {
        data.encode(room).map_err(|error| match error {
            EncodeError::InsufficientSize(needs) => Some(needs.required_size),
            EncodeError::AlreadyEncoded => None,
        })
    })
    .map_err(|error| rustls::Error::General(error.to_string()))
}

/// Appends what `write` writes into the room behind `bytes`; it may ask for more room, once.
fn append(
    bytes: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> io::Result<()> {
    let begin = bytes.len();
    bytes.resize(begin + room, 0);
    let mut written = write(&mut bytes[begin..]);
    if let Err(Some(needed)) = written {
        bytes.resize(begin + needed, 0);
        written = write(&mut bytes[begin..]);
    }
    bytes.truncate(begin + written.unwrap_or(0));
    match written {
        Ok(_) => Ok(()),
        Err(_) => Err(io::Error::other("TLS can't encrypt any more on this connection")),
    }
}

/// Gives the socket to this executor.
fn attach(socket: StdTcpStream) -> TcpStream {
    // SAFETY: `into_raw_fd` gives up the descriptor, so the new stream is its only owner; and it
    // is a connected TCP socket, which is what the new stream takes it for.
    unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) }
}
