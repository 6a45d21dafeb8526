//! One connection of a copy: hello, welcome, records and their acknowledgements, bye.
//!
//! One task does all of it, reading and writing at the same time. Records are written many at
//! once, their payloads from where they were read to. What outlives the connection is in
//! [`State`]; what the protocol allows is decided by [`tidegate_wire::agent::Session`].
//!
//! Invariants: a record is kept in the window before its first byte is written; after a welcome
//! everything that follows its committed LSN is sent, in order; nothing here waits for credit
//! while it could hear of commits, which is what frees buffers.

mod feed;
mod outbox;
mod state;

#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use tidegate_model::{Lsn, Remedy};
use tidegate_wire::agent::{self, Event};
use tidegate_wire::{Decoder, Item, Message, Record, Refusal, Side, Slow, SlowReason, Totals};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::connect::Connection;
use crate::copy::stopped;
use crate::error::CopyError;
use crate::progress::add;
use outbox::{Frame, Outbox};
pub(crate) use state::State;
use state::What;

/// What the server says is short; this takes hundreds of its frames at once.
const INPUT_BYTES: usize = 16 << 10;

/// How long to wait for the last words of a server that no longer listens, and for it to close
/// after our goodbye.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);

/// How a connection ended, when not for good.
#[derive(Debug)]
pub(crate) enum End {
    /// Everything is committed.
    Whole,
    /// It broke, or was refused for now; the text says why.
    Broken(String),
}

/// Why the exchange on a connection stops.
enum Stop {
    Broken(String),
    Failed(CopyError),
}

impl<E: Into<CopyError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Runs the session of one connection to its end.
pub(crate) async fn run(
    state: &mut State,
    connection: Connection,
    patience: Duration,
    stop: &mut watch::Receiver<bool>,
) -> Result<End, CopyError> {
    let (reader, writer) = tokio::io::split(connection);
    let mut session = Session::new(state, patience);
    let mut link = Link { reader, writer, input: vec![0; INPUT_BYTES].into() };
    let ended = session.exchange(&mut link, stop).await;
    let (totals, sent) = (session.totals, session.wire.sent());
    state.disconnected(&totals);
    tracing::debug!(
        committed = %state.committed(), %sent, bytes_sent = state.progress.snapshot().bytes_sent,
        "the connection has ended"
    );
    match ended {
        Ok(()) => Ok(End::Whole),
        Err(Stop::Broken(cause)) => Ok(End::Broken(cause)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

struct Link {
    reader: ReadHalf<Connection>,
    writer: WriteHalf<Connection>,
    input: Box<[u8]>,
}

/// What happened next.
enum Next {
    Read(io::Result<usize>),
    Written(io::Result<usize>),
    Flushed(io::Result<()>),
    Item(Result<Option<feed::Item>, crate::reader::ReaderError>),
    Late,
    Stopped,
}

struct Session<'a> {
    state: &'a mut State,
    wire: agent::Session,
    decoder: Decoder,
    outbox: Outbox,
    unflushed: bool,
    welcomed: bool,
    began: Instant,
    patience: Duration,
    totals: Totals,
    slow: Option<Slow>,
}

impl<'a> Session<'a> {
    fn new(state: &'a mut State, patience: Duration) -> Self {
        let wire = agent::Session::new(state.hello(), state.ever_sent);
        let mut hello = Vec::new();
        wire.hello(&mut hello);
        let mut outbox = Outbox::default();
        outbox.push(Frame::Whole(hello));
        Self {
            state,
            wire,
            decoder: Decoder::new(Side::Agent),
            outbox,
            unflushed: false,
            welcomed: false,
            began: Instant::now(),
            patience,
            totals: Totals::default(),
            slow: None,
        }
    }

    async fn exchange(
        &mut self,
        link: &mut Link,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Stop> {
        loop {
            if self.welcomed && self.state.is_whole() {
                self.farewell(link).await;
                return Ok(());
            }
            self.queue();
            match self.next(link, stop).await {
                Next::Read(Ok(0)) => return Err(broken("the server closed the connection")),
                Next::Read(Ok(count)) => self.hear(&link.input[..count])?,
                // Without TLS' own goodbye: its server was killed, or the way to it is cut.
                Next::Read(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(broken("the connection ended without a goodbye"));
                }
                Next::Read(Err(error)) => return Err(broken(&format!("reading failed: {error}"))),
                Next::Written(Ok(count)) if count > 0 => {
                    add(&self.state.progress.bytes_sent, count as u64);
                    self.outbox.advance(count);
                    self.unflushed = true;
                }
                Next::Written(Ok(_)) => return Err(broken("the server no longer listens")),
                Next::Flushed(Ok(())) => self.unflushed = false,
                Next::Written(Err(error)) | Next::Flushed(Err(error)) => {
                    self.last_words(link).await?;
                    return Err(broken(&format!("writing failed: {error}")));
                }
                Next::Item(item) => {
                    if let Some(item) = item? {
                        self.state.keep(item);
                    }
                }
                Next::Late => return Err(self.gave_up().into()),
                Next::Stopped => {
                    let committed = self.state.committed();
                    return Err(CopyError::Stopped { committed }.into());
                }
            }
        }
    }

    /// Waits for the next thing to happen. What the server says comes first, since it frees
    /// buffers; then what is read, so that writes are large.
    async fn next(&mut self, link: &mut Link, stop: &mut watch::Receiver<bool>) -> Next {
        let deadline = self.deadline();
        let wants_item = self.wants_item();
        let Self { state, outbox, unflushed, .. } = self;
        let (slices, count) = outbox.slices();
        let item = async {
            match state.feed.as_mut() {
                Some(feed) => feed.next().await,
                None => std::future::pending().await,
            }
        };
        let writer = &mut link.writer;
        let write = async {
            if count > 0 {
                Next::Written(writer.write_vectored(&slices[..count]).await)
            } else {
                Next::Flushed(writer.flush().await)
            }
        };
        tokio::select! {
            biased;
            () = stopped(stop) => Next::Stopped,
            read = link.reader.read(&mut link.input) => Next::Read(read),
            item = item, if wants_item => Next::Item(item),
            next = write, if count > 0 || *unflushed => next,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                Next::Late
            }
        }
    }

    fn wants_item(&self) -> bool {
        self.welcomed
            && self.outbox.has_room()
            && self.wire.sent() == self.state.window.last_lsn()
            && self.state.feed.as_ref().is_some_and(|feed| !feed.has_ended())
    }

    /// When to give up: a welcome or a commit is owed by then. `None` while nothing is.
    fn deadline(&self) -> Option<Instant> {
        if !self.welcomed {
            return Some(self.began + self.patience);
        }
        let since = self.state.advanced().unwrap_or(self.began);
        (!self.state.window.is_empty()).then_some(since + self.patience)
    }

    fn gave_up(&self) -> CopyError {
        let last = match self.slow.map(|slow| slow.reason) {
            None if !self.welcomed => {
                "the server accepted the connection and said nothing; see its log, and start it anew"
            }
            None => "the server is connected and commits nothing; see its log, and start it anew",
            Some(SlowReason::Store) => "the server waits for its store; see its log, and the store",
            Some(SlowReason::Cores) => "the server's cores are all busy; give it more of them",
            Some(SlowReason::Memory) => "the server waits for memory; give it more (its --memory)",
        };
        CopyError::GaveUp {
            waited: self.patience,
            awaited: self.state.awaited(),
            committed: self.state.committed(),
            last: last.to_owned(),
        }
    }

    /// Moves records from the window into the outbox, as far as there is room and credit.
    fn queue(&mut self) {
        while self.welcomed && self.outbox.has_room() {
            let lsn = self.wire.sent().next();
            let Some(kept) = self.state.window.get(lsn) else { break };
            let bytes = kept.payload_bytes();
            let frame = match &kept.what {
                What::Write(..) if !self.wire.may_send(bytes) => break,
                What::Write(extent, payload) => {
                    let header = self.wire.write(lsn, kept.time, *extent, payload.checksum());
                    Frame::Write { header: header.encode(), payload: payload.clone() }
                }
                What::Record(kind) => {
                    let record = Record { lsn, time: kept.time, kind: kind.clone() };
                    let mut frame = Vec::new();
                    self.wire.record(&record, &mut frame);
                    Frame::Whole(frame)
                }
            };
            self.outbox.push(frame);
            if lsn <= self.state.ever_sent {
                add(&self.state.progress.bytes_resent, bytes);
            }
            self.state.ever_sent = self.state.ever_sent.max(lsn);
        }
    }

    /// Takes what the server says.
    fn hear(&mut self, mut input: &[u8]) -> Result<(), Stop> {
        loop {
            let item = self.decoder.next(&mut input).map_err(|error| CopyError::Protocol {
                what: format!("what the server says can't be understood ({error})"),
            })?;
            match item {
                Some(Item::Message(message)) => self.hear_message(message)?,
                Some(_) => {
                    let what = "the server sent a write".to_owned();
                    return Err(CopyError::Protocol { what }.into());
                }
                None => return Ok(()),
            }
        }
    }

    fn hear_message(&mut self, message: Message) -> Result<(), Stop> {
        if let Message::Welcome(welcome) = &message
            && !self.welcomed
        {
            self.state.check(welcome)?;
        }
        let protocol = |error: agent::ServerBroke| CopyError::Protocol { what: error.to_string() };
        match self.wire.hear(message).map_err(protocol)? {
            Event::Welcome(welcome) => {
                self.state.welcome(&welcome)?;
                self.welcomed = true;
                self.restate(welcome.committed);
                tracing::info!(
                    epoch = %welcome.epoch, committed = %welcome.committed,
                    sent = %self.state.ever_sent, "the session is open"
                );
            }
            Event::Ack { committed, totals } => {
                self.totals = totals;
                self.slow = None;
                self.state.committed_up_to(committed)?;
                tracing::debug!(%committed, sent = %self.wire.sent(), "acknowledged");
            }
            Event::Credit => {}
            Event::Slow(slow) => {
                if self.welcomed {
                    tracing::info!(reason = ?slow.reason, waited_us = slow.waited_us, "the server waits");
                } else {
                    tracing::warn!(
                        "the server waits for its store before it can begin; see its log"
                    );
                }
                self.slow = Some(slow);
            }
            Event::Refused(refusal) => return Err(refused(refusal)),
        }
        Ok(())
    }

    /// States the disks whose declarations are committed, and so aren't sent again.
    fn restate(&mut self, committed: Lsn) {
        // Disks are the first records: disk n has LSN n + 1.
        let disks = (1..).zip(self.state.declared()).filter(|(lsn, _)| *lsn <= committed.0);
        for (_, disk) in disks {
            let mut frame = Vec::new();
            self.wire.restate(&disk, &mut frame);
            self.outbox.push(Frame::Whole(frame));
        }
    }

    /// Says goodbye. All is committed, so whether it arrives matters only to the server's log.
    async fn farewell(&mut self, link: &mut Link) {
        let mut bye = Vec::new();
        self.wire.bye(&mut bye);
        let say = async {
            link.writer.write_all(&bye).await?;
            link.writer.shutdown().await?;
            while link.reader.read(&mut link.input).await? > 0 {}
            io::Result::Ok(())
        };
        match timeout(LAST_WORDS_LIMIT, say).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the goodbye may not have arrived"),
            Err(_) => tracing::debug!("the server didn't close after the goodbye"),
        }
        add(&self.state.progress.bytes_sent, bye.len() as u64);
    }

    /// A server that refuses says why before it closes: hears that though writing failed.
    async fn last_words(&mut self, link: &mut Link) -> Result<(), Stop> {
        let until = Instant::now() + LAST_WORDS_LIMIT;
        while let Ok(Ok(count)) =
            tokio::time::timeout_at(until, link.reader.read(&mut link.input)).await
        {
            if count == 0 {
                break;
            }
            self.hear(&link.input[..count])?;
        }
        Ok(())
    }
}

fn broken(cause: &str) -> Stop {
    Stop::Broken(format!("{cause}; see the server's log, and the network"))
}

fn refused(refusal: Refusal) -> Stop {
    if refusal.remedy == Remedy::Retry {
        return Stop::Broken(refusal.to_string());
    }
    let Refusal { code, remedy, cause, advice } = refusal;
    CopyError::Refused { code: code as u16, cause, advice, remedy }.into()
}
