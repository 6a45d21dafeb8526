//! The header of an order file: 4096 bytes, written once.

use tidegate_model::limits::DISKS_MAX;
use tidegate_model::{Checksum, Incarnation, Lsn, Micros, Reader, Short, Writer};

use super::record::Mark;
use crate::format::UniqueId;

/// Bytes of the header; records follow it.
pub const HEADER_BYTES: usize = 4096;

const MAGIC: &[u8; 8] = b"TGORDER\0";
const VERSION: u32 = 1;
const CHECK_AT: usize = HEADER_BYTES - 8;

/// What is known of a segment when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderHeader {
    /// Whose journal it is.
    pub incarnation: Incarnation,
    /// The segment's number.
    pub segment: u64,
    /// The LSN of its first record.
    pub first: Lsn,
    /// The last LSN that was known to be committed.
    pub committed: Lsn,
    /// The time of the last record before: times don't go back.
    pub time: Micros,
    /// Which start of the host it was written in, as the caller tells them apart.
    pub boot: [u8; 16],
    /// The log that each disk had last; what the next one names as the one before it.
    pub last_logs: [UniqueId; DISKS_MAX],
}

/// Why some bytes are no header of an order file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderHeaderError {
    /// Not the magic.
    #[error("it doesn't begin with 'TGORDER'")]
    Magic,
    /// A version that isn't known.
    #[error("its version is {0}, and only 1 is known: a newer Tidegate may read it")]
    Version(u32),
    /// The check is another one.
    #[error("its header's check doesn't fit")]
    Check,
    /// Fewer bytes than a header has.
    #[error("its header isn't whole: {0}")]
    Short(#[from] Short),
}

impl OrderHeader {
    /// What binds records to this file.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark::of(self.incarnation, self.segment)
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        let mut fields = Writer::new(&mut bytes);
        fields.bytes(MAGIC).u32(VERSION).zeros(4).bytes(self.incarnation.as_bytes());
        fields.u64(self.segment).u64(self.first.0).u64(self.committed.0).u64(self.time.0);
        fields.bytes(&self.boot);
        self.last_logs.iter().for_each(|id| {
            fields.bytes(&id.0);
        });
        bytes.resize(CHECK_AT, 0);
        let check = Checksum::of(&bytes).0;
        Writer::new(&mut bytes).u64(check);
        bytes
    }

    /// The header in the first 4096 of `bytes`.
    ///
    /// # Errors
    /// [`OrderHeaderError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, OrderHeaderError> {
        let bytes = Reader::new(bytes).bytes(HEADER_BYTES)?;
        let mut fields = Reader::new(bytes);
        if &fields.array()? != MAGIC {
            return Err(OrderHeaderError::Magic);
        }
        // The check stands where it stands in every version: what is damaged isn't told to be newer.
        let version = fields.u32()?;
        if Reader::new(&bytes[CHECK_AT..]).u64()? != Checksum::of(&bytes[..CHECK_AT]).0 {
            return Err(OrderHeaderError::Check);
        }
        if version != VERSION {
            return Err(OrderHeaderError::Version(version));
        }
        fields.bytes(4)?;
        let mut header = Self {
            incarnation: Incarnation::from_bytes(fields.array()?),
            segment: fields.u64()?,
            first: Lsn(fields.u64()?),
            committed: Lsn(fields.u64()?),
            time: Micros(fields.u64()?),
            boot: fields.array()?,
            last_logs: [UniqueId::NONE; DISKS_MAX],
        };
        for id in &mut header.last_logs {
            *id = UniqueId(fields.array()?);
        }
        Ok(header)
    }
}
