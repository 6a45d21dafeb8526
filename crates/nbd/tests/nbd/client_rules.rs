//! What a client takes from a server and what not, and that no server's bytes do it harm.

use proptest::prelude::*;
use tidegate_nbd::client::{Agreed, Agreeing, Answered, Asking, ServerInvalid, Wanted};
use tidegate_nbd::{
    BlockSizes, ChunkCode, ChunkHeader, Cookie, Errno, GREETING, Handshake, Heard, Info,
    OptionReply, OptionReplyCode, Replies, ReplyHeader, Span, StatusFlags, TransmissionFlags,
};

use crate::world;

fn wanted(export: &str, contexts: &[&str]) -> Wanted {
    let contexts = contexts.iter().map(|&context| context.to_owned()).collect();
    Wanted { export: export.to_owned(), contexts }
}

/// A client and our server's state machine, in pieces of some bytes.
fn agree(wanted: Wanted, piece: usize) -> Result<Agreed, ServerInvalid> {
    let (mut client, mut server) = (Agreeing::new(wanted), Handshake::new(world::exports()));
    let (mut to_client, mut to_server) = (GREETING.to_vec(), Vec::new());
    loop {
        let mut said = Vec::new();
        let mut agreed = None;
        for mut part in std::mem::take(&mut to_client).chunks(piece) {
            agreed = agreed.or(client.next(&mut part, &mut said)?);
        }
        if let Some(agreed) = agreed {
            return Ok(agreed);
        }
        to_server.extend(said);
        let mut input = to_server.as_slice();
        while let Some(heard) = server.next(&mut input, &mut to_client).unwrap() {
            assert_ne!(heard, Heard::Aborted);
        }
        to_server = input.to_vec();
    }
}

#[test]
fn both_ends_agree_however_their_words_are_cut() {
    for piece in [1, 3, 1000] {
        let agreed = agree(wanted("disk", &["base:allocation"]), piece).unwrap();
        assert_eq!((agreed.bytes, agreed.contexts.len()), (world::BYTES, 1));
        assert_eq!(agreed.sizes, BlockSizes::default());
        let agreed = agree(wanted("other", &[]), piece).unwrap();
        assert!(agreed.flags.has(TransmissionFlags::READ_ONLY));
    }
}

#[test]
fn what_a_server_hasnt_is_told_by_its_name() {
    let error = agree(wanted("nothing", &[]), 1000).unwrap_err().to_string();
    assert!(error.contains("the export 'nothing'"), "{error}");
    let bitmap = "qemu:dirty-bitmap:b0";
    let error = agree(wanted("disk", &["base:allocation", bitmap]), 1000).unwrap_err();
    assert_eq!(error, ServerInvalid::Context(bitmap.to_owned()));
}

/// What a client makes of a server that says this after the greeting.
fn told(replies: &[u8], contexts: &[&str]) -> Result<Option<Agreed>, ServerInvalid> {
    let mut client = Agreeing::new(wanted("disk", contexts));
    let bytes = [&GREETING[..], replies].concat();
    let (mut input, mut out) = (bytes.as_slice(), Vec::new());
    let told = client.next(&mut input, &mut out);
    if told.is_err() {
        assert_eq!(client.next(&mut input, &mut out), told, "it stays so");
    }
    told
}

fn reply(option: u32, code: OptionReplyCode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = u32::try_from(payload.len()).unwrap();
    OptionReply { option, code, length }.encode(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

fn info(bytes: u64) -> Vec<u8> {
    let mut out = Vec::new();
    Info::Export(bytes, TransmissionFlags::HAS_FLAGS).encode(7, &mut out);
    out
}

#[test]
fn a_handshake_that_makes_no_sense_is_ended() {
    let ack = |option| reply(option, OptionReplyCode::Ack, &[]);
    let context = |id: u32, name: &str| {
        reply(10, OptionReplyCode::MetaContext, &[&id.to_be_bytes(), name.as_bytes()].concat())
    };
    let none: &[&str] = &[];
    assert!(told(&[ack(8), info(512), ack(7)].concat(), none).unwrap().is_some());
    for bad in [
        [ack(7), ack(7), ack(7)],
        [ack(8), info(512), ack(8)],
        [ack(8), ack(7), ack(7)],
        [ack(8), info(u64::MAX), ack(7)],
        [ack(8), context(1, "a"), ack(7)],
    ] {
        assert!(told(&bad.concat(), none).is_err(), "{bad:?}");
    }
    let with = |replies: &[Vec<u8>]| told(&[ack(8), replies.concat()].concat(), &["a", "b"]);
    let good = [context(7, "a"), context(3, "b"), ack(10), info(512), ack(7)];
    assert_eq!(with(&good).unwrap().unwrap().contexts, [7, 3]);
    for bad in [
        vec![context(7, "a"), context(7, "b")],
        vec![context(7, "a"), context(8, "a")],
        vec![context(7, "c")],
        vec![context(7, "a"), ack(10), info(512), ack(7)],
    ] {
        assert!(with(&bad).is_err(), "{bad:?}");
    }
    let endless = vec![info(512); 65].concat();
    assert_eq!(told(&[ack(8), endless].concat(), none), Err(ServerInvalid::Endless));
    let simple = reply(8, OptionReplyCode::Unsupported, b"old");
    let error = told(&simple, none).unwrap_err().to_string();
    assert!(error.contains("structured replies: old"), "{error}");
    let mut input = &b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53"[..];
    let mut old = Agreeing::new(wanted("disk", none));
    assert_eq!(old.next(&mut input, &mut Vec::new()), Ok(None), "the greeting isn't whole");
}

const AGREED: Agreed = Agreed {
    bytes: 1 << 20,
    flags: TransmissionFlags::HAS_FLAGS,
    sizes: BlockSizes { minimum: 1, preferred: 4096, payload_max: 32 << 20 },
    contexts: Vec::new(),
};

/// A client that asked for a read of 4096 bytes at 8192, and for the status of as much, of one context.
fn asking() -> Asking {
    let mut asking = Asking::new(&Agreed { contexts: vec![5], ..AGREED });
    assert_eq!(asking.read(8192, 4096, &mut Vec::new()), Cookie(1));
    assert_eq!(asking.status(8192, 4096, &mut Vec::new()), Cookie(2));
    asking
}

fn chunk(cookie: u64, code: ChunkCode, is_last: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = u32::try_from(payload.len()).unwrap();
    ChunkHeader { cookie: Cookie(cookie), code, is_last, length }.encode(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

fn data(offset: u64, bytes: usize, is_last: bool) -> Vec<u8> {
    chunk(1, ChunkCode::Data, is_last, &[&offset.to_be_bytes()[..], &vec![7; bytes]].concat())
}

fn hole(offset: u64, bytes: u32, is_last: bool) -> Vec<u8> {
    let payload = [&offset.to_be_bytes()[..], &bytes.to_be_bytes()].concat();
    chunk(1, ChunkCode::Hole, is_last, &payload)
}

fn status(id: u32, spans: &[(u32, u32)], is_last: bool) -> Vec<u8> {
    let mut payload = id.to_be_bytes().to_vec();
    for (length, flags) in spans {
        payload.extend([length.to_be_bytes(), flags.to_be_bytes()].concat());
    }
    chunk(2, ChunkCode::BlockStatus, is_last, &payload)
}

/// Places that were filled, spans, and who is done.
type Sum = (Vec<u64>, Vec<Span>, Vec<u64>);

/// What a client makes of this, in pieces of some bytes.
fn heard(bytes: &[u8], piece: usize) -> Result<Sum, ServerInvalid> {
    let (mut asking, mut filled, mut spans, mut done) = (asking(), Vec::new(), Vec::new(), vec![]);
    for mut part in bytes.chunks(piece) {
        while let Some(answered) = asking.next(&mut part)? {
            match answered {
                Answered::Data(at, part) => filled.extend(at..at + part.len() as u64),
                Answered::Hole(at, bytes) => filled.extend(at..at + u64::from(bytes)),
                Answered::Spans(context, told) => {
                    assert_eq!(context, 0);
                    spans = told;
                }
                Answered::Done(cookie) => done.push(cookie.0),
                Answered::Failed(cookie, ..) => done.push(100 + cookie.0),
            }
        }
    }
    Ok((filled, spans, done))
}

#[test]
fn answers_are_taken_in_any_order_and_however_they_are_cut() {
    let bytes = [
        hole(8192 + 3000, 1096, false),
        status(5, &[(1000, 1), (90_000, 0)], true),
        data(8192, 3000, true),
    ]
    .concat();
    for piece in [1, 7, 100_000] {
        let (mut filled, spans, done) = heard(&bytes, piece).unwrap();
        filled.sort_unstable();
        assert!(filled.into_iter().eq(8192..8192 + 4096));
        let span = |length, flags| Span { length, flags: StatusFlags(flags) };
        assert_eq!(spans, [span(1000, 1), span(3096, 0)], "cut to what was asked for");
        assert_eq!(done, [2, 1]);
    }
    let mut simple = Vec::new();
    ReplyHeader::Simple { cookie: Cookie(1), error: Some(Errno::Io) }.encode(&mut simple);
    let failed = [0, 0, 0, 5, 0, 2, b'o', b'h'];
    let bytes = [simple, chunk(2, ChunkCode::Error, true, &failed)].concat();
    assert_eq!(heard(&bytes, 5).unwrap().2, [101, 102]);
}

#[test]
fn answers_to_what_wasnt_asked_end_the_connection() {
    let done = chunk(1, ChunkCode::None, true, &[]);
    let mut simple = Vec::new();
    ReplyHeader::Simple { cookie: Cookie(1), error: None }.encode(&mut simple);
    for bad in [
        data(8191, 2, false),
        data(8192 + 4095, 2, false),
        data(u64::MAX, 2, false),
        data(8192, 4097, false),
        [data(8192, 4000, false), data(8192, 97, false)].concat(),
        [data(8192, 4000, false), hole(8192, 97, false)].concat(),
        data(8192, 4095, true),
        done.clone(),
        simple,
        chunk(3, ChunkCode::None, true, &[]),
        [data(8192, 4096, true), done].concat(),
        status(6, &[(1, 0)], true),
        status(5, &[(0, 0)], true),
        [status(5, &[(1, 0)], false), status(5, &[(1, 0)], true)].concat(),
        chunk(2, ChunkCode::None, true, &[]),
        chunk(2, ChunkCode::Hole, true, &[0; 12]),
        chunk(1, ChunkCode::BlockStatus, true, &[0; 12]),
    ] {
        let head = &bad[..bad.len().min(40)];
        assert!(heard(&bad, 1000).is_err(), "{head:?}");
    }
}

#[test]
fn our_servers_replies_are_understood() {
    let replies = Replies::new(true);
    let mut out = Vec::new();
    let command = world::command(tidegate_nbd::CommandKind::Read, 8192, 4096, Default::default());
    let command = tidegate_nbd::Command { cookie: Cookie(1), ..command };
    replies.read_whole(&command, &mut out);
    out.extend(vec![1; 4096]);
    assert_eq!(heard(&out, 333).unwrap().2, [1]);
}

proptest! {
    /// A server that says whatever it likes under right magics does a client no harm.
    #[test]
    fn no_bytes_of_a_server_panic(
        chunks in prop::collection::vec((0_u64..4, any::<u16>(), any::<u16>(), prop_oneof![0_u32..40, any::<u32>()], prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        garbage in prop::collection::vec(any::<u8>(), 0..100),
        piece in 1_usize..50,
    ) {
        let mut bytes = Vec::new();
        for (cookie, flags, code, length, payload) in chunks {
            bytes.extend(0x668e_33ef_u32.to_be_bytes());
            bytes.extend([flags.to_be_bytes(), ((code % 8) | (code & 0x8000)).to_be_bytes()].concat());
            bytes.extend(cookie.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.extend(payload);
        }
        let _ = heard(&bytes, piece);
        let _ = heard(&garbage, piece);
        let mut client = Agreeing::new(wanted("disk", &["a"]));
        let bytes = [&GREETING[..], &garbage].concat();
        for mut part in bytes.chunks(piece) {
            let _ = client.next(&mut part, &mut Vec::new());
        }
    }

    /// The same for replies to options.
    #[test]
    fn no_reply_to_an_option_panics(
        replies in prop::collection::vec((0_u32..12, any::<u32>(), prop::collection::vec(any::<u8>(), 0..20)), 0..8),
    ) {
        let mut bytes = GREETING.to_vec();
        for (option, code, payload) in replies {
            bytes.extend(0x0003_e889_0455_65a9_u64.to_be_bytes());
            bytes.extend(option.to_be_bytes());
            bytes.extend(((code % 5) | (code & (1 << 31))).to_be_bytes());
            bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
            bytes.extend(payload);
        }
        let mut client = Agreeing::new(wanted("disk", &["a"]));
        let _ = client.next(&mut bytes.as_slice(), &mut Vec::new());
    }
}
