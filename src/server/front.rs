//! A connection until it has a session: TLS, HTTP, hello, its shard, its epoch.
//!
//! Everything here is done within a time limit and with bounded memory, by peers that may be
//! anybody. Whoever speaks HTTP over TLS gets a readable answer; a certificate is judged here, not
//! in TLS, so that the reason can be told.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use glommio::timer::Timer;
use tidegate_model::{Name, Remedy};
use tidegate_pipeline::Stream;
use tidegate_vault::identity::{Role, check_peer};
use tidegate_wire::{Decoder, Hello, Item, Refusal, RefusalCode, Side, Welcome, server};
use tokio::io::DuplexStream;
use tracing::{debug, info};

use super::credit::Window;
use super::directory::{Occupied, Place};
use super::grants;
use super::host::{self, Host, Post};
use super::http::{self, Request};
use super::link::Link;
use super::listener::ConnectionGuard;
use super::report::ServerReport;
use super::session::{self, Opening};
use super::tls::{Detached, TlsStream};

/// TLS, HTTP and hello must be through in this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes read at once before a session has its shard's buffer.
const READ_BYTES: usize = 4 << 10;
/// Most bytes that may come with a hello before its welcome: an agent waits for that.
const EARLY_BYTES_MAX: usize = 16 << 10;

/// What arrives at a shard.
pub(crate) enum Arrival {
    /// A connection that was just accepted.
    Socket { socket: TcpStream, peer: SocketAddr, guard: ConnectionGuard },
    /// A stream from inside this process.
    Pipe(DuplexStream),
    /// A session that begins here, after its first frame was read elsewhere.
    Handover(Box<Handover>),
}

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

/// A session after its hello.
struct Begun {
    protocol: server::Session,
    decoder: Decoder,
    input: Vec<u8>,
    hello: Hello,
}

/// Why a connection gets no session. Each is told to the peer, as far as it can be.
enum Turned {
    /// It broke, or took too long.
    Lost(io::Error),
    /// It was answered in HTTP.
    Answered,
    /// It was refused in frames.
    Refused,
}

impl From<io::Error> for Turned {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// Takes care of what arrived, to its end.
pub(crate) async fn serve(host: Rc<Host>, arrival: Arrival) {
    match arrival {
        Arrival::Socket { socket, peer, guard } => match within(front(&host, socket, peer)).await {
            Ok((tls, begun)) => {
                place(&host, Link::Tls(Box::new(tls)), Some(guard), begun).await;
            }
            Err(Turned::Lost(error)) => debug!(%peer, %error, "a connection came to nothing"),
            Err(Turned::Answered | Turned::Refused) => {}
        },
        Arrival::Pipe(pipe) => {
            let mut link = Link::Pipe(pipe);
            match within(hello(&host, &mut link, Vec::new(), None)).await {
                Ok(begun) => place(&host, link, None, begun).await,
                Err(_) => debug!("a pipe came to nothing"),
            }
        }
        Arrival::Handover(handover) => {
            let Handover { link, guard, begun, place } = *handover;
            let link = match link {
                DetachedLink::Tls(parts) => Link::Tls(Box::new(TlsStream::from_detached(*parts))),
                DetachedLink::Pipe(pipe) => Link::Pipe(pipe),
            };
            run(host, link, guard, begun, place).await;
        }
    }
}

async fn within<T>(work: impl Future<Output = Result<T, Turned>>) -> Result<T, Turned> {
    let limit = Timer::new(PATIENCE);
    match select(Box::pin(work), limit).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(Turned::Lost(io::ErrorKind::TimedOut.into())),
    }
}

/// From the socket to the hello.
async fn front(
    host: &Host,
    socket: TcpStream,
    peer: SocketAddr,
) -> Result<(TlsStream, Begun), Turned> {
    let Some(config) = host.shared.tls.clone() else { return Err(Turned::Answered) };
    let mut tls = TlsStream::accept(socket, config).map_err(io::Error::other)?;
    if let Err(error) = poll_fn(|context| tls.poll_handshake(context)).await {
        no_handshake(&mut tls, peer, &error).await;
        return Err(Turned::Answered);
    }
    let rest = request(host, &mut tls).await?;
    let machine = match judge(host, &tls) {
        Ok(machine) => machine,
        Err(reason) => {
            info!(%peer, %reason, "refused a connection");
            answer(&mut tls, 403, &reason).await;
            return Err(Turned::Answered);
        }
    };
    send(&mut tls, tidegate_wire::http::SWITCHING).await?;
    let mut link = Link::Tls(Box::new(tls));
    let begun = hello(host, &mut link, rest, Some(&machine)).await?;
    match link {
        Link::Tls(tls) => Ok((*tls, begun)),
        Link::Pipe(_) => Err(Turned::Answered),
    }
}

/// Somebody who doesn't speak TLS is told so in what he speaks, if that is HTTP.
async fn no_handshake(tls: &mut TlsStream, peer: SocketAddr, error: &io::Error) {
    debug!(%peer, %error, "no TLS handshake");
    if tls.first_byte().is_some_and(|byte| byte.is_ascii_uppercase()) {
        let text = "This port speaks TLS: use https://.";
        let bytes = http::answer(400, "text/plain; charset=utf-8", text);
        let _ = poll_fn(|context| tls.poll_write_plain(context, &bytes)).await;
    } else {
        // The alert that says what was wrong.
        let _ = poll_fn(|context| tls.poll_send(context)).await;
    }
}

/// Reads the HTTP request; gives what came behind it when it asks for the stream.
async fn request(host: &Host, tls: &mut TlsStream) -> Result<Vec<u8>, Turned> {
    let mut head = Vec::with_capacity(512);
    let mut buffer = [0; READ_BYTES];
    loop {
        if let Some((request, length)) = http::parse(&head) {
            match request {
                Request::Replicate => return Ok(head.split_off(length)),
                Request::Health => {
                    let report = ServerReport::of(&host.shared);
                    let status = if report.status == "ok" { 200 } else { 503 };
                    let body = serde_json::to_string(&report).unwrap_or_default();
                    let bytes = http::answer(status, "application/json", &body);
                    finish(tls, &bytes).await;
                }
                Request::Refused(status, text) => answer(tls, status, &text).await,
            }
            return Err(Turned::Answered);
        }
        let count = poll_fn(|context| tls.poll_read(context, &mut buffer)).await?;
        if count == 0 {
            return Err(Turned::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
        head.extend_from_slice(&buffer[..count]);
    }
}

/// The machine that the certificate names, or why it isn't good enough.
fn judge(host: &Host, tls: &TlsStream) -> Result<Name, String> {
    let shared = &host.shared;
    let authority = shared.vault.authority_certificate();
    let chain = tls.peer_certificates();
    let peer = check_peer(chain, &authority, shared.vault.id(), Role::Machine, host::wall_clock());
    peer.map(|peer| peer.name).map_err(|error| error.to_string())
}

async fn answer(tls: &mut TlsStream, status: u16, text: &str) {
    finish(tls, &http::answer(status, "text/plain; charset=utf-8", text)).await;
}

/// Sends the last bytes of a connection.
async fn finish(tls: &mut TlsStream, bytes: &[u8]) {
    let _ = send(tls, bytes).await;
    tls.close();
    let _ = poll_fn(|context| tls.poll_send(context)).await;
}

async fn send(tls: &mut TlsStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = poll_fn(|context| tls.poll_write(context, bytes)).await?;
        bytes = &bytes[count..];
    }
    poll_fn(|context| tls.poll_send(context)).await
}

/// Reads the hello; a machine with a certificate may only speak for itself.
async fn hello(
    host: &Host,
    link: &mut Link,
    mut input: Vec<u8>,
    certified: Option<&Name>,
) -> Result<Begun, Turned> {
    let mut protocol = server::Session::new(host.shared.vault.id());
    let mut decoder = Decoder::new(Side::Server);
    let mut buffer = [0; READ_BYTES];
    let begun = loop {
        let mut rest = input.as_slice();
        match decoder.next(&mut rest) {
            Ok(Some(Item::Message(message))) => {
                break protocol.hello(message).map(|hello| (hello, rest.to_vec()));
            }
            Ok(Some(_)) => break Err(out_of_turn()),
            Err(error) => break Err(error.into()),
            Ok(None) => {}
        }
        let count = poll_fn(|context| link.poll_read(context, &mut buffer)).await?;
        if count == 0 {
            return Err(Turned::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
        input.clear();
        input.extend_from_slice(&buffer[..count]);
    };
    let checked = begun.and_then(|(hello, rest)| match certified {
        Some(name) if *name != hello.machine => Err(impostor(name, &hello.machine)),
        _ if rest.len() > EARLY_BYTES_MAX => Err(out_of_turn()),
        _ => Ok((hello, rest)),
    });
    match checked {
        Ok((hello, input)) => Ok(Begun { protocol, decoder, input, hello }),
        Err(refusal) => {
            refuse(link, &mut protocol, &refusal).await;
            Err(Turned::Refused)
        }
    }
}

fn out_of_turn() -> Refusal {
    let advice = "use an agent of the server's release";
    let cause = "the agent didn't begin with a hello and wait for its answer";
    Refusal::new(RefusalCode::Protocol, Remedy::Stop, cause, advice)
}

fn impostor(certified: &Name, claimed: &Name) -> Refusal {
    let cause = format!("the certificate is that of machine {certified}, not of {claimed}");
    let advice = "use the identity that was issued for this machine";
    Refusal::new(RefusalCode::Identity, Remedy::Refuse, &cause, advice)
}

async fn refuse(link: &mut Link, protocol: &mut server::Session, refusal: &Refusal) {
    info!(%refusal, "refused a session");
    let mut bytes = Vec::new();
    protocol.refuse(refusal, &mut bytes);
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        match poll_fn(|context| link.poll_write(context, rest)).await {
            Ok(count) => rest = &rest[count..],
            Err(_) => return,
        }
    }
    let _ = poll_fn(|context| link.poll_flush(context)).await;
    link.close();
    let _ = poll_fn(|context| link.poll_flush(context)).await;
}

/// Finds the session's shard, and runs it there.
async fn place(host: &Rc<Host>, mut link: Link, guard: Option<ConnectionGuard>, mut begun: Begun) {
    let shared = host.shared.clone();
    let entered = if host.is_stopping() {
        Err(Refusal::shutting_down())
    } else if shared.directory.sessions() >= shared.plan.sessions {
        Err(overloaded(shared.plan.sessions))
    } else {
        let Hello { machine, incarnation, .. } = &begun.hello;
        let load = |shard| shared.load(shard);
        shared
            .directory
            .enter(machine, *incarnation, load)
            .map_err(|Occupied(other)| occupied(machine, &other.to_string()))
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
    let cause = format!("the server has its {sessions} sessions");
    let advice = "it is tried again; add a server, or give this one more memory";
    Refusal::new(RefusalCode::Overloaded, Remedy::Retry, &cause, advice)
}

fn occupied(machine: &Name, other: &str) -> Refusal {
    let cause = format!("machine {machine} is connected already, as incarnation {other}");
    let advice = "if that is this machine's last connection it ends within 30 seconds, and it is \
                  tried again; if not, two machines use one identity: enroll one of them anew";
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
    if let Some(old) = place.replaces {
        // Not to be tried again: the agent that came is this one on a new connection, which doesn't
        // listen to the old one any more; or a clone of it, and two that retry never end.
        let cause = "the same agent came on another connection";
        let advice = "if that wasn't this agent, its machine was cloned: start the agent anew";
        host.end_session(old, Refusal::new(RefusalCode::TakenOver, Remedy::Stop, cause, advice));
    }
    let machine = begun.hello.machine.clone();
    let post = host.open_post(place.session);
    let granted = grants::grant(&host.shared, host.number, host.open_pack(), &begun.hello).await;
    match granted {
        Ok(grant) => {
            let opening = open(&host, link, begun, place, &grant, post);
            info!(%machine, epoch = %grant.epoch, committed = %grant.committed, "a session begins");
            session::serve(host.clone(), opening).await;
        }
        Err(refusal) => refuse(&mut link, &mut begun.protocol, &refusal).await,
    }
    host.close_post(place.session);
    host.shared.directory.leave(&machine, place);
    drop(guard);
}

fn open(
    host: &Host,
    link: Link,
    begun: Begun,
    place: Place,
    grant: &tidegate_vault::grant::Grant,
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
        features: 0,
        run: shared.run,
        shard: host.number,
    };
    protocol.grant(&welcome, &mut output);
    decoder.set_record_bytes_max(shared.record_bytes_max);
    let stream = Stream { machine: hello.machine, epoch: grant.epoch, id: place.session };
    let window = Window::new(shared.record_bytes_max, session::pool_of(&shared.large));
    Opening { link, protocol, decoder, input, output, stream: Arc::new(stream), window, post }
}
