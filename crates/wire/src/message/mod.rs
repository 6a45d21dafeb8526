//! What frames say, decoded: one file for each payload.
//! docs/formats/wire.md, "Payloads".

mod ack;
mod hashes;
mod hello;
mod record;
mod slow;
mod welcome;

use tidegate_model::{Checksum, Reader};

use crate::{DecodeError, HEADER_BYTES, Header, Kind, Refusal};

pub use ack::{Ack, Totals};
pub(crate) use hashes::HAVE_BYTES;
pub use hashes::{BlockHash, Hashes, Have};
pub use hello::{Begins, Hello};
pub(crate) use record::CLEAN;
pub use record::{Record, RecordKind};
pub use slow::{Slow, SlowReason};
pub use welcome::Welcome;

/// A frame's meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The agent's first.
    Hello(Hello),
    /// A record other than a write.
    Record(Record),
    /// Whether the vault holds these blocks.
    Hashes(Hashes),
    /// Nothing follows.
    Bye,
    /// The server's first.
    Welcome(Welcome),
    /// Which of them it holds.
    Have(Have),
    /// How far the server is.
    Ack(Ack),
    /// The right to send so many payload bytes more.
    Credit(u64),
    /// Why it takes so long.
    Slow(Slow),
    /// No.
    Refuse(Refusal),
}

impl Message {
    /// Appends the frame that says it.
    ///
    /// # Panics
    /// If it is a write: its payload isn't here. See [`Record::write_header`].
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let begin = buffer.len();
        let end = begin + HEADER_BYTES;
        buffer.resize(end, 0);
        let header = self.header_and_payload(buffer);
        let payload = &buffer[end..];
        let header = Header {
            payload_bytes: u32::try_from(payload.len()).expect("payloads are held to their limits"),
            checksum: Checksum::of(payload),
            ..header
        };
        buffer[begin..end].copy_from_slice(&header.encode());
    }

    /// Appends the payload; gives the header, but for the payload's length and checksum.
    fn header_and_payload(&self, payload: &mut Vec<u8>) -> Header {
        match self {
            Self::Hello(hello) => {
                hello.encode(payload);
                Header::of(Kind::Hello)
            }
            Self::Record(record) => record.header_and_payload(payload),
            Self::Hashes(hashes) => hashes.header_and_payload(payload),
            Self::Bye => Header::of(Kind::Bye),
            Self::Welcome(welcome) => {
                welcome.encode(payload);
                Header::of(Kind::Welcome)
            }
            Self::Have(have) => have.header_and_payload(payload),
            Self::Ack(ack) => {
                ack.encode(payload);
                Header { lsn: ack.received, ..Header::of(Kind::Ack) }
            }
            Self::Credit(bytes) => Header { length: *bytes, ..Header::of(Kind::Credit) },
            Self::Slow(slow) => {
                slow.encode(payload);
                Header::of(Kind::Slow)
            }
            Self::Refuse(refusal) => {
                refusal.encode(payload);
                Header::of(Kind::Refuse)
            }
        }
    }

    /// Understands a frame whose payload was compared with its checksum.
    pub(crate) fn decode(header: &Header, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let message = match header.kind {
            Kind::Hello => Self::Hello(Hello::decode(&mut reader)?),
            Kind::Hashes => Self::Hashes(Hashes::decode(header, &mut reader)?),
            Kind::Bye => Self::Bye,
            Kind::Welcome => Self::Welcome(Welcome::decode(&mut reader)?),
            Kind::Have => Self::Have(Have::decode(header, &mut reader)?),
            Kind::Ack => Self::Ack(Ack::decode(header, &mut reader)?),
            Kind::Credit => Self::Credit(header.length),
            Kind::Slow => Self::Slow(Slow::decode(&mut reader)?),
            Kind::Refuse => Self::Refuse(Refusal::decode(&mut reader)?),
            Kind::Disk | Kind::Write | Kind::Zero | Kind::Bookmark | Kind::Time => {
                Self::Record(Record::decode(header, &mut reader)?)
            }
        };
        if reader.left() > 0 {
            return Err(DecodeError::Payload("it is longer than it must be"));
        }
        Ok(message)
    }
}
