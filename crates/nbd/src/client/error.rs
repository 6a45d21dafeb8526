//! Why a client gives up its server, or one request.

use std::io;

use crate::serve::Address;
use crate::{Errno, OptionReplyInvalid, ReplyInvalid};

/// What a server says makes no sense, or isn't what is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerInvalid {
    /// It begins with something else.
    #[error("it doesn't greet as an NBD server with the fixed newstyle handshake does")]
    Greeting,
    /// A reply that can't be read.
    #[error(transparent)]
    Option(#[from] OptionReplyInvalid),
    /// A reply that can't be read.
    #[error(transparent)]
    Reply(#[from] ReplyInvalid),
    /// It doesn't do what is needed.
    #[error("it refuses {what}: {why}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Its words, or what they mean.
        why: String,
    },
    /// It hasn't what is asked for.
    #[error(
        "it has no '{0}' of this export: see that the bitmap is there and named with the export, and \
         that the server tells block status"
    )]
    Context(String),
    /// It says what doesn't follow from what was asked.
    #[error("it {0}, which nobody asked for: the stream is out of step")]
    Unasked(&'static str),
    /// An export that can't be.
    #[error("it offers an export of {0} bytes, which can't be")]
    Bytes(u64),
    /// More replies to one option than any server has a reason for.
    #[error("it goes on answering one option without an end")]
    Endless,
}

/// Why a client has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("no NBD server can be reached at {address}: {error}")]
    Unreached {
        /// Where.
        address: Address,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The connection broke, or the server took too long.
    #[error("the connection with the NBD server at {address} broke: {error}")]
    Broken {
        /// Where.
        address: Address,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// It breaks the protocol, or can't do what is needed.
    #[error("the NBD server at {address} can't be used: {invalid}")]
    Invalid {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        invalid: ServerInvalid,
    },
    /// It couldn't do what was asked; the connection goes on.
    #[error("the NBD server at {address} failed at offset {offset}: {errno:?}, '{text}'")]
    Failed {
        /// Where the server is.
        address: Address,
        /// Where on the export.
        offset: u64,
        /// Why.
        errno: Errno,
        /// Its words.
        text: String,
    },
}
