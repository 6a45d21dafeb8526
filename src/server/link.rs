//! The bytes of a session: over TLS, or through a pipe inside this process.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::select;
use glommio::timer::Timer;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::tls_stream::TlsStream;

/// How long the last bytes of a connection may take to leave and to be read.
pub(super) const FAREWELL: Duration = Duration::from_secs(3);

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goodbye {
    /// The peer has said that it sends nothing more.
    Mutual,
    /// The peer may still be sending. If its bytes met a closed socket, the system would answer with
    /// a reset, and that overtakes what was said last: so they are read and thrown away.
    OneSided,
}

/// A session's transport.
pub(crate) enum Link {
    Tls(Box<TlsStream>),
    Pipe(DuplexStream),
}

impl Link {
    /// Fills `buffer` with what has come; gives how many bytes of it are for [`Self::open`]: 0 at
    /// the end. A session and everything before it uses its shard's buffer.
    pub(crate) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tls(stream) => stream.poll_fill(context, buffer),
            Self::Pipe(pipe) => {
                let mut buffer = ReadBuf::new(buffer);
                std::task::ready!(Pin::new(pipe).poll_read(context, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
    }

    /// Hands the cleartext of what [`Self::poll_fill`] gave to `take`, in order: at most as many
    /// bytes as there were.
    ///
    /// # Errors
    /// When it isn't what TLS allows.
    pub(crate) fn open(
        &mut self,
        filled: &mut [u8],
        take: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.open(filled, take),
            Self::Pipe(_) => {
                take(filled);
                Ok(())
            }
        }
    }

    /// Both at once; gives how many bytes of cleartext came. None at all is the end.
    pub(crate) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
        into: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let before = into.len();
        while into.len() == before {
            let filled = std::task::ready!(self.poll_fill(context, buffer))?;
            if filled == 0 {
                return Poll::Ready(Ok(0));
            }
            self.open(&mut buffer[..filled], &mut |bytes| into.extend_from_slice(bytes))?;
        }
        Poll::Ready(Ok(into.len() - before))
    }

    /// Takes bytes to send; gives how many were taken.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tls(stream) => stream.poll_write(context, bytes),
            Self::Pipe(pipe) => Pin::new(pipe).poll_write(context, bytes),
        }
    }

    /// Ready when all that was taken has left.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) => stream.poll_flush(context),
            Self::Pipe(pipe) => Pin::new(pipe).poll_flush(context),
        }
    }

    /// Sends the last bytes of the connection and sees to it that they arrive, as far as that can
    /// be done in a few seconds.
    pub(crate) async fn say_last(&mut self, bytes: &[u8], goodbye: Goodbye) {
        match self {
            Self::Tls(stream) => stream.say_last(bytes, goodbye).await,
            // What is in a pipe stays there for its reader.
            Self::Pipe(pipe) => {
                let written = pipe.write_all(bytes);
                let _ = select(Box::pin(written), Timer::new(FAREWELL)).await;
            }
        }
    }

    /// Sends bytes, all of them.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.send(bytes).await,
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
        }
    }

    /// The certificates that the peer showed; a pipe's has none.
    pub(crate) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Tls(stream) => stream.peer_certificates(),
            Self::Pipe(_) => &[],
        }
    }

    /// Whether the peer has closed its end, or the connection is broken, whatever is still to be
    /// read. A pipe's peer is this process.
    pub(crate) fn peer_has_closed(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.peer_has_closed(),
            Self::Pipe(_) => false,
        }
    }
}
