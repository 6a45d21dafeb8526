//! How far the server is, and what became of the bytes. docs/formats/wire.md, "Ack".

use tidegate_model::{Lsn, Reader, Writer};

use crate::{DecodeError, Header};

/// What became of the bytes of a session's committed records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Zeros.
    pub zero_bytes: u64,
    /// Known already.
    pub deduplicated_bytes: u64,
    /// Kept, before compression.
    pub kept_bytes: u64,
    /// Stored, as sealed.
    pub stored_bytes: u64,
}

/// How far the server is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ack {
    /// The last LSN that it received.
    pub received: Lsn,
    /// The last LSN that is stored, with all before it.
    pub committed: Lsn,
    /// What became of the bytes.
    pub totals: Totals,
}

impl Ack {
    pub(super) fn encode(&self, buffer: &mut Vec<u8>) {
        Writer::new(buffer)
            .u64(self.committed.0)
            .u64(self.totals.zero_bytes)
            .u64(self.totals.deduplicated_bytes)
            .u64(self.totals.kept_bytes)
            .u64(self.totals.stored_bytes);
    }

    pub(super) fn decode(header: &Header, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            received: header.lsn,
            committed: Lsn(reader.u64()?),
            totals: Totals {
                zero_bytes: reader.u64()?,
                deduplicated_bytes: reader.u64()?,
                kept_bytes: reader.u64()?,
                stored_bytes: reader.u64()?,
            },
        })
    }
}
