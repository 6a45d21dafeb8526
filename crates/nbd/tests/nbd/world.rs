//! What the tests share: exports, and clients that are made of bytes.

use std::sync::Arc;

use tidegate_nbd::{
    Agreement, BlockSizes, Command, CommandFlags, CommandKind, Cookie, Event, Export, Handshake,
    HandshakeError, Heard, OptionCode, OptionHeader, OptionReply, OptionReplyCode, Request,
    Transmission, TransmissionError, TransmissionFlags,
};

pub const BYTES: u64 = 64 << 20;

/// All that an export can offer but for being read-only.
pub const ALL: TransmissionFlags = TransmissionFlags::FLUSH
    .with(TransmissionFlags::FUA)
    .with(TransmissionFlags::TRIM)
    .with(TransmissionFlags::WRITE_ZEROES)
    .with(TransmissionFlags::MULTI_CONN)
    .with(TransmissionFlags::CACHE)
    .with(TransmissionFlags::FAST_ZERO);

pub fn export(name: &str, flags: TransmissionFlags) -> Export {
    Export::new(name, BYTES, flags, BlockSizes::default()).unwrap()
}

pub fn exports() -> Arc<[Export]> {
    let other = export("other", TransmissionFlags::READ_ONLY).described("a text").unwrap();
    Arc::new([export("disk", ALL), other])
}

pub fn agreement(flags: TransmissionFlags, structured: bool) -> Agreement {
    Agreement { index: 0, export: export("disk", flags), structured, allocation: structured }
}

/// The bytes that hexadecimal digits stand for; spaces and lines are for the reader.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// An option with its data.
pub fn option(code: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    OptionHeader { code, length: u32::try_from(data.len()).unwrap() }.encode(&mut bytes);
    bytes.extend_from_slice(data);
    bytes
}

pub fn plain(code: OptionCode) -> Vec<u8> {
    option(code as u32, &[])
}

/// What a handshake hears in these pieces, what it answers, and how it ended.
pub fn handshake<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Heard>, Vec<u8>, Option<HandshakeError>) {
    let mut handshake = Handshake::new(exports());
    let (mut all, mut out) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        loop {
            match handshake.next(&mut piece, &mut out) {
                Ok(Some(heard)) => all.push(heard),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(handshake.next(&mut piece, &mut out), Err(error.clone()));
                    return (all, out, Some(error));
                }
            }
        }
    }
    (all, out, None)
}

/// The same for a client with good flags that sends these options.
pub fn options(options: &[Vec<u8>]) -> (Vec<Heard>, Vec<u8>, Option<HandshakeError>) {
    let bytes = [hex("00000003"), options.concat()].concat();
    handshake([bytes.as_slice()])
}

/// The replies to options, with their payloads.
pub fn option_replies(mut bytes: &[u8]) -> Vec<(u32, OptionReplyCode, Vec<u8>)> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let reply = OptionReply::decode(&bytes[..OptionReply::BYTES]).unwrap();
        let end = OptionReply::BYTES + reply.length as usize;
        replies.push((reply.option, reply.code, bytes[OptionReply::BYTES..end].to_vec()));
        bytes = &bytes[end..];
    }
    replies
}

/// An event that owns its bytes; the parts of one payload are put together.
#[derive(Debug, Clone, PartialEq)]
pub enum Owned {
    Command(Command),
    Write(Command, Vec<u8>),
    Answered,
    Disconnect,
}

/// What a transmission hears in these pieces, what it answers itself, and how it ended.
pub fn transmission<'a>(
    agreement: Agreement,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Owned>, Vec<u8>, Option<TransmissionError>) {
    let mut transmission = Transmission::new(agreement);
    let (mut all, mut out, mut writing) = (Vec::new(), Vec::new(), None::<(Command, Vec<u8>)>);
    for mut piece in pieces {
        loop {
            match transmission.next(&mut piece, &mut out) {
                Ok(Some(Event::Command(command))) if command.kind == CommandKind::Write => {
                    writing = Some((command, Vec::new()));
                }
                Ok(Some(Event::Command(command))) => all.push(Owned::Command(command)),
                Ok(Some(Event::Payload(part))) => {
                    assert!(!part.is_empty(), "an empty part says nothing");
                    writing.as_mut().expect("a write began").1.extend_from_slice(part);
                }
                Ok(Some(Event::PayloadEnd)) => {
                    let (command, data) = writing.take().expect("a write began");
                    all.push(Owned::Write(command, data));
                }
                Ok(Some(Event::Answered)) => all.push(Owned::Answered),
                Ok(Some(Event::Disconnect)) => all.push(Owned::Disconnect),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(transmission.next(&mut piece, &mut out), Err(error.clone()));
                    return (all, out, Some(error));
                }
            }
        }
    }
    (all, out, None)
}

pub fn request(kind: CommandKind, offset: u64, length: u32, flags: CommandFlags) -> Request {
    Request { flags, code: kind as u16, cookie: Cookie(7), offset, length }
}

pub fn command(kind: CommandKind, offset: u64, length: u32, flags: CommandFlags) -> Command {
    Command { cookie: Cookie(7), kind, offset, length, flags }
}

pub fn bytes_of(request: Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    bytes
}
