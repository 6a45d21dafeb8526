//! Replies: what a server says during the transmission. Their bytes; [`crate::Replies`] says what
//! may be answered to what.

use tidegate_model::{Reader, Short};

use crate::limits::{PAYLOAD_BYTES_MAX, SPANS_MAX, STRING_BYTES_MAX};
use crate::network::{ReadNetwork, WriteNetwork};
use crate::{Cookie, Errno, Span, StatusFlags};

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// `NBD_REPLY_FLAG_DONE`
const DONE: u16 = 1;

/// What a chunk of a structured reply holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ChunkCode {
    /// Nothing; the last one.
    None = 0,
    /// Data.
    Data = 1,
    /// A range of zeros.
    Hole = 2,
    /// Block status.
    BlockStatus = 5,
    /// An error.
    Error = 0x8001,
    /// An error at an offset.
    ErrorOffset = 0x8002,
}

impl ChunkCode {
    /// The chunk with this number. Unknown errors count as errors; `None` for unknown others.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            0 => Self::None,
            1 => Self::Data,
            2 => Self::Hole,
            5 => Self::BlockStatus,
            0x8002 => Self::ErrorOffset,
            0x8000.. => Self::Error,
            _ => return None,
        })
    }

    /// Whether a payload of so many bytes can be one.
    const fn takes(self, bytes: u32) -> bool {
        let bytes = bytes as usize;
        match self {
            Self::None => bytes == 0,
            Self::Data => bytes > 8 && bytes <= 8 + PAYLOAD_BYTES_MAX as usize,
            Self::Hole => bytes == 12,
            Self::BlockStatus => {
                bytes >= 12 && bytes <= 4 + 8 * SPANS_MAX && (bytes - 4).is_multiple_of(8)
            }
            // Unknown errors may have fields of their own behind the text.
            Self::Error => bytes >= 6 && bytes <= 2 * STRING_BYTES_MAX,
            Self::ErrorOffset => bytes >= 14 && bytes <= 14 + STRING_BYTES_MAX,
        }
    }
}

/// A server's reply makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyInvalid {
    /// The magic is another.
    #[error("a reply began with {0:#010x}, which begins none: the stream is out of step")]
    Magic(u32),
    /// A chunk that isn't known.
    #[error("chunks of kind {0} aren't known")]
    Code(u16),
    /// A chunk with a length that none of its kind has.
    #[error("a chunk {0:?} of {1} bytes can't be")]
    Length(ChunkCode, u32),
    /// A chunk whose fields don't fit it.
    #[error("a chunk is cut short: {0}")]
    Short(#[from] Short),
    /// A field that can't be.
    #[error("a chunk has {0}, which can't be")]
    Field(&'static str),
}

/// What is in front of a chunk's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The request's name.
    pub cookie: Cookie,
    /// What it holds.
    pub code: ChunkCode,
    /// Whether it is the last one of its reply.
    pub is_last: bool,
    /// How many bytes of payload follow.
    pub length: u32,
}

impl ChunkHeader {
    /// Its size.
    pub const BYTES: usize = 20;

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.be_u32(CHUNK_MAGIC).be_u16(if self.is_last { DONE } else { 0 });
        out.be_u16(self.code as u16).be_u64(self.cookie.0).be_u32(self.length);
    }
}

/// What every reply begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyHeader {
    /// A simple reply; the data follow where a read succeeded.
    Simple {
        /// The request's name.
        cookie: Cookie,
        /// Why it failed, if it did.
        error: Option<Errno>,
    },
    /// A chunk of a structured one.
    Chunk(ChunkHeader),
}

impl ReplyHeader {
    /// The size of a simple one; a chunk's is [`ChunkHeader::BYTES`].
    pub const SIMPLE_BYTES: usize = 16;

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Simple { cookie, error } => {
                out.be_u32(SIMPLE_MAGIC).be_u32(error.map_or(0, Errno::code)).be_u64(cookie.0);
            }
            Self::Chunk(chunk) => chunk.encode(out),
        }
    }

    /// Takes it off the front of `input`; `None`, and nothing taken, while it isn't whole.
    ///
    /// # Errors
    /// [`ReplyInvalid`] when it is none, or states a length that can't be.
    pub fn decode(input: &mut &[u8]) -> Result<Option<Self>, ReplyInvalid> {
        let mut reader = Reader::new(input);
        let Ok(magic) = reader.be_u32() else { return Ok(None) };
        let bytes = match magic {
            SIMPLE_MAGIC => Self::SIMPLE_BYTES,
            CHUNK_MAGIC => ChunkHeader::BYTES,
            other => return Err(ReplyInvalid::Magic(other)),
        };
        if input.len() < bytes {
            return Ok(None);
        }
        let header = if magic == SIMPLE_MAGIC {
            let error = Errno::from_code(reader.be_u32()?);
            Self::Simple { cookie: Cookie(reader.be_u64()?), error }
        } else {
            Self::Chunk(chunk(&mut reader)?)
        };
        *input = &input[bytes..];
        Ok(Some(header))
    }
}

/// A chunk's header, after its magic.
fn chunk(reader: &mut Reader<'_>) -> Result<ChunkHeader, ReplyInvalid> {
    let (flags, code) = (reader.be_u16()?, reader.be_u16()?);
    let (cookie, length) = (Cookie(reader.be_u64()?), reader.be_u32()?);
    let code = ChunkCode::from_code(code).ok_or(ReplyInvalid::Code(code))?;
    let is_last = flags & DONE != 0;
    if !code.takes(length) || (code == ChunkCode::None && !is_last) {
        return Err(ReplyInvalid::Length(code, length));
    }
    Ok(ChunkHeader { cookie, code, is_last, length })
}

/// A chunk's payload, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkBody<'a> {
    /// Nothing.
    None,
    /// Data, and where they are from.
    Data(u64, &'a [u8]),
    /// So many zeros, and where they are.
    Hole(u64, u32),
    /// Spans of a context, by its number; see [`ChunkBody::spans`].
    BlockStatus(u32, &'a [u8]),
    /// An error, its text as it came, and where it happened if that is known.
    Error(Errno, &'a [u8], Option<u64>),
}

impl<'a> ChunkBody<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// [`ReplyInvalid`] when it makes no sense.
    pub fn decode(code: ChunkCode, payload: &'a [u8]) -> Result<Self, ReplyInvalid> {
        let mut reader = Reader::new(payload);
        let body = match code {
            ChunkCode::None => Self::None,
            ChunkCode::Data => Self::Data(reader.be_u64()?, reader.bytes(reader.left())?),
            ChunkCode::Hole => Self::Hole(reader.be_u64()?, reader.be_u32()?),
            ChunkCode::BlockStatus => {
                Self::BlockStatus(reader.be_u32()?, reader.bytes(reader.left())?)
            }
            ChunkCode::Error | ChunkCode::ErrorOffset => {
                let errno = Errno::from_code(reader.be_u32()?);
                let errno = errno.ok_or(ReplyInvalid::Field("an error of number 0"))?;
                let length = usize::from(reader.be_u16()?);
                let text = reader.bytes(length)?;
                let is_placed = code == ChunkCode::ErrorOffset;
                let offset = if is_placed { Some(reader.be_u64()?) } else { None };
                Self::Error(errno, text, offset)
            }
        };
        match body {
            Self::Data(_, []) | Self::Hole(_, 0) => Err(ReplyInvalid::Field("a range of 0 bytes")),
            Self::BlockStatus(_, spans) if spans.is_empty() || !spans.len().is_multiple_of(8) => {
                Err(ReplyInvalid::Field("a part of a span"))
            }
            body => Ok(body),
        }
    }

    /// The spans of block status; none of other chunks. A length of 0 can come of a bad server.
    pub fn spans(&self) -> impl Iterator<Item = Span> + use<'a> {
        let spans = if let Self::BlockStatus(_, spans) = *self { spans } else { &[] };
        spans.chunks_exact(8).map_while(|span| {
            let mut reader = Reader::new(span);
            let (length, flags) = (reader.be_u32().ok()?, reader.be_u32().ok()?);
            Some(Span { length: u64::from(length), flags: StatusFlags(flags) })
        })
    }
}
