//! The bytes of a session: over TLS, or through a pipe inside this process.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::tls::TlsStream;

/// A session's transport.
pub(crate) enum Link {
    Tls(Box<TlsStream>),
    Pipe(DuplexStream),
}

impl Link {
    /// Reads at least one byte, as many as are there; 0 at the end.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tls(stream) => stream.poll_read(context, buffer),
            Self::Pipe(pipe) => {
                let mut buffer = ReadBuf::new(buffer);
                std::task::ready!(Pin::new(pipe).poll_read(context, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
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
            Self::Tls(stream) => stream.poll_send(context),
            Self::Pipe(pipe) => Pin::new(pipe).poll_flush(context),
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn close(&mut self) {
        if let Self::Tls(stream) = self {
            stream.close();
        }
    }
}
