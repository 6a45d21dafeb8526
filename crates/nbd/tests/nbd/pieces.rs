//! Whatever pieces the bytes arrive in, the same is heard and answered; and garbage does no harm.

use proptest::prelude::*;
use tidegate_nbd::{CommandFlags, CommandKind, Cookie, OptionCode, QueryRequest, Request};

use crate::world::{ALL, BYTES, Owned, agreement, bytes_of, handshake, hex, option, transmission};

fn options() -> impl Strategy<Value = Vec<u8>> {
    let data = prop_oneof![
        Just(hex("00000004 6469736b 0001 0003")),
        Just(hex("00000004 6469736b 00000001 0000000f 626173653a616c6c6f636174696f6e")),
        prop::collection::vec(any::<u8>(), 0..60),
        Just(Vec::new()),
    ];
    // Not what ends a handshake: the stream behind it wouldn't be options.
    let code = prop_oneof![3_u32..7, 8_u32..14, any::<u32>().prop_filter("ends", |code| *code > 7)];
    let option = (code, data).prop_map(|(code, data)| option(code, &data));
    prop::collection::vec(option, 0..6).prop_map(|options| options.concat())
}

/// Requests, sensible ones and others, each with the payload that it announces.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let offset = prop_oneof![0..BYTES, BYTES - 300..BYTES + 10, any::<u64>()];
    let flags = prop_oneof![Just(0_u16), Just(1), 0_u16..32, any::<u16>()];
    // Disconnect ends the stream; what follows isn't heard.
    let code = prop_oneof![0_u16..2, 3_u16..9];
    let request = (flags, code, any::<u64>(), offset, 0_u32..300);
    let request = request.prop_map(|(flags, code, cookie, offset, length)| {
        let cookie = Cookie(cookie);
        let request = Request { flags: CommandFlags(flags), code, cookie, offset, length };
        let is_write = code == CommandKind::Write as u16;
        let payload = vec![7; if is_write { length as usize } else { 0 }];
        [bytes_of(request), payload].concat()
    });
    prop::collection::vec(request, 1..8).prop_map(|requests| requests.concat())
}

proptest! {
    #[test]
    fn a_handshake_hears_the_same_in_any_pieces(options in options(), piece in 1_usize..80) {
        let end = option(OptionCode::ExportName as u32, b"disk");
        let bytes = [hex("00000002"), options, end].concat();
        let whole = handshake([bytes.as_slice()]);
        prop_assert_eq!(&whole.2, &None);
        prop_assert_eq!(&handshake(bytes.chunks(piece)), &whole);
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            prop_assert_eq!(&handshake([left, right]), &whole);
        }
    }

    #[test]
    fn a_transmission_hears_the_same_in_any_pieces(
        bytes in requests(),
        structured: bool,
        piece in 1_usize..80,
    ) {
        let agreement = agreement(ALL, structured);
        let whole = transmission(agreement.clone(), [bytes.as_slice()]);
        prop_assert_eq!(&whole.2, &None);
        prop_assert_eq!(&transmission(agreement.clone(), bytes.chunks(piece)), &whole);
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            prop_assert_eq!(&transmission(agreement.clone(), [left, right]), &whole);
        }
    }

    /// Whatever a request says, a command lies within its export and is allowed there.
    #[test]
    fn a_command_lies_within_its_export(bytes in requests(), structured: bool) {
        let (events, ..) = transmission(agreement(ALL, structured), [bytes.as_slice()]);
        for event in events {
            let (command, data) = match event {
                Owned::Command(command) => (command, None),
                Owned::Write(command, data) => (command, Some(data.len())),
                Owned::Answered => continue,
                Owned::Disconnect => panic!("nobody went"),
            };
            prop_assert!(command.end() <= BYTES && command.offset <= BYTES);
            prop_assert!(command.length > 0 || command.kind == CommandKind::Flush);
            prop_assert_eq!(data.unwrap_or(command.length as usize), command.length as usize);
        }
    }

    #[test]
    fn garbage_does_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 28..2000),
        piece in 1_usize..500,
    ) {
        let (events, out, error) = transmission(agreement(ALL, true), bytes.chunks(piece));
        prop_assert!(events.is_empty() && out.is_empty() && error.is_some());
        let (heard, out, error) = handshake(bytes.chunks(piece));
        prop_assert!(heard.is_empty() && out.is_empty() && error.is_some());
        let behind_flags = [hex("00000003"), bytes].concat();
        prop_assert!(handshake(behind_flags.chunks(piece)).2.is_some());
    }

    #[test]
    fn no_data_of_an_option_panic(
        code in 3_u32..11,
        data in prop::collection::vec(prop_oneof![Just(0_u8), 0_u8..5, any::<u8>()], 0..80),
    ) {
        let (_, out, error) = crate::world::options(&[option(code, &data)]);
        prop_assert!(error.is_none() && !out.is_empty());
        let _ = QueryRequest::decode(&data).map(|request| request.queries.count());
    }
}
