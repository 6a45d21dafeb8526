//! What the agent's end believes, and what it sends.

use tidegate_model::{Checksum, Disk, DiskNumber, Epoch, Extent, Lsn, Micros};
use tidegate_wire::agent::{Event, Session};
use tidegate_wire::limits::CREDIT_BYTES_MAX;
use tidegate_wire::{
    Ack, Decoder, Hello, Item, Message, Record, RecordKind, Refusal, Side, Slow, SlowReason,
    Totals, Welcome,
};

use crate::server_rules::{hello, welcome};

/// A reconnect: LSN 10 is known to be committed, 20 were sent.
fn session() -> Session {
    Session::new(hello(), Lsn(20))
}

fn open() -> Session {
    let mut session = session();
    session.hear(Message::Welcome(welcome())).unwrap();
    session
}

fn ack(received: u64, committed: u64) -> Message {
    let totals = Totals::default();
    Message::Ack(Ack { received: Lsn(received), committed: Lsn(committed), totals })
}

fn time(lsn: u64) -> Record {
    Record { lsn: Lsn(lsn), time: Micros(5), kind: RecordKind::Time }
}

fn extent(length: u64) -> Extent {
    Extent { disk: DiskNumber::default(), offset: 0, length }
}

#[test]
fn a_welcome_that_cannot_be_is_not_believed() {
    assert!(session().hear(Message::Welcome(welcome())).is_ok());
    let wrong = [
        (Welcome { epoch: Epoch(2), ..welcome() }, "another epoch"),
        (Welcome { committed: Lsn(9), ..welcome() }, "forgot"),
        (Welcome { committed: Lsn(21), ..welcome() }, "never sent"),
        (Welcome { block_bytes: 0, ..welcome() }, "block size"),
        (Welcome { block_bytes: 5000, ..welcome() }, "block size"),
        (Welcome { block_bytes: 1 << 20, ..welcome() }, "block size"),
        (Welcome { record_bytes_max: 0, ..welcome() }, "limits"),
        (Welcome { record_bytes_max: 4095, ..welcome() }, "limits"),
        (Welcome { record_bytes_max: (256 << 10) + 1, ..welcome() }, "limits"),
        (Welcome { credit_bytes: CREDIT_BYTES_MAX + 1, ..welcome() }, "limits"),
        (Welcome { features: 1, ..welcome() }, "features"),
    ];
    for (welcome, cause) in wrong {
        let error = session().hear(Message::Welcome(welcome)).unwrap_err().to_string();
        assert!(error.contains(cause), "{error}, not {cause}");
    }
    let new = Hello { epoch: Epoch::NONE, committed: Lsn::NONE, ..hello() };
    let none = Welcome { epoch: Epoch::NONE, committed: Lsn::NONE, ..welcome() };
    assert!(Session::new(new.clone(), Lsn::NONE).hear(Message::Welcome(none)).is_err());
    let ahead = Message::Welcome(Welcome { committed: Lsn(1), ..welcome() });
    assert!(Session::new(new, Lsn::NONE).hear(ahead).is_err(), "nothing was sent yet");
}

#[test]
fn committed_never_goes_back_nor_beyond_what_this_connection_sent() {
    let mut session = open_and_sent(20);
    for (received, committed) in [(10, 10), (15, 12), (20, 20)] {
        let event = session.hear(ack(received, committed)).unwrap();
        let totals = Totals::default();
        assert_eq!(event, Event::Ack { committed: Lsn(committed), totals });
    }
    for (received, committed) in [(20, 19), (21, 21), (21, 20), (19, 20)] {
        let mut session = open_and_sent(20);
        session.hear(ack(20, 20)).unwrap();
        assert!(session.hear(ack(received, committed)).is_err(), "{received} {committed}");
    }
    // An earlier connection sent up to 20. Forgetting that now would leave a gap on this one.
    for (received, committed) in [(13, 13), (13, 12), (20, 20)] {
        assert!(
            open_and_sent(12).hear(ack(received, committed)).is_err(),
            "{received} {committed}"
        );
    }
}

/// A session that has sent everything up to `last`.
fn open_and_sent(last: u64) -> Session {
    let mut session = open();
    (11..=last).for_each(|lsn| session.record(&time(lsn), &mut Vec::new()));
    session
}

#[test]
fn credit_adds_up_and_cannot_overflow() {
    let mut session = open();
    assert!(session.may_send(10_000) && !session.may_send(10_001));
    session.write(Lsn(11), Micros(5), extent(8192), Checksum(0));
    assert!(session.may_send(1808) && !session.may_send(1809));
    assert_eq!(session.hear(Message::Credit(1)), Ok(Event::Credit));
    assert!(session.may_send(1809) && !session.may_send(1810));
    for bytes in [CREDIT_BYTES_MAX, u64::MAX] {
        assert!(open().hear(Message::Credit(bytes)).is_err());
    }
}

#[test]
fn what_a_server_says_out_of_turn_is_not_believed() {
    let slow = Message::Slow(Slow { reason: SlowReason::Memory, waited_us: 1 });
    let refuse = Message::Refuse(Refusal::shutting_down());
    let table = [
        (Message::Welcome(welcome()), true, false),
        (ack(10, 10), false, true),
        (Message::Credit(1), false, true),
        (slow, true, true),
        (refuse, true, true),
        (Message::Bye, false, false),
        (Message::Hello(hello()), false, false),
        (Message::Record(time(11)), false, false),
    ];
    for (message, before_welcome, after_welcome) in table {
        assert_eq!(session().hear(message.clone()).is_ok(), before_welcome, "{message:?}");
        assert_eq!(open().hear(message.clone()).is_ok(), after_welcome, "{message:?}");
    }
}

#[test]
fn before_the_welcome_nothing_may_be_sent() {
    assert!(!session().may_send(0));
    assert!(std::panic::catch_unwind(|| session().record(&time(1), &mut Vec::new())).is_err());
}

#[test]
fn records_go_on_after_what_the_welcome_says_is_committed() {
    let mut session = session();
    session.hear(Message::Welcome(Welcome { committed: Lsn(15), ..welcome() })).unwrap();
    assert_eq!((session.sent(), session.committed()), (Lsn(15), Lsn(15)));
    let mut out = Vec::new();
    session.hello(&mut out);
    let disk = Disk { number: DiskNumber::default(), bytes: 4096, name: "d".into() };
    session.restate(&disk, &mut out);
    session.record(&time(16), &mut out);
    session.bye(&mut out);

    let (mut decoder, mut input) = (Decoder::new(Side::Server), out.as_slice());
    let restated = Record { lsn: Lsn::NONE, time: Micros(0), kind: RecordKind::Disk(disk) };
    for expected in [
        Message::Hello(hello()),
        Message::Record(restated),
        Message::Record(time(16)),
        Message::Bye,
    ] {
        assert_eq!(decoder.next(&mut input), Ok(Some(Item::Message(expected))));
    }
    assert_eq!(session.sent(), Lsn(16));
}

#[test]
fn a_caller_that_skips_repeats_or_overdraws_is_stopped_at_once() {
    let wrong: [fn(&mut Session); 5] = [
        |s| s.record(&time(12), &mut Vec::new()),
        |s| s.record(&time(10), &mut Vec::new()),
        |s| _ = s.write(Lsn(11), Micros(5), extent(10_001), Checksum(0)),
        |s| _ = s.write(Lsn(11), Micros(5), extent(8193), Checksum(0)),
        |s| _ = s.write(Lsn(11), Micros(5), extent(0), Checksum(0)),
    ];
    for (number, wrong) in wrong.into_iter().enumerate() {
        let mut session = open();
        let call = std::panic::AssertUnwindSafe(|| wrong(&mut session));
        assert!(std::panic::catch_unwind(call).is_err(), "{number}");
    }
}
