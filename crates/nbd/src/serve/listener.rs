//! The listening socket.
//!
//! A socket in the file system is its user's alone from the moment that it is there. Its path belongs
//! to the one server that holds the lock on the file `PATH.lock` beside it; a path that a dead server
//! left is taken over, and that of a living one is not, also where it is another program that locks
//! nothing. Both files are removed at the end.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    getsockname, listen, socket_with, sockopt,
};

use super::{Address, ServeError, Socket};

/// Clients that wait to be accepted: as many as may be connected by default, and some.
const BACKLOG: i32 = 64;

/// A socket that is listened on.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    address: Address,
    /// Removed at the end.
    _path: Option<SocketPath>,
}

impl Listener {
    /// Listens on an address.
    pub(super) fn bind(address: &Address) -> Result<Self, ServeError> {
        match address {
            Address::Unix(path) => Self::bind_unix(path),
            Address::Tcp(tcp) => Self::bind_tcp(*tcp).map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => ServeError::InUse(address.clone()),
                _ => failed(address, "binding it")(error),
            }),
        }
    }

    fn bind_unix(path: &Path) -> Result<Self, ServeError> {
        let address = Address::Unix(path.to_owned());
        let lock = Lock::take(path, &address)?;
        free(path, &address)?;
        let bound = || -> io::Result<_> {
            let socket = new_socket(AddressFamily::UNIX)?;
            // Before it has a path: nobody else can connect, at no moment.
            fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
            bind(&socket, &SocketAddrUnix::new(path)?)?;
            listen(&socket, BACKLOG)?;
            Ok(socket)
        };
        let socket = bound().map_err(failed(&address, "binding it"))?;
        let identity = identity_of(path).map_err(failed(&address, "looking at its socket"))?;
        let path = SocketPath { path: path.to_owned(), identity, _lock: lock };
        Ok(Self { socket, address, _path: Some(path) })
    }

    fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = new_socket(family)?;
        // A server that was just stopped leaves connections behind that bar nobody's way.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        let bound = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok(Self { socket, address: Address::Tcp(bound), _path: None })
    }

    /// Where it listens; a port that the system chose is known.
    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    /// The next client.
    pub(super) fn accept(&self) -> io::Result<Socket> {
        let socket = accept_with(&self.socket, SocketFlags::CLOEXEC)?;
        Ok(match self.address {
            Address::Unix(_) => Socket::new(socket),
            Address::Tcp(_) => Socket::over_tcp(socket),
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket's path that is ours.
#[derive(Debug)]
struct SocketPath {
    path: PathBuf,
    identity: (u64, u64),
    /// Given back after the socket is gone.
    _lock: Lock,
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        if identity_of(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Whatever keeps it there: the next server takes it over.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The right to a path.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(path: &Path, address: &Address) -> Result<Self, ServeError> {
        let failed = || failed(address, "locking it");
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        loop {
            let mut how = OpenOptions::new();
            how.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = how.open(&path).map_err(failed())?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(ServeError::InUse(address.clone())),
                Err(TryLockError::Error(error)) => return Err(failed()(error)),
            }
            let ours = file.metadata().map_err(failed())?;
            // Who had it may have removed it between our opening and our locking.
            if identity_of(&path).is_ok_and(|identity| identity == (ours.dev(), ours.ino())) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still locked, so that nobody's file is removed but ours.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes room at a path: removes a socket on which nobody listens.
fn free(path: &Path, address: &Address) -> Result<(), ServeError> {
    let failed = |doing| failed(address, doing);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found if !found.as_ref().is_ok_and(|found| found.file_type().is_socket()) => {
            found.map_err(failed("looking at it"))?;
            return Err(ServeError::NotASocket(path.to_owned()));
        }
        _ => {}
    }
    let alive = || -> io::Result<bool> {
        let kind = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, kind, None)?;
        match connect(&socket, &SocketAddrUnix::new(path)?) {
            Err(rustix::io::Errno::CONNREFUSED) => Ok(false),
            // Too many wait for it already.
            Ok(()) | Err(rustix::io::Errno::AGAIN) => Ok(true),
            Err(error) => Err(error.into()),
        }
    };
    if alive().map_err(failed("looking for a server on it"))? {
        return Err(ServeError::InUse(address.clone()));
    }
    std::fs::remove_file(path).map_err(failed("removing the socket of a dead server"))
}

fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

fn failed(address: &Address, doing: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    let address = address.clone();
    move |error| ServeError::Listen { address, doing, error }
}
