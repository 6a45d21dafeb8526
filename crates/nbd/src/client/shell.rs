//! The shell: a connection to a server over a socket, and calls that wait for their answer.

use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{Agreed, Agreeing, Answered, Asking, ClientError, Wanted};
use crate::limits::{RECEIVED_BYTES, REQUESTS_ASKED_MAX};
use crate::serve::{Address, Socket};
use crate::{Cookie, Errno, Span};

/// Most bytes that are asked for at once; servers bear with more, but this suffices to be fast.
pub const READ_BYTES_MAX: u32 = 256 << 10;
/// Most bytes of an export of which block status is asked for at once: what fits the field.
const STATUS_BYTES_MAX: u64 = 1 << 31;

/// A connection to one export. Dropped, it says goodbye.
#[derive(Debug)]
pub struct Client {
    address: Address,
    socket: Socket,
    agreed: Agreed,
    asking: Asking,
    limit: Duration,
    /// What was received, and how much of it isn't taken yet.
    received: Box<[u8]>,
    left: Range<usize>,
    out: Vec<u8>,
}

impl Client {
    /// Connects and agrees. `limit` is how long this and every later call may take.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn connect(
        address: &Address,
        wanted: &Wanted,
        limit: Duration,
    ) -> Result<Self, ClientError> {
        let until = Instant::now() + limit;
        let unreached = |error| ClientError::Unreached { address: address.clone(), error };
        let socket = match address {
            Address::Unix(path) => {
                Socket::new(UnixStream::connect(path).map_err(unreached)?.into())
            }
            Address::Tcp(tcp) => {
                let stream = TcpStream::connect_timeout(tcp, limit).map_err(unreached)?;
                Socket::over_tcp(stream.into())
            }
        };
        let broken = |error| ClientError::Broken { address: address.clone(), error };
        let invalid = |invalid| ClientError::Invalid { address: address.clone(), invalid };
        let mut agreeing = Agreeing::new(wanted.clone());
        let (mut received, mut out) = (vec![0; RECEIVED_BYTES].into_boxed_slice(), Vec::new());
        loop {
            let count = receive(&socket, &mut received, until).map_err(broken)?;
            let mut input = &received[..count];
            let agreed = agreeing.next(&mut input, &mut out).map_err(invalid)?;
            socket.send(&out, &[]).map_err(broken)?;
            out.clear();
            if let Some(agreed) = agreed {
                let (asking, left) = (Asking::new(&agreed), count - input.len()..count);
                let address = address.clone();
                return Ok(Self { address, socket, agreed, asking, limit, received, left, out });
            }
        }
    }

    /// What the server offered.
    #[must_use]
    pub const fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// Reads a range, with some requests under way at once.
    ///
    /// # Errors
    /// [`ClientError`]. After [`ClientError::Failed`] the connection goes on.
    ///
    /// # Panics
    /// When it doesn't lie on the export.
    pub fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), ClientError> {
        let most = READ_BYTES_MAX.min(self.agreed.sizes.payload_max).max(1);
        let end = offset + into.len() as u64;
        let (mut at, until, mut failed) = (offset, Instant::now() + self.limit, None);
        let mut places: Vec<(Cookie, u64)> = Vec::new();
        loop {
            while at < end && failed.is_none() && self.asking.under_way() < REQUESTS_ASKED_MAX {
                let bytes = u32::try_from(end - at).unwrap_or(u32::MAX).min(most);
                places.push((self.asking.read(at, bytes, &mut self.out), at));
                at += u64::from(bytes);
            }
            if self.asking.under_way() == 0 {
                return failed.map_or(Ok(()), Err);
            }
            let place = |at: u64, bytes: usize| {
                let start = usize::try_from(at - offset).unwrap_or(usize::MAX);
                start..start + bytes
            };
            let failure = self.answers(until, |answered| match answered {
                Answered::Data(at, data) => into[place(at, data.len())].copy_from_slice(data),
                Answered::Hole(at, bytes) => into[place(at, bytes as usize)].fill(0),
                Answered::Spans(..) | Answered::Done(_) | Answered::Failed(..) => {}
            })?;
            if let Some((cookie, errno, text)) = failure {
                let at =
                    places.iter().find(|(asked, _)| *asked == cookie).map_or(at, |(_, at)| *at);
                failed = Some(self.failed(at, errno, text));
            }
        }
    }

    /// What a context, by its place among those that were wanted, says from `offset` on: of some of the
    /// range, from its beginning on.
    ///
    /// # Errors
    /// As [`Client::read`].
    ///
    /// # Panics
    /// When the range is empty or doesn't lie on the export.
    pub fn status(&mut self, range: &Range<u64>, context: usize) -> Result<Vec<Span>, ClientError> {
        let bytes = (range.end - range.start).min(STATUS_BYTES_MAX);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let until = Instant::now() + self.limit;
        self.asking.status(range.start, bytes, &mut self.out);
        let mut found = Vec::new();
        while self.asking.under_way() > 0 {
            let failure = self.answers(until, |answered| {
                if let Answered::Spans(told, spans) = answered
                    && told == context
                {
                    found = spans;
                }
            })?;
            if let Some((_, errno, text)) = failure {
                return Err(self.failed(range.start, errno, text));
            }
        }
        Ok(found)
    }

    /// Sends what is to be sent, and hands what is received next to `take`; a failure, if one was told.
    fn answers(
        &mut self,
        until: Instant,
        take: impl FnMut(Answered<'_>),
    ) -> Result<Option<(Cookie, Errno, String)>, ClientError> {
        let heard = self.hear(until, take);
        if heard.is_err() {
            // Nothing that comes later could be told from what was asked before.
            self.socket.end();
            self.asking = Asking::new(&self.agreed);
        }
        heard
    }

    fn hear(
        &mut self,
        until: Instant,
        mut take: impl FnMut(Answered<'_>),
    ) -> Result<Option<(Cookie, Errno, String)>, ClientError> {
        let broken = |error| ClientError::Broken { address: self.address.clone(), error };
        self.socket.send(&std::mem::take(&mut self.out), &[]).map_err(broken)?;
        if self.left.is_empty() {
            let count = receive(&self.socket, &mut self.received, until).map_err(broken)?;
            self.left = 0..count;
        }
        let mut input = &self.received[self.left.clone()];
        let mut failure = None;
        let invalid = |invalid| ClientError::Invalid { address: self.address.clone(), invalid };
        while let Some(answered) = self.asking.next(&mut input).map_err(invalid)? {
            match answered {
                Answered::Failed(cookie, errno, text) => failure = Some((cookie, errno, text)),
                answered => take(answered),
            }
        }
        self.left = self.left.end - input.len()..self.left.end;
        Ok(failure)
    }

    fn failed(&self, offset: u64, errno: Errno, text: String) -> ClientError {
        ClientError::Failed { address: self.address.clone(), offset, errno, text }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut out = Vec::new();
        Asking::disconnect(&mut out);
        // A server that is gone needs no goodbye.
        let _ = self.socket.send(&out, &[]);
    }
}

/// Waits for some bytes until then.
fn receive(socket: &Socket, into: &mut [u8], until: Instant) -> io::Result<usize> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    socket.limit_waits(Some(left))?;
    match socket.receive(into) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::ErrorKind::TimedOut.into())
        }
        received => received,
    }
}
