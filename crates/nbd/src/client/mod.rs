//! A client that reads: the state machines of its end without I/O, and a shell around them that blocks on
//! a socket.
//!
//! ```text
//! Client ─▶ Agreeing (greeting, options) ─▶ Agreed ─▶ Asking (requests, replies)
//! ```
//!
//! - It wants the fixed newstyle handshake and structured replies, and every context of block status that
//!   it was told to ask for; a server without is refused.
//! - Nothing is reserved for what a server only states. The data of a read go where the caller wants
//!   them; spans take the memory of what came in.
//! - Bounded: bytes of a read, reads under way, replies to an option, spans of an answer, and how long
//!   each call waits, whatever the server sends meanwhile.
//!
//! It never writes.

mod agreeing;
mod asking;
mod error;
mod shell;

pub use agreeing::{Agreed, Agreeing, Wanted};
pub use asking::{Answered, Asking};
pub use error::{ClientError, ServerInvalid};
pub use shell::{Client, READ_BYTES_MAX};
