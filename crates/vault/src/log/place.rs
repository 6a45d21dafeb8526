//! Where a pack lies, as errors and reports name it.

use std::fmt;

use tidegate_model::{LogId, LogName, PackNumber};

use crate::layout;

/// A pack of a log; shown as its path in the vault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackPlace {
    /// The log.
    pub log: LogName,
    /// The pack's number there.
    pub number: PackNumber,
}

impl PackPlace {
    /// What names the pack without doubt.
    #[must_use]
    pub const fn key(&self) -> (LogId, PackNumber) {
        (self.log.id, self.number)
    }

    /// Its path in the vault.
    #[must_use]
    pub fn path(&self) -> String {
        layout::pack(&self.log, self.number)
    }
}

impl fmt::Display for PackPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}
