//! From a session's bytes to units on their way: what is read becomes records, records fill units.
//!
//! Where a write needs a buffer or a unit its place, the intake waits for that and keeps the bytes
//! that came with it; the session reads no more until it goes on. What is allowed is decided by
//! [`tidegate_wire::server::Session`].

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use glommio::timer::Timer;
use tidegate_model::{Checksum, Extent, Lsn, Micros, Remedy};
use tidegate_pipeline::{Buffer, BufferWait, Entry, EntryKind, Sequence, Unit, UnitBuilder};
use tidegate_wire::{
    Decoder, Hashes, Have, Item, Message, Record, RecordKind, Refusal, RefusalCode, server,
};

use super::credit::Window;
use super::host::{Host, Post, now};
use super::line::Turn;
use super::resync::Questions;

/// A unit that isn't full is sent on its way so long after it was begun, give or take a half: all
/// streams' units at the same moments, for a core that sleeps is woken once by all of them.
const LINGER: Duration = Duration::from_millis(10);
/// A long one is, so long after it got its buffer, unless units wait for a core anyway: a slow stream
/// must not wait for its acknowledgements.
const LONG_UNIT_AGE: Duration = Duration::from_millis(40);

/// How a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// The agent said goodbye.
    Bye,
    /// The connection broke, or ended without a goodbye.
    Lost(io::Error),
    /// It was refused.
    Refused(Refusal),
}

/// The receiving half of a session.
pub(super) struct Intake {
    pub host: Rc<Host>,
    pub protocol: server::Session,
    pub window: Window,
    decoder: Decoder,
    /// What was read and couldn't be handled yet, from `handled` on.
    input: Vec<u8>,
    handled: usize,
    builder: UnitBuilder,
    sequence: Sequence,
    /// When the unit got its long buffer, if it has one.
    long_since: Option<Instant>,
    write: Option<Write>,
    /// A record without bytes that the unit had no room for.
    record: Option<Record>,
    waiting: Option<Waiting>,
    turn: Turn,
    linger: Option<Timer>,
    /// What the agent asked, once it has asked something.
    questions: Option<Questions>,
}

/// A write whose payload is coming in.
struct Write {
    lsn: Lsn,
    time: Micros,
    extent: Extent,
    checksum: Checksum,
    received: usize,
    /// Whether the unit has room and a buffer for it.
    placed: bool,
}

/// What must come before it goes on.
struct Waiting {
    what: Want,
    since: Instant,
}

enum Want {
    /// A buffer for a write, whichever comes first.
    Buffer { small: BufferWait, large: Option<BufferWait> },
    /// A place in the log for a unit.
    Place(Box<Unit>),
}

impl Intake {
    /// An intake that begins with the bytes in `input`.
    pub(super) fn new(
        host: Rc<Host>,
        protocol: server::Session,
        decoder: Decoder,
        input: Vec<u8>,
        builder: UnitBuilder,
        window: Window,
    ) -> Self {
        let turn = host.turn();
        let sequence = Sequence::new(host.shared.block_bytes);
        Self {
            host,
            protocol,
            window,
            decoder,
            input,
            handled: 0,
            builder,
            sequence,
            long_since: None,
            write: None,
            record: None,
            waiting: None,
            turn,
            linger: None,
            questions: None,
        }
    }

    /// Since when it waits for a buffer or a place, if it does.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|waiting| waiting.since)
    }

    /// Goes on with what was kept. Pending while it must wait.
    pub(super) fn poll_kept(&mut self, context: &mut Context<'_>) -> Poll<Option<End>> {
        while self.waiting.is_some() || self.record.is_some() || !self.input.is_empty() {
            std::task::ready!(self.poll_waiting(context));
            // In place: what must wait again isn't copied again.
            let mut input = std::mem::take(&mut self.input);
            let mut rest = &input[self.handled..];
            let end = self.work(&mut rest, context);
            self.handled = input.len() - rest.len();
            if self.handled == input.len() {
                input.clear();
                self.handled = 0;
            }
            self.input = input;
            if end.is_some() {
                return Poll::Ready(end);
            }
        }
        Poll::Ready(None)
    }

    /// Handles what was read; what must wait is kept. Gives how the session ends, if it does.
    pub(super) fn take(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Option<End> {
        let mut rest = bytes;
        let end = self.work(&mut rest, context);
        self.input.extend_from_slice(rest);
        end
    }

    /// Handles `rest` until it must wait.
    fn work(&mut self, rest: &mut &[u8], context: &mut Context<'_>) -> Option<End> {
        loop {
            if self.waiting.is_some() {
                return None;
            }
            if let Some(write) = &self.write
                && !write.placed
            {
                self.place_write(context);
                continue;
            }
            if let Some(record) = self.record.take() {
                self.add(record, context);
                continue;
            }
            let item = match self.decoder.next(rest) {
                Ok(Some(item)) => item,
                Ok(None) => return None,
                Err(error) => return Some(End::Refused(error.into())),
            };
            match self.item(item, context) {
                Ok(false) => {}
                Ok(true) => return Some(End::Bye),
                Err(refusal) => return Some(End::Refused(refusal)),
            }
        }
    }

    /// True when the agent says goodbye.
    fn item(&mut self, item: Item<'_>, context: &mut Context<'_>) -> Result<bool, Refusal> {
        match item {
            Item::Message(Message::Record(record)) => {
                if self.protocol.record(&record)? {
                    self.add(record, context);
                }
            }
            Item::Message(Message::Hashes(question)) => {
                self.protocol.question(&question)?;
                self.ask(question);
            }
            Item::Message(Message::Bye) => {
                self.protocol.bye()?;
                return Ok(true);
            }
            Item::Message(_) => {
                let cause = "the agent sent something out of turn";
                let advice = "use an agent of the server's release";
                return Err(Refusal::new(RefusalCode::Protocol, Remedy::Stop, cause, advice));
            }
            Item::Write(record) => {
                self.protocol.record(&record)?;
                if let Record { lsn, time, kind: RecordKind::Write(extent, checksum) } = record {
                    let (received, placed) = (0, false);
                    self.write = Some(Write { lsn, time, extent, checksum, received, placed });
                }
            }
            Item::Payload(part) => {
                if let Some(write) = &mut self.write {
                    self.builder.space(write.received, part.len()).copy_from_slice(part);
                    write.received += part.len();
                }
            }
            Item::WriteEnd => {
                if let Some(Write { lsn, time, extent, checksum, .. }) = self.write.take() {
                    self.builder.add_write(lsn, time, extent, checksum, now);
                    self.sequence.saw(extent);
                    if self.builder.is_full() || self.is_overdue() {
                        self.close_unit(false, context);
                    }
                }
            }
        }
        Ok(false)
    }

    fn ask(&mut self, question: Hashes) {
        if self.questions.is_none() {
            let stream = self.builder.stream();
            self.questions = Questions::begin(&self.host.shared, &stream.machine, stream.epoch);
        }
        if let Some(questions) = &mut self.questions {
            questions.ask(question);
        }
    }

    /// The next answer to what the agent asked.
    pub(super) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<Have, Refusal>> {
        self.questions.as_mut().map_or(Poll::Pending, |questions| questions.poll(context))
    }

    /// Adds a record without bytes, or keeps it until the unit that it has no room in has its place:
    /// one that waits can't wait twice.
    fn add(&mut self, record: Record, context: &mut Context<'_>) {
        if self.builder.must_close(0) {
            self.close_unit(false, context);
            if self.waiting.is_some() {
                self.record = Some(record);
                return;
            }
        }
        let flush = matches!(record.kind, RecordKind::Bookmark(_));
        self.enter(record);
        if flush {
            self.close_unit(true, context);
        }
    }

    /// Puts a record without bytes into the unit.
    fn enter(&mut self, record: Record) {
        let kind = match record.kind {
            RecordKind::Disk(disk) => EntryKind::Disk(disk),
            RecordKind::Zero(extent) => {
                self.sequence.saw(extent);
                EntryKind::Zero(extent)
            }
            RecordKind::Bookmark(bookmark) => EntryKind::Bookmark(bookmark),
            RecordKind::Time | RecordKind::Write(..) => EntryKind::Time,
        };
        self.builder.add(Entry { lsn: record.lsn, time: record.time, kind }, now);
    }

    /// Finds room for the write that begins, or waits for it.
    fn place_write(&mut self, context: &mut Context<'_>) {
        let Some(write) = &mut self.write else { return };
        let bytes = usize::try_from(write.extent.length).unwrap_or(usize::MAX);
        if self.builder.must_close(bytes) {
            self.close_unit(false, context);
            if self.waiting.is_some() {
                return;
            }
        }
        if !self.builder.needs_buffer(bytes) {
            if let Some(write) = &mut self.write {
                write.placed = true;
            }
            return;
        }
        let long = self.long_buffer();
        let shared = &self.host.shared;
        let large = || if self.window.is_large() { shared.large.take() } else { None };
        match long.or_else(large).or_else(|| shared.small.take()) {
            Some(buffer) => self.builder.give_buffer(buffer),
            None => {
                let small = self.host.shared.small.wait();
                let large = self.window.is_large().then(|| self.host.shared.large.wait());
                self.wait(Want::Buffer { small, large });
            }
        }
    }

    /// A buffer for a long frame, where one is worth it and free; otherwise a shorter one does.
    fn long_buffer(&mut self) -> Option<Buffer> {
        let shared = &self.host.shared;
        let bytes = shared.effort.frame_bytes().min(self.window.frame_bytes(shared.shards.len()));
        if !self.sequence.is_long() || bytes <= shared.large.buffer_bytes() {
            return None;
        }
        let buffer = shared.long.take()?;
        self.builder.limit_frames(bytes);
        self.long_since = Some(Instant::now());
        Some(buffer)
    }

    /// Whether a long frame has been filled for long enough, while a core may be idle.
    fn is_overdue(&self) -> bool {
        let is_old = self.long_since.is_some_and(|since| since.elapsed() > LONG_UNIT_AGE);
        is_old && self.host.shared.units.is_empty()
    }

    /// Sends the unit so far on its way, or waits until it may go.
    fn close_unit(&mut self, flush: bool, context: &mut Context<'_>) {
        self.linger = None;
        self.long_since = None;
        let Some(unit) = self.builder.close(flush) else { return };
        if let Some(unit) = self.host.dispatch(unit, &mut self.turn, context) {
            self.wait(Want::Place(Box::new(unit)));
        }
    }

    fn wait(&mut self, what: Want) {
        // What is waited for holds records that were received: it may not be replaced.
        assert!(self.waiting.is_none(), "an intake waits for one thing at a time");
        self.waiting = Some(Waiting { what, since: Instant::now() });
    }

    /// Ready when what it waits for is there.
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(mut waiting) = self.waiting.take() else { return Poll::Ready(()) };
        match waiting.what {
            Want::Buffer { mut small, mut large } => {
                let mut buffer = small.poll(context);
                if buffer.is_pending()
                    && let Some(large) = &mut large
                {
                    buffer = large.poll(context);
                }
                if let Poll::Ready(buffer) = buffer {
                    self.builder.give_buffer(buffer);
                    return Poll::Ready(());
                }
                waiting.what = Want::Buffer { small, large };
            }
            Want::Place(unit) => match self.host.dispatch(*unit, &mut self.turn, context) {
                None => return Poll::Ready(()),
                Some(unit) => waiting.what = Want::Place(Box::new(unit)),
            },
        }
        self.waiting = Some(waiting);
        Poll::Pending
    }

    /// A unit that has waited long enough goes on its way, whatever else may come; but not in the
    /// middle of a write, whose bytes are in it: then as soon as that is whole.
    pub(super) fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.builder.is_empty() || self.write.is_some() {
            return Poll::Pending;
        }
        let timer = self.linger.get_or_insert_with(|| Timer::new(lingering(now())));
        std::task::ready!(Pin::new(timer).poll(context));
        self.close_unit(false, context);
        Poll::Ready(())
    }

    /// What was received whole goes on its way, though the session has ended; but not once the
    /// agent came on another connection, on which it sends this again: behind what it sends there,
    /// it would look like the end of all that it sent.
    pub(super) async fn finish(mut self, post: &Post) {
        let waiting = match self.waiting.take() {
            Some(Waiting { what: Want::Place(unit), .. }) => Some(*unit),
            _ => None,
        };
        // It is kept only while the unit before it waits: the next one has room.
        if let Some(record) = self.record.take() {
            self.enter(record);
        }
        for unit in waiting.into_iter().chain(self.builder.close(true)) {
            let dispatched = pin!(self.host.dispatch_in_turn(unit, &mut self.turn));
            let taken_over = poll_fn(|context| post.poll_taken_over(context));
            if let Either::Left(_) = select(taken_over, dispatched).await {
                return;
            }
        }
    }
}

/// How long a unit lingers that was begun at `now`: until the first of the moments at which all do
/// that is half of [`LINGER`] away.
fn lingering(now: Micros) -> Duration {
    let interval = u64::try_from(LINGER.as_micros()).unwrap_or(u64::MAX);
    let since = (now.0 + interval / 2) % interval;
    Duration::from_micros(interval / 2 + (interval - since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_linger_about_as_long_and_end_at_common_moments() {
        for now in [0, 1, 4_999, 5_000, 5_001, 9_999, 123_456_789] {
            let micros = u64::try_from(lingering(Micros(now)).as_micros()).unwrap();
            assert!((5_000..=15_000).contains(&micros), "{now}: {micros}");
            assert_eq!((now + micros) % 10_000, 0, "{now}");
        }
    }
}
