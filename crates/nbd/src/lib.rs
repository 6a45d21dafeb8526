//! The NBD protocol: messages of both ends, the state machines of a server, without I/O, and the
//! shell that serves clients ([`serve`]); and a client that reads, of both kinds ([`client`]).
//!
//! The document is doc/proto.md of the NBD project (<https://github.com/NetworkBlockDevice/nbd>);
//! names of constants there are given where ours differ. Spoken are the fixed newstyle handshake
//! and a transmission with simple or structured replies; not TLS, not extended headers.
//!
//! A connection is first a [`Handshake`], then with its [`Agreement`] a [`Transmission`], which
//! gives commands; [`Replies`] answers them, in any order. They don't own sockets, files, clocks, or
//! any data: payloads of writes are handed on as they come in, data of reads are left where they
//! lie, behind a header that is written here.
//!
//! Invariants: nothing that the other end sends can panic here, or make us reserve more than the
//! limits in [`limits`]; a command that is given lies within its export and is allowed there.

mod agreement;
pub mod client;
mod errno;
mod export;
mod flags;
mod gather;
mod handshake;
pub mod limits;
mod network;
mod option;
mod option_reply;
mod replies;
mod reply;
mod request;
pub mod serve;
mod status;
mod transmission;

pub use agreement::Agreement;
pub use errno::Errno;
pub use export::{BlockSizes, Export, ExportError};
pub use flags::{CommandFlags, StatusFlags, TransmissionFlags};
pub use handshake::{GREETING, Handshake, HandshakeError, Heard};
pub use option::{ExportRequest, OptionCode, OptionHeader, OptionInvalid, Queries, QueryRequest};
pub use option_reply::{Info, InfoCode, OptionReply, OptionReplyCode, OptionReplyInvalid};
pub use replies::Replies;
pub use reply::{ChunkBody, ChunkCode, ChunkHeader, ReplyHeader, ReplyInvalid};
pub use request::{Command, CommandKind, Cookie, REQUEST_BYTES, Request, RequestMagic};
pub use status::{BASE_ALLOCATION, Span};
pub use transmission::{Event, Transmission, TransmissionError};
