//! What answers what; and that another answer is stopped.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidegate_nbd::limits::{SPANS_SENT_MAX, TEXT_BYTES_MAX};
use tidegate_nbd::{
    ChunkBody, ChunkCode, Command, CommandFlags, CommandKind, Errno, Replies, ReplyHeader, Span,
    StatusFlags,
};

use crate::world::command;

const NONE: CommandFlags = CommandFlags::NONE;

fn spans_of(replied: &[u8]) -> Vec<Span> {
    let mut rest = replied;
    let Some(ReplyHeader::Chunk(chunk)) = ReplyHeader::decode(&mut rest).unwrap() else { panic!() };
    assert!(chunk.is_last && chunk.code == ChunkCode::BlockStatus);
    assert_eq!(chunk.length as usize, rest.len());
    ChunkBody::decode(chunk.code, rest).unwrap().spans().collect()
}

fn status(length: u32, flags: CommandFlags, spans: impl IntoIterator<Item = Span>) -> Vec<Span> {
    let (mut out, asked) = (Vec::new(), command(CommandKind::BlockStatus, 0, length, flags));
    Replies::new(true).block_status(&asked, spans, &mut out);
    spans_of(&out)
}

#[test]
fn status_is_told_within_what_was_asked() {
    let span = |length, flags| Span { length, flags };
    let (data, hole) = (StatusFlags::NONE, StatusFlags::HOLE);
    let spans = [span(10, data), span(5, data), span(7, hole), span(100, data)];
    assert_eq!(status(30, NONE, spans), [span(15, data), span(7, hole), span(8, data)]);
    assert_eq!(status(30, CommandFlags::REQ_ONE, spans), [span(15, data)]);
    assert_eq!(status(12, CommandFlags::REQ_ONE, spans), [span(12, data)]);
    assert_eq!(status(30, NONE, []), [span(30, data)], "what isn't known may be data");
}

#[test]
fn status_of_many_spans_is_told_in_part() {
    let kinds = [StatusFlags::NONE, StatusFlags::HOLE];
    let spans = kinds.map(|flags| Span { length: 1, flags }).into_iter().cycle();
    assert_eq!(status(u32::MAX, NONE, spans).len(), SPANS_SENT_MAX);
}

#[test]
fn a_read_is_answered_in_chunks_only_where_the_client_takes_them() {
    let read = command(CommandKind::Read, 0, 512, NONE);
    let whole = Command { flags: CommandFlags::DF, ..read };
    assert!(Replies::new(true).takes_chunks(&read));
    assert!(!Replies::new(true).takes_chunks(&whole));
    assert!(!Replies::new(false).takes_chunks(&read));
}

#[test]
fn a_long_text_is_cut() {
    let mut out = Vec::new();
    let read = command(CommandKind::Read, 0, 512, NONE);
    Replies::new(true).error(&read, Errno::Io, &"x".repeat(100_000), &mut out);
    assert_eq!(out.len(), 20 + 6 + TEXT_BYTES_MAX);
}

type Answer<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn an_answer_that_does_not_fit_its_command_is_stopped() {
    let read = command(CommandKind::Read, 512, 512, NONE);
    let flush = command(CommandKind::Flush, 0, 0, NONE);
    let status = command(CommandKind::BlockStatus, 0, 512, NONE);
    let whole = Command { flags: CommandFlags::DF, ..read };
    let (chunks, simple) = (Replies::new(true), Replies::new(false));
    let wrong: [Answer<'_>; 13] = [
        &|out| chunks.done(&read, out),
        &|out| chunks.done(&status, out),
        &|out| chunks.read_whole(&flush, out),
        &|out| chunks.read_data(&read, 511, 1, true, out),
        &|out| chunks.read_data(&read, 512, 513, true, out),
        &|out| chunks.read_hole(&read, u64::MAX, 1, true, out),
        &|out| chunks.read_hole(&read, 512, 0, true, out),
        &|out| chunks.read_hole(&whole, 512, 512, true, out),
        &|out| chunks.read_error(&read, 1024, Errno::Io, "", out),
        &|out| simple.read_data(&read, 512, 512, true, out),
        &|out| simple.read_end(&read, out),
        &|out| simple.block_status(&status, [], out),
        &|out| chunks.block_status(&read, [], out),
    ];
    for (number, wrong) in wrong.into_iter().enumerate() {
        let call = AssertUnwindSafe(|| wrong(&mut Vec::new()));
        assert!(catch_unwind(call).is_err(), "{number}");
    }
}
