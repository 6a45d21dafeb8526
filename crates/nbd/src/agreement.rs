//! What a handshake came to.

use crate::{Export, TransmissionFlags};

/// What both ends agreed on: all that a transmission must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// Which of the handshake's exports it is.
    pub index: usize,
    /// The export.
    pub export: Export,
    /// Whether replies are structured.
    pub structured: bool,
    /// Whether the client may ask for `base:allocation`.
    pub allocation: bool,
}

impl Agreement {
    /// Whether the export offers this.
    #[must_use]
    pub const fn offers(&self, flags: TransmissionFlags) -> bool {
        self.export.flags(self.structured).has(flags)
    }
}
