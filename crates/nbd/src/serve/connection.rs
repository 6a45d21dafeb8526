//! One client: its handshake, then its transmission, which a crew of threads serves.
//!
//! The members of the crew take turns: the one that has taken a command in lets the next one receive,
//! carries its command out, answers it, and comes back for another. So no command is handed from thread
//! to thread, and a slow one holds nobody up while there are members left. A crew begins with one member
//! and grows when all are busy.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::Instant;

use super::budget::{Budget, Credit};
use super::incoming::{Broken, Incoming};
use super::{Disk, Failure, Offer, ServeSettings, Socket, Zeroing};
use crate::limits::{KEPT_BYTES, RECEIVED_BYTES, STACK_BYTES};
use crate::{
    Agreement, Command, CommandFlags, CommandKind, Export, GREETING, Handshake, HandshakeError,
    Heard, Replies, Transmission,
};

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unagreed {
    /// The socket failed, or the client took too long.
    #[error("the connection broke: {0}")]
    Socket(#[from] io::Error),
    /// It broke the protocol, or asked for what isn't there.
    #[error(transparent)]
    Protocol(#[from] HandshakeError),
    /// The client went, as many do that only ask.
    #[error("the client left")]
    Left,
}

/// Agrees with a client on an export: within the time that the settings give, for whoever connects
/// takes up room.
pub(super) fn agree(
    socket: &Socket,
    exports: Arc<[Export]>,
    settings: &ServeSettings,
) -> Result<Incoming, Unagreed> {
    let end = Instant::now() + settings.handshake_max;
    let mut handshake = Handshake::new(exports);
    let (mut received, mut out) = (vec![0; RECEIVED_BYTES], GREETING.to_vec());
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Unagreed::Socket(io::ErrorKind::TimedOut.into()));
        }
        socket.limit_waits(Some(left))?;
        socket.send(&out, &[])?;
        out.clear();
        let count = socket.receive(&mut received)?;
        if count == 0 {
            return Err(Unagreed::Left);
        }
        let mut input = &received[..count];
        while let Some(heard) = handshake.next(&mut input, &mut out)? {
            match heard {
                Heard::Option => {}
                Heard::Aborted => {
                    socket.send(&out, &[])?;
                    return Err(Unagreed::Left);
                }
                Heard::Agreed(agreement) => {
                    socket.send(&out, &[])?;
                    socket.limit_waits(None)?;
                    return Ok(Incoming::new(Transmission::new(agreement), input));
                }
            }
        }
    }
}

/// What others need to know of a client, to stop it.
#[derive(Debug)]
pub(super) struct Client {
    pub socket: Socket,
    /// Commands that are being carried out.
    active: AtomicUsize,
}

impl Client {
    pub(super) const fn new(socket: Socket) -> Self {
        Self { socket, active: AtomicUsize::new(0) }
    }

    /// Once the server stops: wakes whoever receives, unless commands are under way. The client would
    /// be told that it can't send, and many take that for the end of all that they sent before; the
    /// last command's member does this then.
    pub(super) fn end_if_idle(&self) {
        if self.active.load(Ordering::SeqCst) == 0 {
            self.socket.end_receiving();
        }
    }
}

/// A client that has agreed.
pub(super) struct Connection<'a> {
    client: &'a Client,
    disk: &'a dyn Disk,
    replies: Replies,
    requests_max: usize,
    stopping: &'a AtomicBool,
    incoming: Mutex<Incoming>,
    /// Whose turn it is to send.
    sending: Mutex<()>,
    budget: Budget,
    members: AtomicUsize,
    /// Members that wait for their turn to receive.
    idle: AtomicUsize,
    broken: Mutex<Option<Broken>>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        client: &'a Client,
        incoming: Incoming,
        offers: &'a [Offer],
        settings: &ServeSettings,
        stopping: &'a AtomicBool,
    ) -> Self {
        let Agreement { index, .. } = *incoming.agreement();
        Self {
            client,
            disk: &*offers[index].disk,
            replies: incoming.replies(),
            requests_max: settings.requests_max.max(1),
            stopping,
            incoming: Mutex::new(incoming),
            sending: Mutex::new(()),
            budget: Budget::new(settings.bytes_max),
            members: AtomicUsize::new(1),
            idle: AtomicUsize::new(0),
            broken: Mutex::new(None),
        }
    }

    /// Serves the client to its end; what it asked is answered by then.
    pub(super) fn serve(self) -> Result<(), Broken> {
        thread::scope(|scope| self.member(scope));
        self.broken.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn member<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let _end = EndOnPanic(&self.client.socket);
        let (mut data, mut out) = (Vec::new(), Vec::new());
        while let Some((command, _credit)) = self.next(&mut data) {
            self.hire(scope);
            self.carry_out(&command, &mut data, &mut out);
            self.client.active.fetch_sub(1, Ordering::SeqCst);
            if self.stopping.load(Ordering::SeqCst) {
                self.client.end_if_idle();
            }
            if data.capacity() > KEPT_BYTES {
                data = Vec::new();
            }
            if out.capacity() > KEPT_BYTES {
                out = Vec::new();
            }
        }
    }

    /// Waits for this member's turn and then for a command.
    fn next(&self, data: &mut Vec<u8>) -> Option<(Command, Credit<'_>)> {
        self.idle.fetch_add(1, Ordering::Relaxed);
        let mut incoming = lock(&self.incoming);
        self.idle.fetch_sub(1, Ordering::Relaxed);
        if incoming.has_ended() {
            return None;
        }
        let next = if self.stopping.load(Ordering::SeqCst) {
            Ok(None)
        } else {
            let send = |bytes: &[u8]| self.send(bytes, &[]);
            incoming.next(&self.client.socket, &self.budget, data, send)
        };
        match next {
            Ok(Some(next)) => {
                self.client.active.fetch_add(1, Ordering::SeqCst);
                return Some(next);
            }
            Ok(None) => {}
            Err(broken) => *lock(&self.broken) = Some(broken),
        }
        incoming.end();
        None
    }

    /// Adds a member where nobody is left to receive.
    fn hire<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        if self.idle.load(Ordering::Relaxed) > 0 {
            return;
        }
        let is_full = self.members.fetch_add(1, Ordering::Relaxed) >= self.requests_max;
        let builder = thread::Builder::new().name("nbd-client".to_owned()).stack_size(STACK_BYTES);
        // Without another thread it goes on as it is.
        if is_full || builder.spawn_scoped(scope, || self.member(scope)).is_err() {
            self.members.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn carry_out(&self, command: &Command, data: &mut Vec<u8>, out: &mut Vec<u8>) {
        out.clear();
        let done = self.ask_disk(command, data, out);
        let is_read = command.kind == CommandKind::Read;
        let data = if is_read && done.is_ok() { data.as_slice() } else { &[] };
        match done {
            Err(failure) => self.replies.error(command, failure.errno, &failure.text, out),
            Ok(()) if is_read => self.replies.read_whole(command, out),
            Ok(()) if command.kind == CommandKind::BlockStatus => {}
            Ok(()) => self.replies.done(command, out),
        }
        if self.send(out, data).is_err() {
            // It may have been cut off in the midst of a reply: nothing can follow.
            self.client.socket.end();
        }
    }

    fn ask_disk(
        &self,
        command: &Command,
        data: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let (disk, durable) = (self.disk, command.is_durable());
        let (offset, bytes) = (command.offset, u64::from(command.length));
        match command.kind {
            CommandKind::Read => {
                data.resize(command.length as usize, 0);
                disk.read(offset, data)
            }
            CommandKind::Write => disk.write(offset, data, durable),
            CommandKind::WriteZeroes => {
                let allocate = command.flags.has(CommandFlags::NO_HOLE);
                let fast = command.flags.has(CommandFlags::FAST_ZERO);
                disk.zero(offset, bytes, Zeroing { durable, allocate, fast })
            }
            CommandKind::Trim => disk.trim(offset, bytes, durable),
            CommandKind::Flush => disk.flush(),
            CommandKind::Cache => disk.cache(offset, bytes),
            CommandKind::BlockStatus => {
                let spans = disk.status(offset, bytes)?;
                self.replies.block_status(command, spans, out);
                Ok(())
            }
            CommandKind::Disconnect => unreachable!("it is an event of its own"),
        }
    }

    fn send(&self, header: &[u8], data: &[u8]) -> io::Result<()> {
        let _turn = lock(&self.sending);
        self.client.socket.send(header, data)
    }
}

/// Ends a connection of which a member panicked, so that the others leave, too.
struct EndOnPanic<'a>(&'a Socket);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Who panicked has ended the connection.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
