//! Requests: what a client says during the transmission.

use crate::CommandFlags;
use crate::network::WriteNetwork;

/// What begins every request.
const REQUEST_MAGIC: u32 = 0x2560_9513;

/// Bytes of a request, but for the data of a write.
pub const REQUEST_BYTES: usize = 28;

/// The client's name for a request; it comes back with the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cookie(pub u64);

/// What shall be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CommandKind {
    /// Give data.
    Read = 0,
    /// Take the data that follow.
    Write = 1,
    /// The client goes.
    Disconnect = 2,
    /// Make durable what was answered.
    Flush = 3,
    /// Forget data.
    Trim = 4,
    /// Have data at hand.
    Cache = 5,
    /// Write zeros.
    WriteZeroes = 6,
    /// Tell what is there.
    BlockStatus = 7,
}

impl CommandKind {
    /// The kind with this number; `None` for unknown ones.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Disconnect,
            3 => Self::Flush,
            4 => Self::Trim,
            5 => Self::Cache,
            6 => Self::WriteZeroes,
            7 => Self::BlockStatus,
            _ => return None,
        })
    }

    /// Whether it changes the disk.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Trim | Self::WriteZeroes)
    }
}

/// A request doesn't begin as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request began with {0:#010x}, which begins none: the stream is out of step")]
pub struct RequestMagic(pub u32);

/// A request as it lies on the wire; nothing of it was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// How it is meant.
    pub flags: CommandFlags,
    /// What shall be done; see [`CommandKind`].
    pub code: u16,
    /// Its name.
    pub cookie: Cookie,
    /// Where, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u32,
}

impl Request {
    /// Appends it; a write's data follow.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.be_u32(REQUEST_MAGIC).be_u16(self.flags.0).be_u16(self.code);
        out.be_u64(self.cookie.0).be_u64(self.offset).be_u32(self.length);
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`RequestMagic`] when it is none.
    pub fn decode(bytes: &[u8; REQUEST_BYTES]) -> Result<Self, RequestMagic> {
        let magic = u32::from_be_bytes(part(bytes, 0));
        if magic != REQUEST_MAGIC {
            return Err(RequestMagic(magic));
        }
        Ok(Self {
            flags: CommandFlags(u16::from_be_bytes(part(bytes, 4))),
            code: u16::from_be_bytes(part(bytes, 6)),
            cookie: Cookie(u64::from_be_bytes(part(bytes, 8))),
            offset: u64::from_be_bytes(part(bytes, 16)),
            length: u32::from_be_bytes(part(bytes, 24)),
        })
    }
}

fn part<const N: usize>(bytes: &[u8; REQUEST_BYTES], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

/// A request that was checked: it lies within its export and is allowed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// The request's name.
    pub cookie: Cookie,
    /// What shall be done.
    pub kind: CommandKind,
    /// Where, in bytes.
    pub offset: u64,
    /// How many bytes; 0 of a flush or a disconnect only.
    pub length: u32,
    /// How it is meant.
    pub flags: CommandFlags,
}

impl Command {
    /// Whether what it writes must be durable before it is answered.
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        self.kind.writes() && self.flags.has(CommandFlags::FUA)
    }

    /// The first byte after it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset + self.length as u64
    }
}
