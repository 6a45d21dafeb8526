//! A machine that speaks the protocol by hand: a test says its frames one by one, right or wrong.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_model::{Epoch, Incarnation, Lsn, Micros, Token};
use tidegate_wire::http::{SWITCHING, request};
use tidegate_wire::limits::PROTOCOL_VERSION;
use tidegate_wire::{
    Begins, Decoder, Hello, Item, Message, Record, RecordKind, Refusal, Side, Welcome, agent,
};

use super::refusals::vault_of;
use super::tls;

/// Each agent lives once.
static LIVES: AtomicU64 = AtomicU64::new(1);

/// The hello of a new agent that begins a copy.
#[track_caller]
pub fn hello(vault: &str, machine: &str) -> Hello {
    let mut incarnation = [7; 16];
    incarnation[..8].copy_from_slice(&LIVES.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    Hello {
        version: PROTOCOL_VERSION,
        vault: vault.parse().expect("it is a vault's id"),
        incarnation: Incarnation::from_bytes(incarnation),
        epoch: Epoch::NONE,
        committed: Lsn::NONE,
        features: 0,
        begins: Begins::Copy,
        parent: None,
        token: Token::NONE,
        machine: machine.parse().expect("it is a name"),
    }
}

/// The first frame of a machine.
#[track_caller]
pub fn first_frame(vault: &str, machine: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    agent::Session::new(hello(vault, machine), Lsn::NONE).hello(&mut bytes);
    bytes
}

/// A machine with a session of its own, and its end of the protocol.
#[track_caller]
pub fn enter(server: SocketAddr, identity: &Path, machine: &str) -> (tls::Client, agent::Session) {
    enter_as(server, identity, hello(&vault_of(identity), machine), Lsn::NONE)
}

/// The same with its hello, and the last LSN that it has ever sent of the epoch that it claims.
#[track_caller]
pub fn enter_as(
    server: SocketAddr,
    identity: &Path,
    hello: Hello,
    ever_sent: Lsn,
) -> (tls::Client, agent::Session) {
    let mut session = agent::Session::new(hello, ever_sent);
    let mut bytes = request("test");
    session.hello(&mut bytes);
    let mut client = tls::client(server, Some(identity));
    client.write_all(&bytes).expect("the server reads");
    let welcome = welcome(&mut client);
    session.hear(Message::Welcome(welcome)).expect("it is a good welcome");
    (client, session)
}

/// Reads until all that was sent is committed.
#[track_caller]
pub fn wait_until_committed(client: &mut tls::Client, session: &mut agent::Session) {
    let (mut decoder, mut buffer) = (Decoder::new(Side::Agent), [0; 4096]);
    while session.committed() < session.sent() {
        let count = client.read(&mut buffer).expect("it answers");
        assert!(count > 0, "it closed at {} of {}", session.committed(), session.sent());
        let mut bytes = &buffer[..count];
        while let Some(item) = decoder.next(&mut bytes).expect("a server's frames can be read") {
            let Item::Message(message) = item else { panic!("not {item:?} from a server") };
            session.hear(message).expect("it is in turn");
        }
    }
}

/// Reads up to the welcome, byte by byte, so that nothing behind it is taken.
#[track_caller]
pub fn welcome(client: &mut tls::Client) -> Welcome {
    let mut switching = vec![0; SWITCHING.len()];
    client.read_exact(&mut switching).expect("it answers");
    assert_eq!(switching, SWITCHING);
    let mut decoder = Decoder::new(Side::Agent);
    loop {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("a welcome follows");
        match decoder.next(&mut byte.as_slice()).expect("it can be read") {
            Some(Item::Message(Message::Welcome(welcome))) => return welcome,
            Some(other) => panic!("a welcome comes first, not {other:?}"),
            None => {}
        }
    }
}

/// Reads until a message comes that `wanted` is said of.
#[track_caller]
pub fn await_message(
    client: &mut tls::Client,
    decoder: &mut Decoder,
    wanted: impl Fn(&Message) -> bool,
) {
    loop {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("the server says something");
        match decoder.next(&mut byte.as_slice()).expect("it can be read") {
            Some(Item::Message(message)) if wanted(&message) => return,
            Some(Item::Message(Message::Refuse(refusal))) => panic!("it refuses: {refusal}"),
            _ => {}
        }
    }
}

/// Adds the next record to what is sent.
pub fn say(session: &mut agent::Session, kind: RecordKind, bytes: &mut Vec<u8>) {
    let lsn = session.sent().next();
    session.record(&Record { lsn, time: Micros(1), kind }, bytes);
}

/// The refusal that is the last thing in a server's frames.
#[track_caller]
pub fn refusal_in(mut bytes: &[u8]) -> Refusal {
    let mut decoder = Decoder::new(Side::Agent);
    loop {
        match decoder.next(&mut bytes).expect("a server's frames can be read") {
            Some(Item::Message(Message::Refuse(refusal))) => return refusal,
            Some(_) => {}
            None => panic!("there is no refusal in it"),
        }
    }
}
