//! Serving NBD clients: the shell around [`Handshake`](crate::Handshake) and
//! [`Transmission`](crate::Transmission), with blocking sockets and threads.
//!
//! ```text
//! Listener ─▶ Server ─▶ Connection (agree, then a crew) ─▶ Disk
//!                         Incoming, Budget, Socket
//! ```
//!
//! - A client that breaks the protocol, hangs or vanishes ends or holds up itself alone.
//! - Requests of one connection are carried out side by side, and answered as they end.
//! - What is under way when the server is stopped is answered before the connections end.
//! - Bounded: connections; for each of them requests and bytes under way ([`ServeSettings`]).
//!
//! It keeps nothing of a disk between commands: what flushes and several connections promise is the
//! [`Disk`]'s to keep.

mod address;
mod budget;
mod connection;
mod disk;
mod error;
mod incoming;
mod listener;
mod server;
mod settings;
mod socket;

pub use address::{Address, AddressInvalid};
pub use disk::{Disk, Failure, Zeroing};
pub use error::ServeError;
pub use server::{Offer, Server};
pub use settings::ServeSettings;
pub(crate) use socket::Socket;
