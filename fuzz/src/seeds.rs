//! Good bytes for each target, from which a fuzzer sets out: the golden files, and one of each message.

use tidegate_hrl::order::{Mark, OrderBody, OrderRecord};
use tidegate_model::{
    Bookmark, BookmarkKind, Checksum, Disk, DiskNumber, Epoch, Extent, Incarnation, Lsn, Micros,
    Point, Remedy, RunId, Token, VaultId,
};
use tidegate_nbd::{
    ChunkCode, ChunkHeader, CommandFlags, Cookie, Errno, ExportRequest, OptionCode, QueryRequest,
    ReplyHeader, Request, Span, StatusFlags, TransmissionFlags,
};
use tidegate_wire::{
    Ack, Begins, Hello, Message, Record, RecordKind, Refusal, RefusalCode, Slow, SlowReason,
    Totals, Welcome,
};

use crate::Target;

/// Those of a target.
#[must_use]
pub fn of(target: Target) -> Vec<Vec<u8>> {
    match target {
        Target::Hrl => vec![
            include_bytes!("../../crates/hrl/tests/golden/00000001-disk-00.hrl").to_vec(),
            include_bytes!("../../crates/hrl/tests/golden/00000001-disk-03.hrl").to_vec(),
        ],
        Target::Journal => vec![journal()],
        Target::Layer => vec![layer()],
        Target::Manifest => {
            vec![include_bytes!("../../crates/vault/src/golden/manifest.json").to_vec()]
        }
        Target::Nbd => vec![nbd()],
        Target::NbdReplies => nbd_replies(),
        Target::Pack => vec![include_bytes!("../../crates/vault/src/golden/pack.bin").to_vec()],
        Target::Wire => vec![to_server(), to_agent()],
    }
}

fn extent(offset: u64, length: u64) -> Extent {
    Extent { disk: DiskNumber::default(), offset, length }
}

fn disk() -> Disk {
    Disk { number: DiskNumber::default(), bytes: 1 << 30, name: "/dev/sda".to_owned() }
}

fn bookmark() -> Bookmark {
    Bookmark { kind: BookmarkKind::CopyEnd, clean: true, name: "end".to_owned() }
}

/// One record of each kind, and no end.
fn journal() -> Vec<u8> {
    let log = vec![0xab; 16 << 10];
    let checksum = Checksum::of(&log[8192..8192 + 512]);
    let bodies = [
        OrderBody::Disk(disk()),
        OrderBody::Write { extent: extent(4096, 512), location: 8192, checksum },
        OrderBody::Zero(extent(8192, 1 << 20)),
        OrderBody::Time,
        OrderBody::Bookmark(bookmark()),
    ];
    let mut order = Vec::new();
    for (lsn, body) in (1..).zip(bodies) {
        let record = OrderRecord { lsn: Lsn(lsn), time: Micros(lsn), durable: Lsn::NONE, body };
        record.encode(Mark::of(crate::journal::INCARNATION, 1), &mut order);
    }
    let length = u16::try_from(order.len()).unwrap_or(u16::MAX).to_le_bytes();
    [&[0], &length[..], &order, &log].concat()
}

/// A layer that isn't compressed.
fn layer() -> Vec<u8> {
    let content = include_bytes!("../../crates/vault/src/golden/layer.bin");
    let length = u32::try_from(content.len()).unwrap_or_default().to_le_bytes();
    [&[0; 4], &length[..], content].concat()
}

/// A client from its flags to its end.
fn nbd() -> Vec<u8> {
    let mut bytes = vec![255, 0, 0, 0, 3];
    tidegate_nbd::OptionHeader { code: OptionCode::StructuredReply as u32, length: 0 }
        .encode(&mut bytes);
    let contexts = ["base:allocation"];
    QueryRequest::encode(OptionCode::SetMetaContext, "disk-0", &contexts, &mut bytes);
    ExportRequest::encode(OptionCode::Go, "disk-0", &[1, 2, 3], &mut bytes);
    // Read, write, flush, trim, zeroes, block status; then the end.
    for code in [0, 1, 3, 4, 6, 7, 2] {
        let flags = CommandFlags(0);
        let request = Request { flags, code, cookie: Cookie(9), offset: 4096, length: 512 };
        let length = if matches!(code, 2 | 3) { 0 } else { 512 };
        let offset = if matches!(code, 2 | 3) { 0 } else { 4096 };
        Request { length, offset, ..request }.encode(&mut bytes);
        if code == 1 {
            bytes.extend([0xcd; 512]);
        }
    }
    bytes
}

/// What a server says to options, and to requests.
fn nbd_replies() -> Vec<Vec<u8>> {
    use tidegate_nbd::{BlockSizes, Info, OptionReply, OptionReplyCode};
    let mut options = vec![0];
    Info::Export(1 << 30, TransmissionFlags::FLUSH).encode(7, &mut options);
    Info::BlockSize(BlockSizes::default()).encode(7, &mut options);
    Info::Name("disk-0").encode(7, &mut options);
    OptionReply { option: 7, code: OptionReplyCode::Ack, length: 0 }.encode(&mut options);
    let mut replies = vec![1];
    ReplyHeader::Simple { cookie: Cookie(1), error: None }.encode(&mut replies);
    ReplyHeader::Simple { cookie: Cookie(1), error: Errno::from_code(5) }.encode(&mut replies);
    let span = Span { length: 4096, flags: StatusFlags(3) };
    for (code, payload) in [
        (ChunkCode::Data, [&4096_u64.to_be_bytes()[..], &[7; 16]].concat()),
        (ChunkCode::Hole, [&4096_u64.to_be_bytes()[..], &512_u32.to_be_bytes()].concat()),
        (
            ChunkCode::BlockStatus,
            [0_u32, u32::try_from(span.length).unwrap_or_default(), span.flags.0]
                .map(u32::to_be_bytes)
                .concat(),
        ),
        (ChunkCode::Error, [&5_u32.to_be_bytes()[..], &[0, 2], b"no"].concat()),
    ] {
        let length = u32::try_from(payload.len()).unwrap_or_default();
        let header = ChunkHeader { cookie: Cookie(1), code, is_last: false, length };
        ReplyHeader::Chunk(header).encode(&mut replies);
        replies.extend(payload);
    }
    vec![options, replies]
}

/// One of everything that an agent says.
fn to_server() -> Vec<u8> {
    let hello = Hello {
        version: 1,
        vault: VaultId::from_bytes([0x11; 16]),
        incarnation: Incarnation::from_bytes([0x22; 16]),
        epoch: Epoch(3),
        committed: Lsn(118_204),
        features: 0,
        begins: Begins::Continue,
        parent: Some(Point { epoch: Epoch(2), lsn: Lsn(99) }),
        token: Token::NONE,
        machine: match "db-1".parse() {
            Ok(name) => name,
            Err(_) => return Vec::new(),
        },
    };
    let mut bytes = vec![0];
    Message::Hello(hello).encode(&mut bytes);
    let (lsn, time) = (Lsn(7), Micros(1_700_000_000_000_000));
    for kind in [
        RecordKind::Disk(disk()),
        RecordKind::Zero(extent(4096, 1 << 20)),
        RecordKind::Bookmark(bookmark()),
        RecordKind::Time,
    ] {
        Message::Record(Record { lsn, time, kind }).encode(&mut bytes);
    }
    let data = [0xab; 16];
    let header = Record::write_header(lsn, time, extent(4096, 16), Checksum::of(&data));
    bytes.extend(header.encode());
    bytes.extend(data);
    Message::Bye.encode(&mut bytes);
    bytes
}

/// One of everything that a server says.
fn to_agent() -> Vec<u8> {
    let welcome = Welcome {
        epoch: Epoch(3),
        committed: Lsn(118_204),
        credit_bytes: 1 << 16,
        record_bytes_max: 1 << 16,
        block_bytes: 1 << 16,
        features: 0,
        run: RunId::from_bytes([0x33; 16]),
        shard: 5,
        before: Token::NONE,
    };
    let refusal = Refusal {
        code: RefusalCode::Overloaded,
        remedy: Remedy::Retry,
        cause: "full".to_owned(),
        advice: "wait".to_owned(),
    };
    let mut bytes = vec![1];
    for message in [
        Message::Welcome(welcome),
        Message::Ack(Ack { received: Lsn(9), committed: Lsn(7), totals: Totals::default() }),
        Message::Credit(1 << 20),
        Message::Slow(Slow { reason: SlowReason::Store, waited_us: 5 }),
        Message::Refuse(refusal),
    ] {
        message.encode(&mut bytes);
    }
    bytes
}
