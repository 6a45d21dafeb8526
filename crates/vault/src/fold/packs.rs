//! The packs in which folded bytes are kept, as a manifest lists them. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_model::{LogName, Lsn, PackNumber};

use crate::log::PackPlace;
use crate::pack::PackHeader;

/// A pack in which bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldedPack {
    /// Its log: a place in the list of logs beside.
    pub log: u32,
    /// Its number.
    pub pack: PackNumber,
    /// The first record that needs it.
    pub lsn: Lsn,
    /// The last record that needs it.
    pub last: Lsn,
    /// Its size; 0 where it couldn't be read.
    pub bytes: u64,
    /// The size of its header and index together; 0 where it couldn't be read.
    pub head: u32,
}

/// Why a pack is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// The first record that needs it.
    pub first: Lsn,
    /// The last.
    pub last: Lsn,
    /// Its size; 0 where it couldn't be read.
    pub bytes: u64,
    /// The size of its header and index together; 0 where it couldn't be read.
    pub head: u32,
}

impl Need {
    /// By one record, of a pack that wasn't looked at.
    pub const fn by(lsn: Lsn) -> Self {
        Self { first: lsn, last: lsn, bytes: 0, head: 0 }
    }

    /// One more record needs it.
    pub fn add(&mut self, lsn: Lsn) {
        (self.first, self.last) = (self.first.min(lsn), self.last.max(lsn));
    }
}

/// Packs that are needed.
pub(crate) type Needs = BTreeMap<PackPlace, Need>;

/// The sizes of a pack, and of its header and index.
pub(super) fn sizes_of(header: &PackHeader) -> (u64, u32) {
    (header.object_bytes, u32::try_from(header.frames_begin()).unwrap_or(0))
}

/// What a list says.
pub(super) fn listed<'l>(
    packs: &'l [FoldedPack],
    logs: &'l [LogName],
) -> impl Iterator<Item = (PackPlace, Need)> + 'l {
    packs.iter().filter_map(|folded| {
        let log = logs.get(folded.log as usize)?.clone();
        let FoldedPack { lsn: first, last, bytes, head, .. } = *folded;
        let need = Need { first, last, bytes, head };
        Some((PackPlace { log, number: folded.pack }, need))
    })
}

/// The list that says so, and its logs.
pub(super) fn list(needs: &Needs) -> (Vec<FoldedPack>, Vec<LogName>) {
    let (mut packs, mut logs) = (Vec::with_capacity(needs.len()), Vec::new());
    for (place, need) in needs {
        if logs.last() != Some(&place.log) {
            logs.push(place.log.clone());
        }
        let log = u32::try_from(logs.len() - 1).unwrap_or(u32::MAX);
        let Need { first: lsn, last, bytes, head } = *need;
        packs.push(FoldedPack { log, pack: place.number, lsn, last, bytes, head });
    }
    (packs, logs)
}

/// Whether each pack of a list is of a log that is listed.
pub(super) fn is_listed(packs: &[FoldedPack], logs: &[LogName]) -> bool {
    packs.iter().all(|pack| (pack.log as usize) < logs.len())
}
