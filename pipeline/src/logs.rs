//! The logs that this process knows: its own, and older ones of the vault to which it may refer.
//!
//! Each has a slot; a slot's committed mark says below which frame number everything is stored,
//! with all before it. The mark is the one thing that shards read of each other's logs, beside which
//! pack a frame is in. That is remembered of the newest packs only, so that a server that runs for
//! years needs no more memory than at first; blocks in older packs aren't referred to any more,
//! which costs space only.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tidegate_model::{FrameNumber, LogId, LogName, PackNumber};

/// Most logs that the process knows at once: as many as a slot's 12 bits in an entry of
/// [`crate::KnownBlocks`] tell apart.
pub(crate) const LOGS_MAX: usize = 1 << 12;

/// Packs of a log that are remembered: 1 MiB of memory, for 1 TiB of full packs or 4 hours of four
/// packs a second.
pub const PACKS_REMEMBERED_MAX: usize = 1 << 16;
/// What the places of that many packs take, in bytes.
pub(crate) const PACK_PLACES_BYTES: usize = PACKS_REMEMBERED_MAX * size_of::<PackFrames>();

/// A log's place in [`Logs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogSlot(pub(crate) u16);

/// All logs that this process knows.
#[derive(Clone, Default)]
pub struct Logs(Arc<RwLock<Vec<Arc<Log>>>>);

struct Log {
    name: LogName,
    committed: AtomicU64,
    /// Frames below aren't referred to any more.
    low: AtomicU64,
    /// (lowest frame number, pack), rising: which pack a frame is in.
    packs: RwLock<VecDeque<PackFrames>>,
    /// Whether any of them is condemned.
    any_condemned: AtomicBool,
}

/// Where a pack's frames begin.
#[derive(Debug, Clone, Copy)]
struct PackFrames {
    first: FrameNumber,
    /// The pack's number; the highest bit is set when the pack is condemned. No log has 2^63 packs.
    pack: u64,
}

/// The bit of a condemned pack.
const CONDEMNED: u64 = 1 << 63;

impl PackFrames {
    const fn number(self) -> PackNumber {
        PackNumber(self.pack & !CONDEMNED)
    }

    const fn is_condemned(self) -> bool {
        self.pack & CONDEMNED != 0
    }

    const fn key(self) -> (FrameNumber, PackNumber) {
        (self.first, self.number())
    }
}

impl Logs {
    /// Makes a log known; the same slot again when it already is. `None` when there is no slot
    /// left: the log then can't be referred to, which costs space only.
    #[must_use]
    pub fn add(&self, name: &LogName) -> Option<LogSlot> {
        let mut logs = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let place = logs.iter().position(|log| log.name.id == name.id).unwrap_or(logs.len());
        if place == LOGS_MAX {
            return None;
        }
        if place == logs.len() {
            logs.push(Arc::new(Log {
                name: name.clone(),
                committed: AtomicU64::new(0),
                low: AtomicU64::new(0),
                packs: RwLock::default(),
                any_condemned: AtomicBool::new(false),
            }));
        }
        u16::try_from(place).ok().map(LogSlot)
    }

    /// The name of a log.
    #[must_use]
    pub fn name(&self, slot: LogSlot) -> Option<LogName> {
        self.get(slot).map(|log| log.name.clone())
    }

    /// The slot of a log, if it is known.
    #[must_use]
    pub fn slot(&self, id: LogId) -> Option<LogSlot> {
        let logs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let place = logs.iter().position(|log| log.name.id == id)?;
        u16::try_from(place).ok().map(LogSlot)
    }

    /// Tells that pack `pack` of the log has no frame below `first`.
    pub fn place_pack(&self, slot: LogSlot, first: FrameNumber, pack: PackNumber) {
        let Some(log) = self.get(slot) else { return };
        let mut packs = log.packs.write().unwrap_or_else(PoisonError::into_inner);
        let Err(place) = packs.binary_search_by_key(&(first, pack), |placed| placed.key()) else {
            return;
        };
        // What is forgotten at last wasn't referred to for a quarter of all packs: units that were
        // under way then, each of at least a pack's, have been packed since.
        let forgets = packs.len() == PACKS_REMEMBERED_MAX;
        if forgets {
            packs.pop_front();
        }
        let placed = PackFrames { first, pack: pack.0 };
        packs.insert(place.saturating_sub(usize::from(forgets)), placed);
        if let Some(oldest) = packs.len().checked_sub(PACKS_REMEMBERED_MAX / 4 * 3) {
            log.low.store(packs[oldest].first.0, Ordering::Release);
        }
    }

    /// Whether a unit that is begun now may refer to the frame: it is remembered in which pack it is, and
    /// will be for as long as the unit may be under way, and the pack isn't condemned.
    #[must_use]
    pub fn may_refer_to(&self, slot: LogSlot, frame: FrameNumber) -> bool {
        let Some(log) = self.get(slot) else { return false };
        if frame.0 < log.low.load(Ordering::Acquire) {
            return false;
        }
        let any_condemned = log.any_condemned.load(Ordering::Acquire);
        !(any_condemned && log.pack_with(frame).is_some_and(PackFrames::is_condemned))
    }

    /// Units that are begun from now on refer to no pack of which `forbids` is true; those that were
    /// begun before may still.
    pub fn condemn(&self, forbids: impl Fn(&LogName, PackNumber) -> bool) {
        let logs = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        for log in logs {
            let mut packs = log.packs.write().unwrap_or_else(PoisonError::into_inner);
            for placed in packs.iter_mut().filter(|placed| forbids(&log.name, placed.number())) {
                placed.pack |= CONDEMNED;
                log.any_condemned.store(true, Ordering::Release);
            }
        }
    }

    /// The pack that has this frame.
    #[must_use]
    pub fn pack_of(&self, slot: LogSlot, frame: FrameNumber) -> Option<PackNumber> {
        self.get(slot)?.pack_with(frame).map(PackFrames::number)
    }

    /// Moves the committed mark: all frames below `frame` are stored.
    pub fn commit(&self, slot: LogSlot, frame: FrameNumber) {
        if let Some(log) = self.get(slot) {
            log.committed.fetch_max(frame.0, Ordering::Release);
        }
    }

    /// Whether this frame and all before it are stored.
    #[must_use]
    pub fn is_committed(&self, slot: LogSlot, frame: FrameNumber) -> bool {
        self.get(slot).is_some_and(|log| frame.0 < log.committed.load(Ordering::Acquire))
    }

    fn get(&self, slot: LogSlot) -> Option<Arc<Log>> {
        let logs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        logs.get(usize::from(slot.0)).cloned()
    }
}

impl Log {
    fn pack_with(&self, frame: FrameNumber) -> Option<PackFrames> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        let after = packs.partition_point(|placed| placed.first <= frame);
        after.checked_sub(1).map(|place| packs[place])
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::RunId;

    use super::*;

    #[test]
    fn old_packs_are_forgotten_but_not_before_nobody_refers_to_them() {
        let logs = Logs::default();
        let id = LogId { run: RunId::from_bytes([1; 16]), shard: 0 };
        let slot = logs.add(&LogName { node: "n".parse().unwrap(), id }).unwrap();
        let packs = 2 * PACKS_REMEMBERED_MAX as u64;
        for pack in 0..packs {
            logs.place_pack(slot, FrameNumber(pack * 10), PackNumber(pack));
        }
        let found = |pack: u64| logs.pack_of(slot, FrameNumber(pack * 10 + 9));
        let oldest = packs - PACKS_REMEMBERED_MAX as u64;
        assert_eq!((found(oldest - 1), found(oldest)), (None, Some(PackNumber(oldest))));
        let remembered = |pack: u64| logs.may_refer_to(slot, FrameNumber(pack * 10));
        let usable = packs - PACKS_REMEMBERED_MAX as u64 / 4 * 3;
        assert_eq!((remembered(usable - 1), remembered(usable)), (false, true));
    }

    #[test]
    fn nothing_new_refers_to_a_condemned_pack_and_what_does_already_finds_it() {
        let logs = Logs::default();
        let id = LogId { run: RunId::from_bytes([1; 16]), shard: 0 };
        let slot = logs.add(&LogName { node: "n".parse().unwrap(), id }).unwrap();
        for pack in 0..4 {
            logs.place_pack(slot, FrameNumber(pack * 10), PackNumber(pack));
        }
        logs.condemn(|log, pack| log.id == id && [1, 2].contains(&pack.0));
        let may = |frame| logs.may_refer_to(slot, FrameNumber(frame));
        assert_eq!([0, 9, 10, 29, 30].map(may), [true, true, false, false, true]);
        assert_eq!(logs.pack_of(slot, FrameNumber(15)), Some(PackNumber(1)));
        logs.place_pack(slot, FrameNumber(20), PackNumber(2));
        logs.place_pack(slot, FrameNumber(40), PackNumber(4));
        assert_eq!([29, 40].map(may), [false, true]);
        assert_eq!(logs.pack_of(slot, FrameNumber(29)), Some(PackNumber(2)));
    }

    #[test]
    fn frames_are_found_in_their_packs_and_count_below_the_mark() {
        let logs = Logs::default();
        let name = |shard| LogName {
            node: "n".parse().unwrap(),
            id: LogId { run: RunId::from_bytes([1; 16]), shard },
        };
        let slot = logs.add(&name(0)).unwrap();
        assert_eq!(logs.add(&name(0)), Some(slot));
        assert_ne!(logs.add(&name(1)), Some(slot));
        for (pack, first) in [(0, 0), (1, 10), (2, 10), (3, 15)] {
            logs.place_pack(slot, FrameNumber(first), PackNumber(pack));
        }
        let pack = |frame| logs.pack_of(slot, FrameNumber(frame)).map(|pack| pack.0);
        assert_eq!(
            [pack(0), pack(9), pack(10), pack(14), pack(99)].map(Option::unwrap),
            [0, 0, 2, 2, 3]
        );
        logs.commit(slot, FrameNumber(10));
        logs.commit(slot, FrameNumber(5));
        assert!(logs.is_committed(slot, FrameNumber(9)));
        assert!(!logs.is_committed(slot, FrameNumber(10)));
    }
}
