//! The file header: 4096 bytes at the beginning of an .hrl file.

use tidegate_model::{Reader, Short, Writer};

use super::checksum::Sum;
use super::stamp::Stamp;
use super::unique_id::UniqueId;
use crate::limits::METADATA_BYTES_MAX;

/// Bytes of the file header; data or the first block follow it.
pub const HEADER_BYTES: u64 = LENGTH as u64;
const LENGTH: usize = 4096;

/// What a file begins with, and one more byte that may be any; ours is 0.
const COOKIE: &[u8; 7] = b"msctlog";
const CHECKSUM_AT: usize = 40;
/// Bytes of the fields; the rest is reserved.
const FIELDS_BYTES: usize = 126;

/// LogFormatVersion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 1.0, which has no Vhd2DataWriteGuid.
    V1,
    /// 2.0, which we write.
    V2,
}

impl Version {
    const fn code(self) -> u32 {
        match self {
            Self::V1 => 0x0001_0000,
            Self::V2 => 0x0002_0000,
        }
    }
}

/// The fields of a file header, with the names of the specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHeader {
    /// LogFormatVersion.
    pub version: Version,
    /// TimeStamp: when the log was created.
    pub created: Stamp,
    /// CreatorApplication.
    pub creator_application: [u8; 4],
    /// CreatorVersion.
    pub creator_version: u32,
    /// OriginalSize: bytes of the file when it was created.
    pub original_bytes: u64,
    /// CurrentSize: bytes of the file now.
    pub current_bytes: u64,
    /// EOLLocation: where the log ends; 0 while it is open.
    pub eol_location: u64,
    /// ErrorCode.
    pub error_code: i32,
    /// MetadataSize: bytes of a metadata block.
    pub metadata_bytes: u32,
    /// UniqueId.
    pub unique_id: UniqueId,
    /// PreviousUniqueId.
    pub previous_unique_id: UniqueId,
    /// LastModifiedTimeStamp.
    pub last_modified: Stamp,
    /// TotalMetadataEntries.
    pub entries_total: u64,
    /// FileType: 0 for HRL.
    pub file_type: u32,
    /// Flags: 0.
    pub flags: u16,
    /// Vhd2DataWriteGuid; nothing in version 1.
    pub data_write_guid: UniqueId,
}

/// Why some bytes are no file header that can be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not the cookie.
    #[error("it doesn't begin with 'msctlog', as every .hrl file does")]
    Cookie,
    /// Too short for a header.
    #[error("it has {bytes} bytes, and the header alone takes 4096")]
    Short {
        /// What there is.
        bytes: u64,
    },
    /// A version that isn't known.
    #[error("its version is {code:#010x}; 0x00010000 and 0x00020000 are known")]
    Version {
        /// What it states.
        code: u32,
    },
    /// A size of blocks that can't be.
    #[error(
        "its metadata blocks have {bytes} bytes; a multiple of 512 is needed, up to \
         {METADATA_BYTES_MAX}"
    )]
    MetadataBytes {
        /// What it states.
        bytes: u32,
    },
}

/// What is odd about a header that can be worked with all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderDoubt {
    /// The checksum is another one.
    #[error("the header's checksum is {stated}, and its bytes give {computed}")]
    Checksum {
        /// What it states.
        stated: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// Another kind of file.
    #[error("the header's file type is {file_type}, and that of .hrl files is 0")]
    FileType {
        /// What it states.
        file_type: u32,
    },
    /// The writer met an error.
    #[error("the header tells of an error of its writer: code {code}")]
    ErrorCode {
        /// Which.
        code: i32,
    },
}

impl FileHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        let mut fields = Writer::new(&mut bytes);
        fields.bytes(COOKIE).u8(0).u32(self.version.code()).u32(self.created.0);
        fields.bytes(&self.creator_application).u32(self.creator_version);
        fields.u64(self.original_bytes).u64(self.current_bytes).u32(0).u64(self.eol_location);
        fields.bytes(&self.error_code.to_le_bytes()).u32(self.metadata_bytes);
        fields.bytes(&self.unique_id.0).bytes(&self.previous_unique_id.0);
        fields.u32(self.last_modified.0).u64(self.entries_total).u32(self.file_type);
        fields.u16(self.flags);
        let guid = if self.version == Version::V2 { self.data_write_guid } else { UniqueId::NONE };
        fields.bytes(&guid.0).zeros(LENGTH - FIELDS_BYTES);
        let checksum = Sum::around(&bytes, CHECKSUM_AT);
        bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header in the first 4096 of `bytes`, and what is odd about it.
    ///
    /// # Errors
    /// [`HeaderError`] where nothing behind the header could be found by it.
    pub fn decode(bytes: &[u8]) -> Result<(Self, Vec<HeaderDoubt>), HeaderError> {
        if !bytes.starts_with(COOKIE) {
            return Err(HeaderError::Cookie);
        }
        let short = HeaderError::Short { bytes: bytes.len() as u64 };
        let bytes = bytes.get(..LENGTH).ok_or(short)?;
        let (header, stated) = Self::fields(&mut Reader::new(bytes))?;
        if !header.metadata_bytes.is_multiple_of(512)
            || !(1..=METADATA_BYTES_MAX).contains(&header.metadata_bytes)
        {
            return Err(HeaderError::MetadataBytes { bytes: header.metadata_bytes });
        }
        let mut doubts = Vec::new();
        let computed = Sum::around(bytes, CHECKSUM_AT);
        if stated != computed {
            doubts.push(HeaderDoubt::Checksum { stated, computed });
        }
        if header.file_type != 0 {
            doubts.push(HeaderDoubt::FileType { file_type: header.file_type });
        }
        if header.error_code != 0 {
            doubts.push(HeaderDoubt::ErrorCode { code: header.error_code });
        }
        Ok((header, doubts))
    }

    /// The fields as they stand, and the checksum among them.
    fn fields(fields: &mut Reader<'_>) -> Result<(Self, u32), HeaderError> {
        fields.bytes(8)?;
        let version = match fields.u32()? {
            0x0001_0000 => Version::V1,
            0x0002_0000 => Version::V2,
            code => return Err(HeaderError::Version { code }),
        };
        let created = Stamp(fields.u32()?);
        let (creator_application, creator_version) = (fields.array()?, fields.u32()?);
        let (original_bytes, current_bytes) = (fields.u64()?, fields.u64()?);
        let (stated, eol_location) = (fields.u32()?, fields.u64()?);
        let header = Self {
            version,
            created,
            creator_application,
            creator_version,
            original_bytes,
            current_bytes,
            eol_location,
            error_code: i32::from_le_bytes(fields.array()?),
            metadata_bytes: fields.u32()?,
            unique_id: UniqueId(fields.array()?),
            previous_unique_id: UniqueId(fields.array()?),
            last_modified: Stamp(fields.u32()?),
            entries_total: fields.u64()?,
            file_type: fields.u32()?,
            flags: fields.u16()?,
            data_write_guid: match version {
                Version::V1 => UniqueId::NONE,
                Version::V2 => UniqueId(fields.array()?),
            },
        };
        Ok((header, stated))
    }
}

impl From<Short> for HeaderError {
    fn from(short: Short) -> Self {
        Self::Short { bytes: (short.offset + short.left) as u64 }
    }
}
