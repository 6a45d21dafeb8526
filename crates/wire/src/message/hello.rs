//! The agent's first frame: who it is and what it has. docs/formats/wire.md, "Hello".
//!
//! The version comes first in every version of the protocol, so that a server can name the one
//! that it doesn't speak.

use tidegate_model::{Epoch, Incarnation, Lsn, Name, Point, Reader, Token, VaultId, Writer};

use crate::DecodeError;
use crate::limits::PROTOCOL_VERSION;

/// On what a new epoch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Begins {
    /// On nothing: an initial copy begins it.
    Copy = 1,
    /// On its parent's state, where there is one.
    Continue = 2,
}

/// The agent's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The version that the agent speaks.
    pub version: u16,
    /// The vault that the agent was enrolled in.
    pub vault: VaultId,
    /// The agent's life.
    pub incarnation: Incarnation,
    /// The epoch that it was granted before, or none.
    pub epoch: Epoch,
    /// The last LSN of that epoch that it knows to be committed.
    pub committed: Lsn,
    /// Features that it understands, as [`crate::limits`] names them.
    pub features: u64,
    /// On what a new epoch would stand.
    pub begins: Begins,
    /// The parent of a new epoch, as far as the agent knows it; otherwise the end of the newest one.
    pub parent: Option<Point>,
    /// By what the agent knows this session again: the next welcome of the epoch names it.
    pub token: Token,
    /// The machine.
    pub machine: Name,
}

impl Hello {
    pub(super) fn encode(&self, buffer: &mut Vec<u8>) {
        let parent = self.parent.unwrap_or(Point { epoch: Epoch::NONE, lsn: Lsn::NONE });
        let name = self.machine.as_str().as_bytes();
        Writer::new(buffer)
            .u16(self.version)
            .bytes(self.vault.as_bytes())
            .bytes(self.incarnation.as_bytes())
            .u32(self.epoch.0)
            .u64(self.committed.0)
            .u64(self.features)
            .u8(self.begins as u8)
            .u32(parent.epoch.0)
            .u64(parent.lsn.0)
            .bytes(self.token.as_bytes())
            .u8(u8::try_from(name.len()).expect("a name has at most 63 bytes"))
            .bytes(name);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = reader.u16()?;
        if version != PROTOCOL_VERSION {
            // Whatever follows may look different there: only the version can be believed.
            return Err(DecodeError::Version(version));
        }
        let vault = VaultId::from_bytes(reader.array()?);
        let incarnation = Incarnation::from_bytes(reader.array()?);
        let (epoch, committed) = (Epoch(reader.u32()?), Lsn(reader.u64()?));
        let features = reader.u64()?;
        let begins = match reader.u8()? {
            1 => Begins::Copy,
            2 => Begins::Continue,
            _ => return Err(DecodeError::Payload("a hello begins in an unknown way")),
        };
        let parent = parent(Epoch(reader.u32()?), Lsn(reader.u64()?))?;
        let token = Token::from_bytes(reader.array()?);
        let length = usize::from(reader.u8()?);
        let name = std::str::from_utf8(reader.bytes(length)?).unwrap_or_default();
        Ok(Self {
            version,
            vault,
            incarnation,
            epoch,
            committed,
            features,
            begins,
            parent,
            token,
            machine: name
                .parse()
                .map_err(|_| DecodeError::Payload("the machine's name is no name"))?,
        })
    }
}

/// A parent, or none when both are 0.
fn parent(epoch: Epoch, lsn: Lsn) -> Result<Option<Point>, DecodeError> {
    match (epoch, lsn) {
        (Epoch::NONE, Lsn::NONE) => Ok(None),
        (Epoch::NONE, _) => Err(DecodeError::Payload("a parent has an LSN and no epoch")),
        (epoch, lsn) => Ok(Some(Point { epoch, lsn })),
    }
}
