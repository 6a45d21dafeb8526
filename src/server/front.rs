//! A connection until it has said hello: TLS, HTTP, the first frame.
//!
//! Everything here is done within a time limit and with bounded memory, by peers that may be
//! anybody. Whoever speaks HTTP over TLS gets a readable answer; a certificate is judged here, not
//! in TLS, so that the reason can be told.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use glommio::timer::Timer;
use rustls::pki_types::CertificateDer;
use tidegate_model::{Name, Remedy};
use tidegate_vault::identity::{Role, check_peer};
use tidegate_wire::{Decoder, Hello, Item, Refusal, RefusalCode, Side, server};
use tokio::io::DuplexStream;
use tracing::{debug, info};

use super::host::{self, Host};
use super::http::{self, Request};
use super::link::{Goodbye, Link};
use super::listener::ConnectionGuard;
use super::report::ServerReport;
use super::tls_stream::TlsStream;
use super::welcome::{self, Handover};

/// TLS, HTTP and hello must be through in this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes that may come with a hello before its welcome: an agent waits for that.
pub(super) const EARLY_BYTES_MAX: usize = 16 << 10;

/// What arrives at a shard.
pub(crate) enum Arrival {
    /// A connection that was just accepted.
    Socket { socket: TcpStream, peer: SocketAddr, guard: ConnectionGuard },
    /// A stream from inside this process.
    Pipe(DuplexStream),
    /// A session that begins here, after its first frame was read elsewhere.
    Handover(Box<Handover>),
}

/// A session after its hello.
pub(super) struct Begun {
    pub protocol: server::Session,
    pub decoder: Decoder,
    /// What came with the hello.
    pub input: Vec<u8>,
    pub hello: Hello,
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
            Ok((link, begun)) => welcome::place(&host, link, Some(guard), begun).await,
            Err(Turned::Lost(error)) => debug!(%peer, %error, "a connection came to nothing"),
            Err(Turned::Answered | Turned::Refused) => {}
        },
        Arrival::Pipe(pipe) => {
            let mut link = Link::Pipe(pipe);
            match within(hello(&host, &mut link, Vec::new(), None)).await {
                Ok(begun) => welcome::place(&host, link, None, begun).await,
                Err(_) => debug!("a pipe came to nothing"),
            }
        }
        Arrival::Handover(handover) => welcome::take_over(host, *handover).await,
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
async fn front(host: &Host, socket: TcpStream, peer: SocketAddr) -> Result<(Link, Begun), Turned> {
    let Some(config) = host.shared.tls.clone() else { return Err(Turned::Answered) };
    let mut tls = TlsStream::accept(socket, config).map_err(io::Error::other)?;
    let mut head = Vec::new();
    let shaken =
        poll_fn(|context| tls.poll_handshake(context, &mut host.scratch().borrow_mut(), &mut head));
    if let Err(error) = shaken.await {
        no_handshake(&mut tls, peer, &error).await;
        return Err(Turned::Answered);
    }
    let mut link = Link::Tls(Box::new(tls));
    let rest = request(host, &mut link, head).await?;
    let machine = match judge(host, link.peer_certificates()) {
        Ok(machine) => machine,
        Err(reason) => {
            info!(%peer, %reason, "refused a connection");
            answer(&mut link, 403, &reason).await;
            return Err(Turned::Answered);
        }
    };
    link.send(tidegate_wire::http::SWITCHING).await?;
    let begun = hello(host, &mut link, rest, Some(&machine)).await?;
    Ok((link, begun))
}

/// Somebody who doesn't speak TLS is told so in what he speaks, if that is HTTP.
async fn no_handshake(tls: &mut TlsStream, peer: SocketAddr, error: &io::Error) {
    debug!(%peer, %error, "no TLS handshake");
    let bytes = if tls.first_byte().is_some_and(|byte| byte.is_ascii_uppercase()) {
        let text = "This port speaks TLS: use https://.";
        http::answer(400, "text/plain; charset=utf-8", text)
    } else {
        Vec::new()
    };
    tls.say_last_plain(&bytes).await;
}

/// Reads the HTTP request; gives what came behind it when it asks for the stream.
async fn request(host: &Host, link: &mut Link, mut head: Vec<u8>) -> Result<Vec<u8>, Turned> {
    loop {
        if let Some((request, length)) = http::parse(&head) {
            match request {
                Request::Replicate => return Ok(head.split_off(length)),
                Request::Health => {
                    let report = ServerReport::of(&host.shared);
                    let status = if report.status == "ok" { 200 } else { 503 };
                    let body = serde_json::to_string(&report).unwrap_or_default();
                    let bytes = http::answer(status, "application/json", &body);
                    link.say_last(&bytes, Goodbye::OneSided).await;
                }
                Request::Refused(status, text) => answer(link, status, &text).await,
            }
            return Err(Turned::Answered);
        }
        receive(host, link, &mut head).await?;
    }
}

/// The machine that the certificate names, or why it isn't good enough.
fn judge(host: &Host, chain: &[CertificateDer<'static>]) -> Result<Name, String> {
    let shared = &host.shared;
    let authority = shared.vault.authority_certificate();
    let peer = check_peer(chain, &authority, shared.vault.id(), Role::Machine, host::wall_clock());
    peer.map(|peer| peer.name).map_err(|error| error.to_string())
}

async fn answer(link: &mut Link, status: u16, text: &str) {
    let bytes = http::answer(status, "text/plain; charset=utf-8", text);
    link.say_last(&bytes, Goodbye::OneSided).await;
}

/// Appends what comes next; the end is an error here.
async fn receive(host: &Host, link: &mut Link, into: &mut Vec<u8>) -> Result<(), Turned> {
    let count =
        poll_fn(|context| link.poll_receive(context, &mut host.scratch().borrow_mut(), into));
    if count.await? == 0 {
        return Err(Turned::Lost(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(())
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
        input.clear();
        receive(host, link, &mut input).await?;
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

pub(super) fn out_of_turn() -> Refusal {
    let advice = "use an agent of the server's release";
    let cause = "the agent didn't begin with a hello and wait for its answer";
    Refusal::new(RefusalCode::Protocol, Remedy::Stop, cause, advice)
}

fn impostor(certified: &Name, claimed: &Name) -> Refusal {
    let cause = format!("the certificate is that of machine {certified}, not of {claimed}");
    let advice = "use the identity that was issued for this machine";
    Refusal::new(RefusalCode::Identity, Remedy::Refuse, &cause, advice)
}

/// Tells the peer why it gets no session.
pub(super) async fn refuse(link: &mut Link, protocol: &mut server::Session, refusal: &Refusal) {
    info!(%refusal, "refused a session");
    let mut bytes = Vec::new();
    protocol.refuse(refusal, &mut bytes);
    link.say_last(&bytes, Goodbye::OneSided).await;
}
