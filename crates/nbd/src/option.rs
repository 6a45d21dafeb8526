//! Options: what a client says during the handshake.

use tidegate_model::{Reader, Short};

use crate::network::{ReadNetwork, WriteNetwork, length};

/// What begins every option, and ends the greeting.
pub(crate) const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum OptionCode {
    /// Begin with this export; can't be refused but by ending the connection.
    ExportName = 1,
    /// End the connection.
    Abort = 2,
    /// The names of all exports.
    List = 3,
    /// TLS.
    StartTls = 5,
    /// What this export is.
    Info = 6,
    /// The same, and begin with it.
    Go = 7,
    /// Replies in chunks.
    StructuredReply = 8,
    /// What can be asked of block status.
    ListMetaContext = 9,
    /// What will be asked of block status.
    SetMetaContext = 10,
}

impl OptionCode {
    /// The option with this number; `None` for unknown ones.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::ExportName,
            2 => Self::Abort,
            3 => Self::List,
            5 => Self::StartTls,
            6 => Self::Info,
            7 => Self::Go,
            8 => Self::StructuredReply,
            9 => Self::ListMetaContext,
            10 => Self::SetMetaContext,
            _ => return None,
        })
    }
}

/// The data of an option don't hold what they should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionInvalid {
    /// The magic is another.
    #[error("an option began with {0:#018x}, which begins none: the stream is out of step")]
    Magic(u64),
    /// A field doesn't fit the data.
    #[error("the option's data are cut short: {0}")]
    Short(#[from] Short),
    /// Something follows the last field.
    #[error("the option's data are {0} bytes longer than their fields")]
    Long(usize),
    /// A name isn't UTF-8.
    #[error("a name among the option's data isn't UTF-8")]
    Text,
}

/// What is in front of an option's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which option; see [`OptionCode`].
    pub code: u32,
    /// How many bytes of data follow.
    pub length: u32,
}

impl OptionHeader {
    /// Its size.
    pub const BYTES: usize = 16;

    /// Appends it.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.be_u64(OPTION_MAGIC).be_u32(self.code).be_u32(self.length);
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`OptionInvalid`] when it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, OptionInvalid> {
        let mut reader = Reader::new(bytes);
        let magic = reader.be_u64()?;
        if magic != OPTION_MAGIC {
            return Err(OptionInvalid::Magic(magic));
        }
        Ok(Self { code: reader.be_u32()?, length: reader.be_u32()? })
    }
}

/// The data of [`OptionCode::Info`] and [`OptionCode::Go`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportRequest<'a> {
    /// The export's name.
    pub name: &'a str,
    infos: &'a [u8],
}

impl<'a> ExportRequest<'a> {
    /// Whether the client asks for this information; see [`crate::InfoCode`].
    #[must_use]
    pub fn asks_for(&self, code: u16) -> bool {
        self.infos.chunks_exact(2).any(|info| info == code.to_be_bytes())
    }

    /// Appends the option that says it.
    pub fn encode(option: OptionCode, name: &str, infos: &[u16], out: &mut Vec<u8>) {
        let bytes = length(6 + name.len() + 2 * infos.len());
        OptionHeader { code: option as u32, length: bytes }.encode(out);
        out.be_u32(length(name.len())).raw(name.as_bytes());
        out.be_u16(u16::try_from(infos.len()).expect("there are a handful of informations"));
        infos.iter().for_each(|info| _ = out.be_u16(*info));
    }

    /// Reads an option's data.
    ///
    /// # Errors
    /// [`OptionInvalid`] when they make no sense.
    pub fn decode(data: &'a [u8]) -> Result<Self, OptionInvalid> {
        let mut reader = Reader::new(data);
        let name = string(&mut reader)?;
        let count = usize::from(reader.be_u16()?);
        let infos = reader.bytes(2 * count)?;
        end(&reader)?;
        Ok(Self { name, infos })
    }
}

/// The data of [`OptionCode::ListMetaContext`] and [`OptionCode::SetMetaContext`].
#[derive(Debug, Clone)]
pub struct QueryRequest<'a> {
    /// The export's name.
    pub name: &'a str,
    /// What is asked for.
    pub queries: Queries<'a>,
}

impl<'a> QueryRequest<'a> {
    /// Appends the option that says it.
    pub fn encode(option: OptionCode, name: &str, queries: &[&str], out: &mut Vec<u8>) {
        let texts: usize = queries.iter().map(|query| 4 + query.len()).sum();
        let header = OptionHeader { code: option as u32, length: length(8 + name.len() + texts) };
        header.encode(out);
        out.be_u32(length(name.len())).raw(name.as_bytes()).be_u32(length(queries.len()));
        for query in queries {
            out.be_u32(length(query.len())).raw(query.as_bytes());
        }
    }

    /// Reads an option's data.
    ///
    /// # Errors
    /// [`OptionInvalid`] when they make no sense.
    pub fn decode(data: &'a [u8]) -> Result<Self, OptionInvalid> {
        let mut reader = Reader::new(data);
        let name = string(&mut reader)?;
        let count = reader.be_u32()?;
        let queries = Queries(reader.clone());
        for _ in 0..count {
            string(&mut reader)?;
        }
        end(&reader)?;
        Ok(Self { name, queries })
    }
}

/// Queries, one after another, as they lie in an option's data; all were checked.
#[derive(Debug, Clone)]
pub struct Queries<'a>(Reader<'a>);

impl<'a> Iterator for Queries<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        string(&mut self.0).ok()
    }
}

fn string<'a>(reader: &mut Reader<'a>) -> Result<&'a str, OptionInvalid> {
    let length = usize::try_from(reader.be_u32()?).unwrap_or(usize::MAX);
    std::str::from_utf8(reader.bytes(length)?).map_err(|_| OptionInvalid::Text)
}

fn end(reader: &Reader<'_>) -> Result<(), OptionInvalid> {
    if reader.left() == 0 { Ok(()) } else { Err(OptionInvalid::Long(reader.left())) }
}
