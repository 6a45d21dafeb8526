//! One session on its shard: what comes goes to its [`Intake`], acknowledgements go back.
//!
//! A state machine that is polled: it hears its shard, writes what is to be said, and reads what
//! comes while its intake takes it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use glommio::timer::Timer;
use tidegate_model::Remedy;
use tidegate_pipeline::{Fault, Stream, UnitBuilder};
use tidegate_wire::{Decoder, Refusal, RefusalCode, Slow, SlowReason, Totals, server};
use tracing::{debug, info, warn};

use super::credit::{Pool, Window};
use super::host::{Host, Post};
use super::intake::{End, Intake};
use super::link::{Goodbye, Link};

/// Bytes read at once; the shard's sessions share one buffer of this size. What a session can't
/// handle yet of it, it keeps: the memory plan counts that for each.
pub(crate) const READ_BYTES: usize = 128 << 10;
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

struct Session {
    link: Link,
    intake: Intake,
    output: Vec<u8>,
    written: usize,
    post: Rc<Post>,
    totals: Totals,
    /// Runs while the reactor has its turn.
    pause: Option<Timer>,
    /// Runs while the intake waits.
    patience: Option<Timer>,
    /// Whether the agent was told that it waits.
    told: bool,
    /// When something came from the agent.
    heard: Instant,
}

/// Serves a session until it ends.
pub(crate) async fn serve(host: Rc<Host>, opening: Opening) {
    let Opening { link, protocol, decoder, input, output, stream, window, post } = opening;
    let shared = &host.shared;
    let record_bytes_max = shared.record_bytes_max as usize;
    let builder = UnitBuilder::new(stream.clone(), record_bytes_max, shared.blanks.clone());
    let mut session = Session {
        link,
        intake: Intake::new(host, protocol, decoder, input, builder, window),
        output,
        written: 0,
        post,
        totals: Totals::default(),
        pause: None,
        patience: None,
        told: false,
        heard: Instant::now(),
    };
    let end = poll_fn(|context| session.poll(context)).await;
    let (machine, epoch) = (&stream.machine, stream.epoch);
    let protocol = &mut session.intake.protocol;
    let (received, committed) = (protocol.received(), protocol.committed());
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
            protocol.refuse(&refusal, &mut session.output);
            // Its reason decides what becomes of what was received.
            *session.post.end.borrow_mut() = Some(refusal);
            Some(Goodbye::OneSided)
        }
    };
    // What was received whole goes on its way, though the session has ended; a peer that is slow to
    // read its refusal doesn't hold it up, nor the other way round.
    let Session { intake, mut link, output, written, post, .. } = session;
    let said = async {
        if let Some(goodbye) = goodbye {
            link.say_last(&output[written..], goodbye).await;
        }
    };
    futures::join!(intake.finish(&post), said);
}

impl Session {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        loop {
            if let Err(refusal) = self.read_post(context) {
                return Poll::Ready(End::Refused(refusal));
            }
            while let Poll::Ready(answer) = self.intake.poll_answer(context) {
                match answer {
                    Ok(have) => self.intake.protocol.answer(have, &mut self.output),
                    Err(refusal) => return Poll::Ready(End::Refused(refusal)),
                }
            }
            if let Err(error) = self.poll_output(context) {
                return Poll::Ready(End::Lost(error));
            }
            match self.intake.poll_kept(context) {
                Poll::Ready(None) => (self.patience, self.told) = (None, false),
                Poll::Ready(Some(end)) => return Poll::Ready(end),
                Poll::Pending => return self.poll_patience(context).map(End::Lost),
            }
            std::task::ready!(self.intake.host.taken.poll(&mut self.pause, context));
            match self.read(context) {
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Ok(Some(end))) => return Poll::Ready(end),
                Poll::Ready(Err(error)) => return Poll::Ready(End::Lost(error)),
                Poll::Pending if self.intake.poll_linger(context).is_pending() => {
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
        }
    }

    /// Reads what has come, and gives it to the intake.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<End>>> {
        let host = self.intake.host.clone();
        let mut buffer = host.scratch().borrow_mut();
        let filled = std::task::ready!(self.link.poll_fill(context, &mut buffer))?;
        if filled == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        // Nothing of it is taken: the agent has it still.
        if self.heard.elapsed() > host.shared.silence_max {
            let cause =
                "it was silent for so long that its machine may have been removed meanwhile";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, cause)));
        }
        self.heard = Instant::now();
        host.taken.add(filled);
        let mut end = None;
        let intake = &mut self.intake;
        self.link.open(&mut buffer[..filled], &mut |bytes| {
            if end.is_none() {
                end = intake.take(bytes, context);
            }
        })?;
        Poll::Ready(Ok(end))
    }

    /// While the intake waits the link isn't read: whether the agent is still there must be asked
    /// from time to time, and the agent is told why it takes so long.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let timer = self.patience.get_or_insert_with(|| Timer::new(SLOW_AFTER));
            std::task::ready!(Pin::new(timer).poll(context));
            self.patience = None;
            if self.link.peer_has_closed() {
                return Poll::Ready(io::ErrorKind::UnexpectedEof.into());
            }
            self.tell_slow();
            if let Err(error) = self.poll_output(context) {
                return Poll::Ready(error);
            }
        }
    }

    /// Tells the agent once in a wait why it takes so long.
    fn tell_slow(&mut self) {
        let Some(since) = self.intake.waits_since() else { return };
        if !std::mem::replace(&mut self.told, true) {
            let waited_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            let reason = self.intake.host.bottleneck();
            self.intake.protocol.slow(Slow { reason, waited_us }, &mut self.output);
            debug!(?reason, waited_us, "a session waits");
        }
    }

    /// What the shard has to say.
    fn read_post(&mut self, context: &mut Context<'_>) -> Result<(), Refusal> {
        let post = self.post.clone();
        *post.waker.borrow_mut() = Some(context.waker().clone());
        if let Some(fault) = post.fault.take() {
            return Err(faulty(fault));
        }
        let packed = post.packed_bytes.take();
        let committed = post.committed.take();
        let more = post.totals.take();
        let acknowledges = committed.is_some() || more != Default::default();
        if packed > 0 || acknowledges {
            let host = &self.intake.host;
            let (pool, crowded) = (host.large_pool(), host.is_crowded());
            let grant = self.intake.window.returned(packed, pool, crowded, acknowledges);
            if grant > 0 {
                self.intake.protocol.credit(grant as u64, &mut self.output);
            }
        }
        if acknowledges {
            self.totals.zero_bytes += more.zero_bytes;
            self.totals.deduplicated_bytes += more.deduplicated_bytes;
            self.totals.kept_bytes += more.kept_bytes;
            self.totals.stored_bytes += more.stored_bytes;
            let lsn = committed.unwrap_or(self.intake.protocol.committed());
            self.intake.protocol.ack(lsn, self.totals, &mut self.output);
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
                Poll::Pending => {
                    self.output.drain(..self.written);
                    self.written = 0;
                    if self.output.len() > OUTPUT_BYTES_MAX {
                        let cause = "the agent doesn't read what it is told";
                        return Err(io::Error::new(io::ErrorKind::TimedOut, cause));
                    }
                    return Ok(());
                }
            }
        }
        self.output.clear();
        self.written = 0;
        match self.link.poll_flush(context) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }
}

fn faulty(fault: Fault) -> Refusal {
    let (code, cause, advice) = match fault {
        Fault::Spoiled(lsn) => (
            RefusalCode::Corrupt,
            format!("the bytes of LSN {lsn} don't fit the checksum that came with them"),
            "it is sent again; if this happens often, test the machine's memory",
        ),
        Fault::Gap { expected, found } => (
            RefusalCode::Internal,
            format!(
                "the server lost records: LSN {found} came to the log where {expected} was next"
            ),
            "they are sent again; this is a fault in the server: please report it",
        ),
    };
    Refusal::new(code, Remedy::Retry, &cause, advice)
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
