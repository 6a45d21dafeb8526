//! The server: accepts clients until it is stopped.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Scope};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use tracing::{debug, warn};

use super::connection::{Client, Connection, agree};
use super::listener::Listener;
use super::{Address, Disk, ServeError, ServeSettings, Socket};
use crate::Export;
use crate::limits::STACK_BYTES;

/// How long to wait before another client is accepted where the system had no room for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take to read its last replies and go.
const LINGER: Duration = Duration::from_secs(1);

/// A disk and the name under which it is served.
#[derive(Clone)]
pub struct Offer {
    /// What clients are told of it.
    pub export: Export,
    /// What they get.
    pub disk: Arc<dyn Disk>,
}

/// A server. Dropped without [`Server::stop`] it ends at once: clients lose their connections.
pub struct Server {
    host: Arc<Host>,
    address: Address,
    acceptor: Option<JoinHandle<()>>,
}

struct Host {
    exports: Arc<[Export]>,
    offers: Vec<Offer>,
    settings: ServeSettings,
    stopping: AtomicBool,
    /// Written to once it stops.
    wake: OwnedFd,
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
    left: Condvar,
}

impl Server {
    /// Serves `offers` at `address`; clients that name none get the one without a name, or the only
    /// one.
    ///
    /// # Errors
    /// [`ServeError`]
    pub fn start(
        address: &Address,
        offers: Vec<Offer>,
        settings: ServeSettings,
    ) -> Result<Self, ServeError> {
        let bytes_max = settings.bytes_max;
        for Offer { export, .. } in &offers {
            let payload_max = export.sizes().payload_max;
            if payload_max > bytes_max {
                let export = export.name().to_owned();
                return Err(ServeError::Narrow { export, payload_max, bytes_max });
            }
        }
        let listener = Listener::bind(address)?;
        let address = listener.address().clone();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = wake.map_err(|error| ServeError::Thread(error.into()))?;
        let host = Arc::new(Host {
            exports: offers.iter().map(|offer| offer.export.clone()).collect(),
            offers,
            settings,
            stopping: AtomicBool::new(false),
            wake,
            clients: Mutex::new(BTreeMap::new()),
            left: Condvar::new(),
        });
        let acceptor = thread::Builder::new().name("nbd-accept".to_owned()).spawn({
            let host = host.clone();
            move || host.run(&listener)
        });
        let acceptor = Some(acceptor.map_err(ServeError::Thread)?);
        Ok(Self { host, address, acceptor })
    }

    /// Where it is; with the port that the system chose where 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Clients that are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.host.lock().len()
    }

    /// Takes no further client and no further command, answers what is under way, and ends. Clients
    /// that haven't taken their replies after `patience` lose them. It waits for the disk as long as
    /// that takes.
    pub fn stop(mut self, patience: Duration) {
        self.end(patience);
    }

    fn end(&mut self, patience: Duration) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.host.stopping.store(true, Ordering::SeqCst);
        // It can't be full: this is the only write to it.
        let _ = rustix::io::write(&self.host.wake, &1_u64.to_ne_bytes());
        let clients = self.host.lock();
        let waited = self.host.left.wait_timeout_while(clients, patience, |left| !left.is_empty());
        let (clients, _) = waited.unwrap_or_else(PoisonError::into_inner);
        for client in clients.values() {
            client.socket.end();
        }
        drop(clients);
        if acceptor.join().is_err() {
            warn!(
                "a thread that served an NBD client panicked: this is a defect, please report it"
            );
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Host {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        // It is whole between calls, whoever panicked.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, listener: &Listener) {
        thread::scope(|scope| {
            let mut number = 0;
            while self.wait(listener) {
                match listener.accept() {
                    Ok(socket) => {
                        number += 1;
                        self.admit(scope, number, socket);
                    }
                    Err(error) => {
                        warn!("an NBD client can't be accepted: {error}");
                        thread::sleep(ACCEPT_PAUSE);
                    }
                }
            }
            // Nobody comes after this.
            for client in self.lock().values() {
                client.end_if_idle();
            }
        });
    }

    /// Waits for a client; whether the server goes on.
    fn wait(&self, listener: &Listener) -> bool {
        let mut ready =
            [PollFd::new(listener, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        if let Err(error) = poll(&mut ready, None)
            && error != rustix::io::Errno::INTR
        {
            warn!("waiting for NBD clients failed: {error}");
            thread::sleep(ACCEPT_PAUSE);
        }
        !self.stopping.load(Ordering::SeqCst)
    }

    fn admit<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, number: u64, socket: Socket) {
        let client = Arc::new(Client::new(socket));
        let mut clients = self.lock();
        if clients.len() >= self.settings.connections_max {
            warn!("an NBD client was turned away: {} are connected already", clients.len());
            return;
        }
        clients.insert(number, client.clone());
        drop(clients);
        let builder = thread::Builder::new().name("nbd-client".to_owned()).stack_size(STACK_BYTES);
        let seat = Seat { host: self, number };
        let spawned = builder.spawn_scoped(scope, move || {
            let _seat = seat;
            self.serve(number, &client);
        });
        if let Err(error) = spawned {
            warn!("an NBD client was turned away: no thread for it can be started: {error}");
        }
    }

    fn serve(&self, number: u64, client: &Client) {
        let incoming = match agree(&client.socket, self.exports.clone(), &self.settings) {
            Ok(incoming) => incoming,
            Err(why) => return debug!("NBD client {number} chose no export: {why}"),
        };
        debug!("NBD client {number} uses '{}'", incoming.agreement().export.name());
        let connection =
            Connection::new(client, incoming, &self.offers, &self.settings, &self.stopping);
        match connection.serve() {
            Ok(()) => debug!("NBD client {number} left"),
            Err(why) => warn!("NBD client {number} was given up: {why}"),
        }
        // What wasn't received any more would make the kernel take back replies that are on their way.
        client.socket.end_sending();
        let end = Instant::now() + LINGER;
        if client.socket.limit_waits(Some(LINGER)).is_ok() {
            let mut rest = [0; 4096];
            while Instant::now() < end && matches!(client.socket.receive(&mut rest), Ok(1..)) {}
        }
    }
}

/// A client's place among those that are connected.
struct Seat<'a> {
    host: &'a Host,
    number: u64,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.host.lock().remove(&self.number) {
            client.socket.end();
        }
        self.host.left.notify_all();
    }
}
