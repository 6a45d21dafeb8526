//! One connection of an agent: hello, welcome, records and their acknowledgements, bye.
//!
//! One task does all of it, reading and writing at the same time. Records are written many at
//! once, their payloads from where they lie. What outlives the connection is in [`State`], where
//! records come from is a [`Feed`]; what the protocol allows is decided by
//! [`tidegate_wire::agent::Session`].
//!
//! Invariants: a record is kept in the window before its first byte is written; after a welcome
//! everything that follows its committed LSN is sent, in order; nothing here waits for credit
//! while it could hear of commits, which is what frees buffers.

mod error;
mod feed;
mod outbox;
mod questions;
mod record;
mod state;

#[cfg(test)]
pub(crate) mod server;

use std::io;
use std::time::Duration;

use tidegate_model::{Lsn, Remedy};
use tidegate_wire::agent::{self, Event};
use tidegate_wire::{
    Decoder, Hashes, Item, Message, Record, Refusal, Side, Slow, SlowReason, Totals,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::connect::Connection;
use crate::progress::add;
pub use error::SessionError;
pub(crate) use feed::Feed;
use outbox::{Frame, Outbox};
pub(crate) use questions::{Answers, Questions};
pub(crate) use record::{Kept, Payload, What};
pub use state::Stands;
pub(crate) use state::{State, Stream};

/// What the server says is short; this takes hundreds of its frames at once.
const INPUT_BYTES: usize = 16 << 10;

/// How long to wait for the last words of a server that no longer listens, and for it to close
/// after our goodbye.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);

/// How a connection ended, when another may go on.
#[derive(Debug)]
pub(crate) enum End {
    /// Everything is committed.
    Whole,
    /// It broke, or was refused for now; the text says why.
    Broken(String),
    /// What the server owes didn't come in time; the text says what to do.
    Late(String),
    /// The caller wanted it.
    Stopped,
}

/// Why the exchange on a connection stops before everything is committed.
enum Stop<E> {
    Ended(End),
    Failed(E),
}

impl<E> From<E> for Stop<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

/// Runs the session of one connection to its end.
pub(crate) async fn run<F: Feed>(
    state: &mut State<F>,
    connection: Connection,
    patience: Duration,
    stop: &mut watch::Receiver<bool>,
) -> Result<End, F::Error> {
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
        Err(Stop::Ended(end)) => Ok(end),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// Returns when the caller wants to stop. One that dropped its sender never will.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

struct Link {
    reader: ReadHalf<Connection>,
    writer: WriteHalf<Connection>,
    input: Box<[u8]>,
}

/// What happened next.
enum Next<E> {
    Read(io::Result<usize>),
    Written(io::Result<usize>),
    Flushed(io::Result<()>),
    Record(Result<Option<Kept>, E>),
    Question(Hashes),
    Late,
    Stopped,
}

struct Session<'a, F> {
    state: &'a mut State<F>,
    wire: agent::Session,
    decoder: Decoder,
    outbox: Outbox,
    unflushed: bool,
    welcomed: bool,
    began: Instant,
    patience: Duration,
    totals: Totals,
    slow: Option<Slow>,
    /// Since when the server owes an answer.
    asked: Option<Instant>,
}

impl<'a, F: Feed> Session<'a, F> {
    fn new(state: &'a mut State<F>, patience: Duration) -> Self {
        let wire = agent::Session::new(state.hello(), state.ever_sent());
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
            asked: None,
        }
    }

    async fn exchange(
        &mut self,
        link: &mut Link,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Stop<F::Error>> {
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
                Next::Record(record) => {
                    if let Some(record) = record? {
                        self.state.keep(record);
                    }
                }
                Next::Question(question) => {
                    let mut frame = Vec::new();
                    self.wire.ask(&question, &mut frame);
                    self.asked.get_or_insert_with(Instant::now);
                    self.outbox.push(Frame::Whole(frame));
                }
                Next::Late => return Err(Stop::Ended(End::Late(self.owed().to_owned()))),
                Next::Stopped => return Err(Stop::Ended(End::Stopped)),
            }
        }
    }

    /// Waits for the next thing to happen. What the server says comes first, since it frees
    /// buffers; then what is read, so that writes are large.
    async fn next(&mut self, link: &mut Link, stop: &mut watch::Receiver<bool>) -> Next<F::Error> {
        let deadline = self.deadline();
        let wants_record = self.wants_record();
        let questions = self.state.questions.clone().filter(|_| self.may_ask());
        let Self { state, outbox, unflushed, .. } = self;
        let (slices, count) = outbox.slices();
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
            record = state.feed.next(), if wants_record => Next::Record(record),
            Some(question) = ask(questions.as_deref()) => Next::Question(question),
            next = write, if count > 0 || *unflushed => next,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                Next::Late
            }
        }
    }

    fn may_ask(&self) -> bool {
        self.welcomed && self.wire.may_ask() && self.outbox.has_room()
    }

    fn wants_record(&self) -> bool {
        self.welcomed
            && self.outbox.has_room()
            && self.wire.sent() == self.state.window.last_lsn()
            && self.state.has_room()
    }

    /// When to give up: a welcome, a commit or an answer is owed by then. `None` while nothing is.
    fn deadline(&self) -> Option<Instant> {
        if !self.welcomed {
            return Some(self.began + self.patience);
        }
        let since = self.state.advanced().unwrap_or(self.began);
        let commit = (!self.state.window.is_empty()).then_some(since);
        let since = [commit, self.asked].into_iter().flatten().min();
        since.map(|since| since + self.patience)
    }

    /// Why the server may owe what it owes, and what to do.
    fn owed(&self) -> &'static str {
        match self.slow.map(|slow| slow.reason) {
            None if !self.welcomed => {
                "the server accepted the connection and said nothing; see its log, and start it anew"
            }
            None if self.asked.is_some() => {
                "the server is connected and says nothing of what the vault has; see its log"
            }
            None => "the server is connected and commits nothing; see its log, and start it anew",
            Some(SlowReason::Store) => "the server waits for its store; see its log, and the store",
            Some(SlowReason::Cores) => "the server's cores are all busy; give it more of them",
            Some(SlowReason::Memory) => "the server waits for memory; give it more (its --memory)",
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
            self.state.sends(lsn, bytes);
        }
    }

    /// Takes what the server says.
    fn hear(&mut self, mut input: &[u8]) -> Result<(), Stop<F::Error>> {
        loop {
            let item = self.decoder.next(&mut input).map_err(|error| {
                protocol(format!("what the server says can't be understood ({error})"))
            });
            match item.map_err(F::Error::from)? {
                Some(Item::Message(message)) => self.hear_message(message)?,
                Some(_) => {
                    return Err(
                        F::Error::from(protocol("the server sent a write".to_owned())).into()
                    );
                }
                None => return Ok(()),
            }
        }
    }

    fn hear_message(&mut self, message: Message) -> Result<(), Stop<F::Error>> {
        if let Message::Welcome(welcome) = &message
            && !self.welcomed
        {
            self.state.check(welcome).map_err(F::Error::from)?;
        }
        let heard = self.wire.hear(message).map_err(|error| protocol(error.to_string()));
        match heard.map_err(F::Error::from)? {
            Event::Welcome(welcome) => {
                self.state.welcome(&welcome)?;
                self.welcomed = true;
                if let Some(questions) = &self.state.questions {
                    questions.welcomed(match self.wire.may_ask() {
                        true => Answers::Blocks(u64::from(welcome.block_bytes)),
                        false => Answers::None,
                    });
                }
                self.restate(welcome.committed);
                tracing::info!(
                    epoch = %welcome.epoch, committed = %welcome.committed,
                    sent = %self.state.ever_sent(), "the session is open"
                );
            }
            Event::Ack { committed, totals } => {
                self.totals = totals;
                self.slow = None;
                self.state.committed_up_to(committed)?;
                tracing::debug!(%committed, sent = %self.wire.sent(), "acknowledged");
            }
            Event::Have(have) => {
                self.asked = self.wire.is_asking().then(Instant::now);
                if let Some(questions) = &self.state.questions {
                    questions.answered(have);
                }
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
        for disk in self.state.declared(committed) {
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
    async fn last_words(&mut self, link: &mut Link) -> Result<(), Stop<F::Error>> {
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

/// The next question; `None` at once where none may be asked.
async fn ask(questions: Option<&Questions>) -> Option<Hashes> {
    match questions {
        Some(questions) => Some(questions.next().await),
        None => None,
    }
}

fn broken<E>(cause: &str) -> Stop<E> {
    Stop::Ended(End::Broken(format!("{cause}; see the server's log, and the network")))
}

fn protocol(what: String) -> SessionError {
    SessionError::Protocol { what }
}

fn refused<E: From<SessionError>>(refusal: Refusal) -> Stop<E> {
    if refusal.remedy == Remedy::Retry {
        return Stop::Ended(End::Broken(refusal.to_string()));
    }
    let Refusal { code, remedy, cause, advice } = refusal;
    Stop::Failed(SessionError::Refused { code: code as u16, cause, advice, remedy }.into())
}
