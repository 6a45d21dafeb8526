//! Replies to options: what a server says during the handshake.

use tidegate_model::{Reader, Short};

use crate::limits::{STRING_BYTES_MAX, TEXT_BYTES_MAX};
use crate::network::{ReadNetwork, WriteNetwork, cut, length};
use crate::{BlockSizes, TransmissionFlags};

/// What begins every reply to an option.
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// An error's bit.
const ERROR: u32 = 1 << 31;

/// What a server answers to an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum OptionReplyCode {
    /// Yes, or nothing more.
    Ack = 1,
    /// An export's name.
    Server = 2,
    /// About an export; see [`Info`].
    Info = 3,
    /// What can be asked of block status.
    MetaContext = 4,
    /// The option isn't known.
    Unsupported = ERROR + 1,
    /// It isn't allowed.
    Policy = ERROR + 2,
    /// Its data make no sense.
    Invalid = ERROR + 3,
    /// It can't be had on this machine.
    Platform = ERROR + 4,
    /// Not without TLS.
    TlsRequired = ERROR + 5,
    /// There is no such export.
    Unknown = ERROR + 6,
    /// The server is stopping.
    ShuttingDown = ERROR + 7,
    /// Not without asking for block sizes.
    BlockSizeRequired = ERROR + 8,
    /// It is too long.
    TooBig = ERROR + 9,
}

impl OptionReplyCode {
    /// The reply with this number. Unknown errors count as unsupported; `None` for unknown others.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Ack,
            2 => Self::Server,
            3 => Self::Info,
            4 => Self::MetaContext,
            0x8000_0002 => Self::Policy,
            0x8000_0003 => Self::Invalid,
            0x8000_0004 => Self::Platform,
            0x8000_0005 => Self::TlsRequired,
            0x8000_0006 => Self::Unknown,
            0x8000_0007 => Self::ShuttingDown,
            0x8000_0008 => Self::BlockSizeRequired,
            0x8000_0009 => Self::TooBig,
            ERROR.. => Self::Unsupported,
            _ => return None,
        })
    }

    /// Whether it is a refusal; its payload is a text for people then.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self as u32 & ERROR != 0
    }
}

/// A server's reply makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionReplyInvalid {
    /// The magic is another.
    #[error("a reply to an option began with {0:#018x}, which begins none")]
    Magic(u64),
    /// A reply that isn't known.
    #[error("replies of kind {0} to options aren't known")]
    Code(u32),
    /// Longer than any reply is.
    #[error("a reply of {0} bytes to an option is longer than any is")]
    Long(u32),
    /// Too short for its fields.
    #[error("a reply to an option is cut short: {0}")]
    Short(#[from] Short),
    /// A name isn't UTF-8.
    #[error("a name in a reply to an option isn't UTF-8")]
    Text,
}

/// What is in front of a reply's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionReply {
    /// The option that it answers, as it was sent.
    pub option: u32,
    /// The answer.
    pub code: OptionReplyCode,
    /// How many bytes of payload follow.
    pub length: u32,
}

impl OptionReply {
    /// Its size.
    pub const BYTES: usize = 20;

    /// Most bytes of a payload: an export's name and its description.
    pub const PAYLOAD_BYTES_MAX: usize = 4 + 2 * STRING_BYTES_MAX;

    /// Appends it.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.be_u64(REPLY_MAGIC).be_u32(self.option).be_u32(self.code as u32).be_u32(self.length);
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`OptionReplyInvalid`] when it is none, or states too long a payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, OptionReplyInvalid> {
        let mut reader = Reader::new(bytes);
        let magic = reader.be_u64()?;
        if magic != REPLY_MAGIC {
            return Err(OptionReplyInvalid::Magic(magic));
        }
        let (option, code, length) = (reader.be_u32()?, reader.be_u32()?, reader.be_u32()?);
        if length as usize > Self::PAYLOAD_BYTES_MAX {
            return Err(OptionReplyInvalid::Long(length));
        }
        let code = OptionReplyCode::from_code(code).ok_or(OptionReplyInvalid::Code(code))?;
        Ok(Self { option, code, length })
    }

    /// Appends a reply with a text, or none.
    pub(crate) fn text(option: u32, code: OptionReplyCode, text: &str, out: &mut Vec<u8>) {
        let text = cut(text, TEXT_BYTES_MAX);
        Self { option, code, length: length(text.len()) }.encode(out);
        out.raw(text.as_bytes());
    }

    /// Appends an export's name and its description, as an answer to [`crate::OptionCode::List`].
    pub(crate) fn server(option: u32, name: &str, description: &str, out: &mut Vec<u8>) {
        let bytes = length(4 + name.len() + description.len());
        Self { option, code: OptionReplyCode::Server, length: bytes }.encode(out);
        out.be_u32(length(name.len())).raw(name.as_bytes()).raw(description.as_bytes());
    }

    /// Appends a context of block status and its number.
    pub(crate) fn meta_context(option: u32, id: u32, name: &str, out: &mut Vec<u8>) {
        let bytes = length(4 + name.len());
        Self { option, code: OptionReplyCode::MetaContext, length: bytes }.encode(out);
        out.be_u32(id).raw(name.as_bytes());
    }

    /// Reads the payload of [`OptionReplyCode::MetaContext`]: the context's number and name.
    ///
    /// # Errors
    /// [`OptionReplyInvalid`] when it makes no sense.
    pub fn decode_meta_context(payload: &[u8]) -> Result<(u32, &str), OptionReplyInvalid> {
        let mut reader = Reader::new(payload);
        let id = reader.be_u32()?;
        let name = std::str::from_utf8(reader.bytes(reader.left())?);
        Ok((id, name.map_err(|_| OptionReplyInvalid::Text)?))
    }

    /// Reads the payload of [`OptionReplyCode::Server`]: the export's name and its description.
    ///
    /// # Errors
    /// [`OptionReplyInvalid`] when it makes no sense.
    pub fn decode_server(payload: &[u8]) -> Result<(&str, &str), OptionReplyInvalid> {
        let mut reader = Reader::new(payload);
        let length = usize::try_from(reader.be_u32()?).unwrap_or(usize::MAX);
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| OptionReplyInvalid::Text);
        let name = text(reader.bytes(length)?)?;
        Ok((name, text(reader.bytes(reader.left())?)?))
    }
}

/// The numbers of informations about an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum InfoCode {
    /// Size and flags; always told.
    Export = 0,
    /// The name that it really has.
    Name = 1,
    /// A text for people.
    Description = 2,
    /// What lengths it takes.
    BlockSize = 3,
}

/// An information about an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Info<'a> {
    /// Size and flags.
    Export(u64, TransmissionFlags),
    /// The name that it really has.
    Name(&'a str),
    /// A text for people.
    Description(&'a str),
    /// What lengths it takes.
    BlockSize(BlockSizes),
    /// One that isn't known.
    Other(u16),
}

impl<'a> Info<'a> {
    /// Appends the reply that says it.
    ///
    /// # Panics
    /// If it is one that isn't known.
    pub fn encode(self, option: u32, out: &mut Vec<u8>) {
        let header = |bytes: usize, info: InfoCode, out: &mut Vec<u8>| {
            let length = length(2 + bytes);
            OptionReply { option, code: OptionReplyCode::Info, length }.encode(out);
            out.be_u16(info as u16);
        };
        match self {
            Self::Export(bytes, flags) => {
                header(10, InfoCode::Export, out);
                out.be_u64(bytes).be_u16(flags.0);
            }
            Self::Name(text) => {
                header(text.len(), InfoCode::Name, out);
                out.raw(text.as_bytes());
            }
            Self::Description(text) => {
                header(text.len(), InfoCode::Description, out);
                out.raw(text.as_bytes());
            }
            Self::BlockSize(sizes) => {
                header(12, InfoCode::BlockSize, out);
                out.be_u32(sizes.minimum).be_u32(sizes.preferred).be_u32(sizes.payload_max);
            }
            Self::Other(code) => panic!("information {code} isn't known, so it can't be told"),
        }
    }

    /// Reads the payload of [`OptionReplyCode::Info`].
    ///
    /// # Errors
    /// [`OptionReplyInvalid`] when it makes no sense.
    pub fn decode(payload: &'a [u8]) -> Result<Self, OptionReplyInvalid> {
        let mut reader = Reader::new(payload);
        let code = reader.be_u16()?;
        let text = || std::str::from_utf8(&payload[2..]).map_err(|_| OptionReplyInvalid::Text);
        Ok(match code {
            0 => Self::Export(reader.be_u64()?, TransmissionFlags(reader.be_u16()?)),
            1 => Self::Name(text()?),
            2 => Self::Description(text()?),
            3 => Self::BlockSize(BlockSizes {
                minimum: reader.be_u32()?,
                preferred: reader.be_u32()?,
                payload_max: reader.be_u32()?,
            }),
            other => Self::Other(other),
        })
    }
}
