//! Names of the journal's files: `00000012.order`, and `00000012-disk-03.hrl` beside it.

use std::fmt;

use tidegate_model::DiskNumber;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// The order of a segment.
    Order,
    /// What was written to one disk.
    Log(DiskNumber),
}

/// A file of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    /// The segment's number.
    pub segment: u64,
    /// Which of its files.
    pub kind: FileKind,
}

impl FileName {
    /// A segment's order file.
    #[must_use]
    pub const fn order(segment: u64) -> Self {
        Self { segment, kind: FileKind::Order }
    }

    /// A segment's log of a disk.
    #[must_use]
    pub const fn log(segment: u64, disk: DiskNumber) -> Self {
        Self { segment, kind: FileKind::Log(disk) }
    }

    /// The file that has this name, if it is one of a journal.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, ending) = name.split_once('.')?;
        let file = match (ending, stem.split_once("-disk-")) {
            ("order", None) => Self::order(stem.parse().ok()?),
            ("hrl", Some((segment, disk))) => {
                let disk: u8 = disk.parse().ok()?;
                Self::log(segment.parse().ok()?, DiskNumber::try_from(disk).ok()?)
            }
            _ => return None,
        };
        // Another spelling of the same numbers isn't ours.
        (file.to_string() == name).then_some(file)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FileKind::Order => write!(f, "{:08}.order", self.segment),
            FileKind::Log(disk) => write!(f, "{:08}-disk-{:02}.hrl", self.segment, disk.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_spelling_is_a_name() {
        for name in ["00000012.order", "00000012-disk-03.hrl", "123456789012.order"] {
            assert_eq!(FileName::parse(name).unwrap().to_string(), name);
        }
        for name in ["12.order", "00000012-disk-64.hrl", "+0000012.order", "x.hrl", "", "a.order"] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }
}
