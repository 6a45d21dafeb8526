//! What can be wrong with a pack that was read.

use tidegate_model::{Reader, Remedy, Short};

use crate::seal::OpenError;

/// Why bytes are no pack, or not this one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// It ends too early.
    #[error("is cut short: {0}")]
    Short(#[from] Short),
    /// Its first bytes are others.
    #[error("is not a pack: its first bytes are not those of one")]
    Magic,
    /// Written by a later program.
    #[error("has format {0}, which this program doesn't know: use a newer one")]
    Format(u16),
    /// A field has a value that none of our writers gives it.
    #[error("is damaged: {0}")]
    Field(&'static str),
    /// The digest of header and index is another.
    #[error("is damaged: header and index don't have the digest that the header states")]
    Digest,
    /// It is whole, but not what was asked for.
    #[error("is another pack than the one that belongs here ({0})")]
    Elsewhere(&'static str),
    /// Sealed under a root key that the ring lacks.
    #[error("is sealed under root key version {0}, which this key doesn't open")]
    KeyVersion(u32),
    /// The tag doesn't fit.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What was opened doesn't decompress to the length that was stated.
    #[error("is damaged: its content doesn't decompress to {expected} bytes")]
    Decompress {
        /// The stated length.
        expected: u32,
    },
}

impl PackError {
    /// What to do about it: a stored thing is damaged, unless the program is too old for it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Format(_) | Self::KeyVersion(_) => Remedy::Refuse,
            _ => Remedy::Repair,
        }
    }
}

/// Takes reserved bytes, which every writer sets to 0: so each bit of a pack counts, and a later
/// format can use them.
pub(super) fn reserved(reader: &mut Reader<'_>, count: usize) -> Result<(), PackError> {
    if reader.bytes(count)?.iter().any(|byte| *byte != 0) {
        return Err(PackError::Field("reserved bytes are set"));
    }
    Ok(())
}
