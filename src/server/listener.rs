//! The one listening socket: a thread that accepts and hands sockets to the shards.
//!
//! One socket and no `SO_REUSEPORT`: with it a second server on the same port would start without
//! an error and silently take half of the connections.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};
use tidegate_wire::limits::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, USER_TIMEOUT};
use tracing::{debug, warn};

use super::settings::ServerError;

/// How often the thread looks whether it shall stop.
const STOP_CHECK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// After an error that isn't a client's (no descriptors left, say): wait before trying again.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// A socket that listens at `address`.
///
/// # Errors
/// When the address can't be had: the error says which and why.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let listener = TcpListener::bind(address);
    listener
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| ServerError::bind(address, error))
}

/// The listening thread; stops when it is dropped.
pub(crate) struct Listener {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Counts a connection as long as it lives.
pub(crate) struct ConnectionGuard(Arc<AtomicUsize>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Listener {
    /// Gives each connection of `listener` to `hand_over`, at most `connections_max` at once:
    /// those beyond are closed at once, and said so in the log.
    pub(crate) fn start(
        listener: TcpListener,
        connections_max: usize,
        mut hand_over: impl FnMut(TcpStream, SocketAddr, ConnectionGuard) + Send + 'static,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let live = Arc::new(AtomicUsize::new(0));
        let run = move || {
            while !stopped.load(Ordering::Relaxed) {
                match wait_and_accept(&listener) {
                    Ok(Some((socket, peer))) => {
                        if live.fetch_add(1, Ordering::Relaxed) >= connections_max {
                            live.fetch_sub(1, Ordering::Relaxed);
                            warn!(%peer, connections_max, "closed a connection: there are too many");
                            continue;
                        }
                        hand_over(socket, peer, ConnectionGuard(live.clone()));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        warn!(%error, "can't accept connections for now");
                        std::thread::sleep(ERROR_PAUSE);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("listener".to_owned()).spawn(run)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// The address that was bound: with the port that the system chose, where it was 0.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the listening thread had panicked");
        }
    }
}

fn wait_and_accept(listener: &TcpListener) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    let mut events = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
    if poll(&mut events, Some(&STOP_CHECK))? == 0 {
        return Ok(None);
    }
    match listener.accept() {
        Ok((socket, peer)) => match prepare(&socket) {
            Ok(()) => Ok(Some((socket, peer))),
            Err(error) => {
                debug!(%peer, %error, "a connection ended before it began");
                Ok(None)
            }
        },
        Err(error) if is_the_peers(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}
