//! Arbitrary messages, within the limits of the protocol.

use proptest::prelude::*;
use tidegate_model::limits::DISK_BYTES_MAX;
use tidegate_model::{
    Bookmark, BookmarkKind, Disk, DiskNumber, Epoch, Extent, Incarnation, Lsn, Micros, Point,
    Remedy, RunId, Token, VaultId,
};
use tidegate_wire::limits::HASHES_MAX;
use tidegate_wire::{
    Ack, Begins, Hashes, Have, Hello, Message, Record, RecordKind, Refusal, RefusalCode, Slow,
    SlowReason, Totals, Welcome,
};

pub fn disk_number() -> impl Strategy<Value = DiskNumber> {
    (0_u8..64).prop_map(|number| DiskNumber::try_from(number).unwrap())
}

fn extent() -> impl Strategy<Value = Extent> {
    (disk_number(), 0..DISK_BYTES_MAX, any::<u64>()).prop_map(|(disk, offset, length)| Extent {
        disk,
        offset,
        length: length % (DISK_BYTES_MAX - offset) + 1,
    })
}

fn record_kind() -> impl Strategy<Value = RecordKind> {
    let disk = (disk_number(), 0..=DISK_BYTES_MAX, "\\PC{0,64}")
        .prop_map(|(number, bytes, name)| RecordKind::Disk(Disk { number, bytes, name }));
    let bookmark = (1_u8..=7, any::<bool>(), "\\PC{0,64}").prop_map(|(code, clean, name)| {
        let kind = BookmarkKind::from_code(code).unwrap();
        RecordKind::Bookmark(Bookmark { kind, clean, name })
    });
    prop_oneof![disk, extent().prop_map(RecordKind::Zero), bookmark, Just(RecordKind::Time)]
}

fn hello() -> impl Strategy<Value = Hello> {
    let ids = any::<([u8; 16], [u8; 16], [u8; 16])>();
    let numbers = (any::<u32>(), any::<u64>(), any::<u64>());
    let parent = proptest::option::of((1_u32.., any::<u64>()));
    (ids, numbers, any::<bool>(), parent, "[a-z][a-z0-9._-]{0,62}").prop_map(
        |((vault, incarnation, token), (epoch, committed, features), copy, parent, machine)| {
            Hello {
                version: 1,
                vault: VaultId::from_bytes(vault),
                incarnation: Incarnation::from_bytes(incarnation),
                epoch: Epoch(epoch),
                committed: Lsn(committed),
                features,
                begins: if copy { Begins::Copy } else { Begins::Continue },
                parent: parent.map(|(epoch, lsn)| Point { epoch: Epoch(epoch), lsn: Lsn(lsn) }),
                token: Token::from_bytes(token),
                machine: machine.parse().unwrap(),
            }
        },
    )
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let numbers = any::<(u32, u64, u64, u32, u32, u64)>();
    (numbers, any::<([u8; 16], [u8; 16])>(), any::<u16>()).prop_map(
        |((epoch, committed, credit_bytes, record, block, features), (run, before), shard)| {
            Welcome {
                epoch: Epoch(epoch),
                committed: Lsn(committed),
                credit_bytes,
                record_bytes_max: record,
                block_bytes: block,
                features,
                run: RunId::from_bytes(run),
                shard,
                before: Token::from_bytes(before),
            }
        },
    )
}

/// Whatever an agent may say, but for writes.
pub fn from_agent() -> impl Strategy<Value = Message> {
    let record = (1_u64.., any::<u64>(), record_kind()).prop_map(|(lsn, time, kind)| {
        Message::Record(Record { lsn: Lsn(lsn), time: Micros(time), kind })
    });
    let hashes = (extent(), proptest::collection::vec(any::<[u8; 32]>(), 1..=HASHES_MAX));
    let hashes = hashes.prop_map(|(extent, hashes)| Message::Hashes(Hashes { extent, hashes }));
    prop_oneof![hello().prop_map(Message::Hello), record, hashes, Just(Message::Bye)]
}

/// Whatever a server may say.
pub fn from_server() -> impl Strategy<Value = Message> {
    let ack = any::<[u64; 6]>().prop_map(|[received, committed, zero, known, kept, stored]| {
        let totals = Totals {
            zero_bytes: zero,
            deduplicated_bytes: known,
            kept_bytes: kept,
            stored_bytes: stored,
        };
        Message::Ack(Ack { received: Lsn(received), committed: Lsn(committed), totals })
    });
    let slow = (0_usize..3, any::<u64>()).prop_map(|(reason, waited_us)| {
        let reason = [SlowReason::Store, SlowReason::Cores, SlowReason::Memory][reason];
        Message::Slow(Slow { reason, waited_us })
    });
    let refuse = (1_u16..=12, 1_u8..=4, "[ -~]{0,1100}", "[ -~é]{0,1100}").prop_map(
        |(code, remedy, cause, advice)| {
            let remedy = Remedy::from_code(remedy).unwrap();
            Message::Refuse(Refusal::new(RefusalCode::from_number(code), remedy, &cause, &advice))
        },
    );
    let credit = any::<u64>().prop_map(Message::Credit);
    let have = (extent(), any::<u128>());
    let have = have.prop_map(|(extent, blocks)| Message::Have(Have { extent, blocks }));
    prop_oneof![welcome().prop_map(Message::Welcome), have, ack, credit, slow, refuse]
}
