//! Questions by hashes: what may be asked, and which answers are believed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidegate_model::{DiskNumber, Extent, Remedy};
use tidegate_wire::agent::{self, Event};
use tidegate_wire::limits::{FEATURE_HASHES, HASHES_MAX, QUESTIONS_MAX};
use tidegate_wire::server::Session;
use tidegate_wire::{
    Decoder, Hashes, Have, Hello, Item, Message, Refusal, RefusalCode, Side, Welcome,
};

use crate::server_rules::{hello, welcome};

/// The block size of [`welcome`].
const BLOCK: u64 = 4096;

fn extent(offset: u64, blocks: u64) -> Extent {
    Extent { disk: DiskNumber::default(), offset, length: blocks * BLOCK }
}

fn question(offset: u64, blocks: usize) -> Hashes {
    Hashes { extent: extent(offset, blocks as u64), hashes: vec![[7; 32]; blocks] }
}

/// Both ends of a session, in which questions are answered or not.
fn ends(features: u64) -> (agent::Session, Session) {
    let hello = Hello { features: FEATURE_HASHES, ..hello() };
    let mut server = Session::new(hello.vault);
    server.hello(Message::Hello(hello.clone())).unwrap();
    let mut agent = agent::Session::new(hello, tidegate_model::Lsn(20));
    let welcome = Welcome { features, ..welcome() };
    server.grant(&welcome, &mut Vec::new());
    agent.hear(Message::Welcome(welcome)).unwrap();
    (agent, server)
}

fn message(side: Side, bytes: &[u8]) -> Message {
    match Decoder::new(side).next(&mut &bytes[..]).unwrap() {
        Some(Item::Message(message)) => message,
        item => panic!("{item:?}"),
    }
}

#[test]
fn questions_are_answered_in_their_order_and_not_too_many_are_open() {
    let (mut agent, mut server) = ends(FEATURE_HASHES);
    let mut asked = Vec::new();
    for number in 0..QUESTIONS_MAX as u64 {
        assert!(agent.may_ask());
        let question = question(number * BLOCK, HASHES_MAX);
        let mut bytes = Vec::new();
        agent.ask(&question, &mut bytes);
        assert_eq!(message(Side::Server, &bytes), Message::Hashes(question.clone()));
        server.question(&question).unwrap();
        asked.push(question);
    }
    assert!(!agent.may_ask());
    for question in &asked {
        let have = Have { extent: question.extent, blocks: u128::MAX };
        let mut bytes = Vec::new();
        server.answer(have, &mut bytes);
        assert_eq!(agent.hear(message(Side::Agent, &bytes)), Ok(Event::Have(have)));
        assert!(agent.may_ask());
    }
    server.question(&asked[0]).unwrap();
    assert_eq!((server.received(), agent.sent()), (server.committed(), agent.committed()));
}

#[test]
fn each_way_to_ask_what_cannot_be_answered_is_refused_with_its_cause() {
    let more = |blocks| Hashes { extent: extent(0, blocks), ..question(0, 3) };
    let wrong = [
        (question(512, 3), "whole blocks"),
        (question(BLOCK - 1, 3), "whole blocks"),
        (more(2), "whole blocks"),
        (more(4), "whole blocks"),
    ];
    for (question, cause) in wrong {
        let (_, mut server) = ends(FEATURE_HASHES);
        let refusal = server.question(&question).unwrap_err();
        assert_eq!((refusal.code, refusal.remedy), (RefusalCode::Protocol, Remedy::Stop));
        assert!(refusal.cause.contains(cause), "{refusal}, not {cause}");
    }
    let right = question(0, 3);
    let (_, mut server) = ends(FEATURE_HASHES);
    (0..QUESTIONS_MAX).for_each(|_| server.question(&right).unwrap());
    assert!(server.question(&right).unwrap_err().cause.contains("before it had its answers"));
    assert!(ends(0).1.question(&right).unwrap_err().cause.contains("agreed on"));
    assert!(Session::new(hello().vault).question(&right).is_err(), "before the welcome");
    let (_, mut server) = ends(FEATURE_HASHES);
    server.bye().unwrap();
    assert!(server.question(&right).is_err(), "after the goodbye");
    let (_, mut server) = ends(FEATURE_HASHES);
    server.question(&right).unwrap();
    server.refuse(&Refusal::shutting_down(), &mut Vec::new());
    let mut out = Vec::new();
    server.answer(Have { extent: right.extent, blocks: 0 }, &mut out);
    assert!(out.is_empty(), "a refusal was the last word");
}

#[test]
fn an_answer_to_nothing_or_to_something_else_is_not_believed() {
    let have = |offset, count, blocks| Have { extent: extent(offset, count), blocks };
    let wrong = [
        (have(BLOCK, 3, 0), "wasn't asked"),
        (have(0, 2, 0), "wasn't asked"),
        (have(0, 3, 0b1000), "weren't asked for"),
        (have(0, 3, 1 << 127), "weren't asked for"),
    ];
    for (answer, cause) in wrong {
        let (mut agent, _) = ends(FEATURE_HASHES);
        agent.ask(&question(0, 3), &mut Vec::new());
        let error = agent.hear(Message::Have(answer)).unwrap_err().to_string();
        assert!(error.contains(cause), "{error}, not {cause}");
    }
    assert!(ends(FEATURE_HASHES).0.hear(Message::Have(have(0, 3, 0))).is_err(), "nothing was");
    let (mut agent, _) = ends(FEATURE_HASHES);
    agent.ask(&question(0, 3), &mut Vec::new());
    let answer = have(0, 3, 0b101);
    assert_eq!(agent.hear(Message::Have(answer)), Ok(Event::Have(answer)));
    assert_eq!(
        [0, 1, 2, 127, 128].map(|block| answer.has(block)),
        [true, false, true, false, false]
    );
}

#[test]
fn a_caller_that_asks_where_nobody_answers_is_stopped_at_once() {
    let wrong: [(u64, fn() -> Hashes); 4] = [
        (0, || question(0, 1)),
        (FEATURE_HASHES, || question(512, 1)),
        (FEATURE_HASHES, || Hashes { extent: extent(0, 2), ..question(0, 1) }),
        (FEATURE_HASHES, || Hashes { extent: extent(0, 1), hashes: Vec::new() }),
    ];
    for (number, (features, wrong)) in wrong.into_iter().enumerate() {
        let (mut agent, _) = ends(features);
        assert_eq!(agent.may_ask(), features != 0);
        let call = AssertUnwindSafe(|| agent.ask(&wrong(), &mut Vec::new()));
        assert!(catch_unwind(call).is_err(), "{number}");
    }
}
