//! Which requests become commands, and what the others are answered.

use tidegate_nbd::limits::{PAYLOAD_BYTES_MAX, SKIPPED_BYTES_MAX};
use tidegate_nbd::{
    Agreement, BlockSizes, ChunkBody, CommandFlags, CommandKind, Cookie, Errno, Export,
    ReplyHeader, Request, TransmissionError, TransmissionFlags,
};

use crate::world::{ALL, BYTES, Owned, agreement, bytes_of, command, request, transmission};

const NONE: CommandFlags = CommandFlags::NONE;

/// What becomes of a request, with a flush behind it that shows that the stream goes on: nothing
/// when it is a command, otherwise the error that it is answered, or success.
#[track_caller]
fn refusal(agreement: &Agreement, sent: Request) -> Option<Option<Errno>> {
    let is_write = sent.code == CommandKind::Write as u16;
    let payload = vec![5; if is_write { sent.length as usize } else { 0 }];
    let flush = bytes_of(request(CommandKind::Flush, 0, 0, NONE));
    let bytes = [bytes_of(sent), payload, flush].concat();
    let (events, out, error) = transmission(agreement.clone(), [bytes.as_slice()]);
    assert_eq!((events.len(), error), (2, None), "{sent:?}");
    if events[0] != Owned::Answered {
        assert!(out.is_empty(), "a command isn't answered here");
        return None;
    }
    let mut rest = out.as_slice();
    match ReplyHeader::decode(&mut rest).unwrap().unwrap() {
        ReplyHeader::Simple { cookie, error } => {
            assert_eq!((cookie, rest), (Cookie(7), &[][..]));
            let is_read = sent.code == CommandKind::Read as u16;
            assert!(!agreement.structured || !is_read, "a read is answered by chunks alone");
            Some(error)
        }
        ReplyHeader::Chunk(chunk) => {
            assert!(chunk.is_last && chunk.cookie == Cookie(7));
            assert_eq!(chunk.length as usize, rest.len());
            match ChunkBody::decode(chunk.code, rest).unwrap() {
                ChunkBody::Error(errno, text, None) => {
                    assert!(!text.is_empty(), "a refusal says why");
                    Some(Some(errno))
                }
                ChunkBody::None => Some(None),
                other => panic!("{other:?} answers {sent:?}"),
            }
        }
    }
}

#[test]
fn what_lies_within_the_export_becomes_a_command() {
    use CommandKind::{BlockStatus, Cache, Read, Trim, Write, WriteZeroes};
    for structured in [false, true] {
        let agreement = agreement(ALL, structured);
        for kind in [Read, Write, Trim, Cache, WriteZeroes] {
            for flags in [NONE, CommandFlags::FUA] {
                assert_eq!(refusal(&agreement, request(kind, BYTES - 9, 9, flags)), None);
            }
        }
        let status = request(BlockStatus, 0, 9, CommandFlags::REQ_ONE);
        assert_eq!(refusal(&agreement, status).is_none(), structured);
    }
    let all = request(WriteZeroes, 0, u32::try_from(BYTES).unwrap(), NONE);
    assert_eq!(refusal(&agreement(ALL, false), all), None, "what carries no data may be long");
}

#[test]
fn what_lies_beyond_the_end_is_refused() {
    use CommandKind::{BlockStatus, Cache, Read, Trim, Write, WriteZeroes};
    for (kind, errno) in [
        (Read, Errno::Invalid),
        (Trim, Errno::Invalid),
        (Cache, Errno::Invalid),
        (BlockStatus, Errno::Invalid),
        (Write, Errno::NoSpace),
        (WriteZeroes, Errno::NoSpace),
    ] {
        for (offset, length) in [(BYTES - 8, 9), (BYTES + 1, 0), (u64::MAX, 1), (u64::MAX - 3, 9)] {
            let refused = refusal(&agreement(ALL, true), request(kind, offset, length, NONE));
            assert_eq!(refused, Some(Some(errno)), "{kind:?} {offset} {length}");
        }
    }
}

#[test]
fn more_data_than_the_export_takes_is_refused_and_skipped() {
    let sizes = BlockSizes { payload_max: 1 << 20, ..BlockSizes::default() };
    let small = Export::new("disk", BYTES, ALL, sizes).unwrap();
    for structured in [false, true] {
        let agreement = Agreement { export: small.clone(), ..agreement(ALL, structured) };
        let read = |length| request(CommandKind::Read, 0, length, NONE);
        let write = |length| request(CommandKind::Write, 0, length, NONE);
        let errno = if structured { Errno::Overflow } else { Errno::Invalid };
        assert_eq!(refusal(&agreement, read(1 << 20)), None);
        assert_eq!(refusal(&agreement, read((1 << 20) + 1)), Some(Some(errno)));
        assert_eq!(refusal(&agreement, read(u32::MAX)), Some(Some(errno)));
        assert_eq!(refusal(&agreement, write(1 << 20)), None);
        for length in [(1 << 20) + 1, PAYLOAD_BYTES_MAX, SKIPPED_BYTES_MAX] {
            assert_eq!(refusal(&agreement, write(length)), Some(Some(Errno::Invalid)));
        }
    }
}

#[test]
fn a_stream_out_of_step_and_an_absurd_write_end_it() {
    let long = request(CommandKind::Write, 0, SKIPPED_BYTES_MAX + 1, NONE);
    let (events, out, error) = transmission(agreement(ALL, true), [bytes_of(long).as_slice()]);
    assert_eq!(error, Some(TransmissionError::Long(SKIPPED_BYTES_MAX + 1)));
    assert!(events.is_empty() && out.is_empty());
    let (_, out, error) = transmission(agreement(ALL, true), [&[0x25; 28][..]]);
    assert!(matches!(error, Some(TransmissionError::Magic(_))) && out.is_empty());
}

#[test]
fn blocks_are_kept_to() {
    let sizes = BlockSizes { minimum: 512, ..BlockSizes::default() };
    let sectors = Export::new("disk", BYTES, ALL, sizes).unwrap();
    let agreement = Agreement { export: sectors, ..agreement(ALL, true) };
    for kind in [CommandKind::Read, CommandKind::Write, CommandKind::Trim] {
        assert_eq!(refusal(&agreement, request(kind, 512, 1024, NONE)), None);
        for (offset, length) in [(1, 512), (512, 511), (511, 1)] {
            let refused = refusal(&agreement, request(kind, offset, length, NONE));
            assert_eq!(refused, Some(Some(Errno::Invalid)));
        }
    }
}

#[test]
fn a_read_only_export_is_not_written() {
    let agreement = agreement(ALL.with(TransmissionFlags::READ_ONLY), true);
    for kind in [CommandKind::Write, CommandKind::Trim, CommandKind::WriteZeroes] {
        for length in [0, 512] {
            let refused = refusal(&agreement, request(kind, 0, length, NONE));
            assert_eq!(refused, Some(Some(Errno::NotPermitted)), "{kind:?}");
        }
    }
    assert_eq!(refusal(&agreement, request(CommandKind::Read, 0, 512, NONE)), None);
}

#[test]
fn what_was_not_offered_is_refused() {
    use CommandKind::{BlockStatus, Cache, Read, Trim, Write, WriteZeroes};
    let no = Some(Some(Errno::Invalid));
    let bare = agreement(TransmissionFlags::FLUSH, false);
    for kind in [Trim, Cache, WriteZeroes, BlockStatus] {
        assert_eq!(refusal(&bare, request(kind, 0, 512, NONE)), no, "{kind:?}");
    }
    for flag in [CommandFlags::FUA, CommandFlags::DF, CommandFlags(1 << 5)] {
        assert_eq!(refusal(&bare, request(Read, 0, 512, flag)), no, "{flag:?}");
        assert_eq!(refusal(&bare, request(Write, 0, 512, flag)), no, "{flag:?}");
    }
    let zeroes = agreement(ALL.without(TransmissionFlags::FAST_ZERO), false);
    let fast = request(WriteZeroes, 0, 512, CommandFlags::FAST_ZERO);
    assert_eq!(refusal(&zeroes, fast), no);
    assert_eq!(refusal(&agreement(ALL, false), fast), None);
    let no_hole = request(WriteZeroes, 0, 512, CommandFlags::NO_HOLE);
    assert_eq!(refusal(&zeroes, no_hole), None);
    let without = Agreement { allocation: false, ..agreement(ALL, true) };
    assert_eq!(refusal(&without, request(BlockStatus, 0, 512, NONE)), no);
}

#[test]
fn flags_belong_to_their_commands() {
    use CommandKind::{BlockStatus, Read, WriteZeroes};
    let table = [
        (Read, CommandFlags::DF),
        (BlockStatus, CommandFlags::REQ_ONE),
        (WriteZeroes, CommandFlags::NO_HOLE),
        (WriteZeroes, CommandFlags::FAST_ZERO),
    ];
    for (of, flag) in table {
        for code in [0, 1, 4, 5, 6, 7] {
            let kind = CommandKind::from_code(code).unwrap();
            let refused = refusal(&agreement(ALL, true), request(kind, 0, 512, flag));
            assert_eq!(refused.is_none(), kind == of, "{kind:?} {flag:?}");
        }
    }
}

#[test]
fn an_unknown_command_is_refused() {
    for code in [8, 9, u16::MAX] {
        let sent = Request { code, ..request(CommandKind::Read, 0, 512, NONE) };
        assert_eq!(refusal(&agreement(ALL, true), sent), Some(Some(Errno::Invalid)));
    }
}

#[test]
fn an_empty_range_is_answered_at_once() {
    use CommandKind::{BlockStatus, Cache, Read, Trim, Write, WriteZeroes};
    for structured in [false, true] {
        let agreement = agreement(ALL, structured);
        for kind in [Read, Write, Trim, Cache, WriteZeroes] {
            assert_eq!(refusal(&agreement, request(kind, BYTES, 0, NONE)), Some(None), "{kind:?}");
        }
        let status = refusal(&agreement, request(BlockStatus, 0, 0, NONE));
        assert_eq!(status, Some(Some(Errno::Invalid)));
    }
}

#[test]
fn a_flush_has_no_range() {
    for (offset, length) in [(512, 0), (0, 512)] {
        let sent = request(CommandKind::Flush, offset, length, NONE);
        assert_eq!(refusal(&agreement(ALL, true), sent), Some(Some(Errno::Invalid)));
    }
}

#[test]
fn nothing_is_heard_after_the_client_went() {
    let gone = bytes_of(request(CommandKind::Disconnect, 0, 0, NONE));
    let bytes = [gone, bytes_of(request(CommandKind::Flush, 0, 0, NONE))].concat();
    let (events, out, error) = transmission(agreement(ALL, true), [bytes.as_slice()]);
    assert_eq!((events, out, error), (vec![Owned::Disconnect], Vec::new(), None));
}

#[test]
fn only_what_writes_with_fua_must_be_durable() {
    let fua = CommandFlags::FUA;
    for code in [0, 1, 3, 4, 5, 6, 7] {
        let kind = CommandKind::from_code(code).unwrap();
        assert_eq!(command(kind, 0, 1, fua).is_durable(), [1, 4, 6].contains(&code), "{kind:?}");
        assert!(!command(kind, 0, 1, NONE).is_durable());
    }
}
