//! Why the server takes so long. docs/formats/wire.md, "Slow".

use tidegate_model::{Reader, Writer};

use crate::DecodeError;

/// What the server waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SlowReason {
    /// The store takes long.
    Store = 1,
    /// All cores are busy.
    Cores = 2,
    /// Memory is short: other sessions have it.
    Memory = 3,
}

/// Why it takes so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// What the server waits for.
    pub reason: SlowReason,
    /// For how long it has, in microseconds.
    pub waited_us: u64,
}

impl Slow {
    pub(super) fn encode(&self, buffer: &mut Vec<u8>) {
        Writer::new(buffer).u8(self.reason as u8).u64(self.waited_us);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let reason = match reader.u8()? {
            1 => SlowReason::Store,
            2 => SlowReason::Cores,
            3 => SlowReason::Memory,
            _ => return Err(DecodeError::Payload("the reason for waiting is unknown")),
        };
        Ok(Self { reason, waited_us: reader.u64()? })
    }
}
