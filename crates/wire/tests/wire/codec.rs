//! Decoding: what was encoded comes back however it is cut, and nothing else does any harm.

use proptest::prelude::*;
use tidegate_model::limits::{RECORD_BYTES_MAX, TEXT_BYTES_MAX};
use tidegate_model::{Checksum, DiskNumber, Extent, Lsn, Micros};
use tidegate_wire::limits::CONTROL_BYTES_MAX;
use tidegate_wire::{
    DecodeError, Decoder, HEADER_BYTES, Header, Item, Kind, Message, Record, RecordKind, Refusal,
    Side,
};

use crate::strategies::{from_agent, from_server};

/// An item that owns its bytes; parts of one payload are put together.
#[derive(Debug, Clone, PartialEq)]
enum Owned {
    Message(Message),
    Write(Record, Vec<u8>),
}

/// Feeds `pieces` one after another; what comes out, and the error that ended it.
fn decode<'a>(
    side: Side,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Owned>, Option<DecodeError>) {
    let mut decoder = Decoder::new(side);
    let (mut whole, mut writing) = (Vec::new(), None::<(Record, Vec<u8>)>);
    for mut piece in pieces {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(Item::Message(message))) => whole.push(Owned::Message(message)),
                Ok(Some(Item::Write(record))) => writing = Some((record, Vec::new())),
                Ok(Some(Item::Payload(part))) => {
                    assert!(!part.is_empty(), "an empty part says nothing");
                    writing.as_mut().expect("a write began").1.extend_from_slice(part);
                }
                Ok(Some(Item::WriteEnd)) => {
                    let (record, data) = writing.take().expect("a write began");
                    whole.push(Owned::Write(record, data));
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next(&mut piece), Err(error.clone()), "it stays an error");
                    return (whole, Some(error));
                }
            }
        }
        assert!(piece.is_empty(), "what isn't an item yet is kept");
    }
    (whole, None)
}

fn write(lsn: u64, data: Vec<u8>) -> Owned {
    let disk = DiskNumber::try_from(3).unwrap();
    let extent = Extent { disk, offset: 512, length: data.len() as u64 };
    let kind = RecordKind::Write(extent, Checksum::of(&data));
    Owned::Write(Record { lsn: Lsn(lsn), time: Micros(5), kind }, data)
}

fn encode(items: &[Owned]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in items {
        match item {
            Owned::Message(message) => message.encode(&mut bytes),
            Owned::Write(record, data) => {
                let RecordKind::Write(extent, checksum) = record.kind else { unreachable!() };
                let header = Record::write_header(record.lsn, record.time, extent, checksum);
                bytes.extend_from_slice(&header.encode());
                bytes.extend_from_slice(data);
            }
        }
    }
    bytes
}

fn agent_items() -> impl Strategy<Value = Vec<Owned>> {
    let data = prop::collection::vec(any::<u8>(), 1..300);
    let write = (1_u64.., data).prop_map(|(lsn, data)| write(lsn, data));
    let item = prop_oneof![from_agent().prop_map(Owned::Message), write];
    prop::collection::vec(item, 1..8)
}

proptest! {
    #[test]
    fn what_an_agent_says_comes_back_wherever_the_stream_is_cut_in_two(items in agent_items()) {
        let bytes = encode(&items);
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            let (decoded, error) = decode(Side::Server, [left, right]);
            prop_assert_eq!(error, None);
            prop_assert_eq!(&decoded, &items);
        }
        prop_assert_eq!(decode(Side::Server, bytes.chunks(1)).0, items);
    }

    #[test]
    fn what_a_server_says_comes_back_in_pieces_of_any_size(
        messages in prop::collection::vec(from_server(), 1..8),
        piece in 1_usize..200,
    ) {
        let items: Vec<Owned> = messages.into_iter().map(Owned::Message).collect();
        let (decoded, error) = decode(Side::Agent, encode(&items).chunks(piece));
        prop_assert_eq!(error, None);
        prop_assert_eq!(decoded, items);
    }

    #[test]
    fn garbage_is_an_error_at_the_first_header(
        bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES..2000),
        piece in 1_usize..500,
    ) {
        for side in [Side::Agent, Side::Server] {
            let expected = (Vec::new(), Some(DecodeError::HeaderCheck));
            prop_assert_eq!(decode(side, bytes.chunks(piece)), expected);
        }
    }

    /// A peer that computes its checks rightly over whatever it likes: every field is hostile.
    #[test]
    fn headers_with_any_content_and_a_right_check_never_panic(
        kind in prop::sample::select(vec![1_u8, 2, 3, 4, 5, 6, 7, 8, 65, 66, 67, 68, 69, 70, 71]),
        small in any::<[bool; 3]>(),
        fields in any::<[u8; 47]>(),
        payload in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = kind;
        bytes[1..48].copy_from_slice(&fields);
        // Mostly zeros and a payload that fits, so that the later checks are reached too.
        let [plain_flags, plain_place, right_payload] = small;
        if plain_flags {
            bytes[1..4].fill(0);
        }
        if plain_place {
            bytes[16..40].fill(0);
        }
        if right_payload {
            bytes[4..8].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
            bytes[40..48].copy_from_slice(&Checksum::of(&payload).0.to_le_bytes());
        }
        let check = Checksum::of(&bytes[..48]);
        bytes[48..].copy_from_slice(&check.0.to_le_bytes());
        for side in [Side::Agent, Side::Server] {
            decode(side, [&bytes[..], &payload]);
        }
    }

    #[test]
    fn a_changed_byte_changes_no_message(
        items in agent_items(), at in any::<prop::sample::Index>(), change in 1_u8..,
    ) {
        let mut bytes = encode(&items);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        let (decoded, _) = decode(Side::Server, [bytes.as_slice()]);
        for (decoded, item) in decoded.iter().zip(&items) {
            match (decoded, item) {
                // The payload of a write is compared by whoever has all of it.
                (Owned::Write(record, data), Owned::Write(sent, sent_data)) => {
                    prop_assert_eq!(record, sent);
                    let RecordKind::Write(_, checksum) = &record.kind else { unreachable!() };
                    prop_assert_eq!(Checksum::of(data) == *checksum, data == sent_data);
                }
                _ => prop_assert_eq!(decoded, item),
            }
        }
    }
}

#[test]
fn a_payload_that_does_not_fit_its_checksum_is_refused() {
    for (side, message) in [
        (Side::Server, Message::Bye),
        (Side::Agent, Message::Credit(512)),
        (Side::Agent, Message::Refuse(Refusal::shutting_down())),
    ] {
        let mut bytes = encode(&[Owned::Message(message)]);
        // The header's own check is right: only the payload's checksum is another.
        bytes[40] ^= 1;
        let check = Checksum::of(&bytes[..48]).0.to_le_bytes();
        bytes[48..HEADER_BYTES].copy_from_slice(&check);
        assert_eq!(decode(side, [&bytes[..]]), (Vec::new(), Some(DecodeError::Checksum)));
    }
}

#[test]
fn a_payload_that_is_too_long_is_refused_by_its_header_alone() {
    let limits = [
        (Kind::Hello, CONTROL_BYTES_MAX),
        (Kind::Disk, TEXT_BYTES_MAX),
        (Kind::Write, RECORD_BYTES_MAX as usize),
        (Kind::Zero, 0),
        (Kind::Bookmark, 1 + TEXT_BYTES_MAX),
        (Kind::Time, 0),
        (Kind::Bye, 0),
        (Kind::Welcome, 70),
        (Kind::Ack, 40),
        (Kind::Credit, 0),
        (Kind::Slow, 9),
        (Kind::Refuse, 2055),
    ];
    for (kind, most) in limits {
        assert_eq!(kind.payload_bytes_max(), most);
        let side = if kind.is_from_agent() { Side::Server } else { Side::Agent };
        for payload_bytes in [u32::try_from(most).unwrap() + 1, u32::MAX] {
            let header = Header { payload_bytes, ..Header::of(kind) };
            let (items, error) = decode(side, [&header.encode()[..]]);
            assert!(items.is_empty());
            assert_eq!(error, Some(DecodeError::Long { bytes: payload_bytes, most }));
        }
    }
}

#[test]
fn a_write_longer_than_this_sessions_records_is_refused_by_its_header_alone() {
    let Owned::Write(record, data) = write(1, vec![1; 4097]) else { unreachable!() };
    let bytes = encode(&[Owned::Write(record, data)]);
    let mut decoder = Decoder::new(Side::Server);
    decoder.set_record_bytes_max(4096);
    let error = DecodeError::Long { bytes: 4097, most: 4096 };
    assert_eq!(decoder.next(&mut &bytes[..HEADER_BYTES]), Err(error));
}

#[test]
fn an_end_refuses_what_only_it_may_say() {
    for code in 0..=u8::MAX {
        let Some(kind) = Kind::from_code(code) else { continue };
        let side = if kind.is_from_agent() { Side::Agent } else { Side::Server };
        let (_, error) = decode(side, [&Header::of(kind).encode()[..]]);
        assert_eq!(error, Some(DecodeError::Side(kind)));
    }
}

#[test]
fn a_write_without_data_or_of_another_length_than_its_data_is_refused() {
    let empty = Header { lsn: Lsn(1), ..Header::of(Kind::Write) };
    let (_, error) = decode(Side::Server, [&empty.encode()[..]]);
    assert!(matches!(error, Some(DecodeError::Payload(_))), "{error:?}");
    let longer = Header { payload_bytes: 512, length: 513, ..empty };
    let (_, error) = decode(Side::Server, [&longer.encode()[..]]);
    assert_eq!(error, Some(DecodeError::WriteLength { length: 513, payload: 512 }));
}

#[test]
fn places_that_no_disk_has_are_refused() {
    let zero = Header { lsn: Lsn(1), length: 512, ..Header::of(Kind::Zero) };
    let zero = Header { checksum: Checksum::of(&[]), ..zero };
    assert_eq!(decode(Side::Server, [&zero.encode()[..]]).1, None);
    for wrong in [
        Header { disk: 64, ..zero },
        Header { length: 0, ..zero },
        Header { length: (1 << 56) + 1, ..zero },
        Header { offset: 1 << 56, ..zero },
        Header { offset: u64::MAX - 100, ..zero },
    ] {
        let (_, error) = decode(Side::Server, [&wrong.encode()[..]]);
        assert!(matches!(error, Some(DecodeError::Payload(_))), "{error:?}");
    }
}

#[test]
fn a_hello_of_another_version_is_understood_as_far_as_its_version() {
    for payload in [&[2, 0][..], &[2, 0, 1, 2, 3], &[9; 4096]] {
        let header = Header {
            payload_bytes: u32::try_from(payload.len()).unwrap(),
            checksum: Checksum::of(payload),
            ..Header::of(Kind::Hello)
        };
        let (_, error) = decode(Side::Server, [&header.encode()[..], payload]);
        let version = u16::from_le_bytes([payload[0], payload[1]]);
        assert_eq!(error, Some(DecodeError::Version(version)));
    }
}
