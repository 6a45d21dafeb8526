//! One session on its shard: bytes in, units out, acknowledgements back.
//!
//! A state machine that is polled: it writes what is to be said, reads what comes, and where it
//! needs a buffer or a unit's place it waits for that instead of reading on. What is allowed is
//! decided by [`tidegate_wire::server::Session`].

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use glommio::timer::Timer;
use tidegate_model::{Checksum, Extent, Lsn, Micros, Remedy};
use tidegate_pipeline::{BufferWait, Entry, EntryKind, Stream, Unit, UnitBuilder};
use tidegate_wire::{
    Decoder, Item, Message, Record, RecordKind, Refusal, RefusalCode, Slow, SlowReason, Totals,
    server,
};
use tracing::{debug, info, warn};

use super::credit::{Pool, Window};
use super::host::{Host, Post};
use super::line::Turn;
use super::link::{Goodbye, Link};

/// Bytes read at once; the shard's sessions share one buffer of this size. What a session can't
/// handle yet of it, it keeps: the memory plan counts that for each.
pub(crate) const READ_BYTES: usize = 64 << 10;
/// A unit that isn't full is sent on its way when nothing has come for so long.
const LINGER: Duration = Duration::from_millis(10);
/// Bytes handled before other sessions get their turn.
const TURN_BYTES: usize = 512 << 10;
/// Frames to send may gather up to this, a thousand acknowledgements; a peer that doesn't read is
/// ended.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// When a session has waited so long for memory, its agent is told.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// What a session begins with.
pub(crate) struct Opening {
    pub link: Link,
    pub protocol: server::Session,
    pub decoder: Decoder,
    /// Bytes that came with the hello.
    pub input: Vec<u8>,
    /// Frames to send first: the welcome.
    pub output: Vec<u8>,
    pub stream: Arc<Stream>,
    pub window: Window,
    pub post: Rc<Post>,
}

/// How a session ended.
#[derive(Debug)]
enum End {
    /// The agent said goodbye.
    Bye,
    /// The connection broke, or ended without a goodbye.
    Lost(io::Error),
    /// It was refused.
    Refused(Refusal),
}

struct Session {
    host: Rc<Host>,
    link: Link,
    protocol: server::Session,
    decoder: Decoder,
    /// What was read and couldn't be handled yet.
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    builder: UnitBuilder,
    window: Window,
    post: Rc<Post>,
    totals: Totals,
    write: Option<Write>,
    waiting: Option<Waiting>,
    turn: Turn,
    linger: Option<Timer>,
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

/// What must come before the session reads on.
struct Waiting {
    what: Want,
    since: Instant,
    told: bool,
}

enum Want {
    /// A buffer for a write, whichever comes first.
    Buffer { small: BufferWait, large: Option<BufferWait> },
    /// A place in the log for a unit.
    Place(Box<Unit>),
}

/// Serves a session until it ends.
pub(crate) async fn serve(host: Rc<Host>, opening: Opening) {
    let stream = opening.stream.clone();
    let record_bytes_max = host.shared.record_bytes_max as usize;
    let mut session = Session {
        link: opening.link,
        protocol: opening.protocol,
        decoder: opening.decoder,
        input: opening.input,
        output: opening.output,
        written: 0,
        builder: UnitBuilder::new(opening.stream, record_bytes_max),
        window: opening.window,
        post: opening.post,
        totals: Totals::default(),
        write: None,
        waiting: None,
        turn: host.turn(),
        linger: None,
        host,
    };
    let end = poll_fn(|context| session.poll(context)).await;
    let (machine, epoch) = (&stream.machine, stream.epoch);
    let (received, committed) = (session.protocol.received(), session.protocol.committed());
    let goodbye = match end {
        End::Bye => {
            info!(%machine, %epoch, %committed, "the agent is done");
            Some(Goodbye::Mutual)
        }
        End::Lost(error) => {
            info!(%machine, %epoch, %received, %committed, %error, "the connection ended");
            None
        }
        End::Refused(refusal) => {
            warn!(%machine, %epoch, %received, %committed, %refusal, "the session was ended");
            session.protocol.refuse(&refusal, &mut session.output);
            Some(Goodbye::OneSided)
        }
    };
    // What was received whole goes on its way, though the session has ended; a peer that is slow to
    // read its refusal doesn't hold it up, nor the other way round.
    let units = session.last_units();
    let Session { host, mut link, output, written, mut turn, .. } = session;
    let dispatched = async {
        for unit in units {
            host.dispatch_in_turn(unit, &mut turn).await;
        }
    };
    let said = async {
        if let Some(goodbye) = goodbye {
            link.say_last(&output[written..], goodbye).await;
        }
    };
    futures::join!(dispatched, said);
}

impl Session {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let mut turn = TURN_BYTES;
        loop {
            if let Err(refusal) = self.read_post(context) {
                return Poll::Ready(End::Refused(refusal));
            }
            if let Err(error) = self.poll_output(context) {
                return Poll::Ready(End::Lost(error));
            }
            if self.waiting.is_some() {
                match self.poll_waiting(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(End::Lost(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if !self.input.is_empty() {
                let input = std::mem::take(&mut self.input);
                if let Some(end) = self.handle(&input, context) {
                    return Poll::Ready(end);
                }
                continue;
            }
            if turn == 0 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let scratch = self.host.scratch();
            let mut buffer = scratch.borrow_mut();
            match self.link.poll_read(context, &mut buffer) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(End::Lost(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(count)) => {
                    turn = turn.saturating_sub(count);
                    self.linger = None;
                    if let Some(end) = self.handle(&buffer[..count], context) {
                        return Poll::Ready(end);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(End::Lost(error)),
                Poll::Pending => {
                    drop(buffer);
                    if self.poll_linger(context).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// What the shard has to say.
    fn read_post(&mut self, context: &mut Context<'_>) -> Result<(), Refusal> {
        let post = self.post.clone();
        *post.waker.borrow_mut() = Some(context.waker().clone());
        if let Some(lsn) = post.spoiled.take() {
            let cause =
                format!("the bytes of LSN {lsn} don't fit the checksum that came with them");
            let advice = "it is sent again; if this happens often, test the machine's memory";
            return Err(Refusal::new(RefusalCode::Corrupt, Remedy::Retry, &cause, advice));
        }
        let packed = post.packed_bytes.take();
        if packed > 0 {
            let grant = self.window.returned(packed, self.host.large_pool());
            if grant > 0 {
                self.protocol.credit(grant as u64, &mut self.output);
            }
        }
        let committed = post.committed.take();
        let more = post.totals.take();
        if committed.is_some() || more != Default::default() {
            self.totals.zero_bytes += more.zero_bytes;
            self.totals.deduplicated_bytes += more.deduplicated_bytes;
            self.totals.kept_bytes += more.kept_bytes;
            self.totals.stored_bytes += more.stored_bytes;
            let lsn = committed.unwrap_or(self.protocol.committed());
            self.protocol.ack(lsn, self.totals, &mut self.output);
        }
        match post.end.take() {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// Sends what there is to say. Pending is no error: it goes on with the next poll.
    fn poll_output(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.link.poll_write(context, &self.output[self.written..]) {
                Poll::Ready(count) => self.written += count?,
                Poll::Pending if self.output.len() - self.written > OUTPUT_BYTES_MAX => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the agent doesn't read what it is told",
                    ));
                }
                Poll::Pending => return Ok(()),
            }
        }
        self.output.clear();
        self.written = 0;
        match self.link.poll_flush(context) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Handles what was read; what must wait is kept in `input`.
    fn handle(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Option<End> {
        let mut rest = bytes;
        loop {
            if self.waiting.is_some() {
                self.input.extend_from_slice(rest);
                return None;
            }
            if let Some(write) = &self.write
                && !write.placed
            {
                self.place_write(context);
                continue;
            }
            let item = match self.decoder.next(&mut rest) {
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
                    self.builder.add_write(lsn, time, extent, checksum);
                    if self.builder.is_full() {
                        self.close_unit(false, context);
                    }
                }
            }
        }
        Ok(false)
    }

    fn add(&mut self, record: Record, context: &mut Context<'_>) {
        if self.builder.must_close(0) {
            self.close_unit(false, context);
        }
        let flush = matches!(record.kind, RecordKind::Bookmark(_));
        let kind = match record.kind {
            RecordKind::Disk(disk) => EntryKind::Disk(disk),
            RecordKind::Zero(extent) => EntryKind::Zero(extent),
            RecordKind::Bookmark(bookmark) => EntryKind::Bookmark(bookmark),
            RecordKind::Time | RecordKind::Write(..) => EntryKind::Time,
        };
        self.builder.add(Entry { lsn: record.lsn, time: record.time, kind });
        if flush {
            self.close_unit(true, context);
        }
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
        let large = if self.window.is_large() { self.host.shared.large.take() } else { None };
        match large.or_else(|| self.host.shared.small.take()) {
            Some(buffer) => self.builder.give_buffer(buffer),
            None => {
                let small = self.host.shared.small.wait();
                let large = self.window.is_large().then(|| self.host.shared.large.wait());
                self.wait(Want::Buffer { small, large });
            }
        }
    }

    /// Sends the unit so far on its way, or waits until it may go.
    fn close_unit(&mut self, flush: bool, context: &mut Context<'_>) {
        self.linger = None;
        let Some(unit) = self.builder.close(flush) else { return };
        if let Some(unit) = self.host.dispatch(unit, &mut self.turn, context) {
            self.wait(Want::Place(Box::new(unit)));
        }
    }

    fn wait(&mut self, what: Want) {
        self.linger = None;
        self.waiting = Some(Waiting { what, since: Instant::now(), told: false });
    }

    /// Ready when what the session waits for is there. Gives an error when the agent has gone: the
    /// link isn't read meanwhile, so that must be asked.
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(mut waiting) = self.waiting.take() else { return Poll::Ready(Ok(())) };
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
                    self.linger = None;
                    return Poll::Ready(Ok(()));
                }
                waiting.what = Want::Buffer { small, large };
            }
            Want::Place(unit) => match self.host.dispatch(*unit, &mut self.turn, context) {
                None => {
                    self.linger = None;
                    return Poll::Ready(Ok(()));
                }
                Some(unit) => waiting.what = Want::Place(Box::new(unit)),
            },
        }
        self.waiting = Some(waiting);
        let timer = self.linger.get_or_insert_with(|| Timer::new(SLOW_AFTER));
        if Pin::new(timer).poll(context).is_pending() {
            return Poll::Pending;
        }
        self.linger = None;
        if self.link.peer_has_closed() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.tell_slow();
        // Once more, so that the frame leaves and the timer runs.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells the agent once why it takes so long.
    fn tell_slow(&mut self) {
        let Some(waiting) = &mut self.waiting else { return };
        if !std::mem::replace(&mut waiting.told, true) {
            let waited_us = u64::try_from(waiting.since.elapsed().as_micros()).unwrap_or(u64::MAX);
            let reason = self.host.bottleneck();
            self.protocol.slow(Slow { reason, waited_us }, &mut self.output);
            debug!(?reason, waited_us, "a session waits");
        }
    }

    /// After a while without news the unit so far goes on its way; but not in the middle of a write,
    /// whose bytes are in it.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.builder.is_empty() || self.write.is_some() {
            return Poll::Pending;
        }
        let timer = self.linger.get_or_insert_with(|| Timer::new(LINGER));
        std::task::ready!(Pin::new(timer).poll(context));
        self.close_unit(false, context);
        Poll::Ready(())
    }

    /// What was received whole and isn't under way yet.
    fn last_units(&mut self) -> impl Iterator<Item = Unit> + use<> {
        self.write = None;
        let waiting = match self.waiting.take() {
            Some(Waiting { what: Want::Place(unit), .. }) => Some(*unit),
            _ => None,
        };
        waiting.into_iter().chain(self.builder.close(true))
    }
}

/// Why a session waits, as far as its shard can tell.
pub(crate) fn bottleneck(packs_waiting: bool, units_waiting: bool) -> SlowReason {
    match (packs_waiting, units_waiting) {
        (true, _) => SlowReason::Store,
        (false, true) => SlowReason::Cores,
        (false, false) => SlowReason::Memory,
    }
}

/// What the shard knows of the large buffers.
pub(crate) fn pool_of(pool: &tidegate_pipeline::BufferPool) -> Pool {
    Pool { free: pool.free(), count: pool.count(), buffer_bytes: pool.buffer_bytes() }
}
