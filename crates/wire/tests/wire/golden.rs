//! The bytes of each kind of frame, in hexadecimal: what docs/formats/wire.md promises.
//!
//! A change here is a change of the protocol and needs a new version. The last 16 digits of each
//! header are its check.

use tidegate_model::{
    Bookmark, BookmarkKind, Checksum, Disk, DiskNumber, Epoch, Extent, Incarnation, Lsn, Micros,
    Point, Remedy, RunId, Token, VaultId,
};
use tidegate_wire::{
    Ack, Begins, Decoder, Hashes, Have, Hello, Item, Message, Record, RecordKind, Refusal,
    RefusalCode, Side, Slow, SlowReason, Totals, Welcome,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares a frame with its words (spaces separate fields), and reads it back.
fn check(side: Side, message: &Message, words: &str) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    assert_eq!(hex(&bytes), words.split_whitespace().collect::<String>(), "{message:?}");
    let mut input = bytes.as_slice();
    let item = Decoder::new(side).next(&mut input).unwrap();
    assert_eq!(item, Some(Item::Message(message.clone())));
    assert!(input.is_empty());
}

fn record(kind: RecordKind) -> Message {
    Message::Record(Record { lsn: Lsn(7), time: Micros(1_700_000_000_000_000), kind })
}

fn disk(number: u8) -> DiskNumber {
    DiskNumber::try_from(number).unwrap()
}

#[test]
fn hello() {
    let hello = Hello {
        version: 1,
        vault: VaultId::from_bytes([0x11; 16]),
        incarnation: Incarnation::from_bytes([0x22; 16]),
        epoch: Epoch(3),
        committed: Lsn(118_204),
        features: 0,
        begins: Begins::Continue,
        parent: Some(Point { epoch: Epoch(2), lsn: Lsn(99) }),
        token: Token::from_bytes([0x44; 16]),
        machine: "db-1".parse().unwrap(),
    };
    check(Side::Server, &Message::Hello(hello), HELLO);
}

#[test]
fn disk_declared_and_restated() {
    let there = Disk { number: disk(1), bytes: 1 << 30, name: "/dev/sda".to_owned() };
    check(Side::Server, &record(RecordKind::Disk(there.clone())), DISK);
    let kind = RecordKind::Disk(there);
    let restated = Message::Record(Record { lsn: Lsn::NONE, time: Micros(0), kind });
    check(Side::Server, &restated, RESTATED);
}

#[test]
fn write() {
    let data = [0xab; 16];
    let extent = Extent { disk: disk(1), offset: 4096, length: 16 };
    let (lsn, time) = (Lsn(7), Micros(1_700_000_000_000_000));
    let header = Record::write_header(lsn, time, extent, Checksum::of(&data));
    let bytes = [&header.encode()[..], &data].concat();
    assert_eq!(hex(&bytes), WRITE.split_whitespace().collect::<String>());

    let mut decoder = Decoder::new(Side::Server);
    let mut input = bytes.as_slice();
    let kind = RecordKind::Write(extent, Checksum::of(&data));
    assert_eq!(decoder.next(&mut input), Ok(Some(Item::Write(Record { lsn, time, kind }))));
    assert_eq!(decoder.next(&mut input), Ok(Some(Item::Payload(&data))));
    assert_eq!(decoder.next(&mut input), Ok(Some(Item::WriteEnd)));
    assert_eq!(decoder.next(&mut input), Ok(None));
}

#[test]
fn zero_bookmark_and_time() {
    let extent = Extent { disk: disk(1), offset: 1 << 20, length: 1 << 29 };
    check(Side::Server, &record(RecordKind::Zero(extent)), ZERO);
    let name = "nightly".to_owned();
    let bookmark = Bookmark { kind: BookmarkKind::CopyEnd, clean: true, name };
    check(Side::Server, &record(RecordKind::Bookmark(bookmark)), BOOKMARK);
    let (kind, name) = (BookmarkKind::GapKilled, String::new());
    let gap = Bookmark { kind, clean: false, name };
    check(Side::Server, &record(RecordKind::Bookmark(gap)), GAP);
    check(Side::Server, &record(RecordKind::Time), TIME);
}

#[test]
fn hashes_and_have() {
    let extent = Extent { disk: disk(1), offset: 1 << 20, length: 3 << 16 };
    let hashes = vec![[0xa0; 32], [0xa1; 32], [0xa2; 32]];
    check(Side::Server, &Message::Hashes(Hashes { extent, hashes }), HASHES);
    check(Side::Agent, &Message::Have(Have { extent, blocks: 0b101 }), HAVE);
}

#[test]
fn bye() {
    check(Side::Server, &Message::Bye, BYE);
}

#[test]
fn welcome() {
    let welcome = Welcome {
        epoch: Epoch(3),
        committed: Lsn(118_204),
        credit_bytes: 65_536,
        record_bytes_max: 65_536,
        block_bytes: 65_536,
        features: 0,
        run: RunId::from_bytes([0x33; 16]),
        shard: 5,
        before: Token::from_bytes([0x44; 16]),
    };
    check(Side::Agent, &Message::Welcome(welcome), WELCOME);
}

#[test]
fn ack_credit_and_slow() {
    let totals =
        Totals { zero_bytes: 1, deduplicated_bytes: 2, kept_bytes: 3, stored_bytes: 1 << 40 };
    check(Side::Agent, &Message::Ack(Ack { received: Lsn(9), committed: Lsn(8), totals }), ACK);
    check(Side::Agent, &Message::Credit(65_536), CREDIT);
    let slow = Slow { reason: SlowReason::Store, waited_us: 2_000_000 };
    check(Side::Agent, &Message::Slow(slow), SLOW);
}

#[test]
fn refuse() {
    let refusal = Refusal::new(RefusalCode::Overloaded, Remedy::Retry, "full", "wait");
    check(Side::Agent, &Message::Refuse(refusal), REFUSE);
}

#[test]
fn refusal_codes_and_remedies_keep_their_numbers() {
    let codes = [
        RefusalCode::Protocol,
        RefusalCode::Version,
        RefusalCode::Vault,
        RefusalCode::Identity,
        RefusalCode::Occupied,
        RefusalCode::Epoch,
        RefusalCode::Overloaded,
        RefusalCode::ShuttingDown,
        RefusalCode::Store,
        RefusalCode::TakenOver,
        RefusalCode::Internal,
        RefusalCode::Corrupt,
    ];
    for (number, code) in (1_u16..).zip(codes) {
        assert_eq!((code as u16, RefusalCode::from_number(number)), (number, code));
    }
    for unknown in [0, 13, u16::MAX] {
        assert_eq!(RefusalCode::from_number(unknown), RefusalCode::Internal);
    }
    let remedies = [Remedy::Retry, Remedy::Refuse, Remedy::Stop, Remedy::Repair];
    assert_eq!(remedies.map(Remedy::code), [1, 2, 3, 4]);
}

// kind flags disk zero, payload, lsn, offset, length, time, checksum, check; then the payload.

const HELLO: &str = "\
     01000000 58000000 0000000000000000 0000000000000000 \
     0000000000000000 0000000000000000 6881060c303197e5 613e4a6e7ff97524 \
     0100111111111111111111111111111111112222222222222222222222222222 \
     222203000000bccd010000000000000000000000000002020000006300000000 \
     000000444444444444444444444444444444440464622d31";
const DISK: &str = "\
     02000100 08000000 0700000000000000 0000000000000000 \
     0000004000000000 00401e18240a0600 8d91f3e14095fe7e d52678d45fb83b8b \
     2f6465762f736461";
const RESTATED: &str = "\
     02000100 08000000 0000000000000000 0000000000000000 \
     0000004000000000 0000000000000000 8d91f3e14095fe7e 623fdb7b025392b0 \
     2f6465762f736461";
const WRITE: &str = "\
     03000100 10000000 0700000000000000 0010000000000000 \
     1000000000000000 00401e18240a0600 f1758e42036e3e74 5ace776273f7bfca \
     abababababababababababababababab";
const ZERO: &str = "\
     04000100 00000000 0700000000000000 0000100000000000 \
     0000002000000000 00401e18240a0600 c294d3380580062d 046a819aaa1d3e05";
const BOOKMARK: &str = "\
     05010000 08000000 0700000000000000 0000000000000000 \
     0000000000000000 00401e18240a0600 c242abf4b9aab135 1418bee165fea5a0 \
     046e696768746c79";
const GAP: &str = "\
     05000000 01000000 0700000000000000 0000000000000000 \
     0000000000000000 00401e18240a0600 953e740854742fd7 8d92693e6eb3c0d1 \
     06";
const TIME: &str = "\
     06000000 00000000 0700000000000000 0000000000000000 \
     0000000000000000 00401e18240a0600 c294d3380580062d 6918758e480dd86d";
const HASHES: &str = "\
     07000100 60000000 0000000000000000 0000100000000000 \
     0000030000000000 0000000000000000 7d84139f2bf88e86 0fba174f97d89830 \
     a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0 \
     a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1 \
     a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2";
const HAVE: &str = "\
     42000100 10000000 0000000000000000 0000100000000000 \
     0000030000000000 0000000000000000 f6a14115259ea96f 897860dea4d011b5 \
     05000000000000000000000000000000";
const BYE: &str = "\
     08000000 00000000 0000000000000000 0000000000000000 \
     0000000000000000 0000000000000000 c294d3380580062d a2e70efe852921d7";
const WELCOME: &str = "\
     41000000 46000000 0000000000000000 0000000000000000 \
     0000000000000000 0000000000000000 94932ec552b4a32e ef1381e4d30ef892 \
     03000000bccd0100000000000000010000000000000001000000010000000000 \
     0000000033333333333333333333333333333333050044444444444444444444 \
     444444444444";
const ACK: &str = "\
     43000000 28000000 0900000000000000 0000000000000000 \
     0000000000000000 0000000000000000 0b6910dc2bb651ee 8762db519bec5ef2 \
     0800000000000000010000000000000002000000000000000300000000000000 \
     0000000000010000";
const CREDIT: &str = "\
     44000000 00000000 0000000000000000 0000000000000000 \
     0000010000000000 0000000000000000 c294d3380580062d 71569828b96a752b";
const SLOW: &str = "\
     45000000 09000000 0000000000000000 0000000000000000 \
     0000000000000000 0000000000000000 e68d8422cacac73b 68f7f6cfb1f6cff5 \
     0180841e0000000000";
const REFUSE: &str = "\
     47000000 0f000000 0000000000000000 0000000000000000 \
     0000000000000000 0000000000000000 2ff12a71c5fcd00d 357e438dc64f22f4 \
     070001040066756c6c040077616974";
