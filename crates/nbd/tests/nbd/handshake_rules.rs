//! What a client may say in which order, and what becomes of the rest.

use tidegate_nbd::limits::{OPTION_BYTES_MAX, OPTION_SKIPPED_BYTES_MAX, OPTIONS_MAX};
use tidegate_nbd::{
    Agreement, ExportRequest, Handshake, HandshakeError, Heard, OptionCode, OptionReplyCode,
    QueryRequest, TransmissionFlags,
};

use crate::world::{export, exports, handshake, hex, option, option_replies, options, plain};

fn go(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    ExportRequest::encode(OptionCode::Go, name, &[3], &mut bytes);
    bytes
}

fn contexts(option: OptionCode, name: &str, queries: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    QueryRequest::encode(option, name, queries, &mut bytes);
    bytes
}

fn set(name: &str, queries: &[&str]) -> Vec<u8> {
    contexts(OptionCode::SetMetaContext, name, queries)
}

/// The agreement to which these options come.
#[track_caller]
fn agreed(sent: &[Vec<u8>]) -> Agreement {
    match options(sent).0.pop() {
        Some(Heard::Agreed(agreement)) => agreement,
        other => panic!("no agreement: {other:?}"),
    }
}

/// The final answer to the last of these options.
#[track_caller]
fn last(sent: &[Vec<u8>]) -> OptionReplyCode {
    let (_, out, error) = options(sent);
    assert_eq!(error, None);
    option_replies(&out).last().unwrap().1
}

#[test]
fn an_agreement_says_what_was_chosen() {
    let agreement = agreed(&[go("other")]);
    assert_eq!((agreement.index, agreement.structured, agreement.allocation), (1, false, false));
    let structured = plain(OptionCode::StructuredReply);
    let agreement = agreed(&[structured.clone(), set("disk", &["base:allocation"]), go("disk")]);
    assert_eq!((agreement.index, agreement.structured, agreement.allocation), (0, true, true));
    let agreement = agreed(&[structured, option(OptionCode::ExportName as u32, b"disk")]);
    assert_eq!((agreement.index, agreement.structured, agreement.allocation), (0, true, false));
}

#[test]
fn contexts_hold_for_their_export_and_until_they_are_set_anew() {
    let structured = plain(OptionCode::StructuredReply);
    let chosen = set("disk", &["base:allocation"]);
    for (then, holds) in [
        (set("disk", &["qemu:x", "base:allocation"]), true),
        (set("other", &["base:allocation"]), false),
        (set("disk", &[]), false),
        (set("disk", &["base:"]), false),
        (set("nothing", &["base:allocation"]), false),
        (option(OptionCode::SetMetaContext as u32, b"?"), false),
        (option(OptionCode::SetMetaContext as u32, &[0; OPTION_BYTES_MAX + 1]), false),
    ] {
        let agreement = agreed(&[structured.clone(), chosen.clone(), then, go("disk")]);
        assert_eq!(agreement.allocation, holds);
    }
    assert_eq!(last(std::slice::from_ref(&chosen)), OptionReplyCode::Invalid, "not structured");
    assert!(!agreed(&[chosen, structured, go("disk")]).allocation);
}

#[test]
fn contexts_are_listed_as_they_are_asked_for() {
    for (queries, listed) in [
        (&[][..], true),
        (&["base:"], true),
        (&["qemu:", "base:allocation"], true),
        (&["qemu:dirty-bitmap:"], false),
        (&["base:other"], false),
    ] {
        let (_, out, _) = options(&[contexts(OptionCode::ListMetaContext, "disk", queries)]);
        let replies = option_replies(&out);
        assert_eq!(replies.len(), 1 + usize::from(listed), "{queries:?}");
        assert_eq!(replies.last().unwrap().1, OptionReplyCode::Ack);
    }
}

#[test]
fn what_is_not_known_or_makes_no_sense_is_refused_and_the_handshake_goes_on() {
    use OptionReplyCode::{Invalid, Policy, TooBig, Unknown, Unsupported};
    let info = |data: &[u8]| option(OptionCode::Info as u32, data);
    for (wrong, answer) in [
        (option(4, b"peek"), Unsupported),
        (option(11, b""), Unsupported),
        (option(u32::MAX, &[7; 100_000]), Unsupported),
        (plain(OptionCode::StartTls), Policy),
        (option(OptionCode::StartTls as u32, b"x"), Invalid),
        (option(OptionCode::List as u32, b"x"), Invalid),
        (option(OptionCode::StructuredReply as u32, b"x"), Invalid),
        (info(b""), Invalid),
        (info(&hex("00000004 6469736b 0001")), Invalid),
        (info(&hex("00000004 6469736b 0000 00")), Invalid),
        (info(&hex("ffffffff 6469736b 0000")), Invalid),
        (info(&hex("00000002 ffff 0000")), Invalid),
        (info(&[0; OPTION_BYTES_MAX + 1]), TooBig),
        (go("nothing"), Unknown),
        (go(""), Unknown),
        (contexts(OptionCode::ListMetaContext, "nothing", &[]), Unknown),
        (option(OptionCode::ListMetaContext as u32, &hex("00000000 ffffffff 00000000")), Invalid),
    ] {
        let shown = format!("{:02x?}", &wrong[8..wrong.len().min(40)]);
        let (heard, out, error) = options(&[wrong, go("disk")]);
        assert_eq!(error, None, "{shown}");
        assert_eq!(heard[0], Heard::Option, "{shown}");
        assert!(matches!(heard[1], Heard::Agreed(_)), "{shown}");
        let replies = option_replies(&out);
        assert_eq!(replies[0].1, answer, "{shown}");
        assert!(!replies[0].2.is_empty(), "a refusal says why");
    }
}

#[test]
fn informations_do_not_end_the_handshake() {
    let mut info = Vec::new();
    ExportRequest::encode(OptionCode::Info, "disk", &[], &mut info);
    let (heard, ..) = options(&[info.clone(), info, plain(OptionCode::List)]);
    assert_eq!(heard, [Heard::Option, Heard::Option, Heard::Option]);
}

#[test]
fn an_abort_is_answered_and_nothing_is_heard_after_it() {
    let (heard, out, error) = options(&[option(OptionCode::Abort as u32, b"bye"), go("disk")]);
    assert_eq!((heard, error), (vec![Heard::Aborted], None));
    assert_eq!(option_replies(&out).len(), 1);
}

#[test]
fn what_can_not_be_refused_ends_the_connection() {
    let flags = handshake([hex("00000004").as_slice()]);
    assert_eq!(flags.2, Some(HandshakeError::ClientFlags(4)));
    let garbage = options(&[vec![0xff; 16]]);
    assert!(matches!(garbage.2, Some(HandshakeError::Option(_))), "{garbage:?}");
    let name = options(&[option(OptionCode::ExportName as u32, b"a\x1b\xff")]);
    let shown = name.2.unwrap().to_string();
    assert!(shown.contains("a\\u{1b}"), "{shown}");
    let long = option(OptionCode::ExportName as u32, &[b'a'; OPTION_BYTES_MAX + 1]);
    assert!(matches!(options(&[long]).2, Some(HandshakeError::UnknownExport(_))));
    let bytes = OPTION_SKIPPED_BYTES_MAX + 1;
    let long = [hex("49484156454f5054 00000063"), bytes.to_be_bytes().to_vec()].concat();
    assert_eq!(options(&[long]).2, Some(HandshakeError::Long { option: 99, bytes }));
    let many = plain(OptionCode::List).repeat(OPTIONS_MAX as usize);
    assert_eq!(options(std::slice::from_ref(&many)).2, None);
    assert_eq!(options(&[many, plain(OptionCode::List)]).2, Some(HandshakeError::Options));
}

#[test]
fn what_follows_an_agreement_is_left_to_the_transmission() {
    for choice in [go("disk"), option(OptionCode::ExportName as u32, b"disk")] {
        let mut handshake = Handshake::new(exports());
        let bytes = [hex("00000003"), choice, b"requests".to_vec()].concat();
        let (mut input, mut out) = (bytes.as_slice(), Vec::new());
        assert!(matches!(handshake.next(&mut input, &mut out), Ok(Some(Heard::Agreed(_)))));
        assert_eq!(handshake.next(&mut input, &mut out), Ok(None));
        assert_eq!(input, b"requests");
    }
}

#[test]
fn an_empty_name_means_the_only_export() {
    let only = export("disk", TransmissionFlags::NONE);
    let mut handshake = Handshake::new([only].into());
    let bytes = [hex("00000003"), go("")].concat();
    let heard = handshake.next(&mut bytes.as_slice(), &mut Vec::new());
    assert!(matches!(heard, Ok(Some(Heard::Agreed(_)))), "{heard:?}");
}
