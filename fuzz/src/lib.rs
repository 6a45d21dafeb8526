//! What every decoder must bear: any bytes at all. One function for each, called by the fuzzer
//! (`targets/`, `fuzz/run`) and, with the golden files and what is near them, by the gate.
//!
//! Each decodes to the end, uses what came out of it as the program would, and gives the number of things
//! that it understood, so that a test sees that the good ones are. A panic, an overflow, a loop without an
//! end, and memory beyond the fuzzer's limit are finds. Where a checksum would hide what is behind it, it
//! is made right first: nobody who means harm gets it wrong.

mod files;
mod journal;
mod mend;
pub mod seeds;

use std::sync::Arc;

use tidegate_hrl::scan::{Found, Scan};
use tidegate_nbd::{
    BlockSizes, ChunkBody, Export, Handshake, Heard, Info, OptionReply, ReplyHeader, Transmission,
    TransmissionFlags,
};
use tidegate_vault::fuzzing;
use tidegate_wire::{Decoder, Item, Side};

pub use journal::journal;

/// What is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// [`hrl`].
    Hrl,
    /// [`journal`].
    Journal,
    /// [`layer`].
    Layer,
    /// [`manifest`].
    Manifest,
    /// [`nbd`].
    Nbd,
    /// [`nbd_replies`].
    NbdReplies,
    /// [`pack`].
    Pack,
    /// [`wire`].
    Wire,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Hrl,
        Self::Journal,
        Self::Layer,
        Self::Manifest,
        Self::Nbd,
        Self::NbdReplies,
        Self::Pack,
        Self::Wire,
    ];

    /// Its name, as that of the program that feeds it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hrl => "hrl",
            Self::Journal => "journal",
            Self::Layer => "layer",
            Self::Manifest => "manifest",
            Self::Nbd => "nbd",
            Self::NbdReplies => "nbd_replies",
            Self::Pack => "pack",
            Self::Wire => "wire",
        }
    }

    /// Feeds it, and gives how many things it understood.
    pub fn feed(self, bytes: &[u8]) -> usize {
        match self {
            Self::Hrl => hrl(bytes),
            Self::Journal => journal(bytes),
            Self::Layer => layer(bytes),
            Self::Manifest => manifest(bytes),
            Self::Nbd => nbd(bytes),
            Self::NbdReplies => nbd_replies(bytes),
            Self::Pack => pack(bytes),
            Self::Wire => wire(bytes),
        }
    }
}

/// A change log (.hrl) of any writer, as `tidegate hrl show` reads it: its entries.
pub fn hrl(bytes: &[u8]) -> usize {
    let file = files::File::of(bytes.to_vec());
    let Ok(mut scan) = Scan::open(file) else { return 0 };
    let mut entries = 0;
    while let Ok(Some(found)) = scan.next() {
        entries += usize::from(matches!(found, Found::Entry(_)));
    }
    entries
}

/// What an NBD client says, in pieces as long as the first byte says: what is heard of it, to its end.
pub fn nbd(bytes: &[u8]) -> usize {
    let Some((cut, rest)) = bytes.split_first() else { return 0 };
    let mut stage = Stage::Handshake(Handshake::new(exports()));
    let (mut out, mut heard) = (Vec::new(), 0);
    for mut piece in rest.chunks(usize::from(*cut) + 1) {
        while stage.hear(&mut piece, &mut out) {
            heard += 1;
        }
        if !piece.is_empty() {
            break;
        }
        out.clear();
    }
    heard
}

enum Stage {
    Handshake(Handshake),
    Transmission(Transmission),
}

impl Stage {
    /// Whether something further was heard; without it either all of `input` was taken, or the
    /// connection must be closed.
    fn hear(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Self::Handshake(handshake) => match handshake.next(input, out) {
                Ok(Some(Heard::Agreed(agreement))) => {
                    *self = Self::Transmission(Transmission::new(agreement));
                    true
                }
                heard => matches!(heard, Ok(Some(_))),
            },
            Self::Transmission(transmission) => {
                matches!(transmission.next(input, out), Ok(Some(_)))
            }
        }
    }
}

fn exports() -> Arc<[Export]> {
    let flags = TransmissionFlags::FLUSH
        .with(TransmissionFlags::FUA)
        .with(TransmissionFlags::TRIM)
        .with(TransmissionFlags::WRITE_ZEROES);
    let export = |name, flags| Export::new(name, 64 << 20, flags, BlockSizes::default()).ok();
    let disks = [export("disk-0", flags), export("disk-1", TransmissionFlags::READ_ONLY)];
    disks.into_iter().flatten().collect()
}

/// What an NBD server answers, to options and to requests: the replies and their parts.
pub fn nbd_replies(bytes: &[u8]) -> usize {
    let Some((stage, mut rest)) = bytes.split_first() else { return 0 };
    let mut read = 0;
    while !rest.is_empty() {
        let payload = if stage & 1 == 0 { option_reply(&mut rest) } else { reply(&mut rest) };
        let Some(payload) = payload else { break };
        rest = &rest[payload.min(rest.len())..];
        read += 1;
    }
    read
}

/// Takes the header of an option's reply, looks at its payload, and gives how long that is.
fn option_reply(rest: &mut &[u8]) -> Option<usize> {
    let reply = OptionReply::decode(rest.get(..OptionReply::BYTES)?).ok()?;
    *rest = &rest[OptionReply::BYTES..];
    let payload = rest.get(..reply.length as usize)?;
    let _ = OptionReply::decode_meta_context(payload);
    let _ = OptionReply::decode_server(payload);
    let _ = Info::decode(payload);
    Some(payload.len())
}

/// The same of a request's.
fn reply(rest: &mut &[u8]) -> Option<usize> {
    match ReplyHeader::decode(rest).ok()?? {
        ReplyHeader::Simple { .. } => Some(0),
        ReplyHeader::Chunk(chunk) => {
            let payload = rest.get(..chunk.length as usize)?;
            let body = ChunkBody::decode(chunk.code, payload).ok()?;
            body.spans().for_each(drop);
            Some(payload.len())
        }
    }
}

/// What one end of a session hears: frames, their checks made right. The items that are understood.
pub fn wire(bytes: &[u8]) -> usize {
    let Some((side, rest)) = bytes.split_first() else { return 0 };
    let side = if side & 1 == 0 { Side::Server } else { Side::Agent };
    let stream = mend::frames(rest);
    let (mut decoder, mut items) = (Decoder::new(side), 0);
    let mut left = stream.as_slice();
    while let Ok(Some(item)) = decoder.next(&mut left) {
        items += usize::from(!matches!(item, Item::Payload(_)));
    }
    items
}

/// The content of a manifest, and what it says of a history: the epochs.
pub fn manifest(bytes: &[u8]) -> usize {
    fuzzing::manifest(bytes)
}

/// The body of a layer, compressed or not: its extents.
pub fn layer(bytes: &[u8]) -> usize {
    fuzzing::layer(bytes)
}

/// A pack's header and, behind it, its index as it is when opened: the records.
pub fn pack(bytes: &[u8]) -> usize {
    fuzzing::pack(bytes)
}
