//! Payloads with right checksums that say what can't be: each is refused.

use tidegate_model::limits::DISK_BYTES_MAX;
use tidegate_model::{Checksum, Epoch, Lsn, Point};
use tidegate_wire::{
    Ack, Begins, DecodeError, Decoder, HEADER_BYTES, Header, Hello, Item, Kind, Message, Refusal,
    Side, Slow, SlowReason,
};

use crate::server_rules::{hello, welcome};

/// What becomes of a frame with this payload; its header fits it.
fn decode(header: Header, payload: &[u8]) -> Result<Message, DecodeError> {
    let header = Header {
        payload_bytes: u32::try_from(payload.len()).unwrap(),
        checksum: Checksum::of(payload),
        ..header
    };
    let side = if header.kind.is_from_agent() { Side::Server } else { Side::Agent };
    let bytes = [&header.encode()[..], payload].concat();
    match Decoder::new(side).next(&mut bytes.as_slice())? {
        Some(Item::Message(message)) => Ok(message),
        item => panic!("{item:?}"),
    }
}

/// The payload of a message.
fn payload(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes.split_off(HEADER_BYTES)
}

fn record(kind: Kind) -> Header {
    Header { lsn: Lsn(1), ..Header::of(kind) }
}

#[test]
fn a_payload_of_fixed_length_is_neither_shorter_nor_longer() {
    let slow = Slow { reason: SlowReason::Store, waited_us: 1 };
    let messages = [
        (Kind::Hello, Message::Hello(hello())),
        (Kind::Welcome, Message::Welcome(welcome())),
        (Kind::Ack, Message::Ack(Ack::default())),
        (Kind::Slow, Message::Slow(slow)),
        (Kind::Refuse, Message::Refuse(Refusal::shutting_down())),
    ];
    for (kind, message) in messages {
        let right = payload(&message);
        assert_eq!(decode(Header::of(kind), &right), Ok(message));
        for length in 0..right.len() {
            let short = decode(Header::of(kind), &right[..length]);
            assert!(matches!(short, Err(DecodeError::Short(_))), "{kind:?} {length}: {short:?}");
        }
        let long = decode(Header::of(kind), &[&right[..], &[0]].concat());
        let refused = matches!(long, Err(DecodeError::Payload(_) | DecodeError::Long { .. }));
        assert!(refused, "{kind:?}: {long:?}");
    }
}

#[test]
fn a_hello_that_says_what_cannot_be_is_refused() {
    let parent = Some(Point { epoch: Epoch(2), lsn: Lsn(99) });
    let right = payload(&Message::Hello(Hello { begins: Begins::Continue, parent, ..hello() }));
    assert!(decode(Header::of(Kind::Hello), &right).is_ok());
    // The offsets are those of docs/formats/wire.md, "Hello".
    let wrong: [(&str, usize, &[u8]); 6] = [
        ("begins in no way", 54, &[0]),
        ("begins in an unknown way", 54, &[3]),
        ("a parent's LSN without its epoch", 55, &[0; 4]),
        ("no name", 83, &[0]),
        ("a name that leaves its folder", 84, b"."),
        ("a name that is no text", 84, &[0xff]),
    ];
    for (what, at, bytes) in wrong {
        let mut payload = right.clone();
        payload[at..at + bytes.len()].copy_from_slice(bytes);
        let refused = decode(Header::of(Kind::Hello), &payload);
        assert!(matches!(refused, Err(DecodeError::Payload(_))), "{what}: {refused:?}");
    }
}

#[test]
fn disks_beyond_the_limits_and_names_that_are_no_text_are_refused() {
    let largest = Header { disk: 63, length: DISK_BYTES_MAX, ..record(Kind::Disk) };
    assert!(decode(largest, b"/dev/sda").is_ok());
    let wrong = [
        (Header { length: DISK_BYTES_MAX + 1, ..largest }, &b"/dev/sda"[..]),
        (Header { disk: 64, ..largest }, b"/dev/sda"),
        (largest, &[0xff]),
        (record(Kind::Bookmark), &[4, 0xff]),
    ];
    for (header, payload) in wrong {
        let refused = decode(header, payload);
        assert!(matches!(refused, Err(DecodeError::Payload(_))), "{header:?}: {refused:?}");
    }
}

#[test]
fn a_question_has_hashes_and_lies_on_a_disk() {
    let question = Header { length: 4096, ..Header::of(Kind::Hashes) };
    assert!(decode(question, &[7; 32]).is_ok());
    assert!(decode(question, &[7; 128 * 32]).is_ok());
    assert!(matches!(decode(question, &[7; 128 * 32 + 1]), Err(DecodeError::Long { .. })));
    let wrong = [
        (question, &[][..]),
        (question, &[7; 31]),
        (question, &[7; 33]),
        (Header { length: 0, ..question }, &[7; 32]),
        (Header { disk: 64, ..question }, &[7; 32]),
        (Header { offset: DISK_BYTES_MAX, ..question }, &[7; 32]),
    ];
    for (header, payload) in wrong {
        let refused = decode(header, payload);
        assert!(matches!(refused, Err(DecodeError::Payload(_))), "{header:?}: {refused:?}");
    }
    let answer = Header { length: 4096, ..Header::of(Kind::Have) };
    assert!(decode(answer, &[1; 16]).is_ok());
    for length in [0, 15, 17] {
        assert!(decode(answer, &[1; 17][..length]).is_err(), "{length}");
    }
}

#[test]
fn unknown_kinds_of_bookmarks_and_reasons_are_refused() {
    for code in 0..=u8::MAX {
        let bookmark = decode(record(Kind::Bookmark), &[code]);
        assert_eq!(bookmark.is_ok(), (1..=8).contains(&code), "bookmark {code}: {bookmark:?}");
        let slow = decode(Header::of(Kind::Slow), &[code, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(slow.is_ok(), (1..=3).contains(&code), "reason {code}: {slow:?}");
    }
    assert!(matches!(decode(record(Kind::Bookmark), &[]), Err(DecodeError::Short(_))));
}

#[test]
fn unknown_codes_and_remedies_of_a_refusal_are_understood_as_the_worst() {
    let Ok(Message::Refuse(refusal)) = decode(Header::of(Kind::Refuse), &[99, 1, 9, 0, 0, 0, 0])
    else {
        panic!("a refusal is never refused for its numbers");
    };
    assert_eq!((refusal.code as u16, refusal.remedy.code()), (11, 3));
}
