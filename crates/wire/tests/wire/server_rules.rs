//! What the server's end accepts and refuses.

use tidegate_model::{
    Bookmark, BookmarkKind, Checksum, Disk, DiskNumber, Epoch, Extent, Incarnation, Lsn, Micros,
    Point, Remedy, RunId, Token, VaultId,
};
use tidegate_wire::server::Session;
use tidegate_wire::{
    Ack, Begins, DecodeError, Decoder, Hello, Item, Message, Record, RecordKind, Refusal,
    RefusalCode, Side, Slow, SlowReason, Totals, Welcome,
};

const VAULT: VaultId = VaultId::from_bytes([1; 16]);
const DISK_BYTES: u64 = 1 << 20;
const CREDIT: u64 = 10_000;

pub fn hello() -> Hello {
    Hello {
        version: 1,
        vault: VAULT,
        incarnation: Incarnation::from_bytes([2; 16]),
        epoch: Epoch(1),
        committed: Lsn(10),
        features: 0,
        begins: Begins::Copy,
        parent: None,
        token: Token::NONE,
        machine: "m".parse().unwrap(),
    }
}

pub fn welcome() -> Welcome {
    Welcome {
        epoch: Epoch(1),
        committed: Lsn(10),
        credit_bytes: CREDIT,
        record_bytes_max: 8192,
        block_bytes: 4096,
        features: 0,
        run: RunId::from_bytes([3; 16]),
        shard: 0,
        before: Token::NONE,
    }
}

/// A session that goes on after LSN 10.
fn streaming() -> Session {
    let mut session = Session::new(VAULT);
    session.hello(Message::Hello(hello())).unwrap();
    session.grant(&welcome(), &mut Vec::new());
    session
}

fn record(lsn: u64, time: u64, kind: RecordKind) -> Record {
    Record { lsn: Lsn(lsn), time: Micros(time), kind }
}

fn disk(number: u8, bytes: u64) -> RecordKind {
    let number = DiskNumber::try_from(number).unwrap();
    RecordKind::Disk(Disk { number, bytes, name: String::new() })
}

fn extent(number: u8, offset: u64, length: u64) -> Extent {
    Extent { disk: DiskNumber::try_from(number).unwrap(), offset, length }
}

fn write(offset: u64, length: u64) -> RecordKind {
    RecordKind::Write(extent(0, offset, length), Checksum(0))
}

fn zero(number: u8, offset: u64, length: u64) -> RecordKind {
    RecordKind::Zero(extent(number, offset, length))
}

fn bookmark() -> RecordKind {
    let name = String::new();
    RecordKind::Bookmark(Bookmark { kind: BookmarkKind::CopyEnd, clean: true, name })
}

fn ack((received, committed): (u64, u64)) -> Message {
    let totals = Totals::default();
    Message::Ack(Ack { received: Lsn(received), committed: Lsn(committed), totals })
}

/// Decodes what the server wrote.
fn said(bytes: &[u8]) -> Vec<Message> {
    let (mut decoder, mut input, mut messages) = (Decoder::new(Side::Agent), bytes, Vec::new());
    while let Some(item) = decoder.next(&mut input).unwrap() {
        let Item::Message(message) = item else { panic!("{item:?}") };
        messages.push(message);
    }
    messages
}

#[test]
fn a_stream_of_every_kind_of_record_is_accepted() {
    let mut session = streaming();
    let stream = [
        record(11, 5, disk(0, DISK_BYTES)),
        record(12, 5, write(0, 4096)),
        record(13, 6, zero(0, 4096, DISK_BYTES - 4096)),
        record(14, 6, bookmark()),
        record(15, 7, RecordKind::Time),
        record(16, 7, disk(0, 2 * DISK_BYTES)),
        record(17, 7, write(2 * DISK_BYTES - 512, 512)),
    ];
    for record in &stream {
        assert_eq!(session.record(record), Ok(true), "{record:?}");
    }
    assert_eq!(session.received(), Lsn(17));
    assert_eq!(session.credit_bytes(), CREDIT - 4096 - 512);
    assert_eq!(session.bye(), Ok(()));
}

#[test]
fn each_way_to_break_the_stream_is_refused_with_its_own_cause_and_changes_nothing() {
    let begin = record(11, 5, disk(0, DISK_BYTES));
    let wrong = [
        (record(11, 5, RecordKind::Time), "LSN 11 where 12"),
        (record(13, 5, RecordKind::Time), "LSN 13 where 12"),
        (record(0, 0, RecordKind::Time), "LSN 0 where 12"),
        (record(u64::MAX, 5, RecordKind::Time), "where 12"),
        (record(12, 4, RecordKind::Time), "time went back"),
        (record(12, 5, zero(1, 0, 512)), "disk 1 before declaring"),
        (record(12, 5, write(DISK_BYTES - 511, 512)), "beyond the end of disk 0"),
        (record(12, 5, write(u64::MAX, 512)), "beyond the end of disk 0"),
        (record(12, 5, zero(0, 0, DISK_BYTES + 1)), "beyond the end of disk 0"),
        (record(12, 5, write(0, 8193)), "longer write than welcome"),
        (record(0, 0, disk(1, DISK_BYTES)), "restated a disk after"),
    ];
    for (wrong, cause) in wrong {
        let mut session = streaming();
        session.record(&begin).unwrap();
        let refusal = session.record(&wrong).unwrap_err();
        assert_eq!((refusal.code, refusal.remedy), (RefusalCode::Protocol, Remedy::Stop));
        assert!(refusal.cause.contains(cause), "{refusal}, not {cause}");
        assert_eq!((session.received(), session.credit_bytes()), (Lsn(11), CREDIT));
    }
}

#[test]
fn writes_end_with_the_credit_and_go_on_with_more() {
    let mut session = streaming();
    session.record(&record(11, 5, disk(0, DISK_BYTES))).unwrap();
    session.record(&record(12, 5, write(0, 8192))).unwrap();
    let refusal = session.record(&record(13, 5, write(0, 1809))).unwrap_err();
    assert!(refusal.cause.contains("credit"), "{refusal}");
    session.record(&record(13, 5, write(0, 1808))).unwrap();
    assert_eq!(session.credit_bytes(), 0);
    session.record(&record(14, 5, zero(0, 0, DISK_BYTES))).unwrap();
    let mut out = Vec::new();
    session.credit(512, &mut out);
    assert_eq!(said(&out), [Message::Credit(512)]);
    session.record(&record(15, 5, write(0, 512))).unwrap();
}

#[test]
fn a_restated_disk_is_known_takes_no_number_and_is_not_new() {
    let mut session = streaming();
    assert_eq!(session.record(&record(0, 0, disk(0, 4096))), Ok(false));
    assert_eq!(session.received(), Lsn(10));
    assert_eq!(session.record(&record(11, 5, write(0, 4096))), Ok(true));
    assert!(session.record(&record(12, 5, write(1, 4096))).is_err());
}

#[test]
fn the_last_lsn_of_all_is_accepted_once() {
    let mut session = Session::new(VAULT);
    session.hello(Message::Hello(hello())).unwrap();
    let welcome = Welcome { committed: Lsn(u64::MAX - 1), ..welcome() };
    session.grant(&welcome, &mut Vec::new());
    let last = record(u64::MAX, 5, RecordKind::Time);
    assert_eq!(session.record(&last), Ok(true));
    assert!(session.record(&last).is_err());
}

#[test]
fn a_hello_is_refused_for_what_is_wrong_with_it() {
    let wrong = [
        (Hello { version: 2, ..hello() }, RefusalCode::Version, Remedy::Refuse),
        (
            Hello { vault: VaultId::from_bytes([9; 16]), ..hello() },
            RefusalCode::Vault,
            Remedy::Refuse,
        ),
        (Hello { epoch: Epoch::NONE, ..hello() }, RefusalCode::Protocol, Remedy::Stop),
    ];
    for (hello, code, remedy) in wrong {
        let refusal = Session::new(VAULT).hello(Message::Hello(hello)).unwrap_err();
        assert_eq!((refusal.code, refusal.remedy), (code, remedy), "{refusal}");
    }
    let parent = Some(Point { epoch: Epoch(1), lsn: Lsn(5) });
    for parent in [parent, None] {
        let right = Hello { begins: Begins::Continue, parent, ..hello() };
        assert_eq!(Session::new(VAULT).hello(Message::Hello(right.clone())), Ok(right));
    }
}

#[test]
fn a_stream_of_another_version_is_refused_for_its_version() {
    let refusal = Refusal::from(DecodeError::Version(2));
    assert_eq!((refusal.code, refusal.remedy), (RefusalCode::Version, Remedy::Refuse));
    let refusal = Refusal::from(DecodeError::HeaderCheck);
    assert_eq!((refusal.code, refusal.remedy), (RefusalCode::Protocol, Remedy::Stop));
}

/// What an agent may say in which state: `true` where it may.
#[test]
fn the_order_of_a_session_is_kept() {
    type Step = fn(&mut Session) -> bool;
    let before: Step = |_| true;
    let greeted: Step = |s| s.hello(Message::Hello(hello())).is_ok();
    let granted: Step = |s| {
        s.grant(&welcome(), &mut Vec::new());
        true
    };
    let ended: Step = |s| s.bye().is_ok();
    let refused: Step = |s| {
        s.refuse(&Refusal::shutting_down(), &mut Vec::new());
        true
    };
    let record: Step = |s| s.record(&record(11, 5, RecordKind::Time)).is_ok();
    let restate: Step = |s| s.record(&self::record(0, 0, disk(0, 1))).is_ok();

    let states: [(&str, &[Step], [bool; 4]); 5] = [
        ("before hello", &[before], [true, false, false, false]),
        ("before the grant", &[greeted], [false, false, false, false]),
        ("streaming", &[greeted, granted], [false, true, true, true]),
        ("after bye", &[greeted, granted, ended], [false, false, false, false]),
        ("refused", &[greeted, granted, refused], [false, false, false, false]),
    ];
    for (name, steps, allowed) in states {
        let tried = [greeted, record, restate, ended].map(|said| {
            let mut session = Session::new(VAULT);
            assert!(steps.iter().all(|step| step(&mut session)), "{name}");
            said(&mut session)
        });
        assert_eq!(tried, allowed, "hello, record, restated disk, bye: {name}");
    }
    for message in [Message::Bye, Message::Record(self::record(1, 1, RecordKind::Time))] {
        assert!(Session::new(VAULT).hello(message).is_err());
    }
}

#[test]
fn an_ack_counts_a_write_as_received_once_it_is_whole() {
    let mut session = streaming();
    session.record(&record(11, 5, disk(0, DISK_BYTES))).unwrap();
    session.record(&record(12, 5, write(0, 512))).unwrap();
    let mut out = Vec::new();
    session.ack(Lsn(10), Totals::default(), &mut out);
    session.record(&record(13, 5, RecordKind::Time)).unwrap();
    session.ack(Lsn(12), Totals::default(), &mut out);
    session.ack(Lsn(11), Totals::default(), &mut out);
    assert_eq!(said(&out), [(11, 10), (13, 12), (13, 12)].map(ack));
}

#[test]
fn an_ack_never_passes_what_came_on_this_connection() {
    let mut session = streaming();
    let mut out = Vec::new();
    // What an earlier connection brought is stored late. The agent forgets what is acknowledged,
    // and must still be able to send all that is next here.
    session.ack(Lsn(15), Totals::default(), &mut out);
    assert_eq!(session.committed(), Lsn(10));
    session.record(&record(11, 5, RecordKind::Time)).unwrap();
    session.ack(Lsn(15), Totals::default(), &mut out);
    assert_eq!(said(&out), [(10, 10), (11, 11)].map(ack));
}

#[test]
fn after_bye_commits_are_still_acknowledged_and_after_a_refusal_nothing_is_said() {
    let mut session = streaming();
    session.record(&record(11, 5, RecordKind::Time)).unwrap();
    session.bye().unwrap();
    let mut out = Vec::new();
    session.ack(Lsn(11), Totals::default(), &mut out);
    assert_eq!(said(&out).len(), 1);

    let refusal = Refusal::shutting_down();
    session.refuse(&refusal, &mut out);
    session.refuse(&refusal, &mut out);
    session.ack(Lsn(11), Totals::default(), &mut out);
    session.credit(512, &mut out);
    session.slow(Slow { reason: SlowReason::Cores, waited_us: 1 }, &mut out);
    assert_eq!(said(&out)[1..], [Message::Refuse(refusal)]);
}

#[test]
fn a_refusals_texts_are_cut_and_cannot_move_a_terminals_cursor() {
    let long = "\u{e9}".repeat(1000);
    let refusal = Refusal::new(RefusalCode::Internal, Remedy::Retry, &long, "a");
    assert_eq!(refusal.cause.len(), 1024);
    let mut bytes = Vec::new();
    let dirty = "a\x1b[2J\u{202e}b\n".to_owned();
    // Built without `new`: an own field is no reason to break the protocol.
    let refusal = Refusal { cause: dirty, advice: "x".repeat(70_000), ..refusal };
    Message::Refuse(refusal).encode(&mut bytes);
    let [Message::Refuse(read)] = &said(&bytes)[..] else { panic!("one refusal") };
    assert_eq!((read.cause.as_str(), read.advice.len()), ("a[2Jb", 1024));
}
