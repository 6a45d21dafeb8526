//! What is served: a disk under a name.

use crate::TransmissionFlags;
use crate::limits::{
    EXPORT_BYTES_MAX, MINIMUM_BLOCK_BYTES_MAX, PAYLOAD_BYTES_MAX, SECTOR_BYTES, STRING_BYTES_MAX,
    UNFRAGMENTED_BYTES,
};

/// What lengths of commands an export takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths are multiples of it.
    pub minimum: u32,
    /// Multiples of it cost least.
    pub preferred: u32,
    /// Most data in one read or write.
    pub payload_max: u32,
}

impl Default for BlockSizes {
    /// What holds where nothing else was said.
    fn default() -> Self {
        Self { minimum: 1, preferred: 4096, payload_max: PAYLOAD_BYTES_MAX }
    }
}

/// Why something can't be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// A name or a description that the protocol can't carry.
    #[error(
        "the {0} of an export is longer than {STRING_BYTES_MAX} bytes or has a NUL: shorten it"
    )]
    Text(&'static str),
    /// A size that can't be offered.
    #[error(
        "an export of {bytes} bytes can't be served in blocks of {minimum} bytes: its size must be a \
         multiple of them, and at most {EXPORT_BYTES_MAX} bytes"
    )]
    Bytes {
        /// The export's size.
        bytes: u64,
        /// Its minimum block size.
        minimum: u32,
    },
    /// Block sizes that the protocol doesn't allow.
    #[error("{0:?} can't be: powers of 2, rising, are needed, within the protocol's limits")]
    Sizes(BlockSizes),
    /// Flags that don't fit each other, or aren't the export's to set.
    #[error("an export can't offer the flags {0:#x}")]
    Flags(u16),
}

/// A disk under a name. What it says was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    name: String,
    description: String,
    bytes: u64,
    flags: TransmissionFlags,
    sizes: BlockSizes,
}

impl Export {
    /// An export of `bytes` bytes. Its `flags` say what the server really does: the commands that it
    /// takes, whether it is read-only, whether flushes hold for all connections.
    ///
    /// # Errors
    /// [`ExportError`] where the protocol doesn't allow it.
    pub fn new(
        name: &str,
        bytes: u64,
        flags: TransmissionFlags,
        sizes: BlockSizes,
    ) -> Result<Self, ExportError> {
        check_text("name", name)?;
        check_sizes(sizes)?;
        if bytes > EXPORT_BYTES_MAX || !bytes.is_multiple_of(u64::from(sizes.minimum)) {
            return Err(ExportError::Bytes { bytes, minimum: sizes.minimum });
        }
        let zeroes = flags.has(TransmissionFlags::WRITE_ZEROES);
        let lonely_fast_zero = flags.has(TransmissionFlags::FAST_ZERO) && !zeroes;
        if flags.without(OFFERED) != TransmissionFlags::NONE || lonely_fast_zero {
            return Err(ExportError::Flags(flags.0));
        }
        Ok(Self { name: name.to_owned(), description: String::new(), bytes, flags, sizes })
    }

    /// The same with a text for people.
    ///
    /// # Errors
    /// [`ExportError::Text`] when the protocol can't carry it.
    pub fn described(self, description: &str) -> Result<Self, ExportError> {
        check_text("description", description)?;
        Ok(Self { description: description.to_owned(), ..self })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A text for people; may be empty.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Its size.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What lengths it takes.
    #[must_use]
    pub const fn sizes(&self) -> BlockSizes {
        self.sizes
    }

    /// What a client is told that it is and takes.
    #[must_use]
    pub const fn flags(&self, structured: bool) -> TransmissionFlags {
        let flags = self.flags.with(TransmissionFlags::HAS_FLAGS);
        if structured { flags.with(TransmissionFlags::DF) } else { flags }
    }
}

/// The flags that a server chooses; the others follow from the handshake, or are never set.
const OFFERED: TransmissionFlags = TransmissionFlags::READ_ONLY
    .with(TransmissionFlags::FLUSH)
    .with(TransmissionFlags::FUA)
    .with(TransmissionFlags::TRIM)
    .with(TransmissionFlags::WRITE_ZEROES)
    .with(TransmissionFlags::MULTI_CONN)
    .with(TransmissionFlags::CACHE)
    .with(TransmissionFlags::FAST_ZERO);

fn check_text(what: &'static str, text: &str) -> Result<(), ExportError> {
    let fits = text.len() <= STRING_BYTES_MAX && !text.contains('\0');
    if fits { Ok(()) } else { Err(ExportError::Text(what)) }
}

fn check_sizes(sizes: BlockSizes) -> Result<(), ExportError> {
    let BlockSizes { minimum, preferred, payload_max } = sizes;
    let fits = minimum.is_power_of_two()
        && minimum <= MINIMUM_BLOCK_BYTES_MAX
        && preferred.is_power_of_two()
        && preferred >= minimum.max(SECTOR_BYTES)
        && payload_max >= preferred.max(UNFRAGMENTED_BYTES)
        && payload_max <= PAYLOAD_BYTES_MAX;
    if fits { Ok(()) } else { Err(ExportError::Sizes(sizes)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: u64, flags: TransmissionFlags, sizes: BlockSizes) -> Result<Export, ExportError> {
        Export::new("disk", bytes, flags, sizes)
    }

    #[test]
    fn what_the_protocol_does_not_allow_is_not_offered() {
        let (none, sizes) = (TransmissionFlags::NONE, BlockSizes::default());
        assert!(of(0, none, sizes).is_ok() && of(513, none, sizes).is_ok());
        assert!(of((1 << 56) + 1, none, sizes).is_err());
        assert!(of(513, none, BlockSizes { minimum: 512, ..sizes }).is_err());
        for flag in [
            TransmissionFlags::HAS_FLAGS,
            TransmissionFlags::ROTATIONAL,
            TransmissionFlags::DF,
            TransmissionFlags::FAST_ZERO,
            TransmissionFlags(1 << 15),
        ] {
            assert_eq!(of(512, flag, sizes), Err(ExportError::Flags(flag.0)));
        }
        for wrong in [
            BlockSizes { minimum: 0, ..sizes },
            BlockSizes { minimum: 3, ..sizes },
            BlockSizes { minimum: 128 << 10, preferred: 128 << 10, ..sizes },
            BlockSizes { preferred: 256, ..sizes },
            BlockSizes { minimum: 8192, preferred: 4096, ..sizes },
            BlockSizes { payload_max: 4096, ..sizes },
            BlockSizes { payload_max: u32::MAX, ..sizes },
        ] {
            assert_eq!(of(0, none, wrong), Err(ExportError::Sizes(wrong)));
        }
        assert!(Export::new(&"x".repeat(4097), 0, none, sizes).is_err());
        assert!(Export::new("a\0b", 0, none, sizes).is_err());
        assert!(of(0, none, sizes).unwrap().described(&"x".repeat(4097)).is_err());
    }

    #[test]
    fn the_flag_df_goes_with_structured_replies() {
        let export = of(0, TransmissionFlags::FLUSH, BlockSizes::default()).unwrap();
        assert_eq!(export.flags(false).0, 0b101);
        assert_eq!(export.flags(true).0, 0b1000_0101);
    }
}
