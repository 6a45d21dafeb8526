//! What one end says, the other understands; and what nobody says is refused.

use proptest::prelude::*;
use tidegate_nbd::{
    BlockSizes, ChunkBody, ChunkCode, ChunkHeader, CommandFlags, Cookie, Errno, ExportRequest,
    Info, OptionCode, OptionHeader, OptionReply, OptionReplyCode, QueryRequest, REQUEST_BYTES,
    ReplyHeader, ReplyInvalid, Request, TransmissionFlags,
};

fn request() -> impl Strategy<Value = Request> {
    let fields = (any::<u16>(), any::<u16>(), any::<u64>(), any::<u64>(), any::<u32>());
    fields.prop_map(|(flags, code, cookie, offset, length)| Request {
        flags: CommandFlags(flags),
        code,
        cookie: Cookie(cookie),
        offset,
        length,
    })
}

fn reply_header() -> impl Strategy<Value = ReplyHeader> {
    let error = (0_u32..200).prop_map(Errno::from_code);
    let simple = (any::<u64>(), error)
        .prop_map(|(cookie, error)| ReplyHeader::Simple { cookie: Cookie(cookie), error });
    let lengths = prop::sample::select(vec![
        (ChunkCode::Data, 9),
        (ChunkCode::Data, 8 + (32 << 20)),
        (ChunkCode::Hole, 12),
        (ChunkCode::BlockStatus, 12),
        (ChunkCode::BlockStatus, 4 + (8 << 20)),
        (ChunkCode::Error, 6),
        (ChunkCode::ErrorOffset, 14),
    ]);
    let chunk = (any::<u64>(), lengths, any::<bool>()).prop_map(|(cookie, of, is_last)| {
        let (code, length) = of;
        ReplyHeader::Chunk(ChunkHeader { cookie: Cookie(cookie), code, is_last, length })
    });
    prop_oneof![simple, chunk]
}

fn info() -> impl Strategy<Value = (u64, u16, [u32; 3], String)> {
    (any::<u64>(), any::<u16>(), any::<[u32; 3]>(), ".{0,30}")
}

proptest! {
    #[test]
    fn a_request_reads_back(request in request()) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let bytes: [u8; REQUEST_BYTES] = bytes.try_into().unwrap();
        prop_assert_eq!(Request::decode(&bytes), Ok(request));
    }

    #[test]
    fn a_reply_header_reads_back_once_it_is_whole(header in reply_header()) {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        for count in 0..bytes.len() {
            let mut input = &bytes[..count];
            prop_assert_eq!(ReplyHeader::decode(&mut input), Ok(None));
            prop_assert_eq!(input.len(), count, "nothing is taken");
        }
        bytes.push(0xaa);
        let mut input = bytes.as_slice();
        prop_assert_eq!(ReplyHeader::decode(&mut input), Ok(Some(header)));
        prop_assert_eq!(input, &[0xaa]);
    }

    #[test]
    fn options_read_back(
        name in ".{0,40}",
        infos in prop::collection::vec(0_u16..6, 0..5),
        queries in prop::collection::vec(".{0,20}", 0..5),
    ) {
        let mut bytes = Vec::new();
        ExportRequest::encode(OptionCode::Info, &name, &infos, &mut bytes);
        let (header, data) = bytes.split_at(OptionHeader::BYTES);
        prop_assert_eq!(OptionHeader::decode(header).unwrap().length as usize, data.len());
        let request = ExportRequest::decode(data).unwrap();
        prop_assert_eq!(request.name, &name);
        for code in 0..6 {
            prop_assert_eq!(request.asks_for(code), infos.contains(&code));
        }

        let mut bytes = Vec::new();
        let texts: Vec<&str> = queries.iter().map(String::as_str).collect();
        QueryRequest::encode(OptionCode::SetMetaContext, &name, &texts, &mut bytes);
        let (header, data) = bytes.split_at(OptionHeader::BYTES);
        prop_assert_eq!(OptionHeader::decode(header).unwrap().length as usize, data.len());
        let request = QueryRequest::decode(data).unwrap();
        prop_assert_eq!(request.name, &name);
        prop_assert_eq!(request.queries.collect::<Vec<_>>(), texts);
        for count in 0..data.len() {
            prop_assert!(QueryRequest::decode(&data[..count]).is_err(), "cut short");
        }
    }

    #[test]
    fn informations_read_back((bytes, flags, sizes, text) in info()) {
        let [minimum, preferred, payload_max] = sizes;
        for info in [
            Info::Export(bytes, TransmissionFlags(flags)),
            Info::Name(&text),
            Info::Description(&text),
            Info::BlockSize(BlockSizes { minimum, preferred, payload_max }),
        ] {
            let mut out = Vec::new();
            info.encode(7, &mut out);
            let (header, payload) = out.split_at(OptionReply::BYTES);
            let reply = OptionReply::decode(header).unwrap();
            prop_assert_eq!((reply.option, reply.code), (7, OptionReplyCode::Info));
            prop_assert_eq!(reply.length as usize, payload.len());
            prop_assert_eq!(Info::decode(payload), Ok(info));
        }
    }

    /// A server that says whatever it likes under right magics does a client no harm.
    #[test]
    fn no_reply_panics(
        code in any::<u16>(),
        reply in any::<u32>(),
        length in prop_oneof![0_u32..40, any::<u32>()],
        payload in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = vec![0x66, 0x8e, 0x33, 0xef, 0, 1];
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&length.to_be_bytes());
        let _ = ReplyHeader::decode(&mut bytes.as_slice());
        for code in [0, 1, 2, 5, 0x8001, 0x8002, 0x8003] {
            let body = ChunkBody::decode(ChunkCode::from_code(code).unwrap(), &payload);
            let _ = body.map(|body| body.spans().count());
        }
        let mut bytes = vec![0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 7];
        bytes.extend_from_slice(&reply.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        let _ = OptionReply::decode(&bytes);
        let _ = Info::decode(&payload);
        let _ = OptionReply::decode_meta_context(&payload);
        let _ = OptionReply::decode_server(&payload);
    }
}

/// The header of a chunk with this code and length.
fn chunk(code: ChunkCode, length: u32) -> Result<Option<ReplyHeader>, ReplyInvalid> {
    let mut bytes = Vec::new();
    ChunkHeader { cookie: Cookie(1), code, is_last: true, length }.encode(&mut bytes);
    ReplyHeader::decode(&mut bytes.as_slice())
}

#[test]
fn a_chunk_of_a_length_that_none_of_its_kind_has_is_not_believed() {
    for (code, lengths) in [
        (ChunkCode::None, &[1][..]),
        (ChunkCode::Data, &[0, 8, 9 + (32 << 20), u32::MAX]),
        (ChunkCode::Hole, &[11, 13]),
        (ChunkCode::BlockStatus, &[4, 13, 12 + (8 << 20), u32::MAX]),
        (ChunkCode::Error, &[5, u32::MAX]),
        (ChunkCode::ErrorOffset, &[13, u32::MAX]),
    ] {
        for &length in lengths {
            assert_eq!(chunk(code, length), Err(ReplyInvalid::Length(code, length)));
        }
    }
}

#[test]
fn a_reply_to_an_option_has_a_limit() {
    let most = u32::try_from(OptionReply::PAYLOAD_BYTES_MAX).unwrap();
    for (length, fits) in [(most, true), (most + 1, false), (u32::MAX, false)] {
        let mut bytes = Vec::new();
        OptionReply { option: 3, code: OptionReplyCode::Server, length }.encode(&mut bytes);
        assert_eq!(OptionReply::decode(&bytes).is_ok(), fits, "{length}");
    }
}

#[test]
fn every_number_of_an_error_is_an_error() {
    for code in [0, 5, 6, 0x7fff_ffff] {
        assert_eq!(OptionReplyCode::from_code(code), None);
    }
    for code in 0x8000_0000..0x8000_0020_u32 {
        assert!(OptionReplyCode::from_code(code).unwrap().is_error());
    }
    for errno in [1, 5, 12, 22, 28, 75, 95, 108] {
        assert_eq!(Errno::from_code(errno).unwrap().code(), errno);
    }
    assert_eq!((Errno::from_code(0), Errno::from_code(7)), (None, Some(Errno::Invalid)));
}
