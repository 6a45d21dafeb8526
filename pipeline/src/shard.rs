//! A shard: the order of one log. It gives units their place, takes them home in that order,
//! fills packs, and tells what is committed.
//!
//! A plain state machine: no clock (it is told the time), no queue, no waker. The program carries
//! its units to idle cores and its packs to the store.
//!
//! Why nothing deadlocks: a unit that has come home waits for a pack buffer; pack buffers come
//! back from the store, which needs nothing that units hold. A worker needs only its own spare.
//! A session waits for a unit's buffer; those come back from units that are packed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use tidegate_model::{FrameNumber, LogId, Micros, PackId, PackNumber};
use tidegate_vault::pack::PackWriter;

use crate::buffers::BufferPool;
use crate::ledger::{Committed, Ledger};
use crate::logs::{LogSlot, Logs};
use crate::order::Order;
use crate::packer::{CloseRequest, FullPack, Packer, Wait};
use crate::unit::{Blanks, Fault, Place, Stream, Unit};

/// What a shard is made from.
pub struct ShardSetup {
    /// Its number in the run.
    pub shard: u16,
    /// The writer of its log's first pack.
    pub writer: PackWriter,
    /// The slot of its log.
    pub slot: LogSlot,
    /// All logs.
    pub logs: Logs,
    /// The buffers for its packs' frames.
    pub pack_buffers: BufferPool,
    /// A pack closes when its frames reach this many bytes.
    pub pack_close_bytes: usize,
    /// A pack closes this long after the first of its records had come whole, in microseconds. Where
    /// units wait longer than half of that for a core, half of it after the first was packed: or each
    /// of them would have a pack of its own.
    pub pack_age: u64,
    /// The same while nothing but time records is in it.
    pub pack_age_idle: u64,
    /// Most packs between close and commit.
    pub packs_in_flight_max: usize,
    /// Most units between dispatch and pack.
    pub units_in_flight_max: usize,
    /// Where units leave what they were made of.
    pub blanks: Blanks,
    /// Gives the ids of packs: 16 random bytes each.
    pub pack_ids: Box<dyn FnMut() -> PackId + Send>,
    /// The newest condemned list that was read before blocks were made known: nothing refers to what
    /// it has.
    pub condemned_list: u64,
}

/// Whether a unit may go on its way.
pub enum Admission {
    /// It has its place; any core may work on it now.
    Placed(Unit),
    /// Too many are on their way; it comes back, to be tried again when one was packed.
    Later(Unit),
}

/// A unit was packed: what it held is free again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Homecoming {
    /// Its stream.
    pub stream: Arc<Stream>,
    /// Bytes of payload that it had brought: credit that returns.
    pub payload_bytes: usize,
    /// Why the stream must end, if it must.
    pub fault: Option<Fault>,
}

/// The order of one log.
pub struct Shard {
    setup: ShardFacts,
    packer: Packer,
    ledger: Ledger,
    logs: Logs,
    /// The number of the next unit's frame.
    next_frame: FrameNumber,
    /// The number of the unit that is packed next: the first of `homeward`.
    home_frame: FrameNumber,
    /// Units on their way, by number; `None` until they have come home.
    homeward: VecDeque<Option<Unit>>,
    /// A packed unit asked for its pack to be closed.
    flush: bool,
    /// A unit that has come home waits for a pack buffer.
    needs_buffer: bool,
    /// What comes of each stream comes in order.
    order: Order,
    /// Streams that had to end, as long as anything of them may still come.
    ended: Vec<Arc<Stream>>,
    blanks: Blanks,
    pack_ids: Box<dyn FnMut() -> PackId + Send>,
    lists: Lists,
}

/// Which condemned lists the log has read.
struct Lists {
    /// What the next pack may state.
    stated: u64,
    /// What the newest pack states; none before the first.
    told: Option<u64>,
    /// A list that was read, and the first frame of which it is certain that it refers to nothing that
    /// the list has. Units before it must be packed before the list is stated: then their references are
    /// in packs that come no later.
    read: Option<(u64, FrameNumber)>,
}

struct ShardFacts {
    shard: u16,
    log: LogId,
    slot: LogSlot,
    pack_close_bytes: usize,
    pack_age: u64,
    pack_age_idle: u64,
    packs_in_flight_max: usize,
    units_in_flight_max: usize,
}

impl Shard {
    /// A shard with an empty log.
    #[must_use]
    pub fn new(setup: ShardSetup) -> Self {
        let facts = ShardFacts {
            shard: setup.shard,
            log: setup.writer.log().id,
            slot: setup.slot,
            pack_close_bytes: setup.pack_close_bytes,
            pack_age: setup.pack_age,
            pack_age_idle: setup.pack_age_idle,
            packs_in_flight_max: setup.packs_in_flight_max,
            units_in_flight_max: setup.units_in_flight_max,
        };
        Self {
            packer: Packer::new(setup.writer, setup.slot, setup.logs.clone(), setup.pack_buffers),
            setup: facts,
            ledger: Ledger::default(),
            logs: setup.logs,
            next_frame: FrameNumber(0),
            home_frame: FrameNumber(0),
            homeward: VecDeque::new(),
            flush: false,
            needs_buffer: false,
            order: Order::default(),
            ended: Vec::new(),
            blanks: setup.blanks,
            pack_ids: setup.pack_ids,
            lists: Lists { stated: setup.condemned_list, told: None, read: None },
        }
    }

    /// The pack into which the next unit goes at the earliest: where a session begins.
    #[must_use]
    pub const fn open_pack(&self) -> PackNumber {
        self.packer.number()
    }

    /// The first pack that isn't committed.
    #[must_use]
    pub const fn committed_packs(&self) -> PackNumber {
        PackNumber(self.ledger.committed_packs())
    }

    /// Units between dispatch and pack.
    #[must_use]
    pub fn units_in_flight(&self) -> usize {
        self.homeward.len()
    }

    /// Packs between close and commit.
    #[must_use]
    pub fn packs_in_flight(&self) -> usize {
        self.ledger.len()
    }

    /// Gives a unit its place in the log.
    pub fn dispatch(&mut self, mut unit: Unit) -> Admission {
        if self.homeward.len() >= self.setup.units_in_flight_max {
            return Admission::Later(unit);
        }
        unit.place = Some(Place {
            shard: self.setup.shard,
            log: self.setup.log,
            slot: self.setup.slot,
            frame: self.next_frame,
        });
        self.next_frame = self.next_frame.next();
        self.homeward.push_back(None);
        Admission::Placed(unit)
    }

    /// A unit came back from the core that worked on it.
    ///
    /// # Panics
    /// If it isn't one that was dispatched here and is still away.
    pub fn come_home(&mut self, unit: Unit) {
        let place = unit.place.expect("it was dispatched");
        let ahead = place.frame.0 - self.home_frame.0;
        let ahead = usize::try_from(ahead).expect("units in flight are few");
        let seat = &mut self.homeward[ahead];
        assert!(seat.is_none(), "a unit comes home once");
        *seat = Some(unit);
    }

    /// Packs what has come home, in order, and closes the packs that are due. Call it after every
    /// event; it does nothing when nothing is due.
    pub fn advance(&mut self, now: Micros, home: &mut Vec<Homecoming>, full: &mut Vec<FullPack>) {
        self.needs_buffer = false;
        loop {
            if self.flush && !self.close(now, full) {
                return;
            }
            let Some(Some(unit)) = self.homeward.front() else { break };
            match self.packer.prepare(unit) {
                Ok(()) => self.pack_first(now, home),
                Err(Wait::Close) if self.close(now, full) => {}
                Err(Wait::Close) => return,
                Err(Wait::Buffer) => {
                    self.needs_buffer = true;
                    return;
                }
            }
            if self.packer.is_full(self.setup.pack_close_bytes) && !self.close(now, full) {
                return;
            }
        }
        self.settle_list();
        if self.deadline().is_some_and(|deadline| deadline <= now) || self.owes_a_statement() {
            self.close(now, full);
        }
    }

    /// A condemned list was read, and units that are dispatched from now on refer to nothing of it
    /// ([`Logs::condemn`]). The log will state it, if need be with an empty pack, for who deletes waits
    /// for that. Call [`Self::advance`] then.
    pub fn read_list(&mut self, list: u64) {
        self.lists.read = Some((list, self.next_frame));
    }

    /// States a list of which all that is to be packed before is packed.
    fn settle_list(&mut self) {
        let packed = |(_, first): &(u64, FrameNumber)| self.home_frame >= *first;
        if let Some((list, _)) = self.lists.read.take_if(|read| packed(read)) {
            self.lists.stated = self.lists.stated.max(list);
        }
    }

    /// Whether the log has read a list that no pack of it states, and nothing else to say.
    fn owes_a_statement(&self) -> bool {
        self.lists.told.unwrap_or(0) < self.lists.stated
            && self.packer.opened().is_none()
            && self.homeward.is_empty()
    }

    /// Whether a unit that has come home waits for a pack buffer.
    #[must_use]
    pub const fn needs_pack_buffer(&self) -> bool {
        self.needs_buffer
    }

    /// Ready when there is a pack buffer for which [`Self::advance`] has waited: call that again. The
    /// store may tell that a pack is stored a moment before it lets go of the pack's buffer.
    pub fn poll_pack_buffer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.needs_buffer { self.packer.poll_buffer(context) } else { Poll::Pending }
    }

    /// When the open pack must close because of its age; `None` while it is empty.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        let age =
            if self.packer.is_urgent() { self.setup.pack_age } else { self.setup.pack_age_idle };
        let came = self.packer.came()?.0.saturating_add(age);
        let opened = self.packer.opened()?.0.saturating_add(age / 2);
        Some(Micros(came.max(opened)))
    }

    /// Closes the log's last pack, which says that the log ends there and that all before it are
    /// stored. Nothing may follow. `None` when the log has no pack at all: then it needs no end.
    ///
    /// # Panics
    /// If units are still on their way, or packs.
    pub fn finish(&mut self, now: Micros) -> Option<FullPack> {
        assert!(self.homeward.is_empty(), "units are still on their way");
        assert!(self.ledger.len() == 0, "packs are still on their way");
        if self.packer.number() == PackNumber(0) && self.packer.opened().is_none() {
            return None;
        }
        self.close_pack(now, true)
    }

    /// A pack is stored. Appends what is committed by that, in order; gives the time since the
    /// first record of each committed pack had come whole, in microseconds.
    pub fn stored(
        &mut self,
        number: PackNumber,
        now: Micros,
        committed: &mut Vec<Committed>,
        latencies: &mut Vec<u64>,
    ) {
        for pack in self.ledger.stored(number) {
            self.logs.commit(self.setup.slot, pack.frames_end);
            latencies.push(now.0.saturating_sub(pack.came.0));
            committed.extend(pack.streams);
        }
    }

    fn pack_first(&mut self, now: Micros, home: &mut Vec<Homecoming>) {
        let Some(Some(mut unit)) = self.homeward.pop_front() else { return };
        self.home_frame = self.home_frame.next();
        self.end_faulty(&mut unit);
        self.packer.add(&mut unit, now);
        self.blanks.give_back(&mut unit);
        // An abandoned one may have left nothing to close a pack for.
        self.flush |= unit.flush && self.packer.opened().is_some();
        home.push(Homecoming {
            stream: unit.stream,
            payload_bytes: unit.filled,
            fault: unit.fault,
        });
    }

    /// Nothing of a stream counts behind a spoiled record or a missing one, or an LSN would be
    /// acknowledged with one missing before it: units of it that were under way by then are abandoned.
    fn end_faulty(&mut self, unit: &mut Unit) {
        if self.ended.contains(&unit.stream) {
            unit.abandon();
            return;
        }
        if let Err(gap) = self.order.check(unit) {
            unit.abandon();
            unit.fault = Some(gap);
        }
        if unit.fault.is_some() {
            self.order.forget(&unit.stream);
            // Who is alone in holding a stream waits for no more of its units.
            self.ended.retain(|stream| Arc::strong_count(stream) > 1);
            self.ended.push(unit.stream.clone());
        }
    }

    /// False when as many packs as may be are on their way.
    fn close(&mut self, now: Micros, full: &mut Vec<FullPack>) -> bool {
        if self.ledger.len() >= self.setup.packs_in_flight_max {
            return false;
        }
        self.flush = false;
        full.extend(self.close_pack(now, false));
        true
    }

    fn close_pack(&mut self, now: Micros, last: bool) -> Option<FullPack> {
        self.settle_list();
        let (pack, closed) = self.packer.close(&CloseRequest {
            id: (self.pack_ids)(),
            last,
            even_empty: last || self.owes_a_statement(),
            condemned_list: self.lists.stated,
            committed_packs: self.ledger.committed_packs(),
            now,
        })?;
        self.lists.told = Some(self.lists.stated);
        self.ledger.closed(closed);
        Some(pack)
    }
}
