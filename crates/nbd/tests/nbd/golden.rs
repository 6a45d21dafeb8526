//! The bytes of each message, in hexadecimal, as doc/proto.md of the NBD project lays them out.

use tidegate_nbd::{
    ChunkCode, ChunkHeader, CommandFlags, CommandKind, Cookie, Errno, ExportRequest, GREETING,
    OptionCode, QueryRequest, Replies, ReplyHeader, Span, StatusFlags,
};

use crate::world::{bytes_of, command, hex, option, options, plain, request};

const OPTION: &str = "49484156454f5054";
const REPLY: &str = "0003e889045565a9";

#[track_caller]
fn same(bytes: &[u8], golden: &[&str]) {
    let hex_of = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex_of(bytes), hex_of(&hex(&golden.concat())));
}

#[test]
fn the_greeting() {
    same(&GREETING, &["4e42444d41474943", OPTION, "0003"]);
}

#[test]
fn options_of_a_client() {
    same(&plain(OptionCode::StructuredReply), &[OPTION, "00000008 00000000"]);
    same(&option(1, b"disk"), &[OPTION, "00000001 00000004 6469736b"]);
    let mut out = Vec::new();
    ExportRequest::encode(OptionCode::Go, "disk", &[3, 1], &mut out);
    same(&out, &[OPTION, "00000007 0000000e 00000004 6469736b 0002 0003 0001"]);
    out.clear();
    QueryRequest::encode(OptionCode::SetMetaContext, "d", &["base:", "x:y"], &mut out);
    let queries = "00000002 00000005 626173653a 00000003 783a79";
    same(&out, &[OPTION, "0000000a 00000019 00000001 64", queries]);
}

#[test]
fn what_a_server_says_of_an_export() {
    let mut go = Vec::new();
    ExportRequest::encode(OptionCode::Go, "other", &[1, 2], &mut go);
    let (_, out, _) = options(&[plain(OptionCode::StructuredReply), go]);
    let golden = [
        // Structured replies: yes.
        [REPLY, "00000008 00000001 00000000"].concat(),
        // 64 MiB, read-only, DF; blocks of 1 and 4096 bytes, at most 32 MiB at once.
        [REPLY, "00000007 00000003 0000000c 0000 0000000004000000 0083"].concat(),
        [REPLY, "00000007 00000003 0000000e 0003 00000001 00001000 02000000"].concat(),
        [REPLY, "00000007 00000003 00000007 0001 6f74686572"].concat(),
        [REPLY, "00000007 00000003 00000008 0002 612074657874"].concat(),
        [REPLY, "00000007 00000001 00000000"].concat(),
    ];
    same(&out, &golden.each_ref().map(String::as_str));
}

#[test]
fn what_a_server_says_to_an_old_client() {
    let (_, out, _) = options(&[option(1, b"disk")]);
    same(&out, &["0000000004000000 0d6d"]);
    let old = [hex("00000001"), option(1, b"disk")].concat();
    let (_, out, _) = crate::world::handshake([old.as_slice()]);
    same(&out, &["0000000004000000 0d6d", &"00".repeat(124)]);
}

#[test]
fn a_list_contexts_and_refusals() {
    let mut contexts = Vec::new();
    QueryRequest::encode(OptionCode::ListMetaContext, "disk", &[], &mut contexts);
    let (_, out, _) = options(&[plain(OptionCode::List), contexts, option(99, b"??")]);
    let golden = [
        [REPLY, "00000003 00000002 00000008 00000004 6469736b"].concat(),
        [REPLY, "00000003 00000002 0000000f 00000005 6f74686572 612074657874"].concat(),
        [REPLY, "00000003 00000001 00000000"].concat(),
        [REPLY, "00000009 00000004 00000013 00000000 626173653a616c6c6f636174696f6e"].concat(),
        [REPLY, "00000009 00000001 00000000"].concat(),
        [REPLY, "00000063 80000001 00000016 746865206f7074696f6e2069736e2774206b6e6f776e"].concat(),
    ];
    same(&out, &golden.each_ref().map(String::as_str));
}

#[test]
fn requests() {
    let bytes = bytes_of(request(CommandKind::Write, 0x0102, 0x0304, CommandFlags::FUA));
    same(&bytes, &["25609513 0001 0001 0000000000000007 0000000000000102 00000304"]);
    let flags = CommandFlags::NO_HOLE.with(CommandFlags::FAST_ZERO);
    let bytes = bytes_of(request(CommandKind::WriteZeroes, 0, 512, flags));
    same(&bytes, &["25609513 0012 0006 0000000000000007 0000000000000000 00000200"]);
}

#[test]
fn simple_replies() {
    let (replies, read) =
        (Replies::new(false), command(CommandKind::Read, 0, 512, CommandFlags::NONE));
    let mut out = Vec::new();
    replies.read_whole(&read, &mut out);
    replies.error(&read, Errno::Io, "never seen", &mut out);
    same(&out, &["67446698 00000000 0000000000000007", "67446698 00000005 0000000000000007"]);
}

#[test]
fn structured_replies_to_reads() {
    let (replies, read) =
        (Replies::new(true), command(CommandKind::Read, 512, 1024, CommandFlags::NONE));
    let mut out = Vec::new();
    replies.read_data(&read, 512, 256, false, &mut out);
    replies.read_hole(&read, 768, 256, false, &mut out);
    replies.read_error(&read, 1024, Errno::Io, "bad", &mut out);
    replies.read_end(&read, &mut out);
    replies.read_whole(&read, &mut out);
    replies.error(&read, Errno::ShuttingDown, "ab", &mut out);
    same(
        &out,
        &[
            "668e33ef 0000 0001 0000000000000007 00000108 0000000000000200",
            "668e33ef 0000 0002 0000000000000007 0000000c 0000000000000300 00000100",
            "668e33ef 0000 8002 0000000000000007 00000011 00000005 0003 626164 0000000000000400",
            "668e33ef 0001 0000 0000000000000007 00000000",
            "668e33ef 0001 0001 0000000000000007 00000408 0000000000000200",
            "668e33ef 0001 8001 0000000000000007 00000008 0000006c 0002 6162",
        ],
    );
}

#[test]
fn block_status() {
    let asked = command(CommandKind::BlockStatus, 0, 1 << 20, CommandFlags::NONE);
    let zero = StatusFlags::HOLE.with(StatusFlags::ZERO);
    let spans =
        [Span { length: 4096, flags: StatusFlags::NONE }, Span { length: 1 << 40, flags: zero }];
    let mut out = Vec::new();
    Replies::new(true).block_status(&asked, spans, &mut out);
    let golden = "668e33ef 0001 0005 0000000000000007 00000014 00000001";
    same(&out, &[golden, "00001000 00000000 000ff000 00000003"]);
}

#[test]
fn headers_of_replies() {
    let mut out = Vec::new();
    let cookie = Cookie(0x0102_0304_0506_0708);
    ReplyHeader::Simple { cookie, error: Some(Errno::Overflow) }.encode(&mut out);
    let length = 12;
    let chunk = ChunkHeader { cookie, code: ChunkCode::Hole, is_last: true, length };
    ReplyHeader::Chunk(chunk).encode(&mut out);
    let simple = "67446698 0000004b 0102030405060708";
    same(&out, &[simple, "668e33ef 0001 0002 0102030405060708 0000000c"]);
}
