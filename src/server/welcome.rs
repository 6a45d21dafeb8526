//! From hello to welcome: the session's shard, its epoch from the vault, and the session itself.
//!
//! A session that takes over ends its predecessor, wherever that is by then: connected (its post
//! tells it), waiting for its epoch (the same), or on its way here (it finds that it was replaced).

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::FutureExt;
use glommio::timer::Timer;
use tidegate_model::{Name, Remedy};
use tidegate_pipeline::Stream;
use tidegate_vault::grant::Grant;
use tidegate_vault::meta::Begins;
use tidegate_wire::limits::FEATURE_HASHES;
use tidegate_wire::{Hello, Refusal, RefusalCode, Slow, SlowReason, Welcome, server};
use tokio::io::DuplexStream;
use tracing::{debug, info, warn};

use super::credit::Window;
use super::directory::{NoPlace, Place, Recorded};
use super::front::{Arrival, Begun, EARLY_BYTES_MAX, out_of_turn, refuse};
use super::grants;
use super::host::{Host, Post};
use super::link::Link;
use super::listener::ConnectionGuard;
use super::session::{self, Opening};
use super::tls_stream::{Detached, TlsStream};
use super::waits;

/// How long the vault may take to grant an epoch: less than an agent bears with a server that says
/// nothing, and enough to look through a day's packs of other machines.
const GRANT_PATIENCE: Duration = Duration::from_secs(300);

/// A session on its way to its shard.
pub(crate) struct Handover {
    link: DetachedLink,
    guard: Option<ConnectionGuard>,
    begun: Begun,
    place: Place,
}

enum DetachedLink {
    Tls(Box<Detached>),
    Pipe(DuplexStream),
}

/// Goes on with a session that was begun on another shard.
pub(super) async fn take_over(host: Rc<Host>, handover: Handover) {
    let Handover { link, guard, begun, place } = handover;
    let link = match link {
        DetachedLink::Tls(parts) => Link::Tls(Box::new(TlsStream::from_detached(*parts))),
        DetachedLink::Pipe(pipe) => Link::Pipe(pipe),
    };
    run(host, link, guard, begun, place).await;
}

/// Finds the session's shard, and runs it there.
pub(super) async fn place(
    host: &Rc<Host>,
    mut link: Link,
    guard: Option<ConnectionGuard>,
    mut begun: Begun,
) {
    let shared = host.shared.clone();
    let entered = if host.is_stopping() {
        Err(Refusal::shutting_down())
    } else {
        let Hello { machine, incarnation, .. } = &begun.hello;
        let entered = shared.directory.enter(machine, *incarnation, |shard| shared.load(shard));
        entered.map_err(|error| match error {
            NoPlace::Occupied(other) => occupied(machine, &other.to_string()),
            NoPlace::Full(sessions) => overloaded(sessions),
        })
    };
    let place = match entered {
        Ok(place) => place,
        Err(refusal) => return refuse(&mut link, &mut begun.protocol, &refusal).await,
    };
    if place.shard == host.number {
        return run(host.clone(), link, guard, begun, place).await;
    }
    let machine = begun.hello.machine.clone();
    let link = match link {
        Link::Tls(tls) => match tls.detach() {
            Ok(parts) => DetachedLink::Tls(Box::new(parts)),
            Err(error) => {
                debug!(%error, "a connection was lost on its way to its shard");
                return shared.directory.leave(&machine, place);
            }
        },
        Link::Pipe(pipe) => DetachedLink::Pipe(pipe),
    };
    let handover = Arrival::Handover(Box::new(Handover { link, guard, begun, place }));
    if shared.shard(place.shard).arrivals.post(handover).is_err() {
        debug!(shard = place.shard, "a shard is too busy for another session");
        shared.directory.leave(&machine, place);
    }
}

fn overloaded(sessions: usize) -> Refusal {
    let cause = format!("the server has as many sessions as it can have ({sessions})");
    let advice = "it is tried again; add a server, or give this one more memory";
    Refusal::new(RefusalCode::Overloaded, Remedy::Retry, &cause, advice)
}

fn occupied(machine: &Name, other: &str) -> Refusal {
    let cause = format!("machine {machine} is connected already, as incarnation {other}");
    let advice = "a connection that was lost ends within 30 seconds; another agent, here or where \
                  this identity was copied to, must end first, or have an identity of its own \
                  ('tidegate enroll')";
    Refusal::new(RefusalCode::Occupied, Remedy::Retry, &cause, advice)
}

/// Grants the epoch and serves the session, on its shard.
async fn run(
    host: Rc<Host>,
    mut link: Link,
    guard: Option<ConnectionGuard>,
    mut begun: Begun,
    place: Place,
) {
    let machine = begun.hello.machine.clone();
    for old in host.shared.directory.replaced_by(&machine, place) {
        host.end_session(old, taken_over());
    }
    let post = host.open_post(place.session);
    if !host.shared.directory.is_live(&machine, place) {
        // The one that took over was faster to get here, and found nothing to end.
        *post.end.borrow_mut() = Some(taken_over());
    }
    match await_grant(&host, &mut link, &mut begun, &post).await {
        Ok(grant) => {
            let Grant { epoch, committed, session, .. } = grant;
            let Hello { incarnation, token, .. } = begun.hello;
            let recorded = Recorded { epoch, incarnation, token, session, committed };
            host.shared.directory.note_recorded(&machine, recorded);
            let opening = open(&host, link, begun, place, &grant, post);
            info!(%machine, epoch = %grant.epoch, committed = %grant.committed, "a session begins");
            session::serve(host.clone(), opening).await;
        }
        Err(NoGrant::Refused(refusal)) => {
            refuse(&mut link, &mut begun.protocol, &refusal).await;
        }
        Err(NoGrant::Lost(error)) => debug!(%machine, %error, "an agent didn't wait for its epoch"),
    }
    host.close_post(place.session);
    host.shared.directory.leave(&machine, place);
    drop(guard);
}

/// Not to be tried again: the agent that came is this one on a new connection, which doesn't listen
/// to the old one any more; or a clone of it, and two that retry never end.
fn taken_over() -> Refusal {
    let cause = "the same agent came on another connection";
    let advice = "if that wasn't this agent, its machine was cloned: start the agent anew";
    Refusal::new(RefusalCode::TakenOver, Remedy::Stop, cause, advice)
}

/// Why a session got no epoch.
enum NoGrant {
    Lost(io::Error),
    Refused(Refusal),
}

/// Waits for the vault's grant; but not when the session must end, the agent goes away, or the
/// store takes too long.
async fn await_grant(
    host: &Host,
    link: &mut Link,
    begun: &mut Begun,
    post: &Post,
) -> Result<Grant, NoGrant> {
    let Begun { input, hello, protocol, .. } = begun;
    let grant = grants::grant(host, hello);
    let mut grant = pin!(grant);
    let mut limit = Timer::new(GRANT_PATIENCE);
    let mut told = pin!(tell_slow(host, hello, protocol).fuse());
    let (mut output, mut written) = (Vec::new(), 0);
    poll_fn(|context| {
        *post.waker.borrow_mut() = Some(context.waker().clone());
        if let Some(refusal) = post.end.take() {
            return Poll::Ready(Err(NoGrant::Refused(refusal)));
        }
        if let Poll::Ready(granted) = grant.as_mut().poll(context) {
            return Poll::Ready(granted.map_err(NoGrant::Refused));
        }
        let mut buffer = host.scratch().borrow_mut();
        while let Poll::Ready(read) = link.poll_receive(context, &mut buffer, input) {
            match read {
                Ok(0) => {
                    return Poll::Ready(Err(NoGrant::Lost(io::ErrorKind::UnexpectedEof.into())));
                }
                Ok(_) if input.len() > EARLY_BYTES_MAX => {
                    return Poll::Ready(Err(NoGrant::Refused(out_of_turn())));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(NoGrant::Lost(error))),
            }
        }
        if let Poll::Ready(slow) = told.as_mut().poll(context) {
            output = slow;
        }
        while written < output.len() {
            match link.poll_write(context, &output[written..]) {
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(NoGrant::Lost(error))),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(error)) = link.poll_flush(context) {
            return Poll::Ready(Err(NoGrant::Lost(error)));
        }
        Pin::new(&mut limit).poll(context).map(|_| Err(NoGrant::Refused(grants::too_slow())))
    })
    .await
}

/// When a grant takes long because of the store, what the agent is told, and the server's log.
async fn tell_slow(host: &Host, hello: &Hello, protocol: &server::Session) -> Vec<u8> {
    let mut store_wait = Duration::ZERO;
    while store_wait <= waits::LONG {
        Timer::new(waits::LONG).await;
        store_wait = host.shared.waits.longest(Instant::now());
    }
    warn!(machine = %hello.machine, ?store_wait, "a machine's epoch waits for the store");
    let waited_us = u64::try_from(store_wait.as_micros()).unwrap_or(u64::MAX);
    let mut output = Vec::new();
    protocol.slow(Slow { reason: SlowReason::Store, waited_us }, &mut output);
    output
}

/// What was offered and is to be had: questions are answered where the epoch goes on from a parent.
fn features(host: &Host, hello: &Hello, grant: &Grant) -> u64 {
    let answers = grant.begins == Begins::Continue && host.shared.resyncs.is_some();
    if answers { hello.features & FEATURE_HASHES } else { 0 }
}

fn open(
    host: &Host,
    link: Link,
    begun: Begun,
    place: Place,
    grant: &Grant,
    post: Rc<Post>,
) -> Opening {
    let Begun { mut protocol, mut decoder, input, hello } = begun;
    let shared = &host.shared;
    let mut output = Vec::new();
    let welcome = Welcome {
        epoch: grant.epoch,
        committed: grant.committed,
        credit_bytes: u64::from(shared.record_bytes_max),
        record_bytes_max: shared.record_bytes_max,
        block_bytes: shared.block_bytes,
        features: features(host, &hello, grant),
        run: shared.run,
        shard: host.number,
        before: grant.before,
    };
    protocol.grant(&welcome, &mut output);
    decoder.set_record_bytes_max(shared.record_bytes_max);
    let stream = Stream {
        machine: hello.machine,
        epoch: grant.epoch,
        id: place.session,
        committed: grant.committed,
    };
    let window = Window::new(shared.record_bytes_max, session::pool_of(&shared.large));
    Opening { link, protocol, decoder, input, output, stream: Arc::new(stream), window, post }
}
