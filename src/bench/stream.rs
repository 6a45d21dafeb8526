//! One stream of a load: a session over the real protocol, whose records lie ready.
//!
//! Sends in rounds: from a moment until a moment, as fast as the server takes it or by a schedule;
//! then a bookmark, which closes the packs; the round is over when that is committed. A record's
//! latency counts from when it was *meant* to be sent: what waits behind a slow one counts its
//! waiting too.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use tidegate_agent::connect::Connection;
use tidegate_model::{
    Bookmark, BookmarkKind, ChecksumState, Disk, DiskNumber, Extent, Lsn, Micros,
};
use tidegate_wire::agent::{self, Event};
use tidegate_wire::{Decoder, Hello, Item, Message, Record, RecordKind, Side, Totals};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

use super::corpus::Corpus;
use super::outbox::Outbox;

/// What the server says is short.
const INPUT_BYTES: usize = 16 << 10;
/// How long a server may leave a stream without a word that it waits for.
const PATIENCE: Duration = Duration::from_secs(120);

/// What all streams of a load have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub corpus: Arc<Corpus>,
    pub streams: usize,
    pub disks: usize,
    /// Between two writes of one stream; `None`: as fast as the server takes them.
    pub interval: Option<Duration>,
}

/// What a stream is to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Wait,
    Send { begin: Instant, until: Instant },
    Quit,
}

/// What a stream did in one round.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    pub writes: u64,
    /// Bytes of the disks, zeros among them.
    pub bytes: u64,
    /// Bytes that were sent for them.
    pub payload_bytes: u64,
    pub totals: Totals,
}

/// A stream, connected.
pub(super) struct Stream {
    number: usize,
    common: Common,
    reader: ReadHalf<Connection>,
    writer: WriteHalf<Connection>,
    wire: agent::Session,
    decoder: Decoder,
    outbox: Outbox,
    unflushed: bool,
    checksums: ChecksumState,
    /// Records of the corpus that were sent in all rounds.
    count: u64,
    /// When each record that isn't committed was meant to be sent.
    meant: VecDeque<(Lsn, Instant)>,
    latencies: Arc<Mutex<Histogram<u64>>>,
    totals: Totals,
    now: Instant,
}

/// A round under way.
struct Round {
    begin: Instant,
    until: Instant,
    sent: Sent,
    before: Totals,
    marked: bool,
}

impl Stream {
    /// Opens the session and declares the disks.
    pub(super) async fn open(
        number: usize,
        common: Common,
        connection: Connection,
        hello: Hello,
        latencies: Arc<Mutex<Histogram<u64>>>,
    ) -> io::Result<Self> {
        let (reader, writer) = tokio::io::split(connection);
        let wire = agent::Session::new(hello, Lsn::NONE);
        let mut stream = Self {
            number,
            common,
            reader,
            writer,
            wire,
            decoder: Decoder::new(Side::Agent),
            outbox: Outbox::default(),
            unflushed: false,
            checksums: ChecksumState::default(),
            count: 0,
            meant: VecDeque::new(),
            latencies,
            totals: Totals::default(),
            now: Instant::now(),
        };
        let mut hello = Vec::new();
        stream.wire.hello(&mut hello);
        stream.writer.write_all(&hello).await?;
        stream.writer.flush().await?;
        let mut input = [0; INPUT_BYTES];
        let mut welcomed = false;
        while !welcomed {
            let reading = tokio::time::timeout(PATIENCE, stream.reader.read(&mut input)).await;
            let count = reading.map_err(|_| other("the server doesn't answer a hello"))??;
            if count == 0 {
                return Err(other("the server closed the connection instead of a welcome"));
            }
            welcomed = stream.hear(&input[..count])?;
        }
        for disk in 0..stream.common.disks {
            let number = u8::try_from(disk).unwrap_or(u8::MAX);
            let number = DiskNumber::try_from(number).map_err(other)?;
            let bytes = stream.common.corpus.disk_bytes();
            stream.say(RecordKind::Disk(Disk { number, bytes, name: format!("bench-{disk}") }));
        }
        Ok(stream)
    }

    /// Does as it is ordered, until it is to quit.
    pub(super) async fn run(
        mut self,
        mut orders: watch::Receiver<Order>,
        done: mpsc::Sender<io::Result<Sent>>,
    ) -> io::Result<()> {
        let mut input = vec![0; INPUT_BYTES];
        let mut round: Option<Round> = None;
        let mut heard = Instant::now();
        loop {
            self.now = Instant::now();
            if let Some(under_way) = &mut round {
                self.queue(under_way)?;
                if under_way.marked && self.wire.committed() == self.wire.sent() {
                    let sent =
                        Sent { totals: minus(self.totals, under_way.before), ..under_way.sent };
                    round = None;
                    done.send(Ok(sent)).await.map_err(|_| other("the load has ended"))?;
                }
            }
            let wake = round.as_ref().map_or(self.now + PATIENCE, |round| self.wake(round));
            if round.is_none() || self.wire.committed() == self.wire.sent() {
                heard = self.now;
            } else if self.now - heard > PATIENCE {
                return Err(other("the server has committed nothing for too long"));
            }
            let (slices, count) = self.outbox.slices(&self.common.corpus);
            let writer = &mut self.writer;
            let unflushed = self.unflushed;
            let write = async {
                if count > 0 {
                    writer.write_vectored(&slices[..count]).await.map(Some)
                } else {
                    writer.flush().await.map(|()| None)
                }
            };
            tokio::select! {
                biased;
                changed = orders.changed() => {
                    changed.map_err(|_| other("the load has ended"))?;
                    let order = *orders.borrow_and_update();
                    match order {
                        Order::Wait => {}
                        Order::Send { begin, until } => {
                            let (sent, before) = (Sent::default(), self.totals);
                            round = Some(Round { begin, until, sent, before, marked: false });
                        }
                        Order::Quit => return self.leave().await,
                    }
                }
                read = self.reader.read(&mut input) => {
                    let count = read?;
                    if count == 0 {
                        return Err(other("the server closed the connection"));
                    }
                    heard = Instant::now();
                    self.now = heard;
                    self.hear(&input[..count])?;
                }
                written = write, if count > 0 || unflushed => match written? {
                    Some(count) => {
                        self.outbox.advance(count, &self.common.corpus);
                        self.unflushed = true;
                    }
                    None => self.unflushed = false,
                },
                () = tokio::time::sleep_until(wake.into()), if round.is_some() => {}
            }
        }
    }

    /// When there is something to do though nothing is heard: the next record's time, or the end.
    fn wake(&self, round: &Round) -> Instant {
        if round.marked {
            return self.now + Duration::from_secs(1);
        }
        if self.now < round.begin {
            return round.begin;
        }
        match self.common.interval {
            // One that waits for credit is woken by it.
            Some(interval) => match self.meant_at(round, interval) {
                due if due > self.now => due.min(round.until),
                _ => self.now + Duration::from_secs(1),
            },
            None => round.until.max(self.now),
        }
    }

    /// When the next record of the round is meant to be sent. Streams take turns.
    fn meant_at(&self, round: &Round, interval: Duration) -> Instant {
        let streams = u32::try_from(self.common.streams).unwrap_or(u32::MAX);
        let phase = interval / streams * u32::try_from(self.number).unwrap_or(0);
        let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        round.begin + phase + Duration::from_nanos(nanos.saturating_mul(round.sent.writes))
    }

    /// Moves records into the outbox that are due, as far as room and credit go; at the end of the
    /// round the bookmark.
    fn queue(&mut self, round: &mut Round) -> io::Result<()> {
        while !round.marked && self.now >= round.begin && self.outbox.has_room() {
            let meant = match self.common.interval {
                Some(interval) => self.meant_at(round, interval),
                None => self.now,
            };
            // What is behind its schedule is sent all the same, or it wouldn't count.
            if meant >= round.until {
                if self.common.interval.is_none() || self.now >= round.until {
                    let kind = BookmarkKind::CrashConsistent;
                    self.say(RecordKind::Bookmark(Bookmark {
                        kind,
                        clean: false,
                        name: String::new(),
                    }));
                    round.marked = true;
                }
                break;
            }
            if meant > self.now {
                break;
            }
            let Some(payload_bytes) = self.send_next()? else { break };
            self.meant.push_back((self.wire.sent(), meant));
            round.sent.writes += 1;
            round.sent.bytes += self.common.corpus.record_bytes() as u64;
            round.sent.payload_bytes += payload_bytes;
        }
        Ok(())
    }

    /// Sends the next record, if the credit is there; gives how many bytes it takes.
    fn send_next(&mut self) -> io::Result<Option<u64>> {
        let Common { corpus, streams, disks, .. } = &self.common;
        let length = corpus.record_bytes() as u64;
        let next = corpus.next(self.number, *streams, self.count, *disks);
        let number = u8::try_from(next.disk).unwrap_or(u8::MAX);
        let disk = DiskNumber::try_from(number).map_err(other)?;
        let extent = Extent { disk, offset: next.index as u64 * length, length };
        if corpus.is_zero(next.index) {
            self.count += 1;
            let (lsn, time) = (self.wire.sent().next(), clock());
            let mut frame = Vec::new();
            self.wire.record(&Record { lsn, time, kind: RecordKind::Zero(extent) }, &mut frame);
            self.outbox.push(frame);
            return Ok(Some(0));
        }
        if !self.wire.may_send(length) {
            return Ok(None);
        }
        self.count += 1;
        let checksum = corpus.checksum(&next, &mut self.checksums);
        let header = self.wire.write(self.wire.sent().next(), clock(), extent, checksum);
        self.outbox.push_write(&header.encode(), next.stamp, next.index, corpus);
        Ok(Some(length))
    }

    /// Sends a record that isn't part of the load.
    fn say(&mut self, kind: RecordKind) {
        let record = Record { lsn: self.wire.sent().next(), time: clock(), kind };
        let mut frame = Vec::new();
        self.wire.record(&record, &mut frame);
        self.outbox.push(frame);
    }

    /// Takes what the server says; true when a welcome was among it.
    fn hear(&mut self, mut input: &[u8]) -> io::Result<bool> {
        let mut welcomed = false;
        while let Some(item) = self.decoder.next(&mut input).map_err(other)? {
            let Item::Message(message) = item else { return Err(other("the server sent a write")) };
            welcomed |= self.hear_message(message)?;
        }
        Ok(welcomed)
    }

    fn hear_message(&mut self, message: Message) -> io::Result<bool> {
        match self.wire.hear(message).map_err(other)? {
            Event::Welcome(welcome) => {
                let record_bytes = self.common.corpus.record_bytes();
                if record_bytes > welcome.record_bytes_max as usize {
                    let most = welcome.record_bytes_max >> 10;
                    return Err(other(format!("this server takes writes of at most {most} KiB")));
                }
                return Ok(true);
            }
            Event::Ack { committed, totals } => {
                self.totals = totals;
                self.committed(committed);
            }
            Event::Have(_) | Event::Credit | Event::Slow(_) => {}
            Event::Refused(refusal) => return Err(other(refusal)),
        }
        Ok(false)
    }

    /// Records up to here are committed: how long they took goes into the histogram.
    fn committed(&mut self, committed: Lsn) {
        let mut histogram = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((lsn, meant)) = self.meant.front().copied()
            && lsn <= committed
        {
            self.meant.pop_front();
            let micros = self.now.saturating_duration_since(meant).as_micros();
            histogram.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX).max(1));
        }
    }

    async fn leave(&mut self) -> io::Result<()> {
        let mut bye = Vec::new();
        self.wire.bye(&mut bye);
        let say = async {
            self.writer.write_all(&bye).await?;
            self.writer.shutdown().await?;
            let mut rest = [0; 1024];
            while self.reader.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        // All is committed: whether the goodbye arrives matters only to the server's log.
        let _ = tokio::time::timeout(Duration::from_secs(2), say).await;
        Ok(())
    }
}

fn minus(now: Totals, before: Totals) -> Totals {
    Totals {
        zero_bytes: now.zero_bytes - before.zero_bytes,
        deduplicated_bytes: now.deduplicated_bytes - before.deduplicated_bytes,
        kept_bytes: now.kept_bytes - before.kept_bytes,
        stored_bytes: now.stored_bytes - before.stored_bytes,
    }
}

fn clock() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

fn other(error: impl ToString) -> io::Error {
    io::Error::other(error.to_string())
}
