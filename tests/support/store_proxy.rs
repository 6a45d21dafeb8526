//! A way to a store over HTTP that misbehaves as a test asks: puts of packs that get no answer, or
//! a wrong one. Everything else passes as it is.
//!
//! One request a connection: each answer ends with its connection, so that nothing of HTTP needs to
//! be understood but a request's head and the length of its body. Signatures stay good: neither the
//! port nor the connection's header is signed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::azurite::Azurite;

/// What no head of a request is longer than.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What becomes of requests about packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packs {
    /// They pass.
    Pass,
    /// Puts are held, unread, until something else is asked for.
    Hold,
    /// Puts are told that the object exists, reads that it doesn't.
    Contradict,
}

/// One way from a port of its own to a store. Its threads end with their connections.
pub struct StoreProxy {
    address: SocketAddr,
    variables: Vec<(&'static str, String)>,
    container: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

struct State {
    packs: Packs,
    held: usize,
}

impl StoreProxy {
    /// A way to `store` on which everything passes.
    #[track_caller]
    pub fn before(store: &Azurite) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
        let address = listener.local_addr().expect("it has an address");
        let upstream = store.address();
        let state = Arc::new((Mutex::new(State { packs: Packs::Pass, held: 0 }), Condvar::new()));
        let theirs = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = theirs.clone();
                // A client that turns away is no failure of a test.
                std::thread::spawn(move || serve(client, upstream, &state));
            }
        });
        let (from, to) = (upstream.to_string(), address.to_string());
        let here = |(name, value): (_, String)| (name, value.replace(&from, &to));
        let variables = store.env().into_iter().map(here).collect();
        Self { address, variables, container: store.container().to_owned(), state }
    }

    /// The variables by which a client finds the store on this way.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        self.variables.clone()
    }

    /// A vault in the store's first container, below a prefix of its own.
    pub fn vault(&self, prefix: &str) -> String {
        format!("az://{}/{prefix}", self.container)
    }

    /// What becomes of requests about packs from now on.
    pub fn packs(&self, packs: Packs) {
        let (state, changed) = &*self.state;
        lock(state).packs = packs;
        changed.notify_all();
    }

    /// Waits until it holds a put.
    #[track_caller]
    pub fn wait_until_it_holds(&self, limit: Duration) {
        let (state, changed) = &*self.state;
        let waited = changed.wait_timeout_while(lock(state), limit, |state| state.held == 0);
        let held = waited.unwrap_or_else(PoisonError::into_inner).0.held;
        assert!(held > 0, "no put came to {} within {limit:?}", self.address);
    }

    /// Gives it so much time to hold more puts than `count`, which must not happen.
    #[track_caller]
    pub fn holds_no_more_than(&self, count: usize, time: Duration) {
        let (state, changed) = &*self.state;
        let waited = changed.wait_timeout_while(lock(state), time, |state| state.held <= count);
        let held = waited.unwrap_or_else(PoisonError::into_inner).0.held;
        assert!(held <= count, "{held} puts came to {}", self.address);
    }
}

impl Drop for StoreProxy {
    fn drop(&mut self) {
        self.packs(Packs::Pass);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request and its answer.
fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    state: &(Mutex<State>, Condvar),
) -> io::Result<()> {
    let Some((head, body)) = head_of(&mut client)? else { return Ok(()) };
    let request = Request::of(&head);
    if request.is_pack {
        match packs(state, &request) {
            Packs::Contradict => return contradict(client, &request, &body),
            Packs::Pass | Packs::Hold => {}
        }
    }
    let mut store = TcpStream::connect(upstream)?;
    let (first, rest) = head.split_once("\r\n").unwrap_or((&head, ""));
    let kept = rest.split_inclusive("\r\n").filter(|line| name_of(line) != "connection");
    let head = format!("{first}\r\nConnection: close\r\n{}", kept.collect::<String>());
    store.write_all(head.as_bytes())?;
    store.write_all(&body)?;
    let left = request.body_bytes.saturating_sub(body.len() as u64);
    io::copy(&mut (&client).take(left), &mut store)?;
    io::copy(&mut store, &mut client)?;
    Ok(())
}

/// What becomes of a request about a pack: waits as long as it is held.
fn packs(state: &(Mutex<State>, Condvar), request: &Request) -> Packs {
    let (state, changed) = state;
    let mut state = lock(state);
    if request.is_put && state.packs == Packs::Hold {
        state.held += 1;
        changed.notify_all();
        let held = |state: &mut State| state.packs == Packs::Hold;
        state = changed.wait_while(state, held).unwrap_or_else(PoisonError::into_inner);
        state.held -= 1;
    }
    state.packs
}

/// A put: it is there already. A read: it isn't.
fn contradict(mut client: TcpStream, request: &Request, body: &[u8]) -> io::Result<()> {
    let left = request.body_bytes.saturating_sub(body.len() as u64);
    io::copy(&mut (&client).take(left), &mut io::sink())?;
    let (status, code) = if request.is_put {
        ("409 Conflict", "BlobAlreadyExists")
    } else {
        ("404 Not Found", "BlobNotFound")
    };
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    let text = if request.is_head { "" } else { text.as_str() };
    write!(
        client,
        "HTTP/1.1 {status}\r\nx-ms-error-code: {code}\r\nContent-Type: application/xml\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}

/// What of a request counts here.
struct Request {
    is_put: bool,
    is_head: bool,
    is_pack: bool,
    body_bytes: u64,
}

impl Request {
    fn of(head: &str) -> Self {
        let mut words = head.split(' ');
        let method = words.next().unwrap_or_default();
        let path = words.next().unwrap_or_default().split('?').next().unwrap_or_default();
        let length = head.split("\r\n").find(|line| name_of(line) == "content-length");
        let length = length.and_then(|line| line.split_once(':')?.1.trim().parse().ok());
        Self {
            is_put: method == "PUT",
            is_head: method == "HEAD",
            is_pack: path.contains("/log/"),
            body_bytes: length.unwrap_or(0),
        }
    }
}

fn name_of(line: &str) -> String {
    line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The head of a request, to its empty line, and what came with it of the body.
fn head_of(client: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), body)));
        }
        let count = client.read(&mut piece)?;
        if count == 0 || bytes.len() > HEAD_BYTES_MAX {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece[..count]);
    }
}
