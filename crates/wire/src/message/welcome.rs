//! The server's answer to a hello. docs/formats/wire.md, "Welcome".

use tidegate_model::{Epoch, Lsn, Reader, RunId, Token, Writer};

use crate::DecodeError;

/// The server's answer to hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The epoch.
    pub epoch: Epoch,
    /// The last LSN that is committed: the agent sends what follows.
    pub committed: Lsn,
    /// Payload bytes that the agent may send at once.
    pub credit_bytes: u64,
    /// Most payload bytes of one write.
    pub record_bytes_max: u32,
    /// The vault's block size.
    pub block_bytes: u32,
    /// Features that both understand.
    pub features: u64,
    /// The server's run.
    pub run: RunId,
    /// The session's shard.
    pub shard: u16,
    /// That of the epoch's session before this one; [`Token::NONE`] for the first.
    pub before: Token,
}

impl Welcome {
    pub(super) fn encode(&self, buffer: &mut Vec<u8>) {
        Writer::new(buffer)
            .u32(self.epoch.0)
            .u64(self.committed.0)
            .u64(self.credit_bytes)
            .u32(self.record_bytes_max)
            .u32(self.block_bytes)
            .u64(self.features)
            .bytes(self.run.as_bytes())
            .u16(self.shard)
            .bytes(self.before.as_bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: Epoch(reader.u32()?),
            committed: Lsn(reader.u64()?),
            credit_bytes: reader.u64()?,
            record_bytes_max: reader.u32()?,
            block_bytes: reader.u32()?,
            features: reader.u64()?,
            run: RunId::from_bytes(reader.array()?),
            shard: reader.u16()?,
            before: Token::from_bytes(reader.array()?),
        })
    }
}
