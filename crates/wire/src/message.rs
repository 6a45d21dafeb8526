//! What frames say, decoded; and the payloads of those that have one.
//! docs/formats/wire.md, "Payloads".

use tidegate_model::limits::{DISK_BYTES_MAX, TEXT_BYTES_MAX};
use tidegate_model::{
    Bookmark, BookmarkKind, Checksum, Disk, DiskNumber, Epoch, Extent, Incarnation, Lsn, Micros,
    Name, Point, Reader, RunId, VaultId, Writer,
};

use crate::{DecodeError, Header, Kind, Refusal};

/// Flag of a bookmark: the disks are of one moment.
const CLEAN: u8 = 1;

/// On what a new epoch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Begins {
    /// On nothing: an initial copy begins it.
    Copy = 1,
    /// On its parent's state.
    Continue = 2,
}

/// The agent's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The version that the agent speaks.
    pub version: u16,
    /// The vault that the agent was enrolled in.
    pub vault: VaultId,
    /// The agent's life.
    pub incarnation: Incarnation,
    /// The epoch that it was granted before, or none.
    pub epoch: Epoch,
    /// The last LSN of that epoch that it knows to be committed.
    pub committed: Lsn,
    /// Features that it understands; none are defined yet.
    pub features: u64,
    /// On what a new epoch would stand.
    pub begins: Begins,
    /// The parent of a new epoch, as far as the agent knows it.
    pub parent: Option<Point>,
    /// The machine.
    pub machine: Name,
}

/// The server's answer to hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The epoch.
    pub epoch: Epoch,
    /// The last LSN that is committed: the agent sends what follows.
    pub committed: Lsn,
    /// Payload bytes that the agent may send at once.
    pub credit_bytes: u64,
    /// Most payload bytes of one write.
    pub record_bytes_max: u32,
    /// The vault's block size.
    pub block_bytes: u32,
    /// Features that both understand.
    pub features: u64,
    /// The server's run.
    pub run: RunId,
    /// The session's shard.
    pub shard: u16,
}

/// A record of a machine's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub lsn: Lsn,
    /// When it happened.
    pub time: Micros,
    /// What it says.
    pub kind: RecordKind,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordKind {
    /// A disk is there, with this size, from here on.
    Disk(Disk),
    /// Bytes were written; the bytes themselves come separately.
    Write(Extent, Checksum),
    /// Zeros were written.
    Zero(Extent),
    /// A named place.
    Bookmark(Bookmark),
    /// Time passed.
    Time,
}

/// What became of the bytes of a session's committed records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Zeros.
    pub zero_bytes: u64,
    /// Known already.
    pub deduplicated_bytes: u64,
    /// Kept, before compression.
    pub kept_bytes: u64,
    /// Stored, as sealed.
    pub stored_bytes: u64,
}

/// How far the server is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ack {
    /// The last LSN that it received.
    pub received: Lsn,
    /// The last LSN that is stored, with all before it.
    pub committed: Lsn,
    /// What became of the bytes.
    pub totals: Totals,
}

/// What the server waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SlowReason {
    /// The store takes long.
    Store = 1,
    /// All cores are busy.
    Cores = 2,
    /// Memory is short: other sessions have it.
    Memory = 3,
}

/// Why it takes so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// What the server waits for.
    pub reason: SlowReason,
    /// For how long it has, in microseconds.
    pub waited_us: u64,
}

/// A frame's meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The agent's first.
    Hello(Hello),
    /// A record other than a write.
    Record(Record),
    /// Nothing follows.
    Bye,
    /// The server's first.
    Welcome(Welcome),
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
    /// If it is a write: its payload isn't here. See [`Record::header`].
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let mut payload = Vec::new();
        let header = match self {
            Self::Hello(hello) => {
                hello.encode(&mut payload);
                Header::of(Kind::Hello)
            }
            Self::Record(record) => record.header_and_payload(&mut payload),
            Self::Bye => Header::of(Kind::Bye),
            Self::Welcome(welcome) => {
                welcome.encode(&mut payload);
                Header::of(Kind::Welcome)
            }
            Self::Ack(ack) => {
                ack.encode(&mut payload);
                Header { lsn: ack.received, ..Header::of(Kind::Ack) }
            }
            Self::Credit(bytes) => Header { length: *bytes, ..Header::of(Kind::Credit) },
            Self::Slow(slow) => {
                Writer::new(&mut payload).u8(slow.reason as u8).u64(slow.waited_us);
                Header::of(Kind::Slow)
            }
            Self::Refuse(refusal) => {
                refusal.encode(&mut payload);
                Header::of(Kind::Refuse)
            }
        };
        let header = Header {
            payload_bytes: u32::try_from(payload.len()).expect("payloads are held to their limits"),
            checksum: Checksum::of(&payload),
            ..header
        };
        buffer.extend_from_slice(&header.encode());
        buffer.extend_from_slice(&payload);
    }

    /// Understands a frame whose payload was compared with its checksum.
    pub(crate) fn decode(header: &Header, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let message = match header.kind {
            Kind::Hello => Self::Hello(Hello::decode(&mut reader)?),
            Kind::Bye => Self::Bye,
            Kind::Welcome => Self::Welcome(Welcome::decode(&mut reader)?),
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

impl Record {
    /// The header of a write's frame; its payload follows it on the wire, `payload_bytes` long.
    #[must_use]
    pub fn write_header(lsn: Lsn, time: Micros, extent: Extent, checksum: Checksum) -> Header {
        Header {
            disk: extent.disk.get(),
            payload_bytes: u32::try_from(extent.length).unwrap_or(u32::MAX),
            lsn,
            offset: extent.offset,
            length: extent.length,
            time,
            checksum,
            ..Header::of(Kind::Write)
        }
    }

    /// # Panics
    /// If it is a write.
    fn header_and_payload(&self, payload: &mut Vec<u8>) -> Header {
        let header = |kind| Header { lsn: self.lsn, time: self.time, ..Header::of(kind) };
        match &self.kind {
            RecordKind::Disk(disk) => {
                payload.extend_from_slice(disk.name.as_bytes());
                Header { disk: disk.number.get(), length: disk.bytes, ..header(Kind::Disk) }
            }
            RecordKind::Zero(extent) => Header {
                disk: extent.disk.get(),
                offset: extent.offset,
                length: extent.length,
                ..header(Kind::Zero)
            },
            RecordKind::Bookmark(bookmark) => {
                Writer::new(payload).u8(bookmark.kind.code()).bytes(bookmark.name.as_bytes());
                Header { flags: if bookmark.clean { CLEAN } else { 0 }, ..header(Kind::Bookmark) }
            }
            RecordKind::Time => header(Kind::Time),
            RecordKind::Write(..) => panic!("a write's payload is sent from where it lies"),
        }
    }

    /// Understands a record; of a write only its header is looked at.
    pub(crate) fn decode(header: &Header, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = match header.kind {
            Kind::Disk => RecordKind::Disk(Disk {
                number: disk_number(header)?,
                bytes: header.length,
                name: text(reader)?,
            }),
            Kind::Write => RecordKind::Write(extent(header)?, header.checksum),
            Kind::Zero => RecordKind::Zero(extent(header)?),
            Kind::Bookmark => RecordKind::Bookmark(Bookmark {
                kind: BookmarkKind::from_code(reader.u8()?)
                    .ok_or(DecodeError::Payload("a bookmark's kind is unknown"))?,
                clean: header.flags & CLEAN != 0,
                name: text(reader)?,
            }),
            _ => RecordKind::Time,
        };
        Ok(Self { lsn: header.lsn, time: header.time, kind })
    }
}

fn disk_number(header: &Header) -> Result<DiskNumber, DecodeError> {
    if header.length > DISK_BYTES_MAX {
        return Err(DecodeError::Payload("a disk or a record on it is too large"));
    }
    DiskNumber::try_from(header.disk)
        .map_err(|_| DecodeError::Payload("a disk's number is too large"))
}

fn extent(header: &Header) -> Result<Extent, DecodeError> {
    let disk = disk_number(header)?;
    let extent = Extent { disk, offset: header.offset, length: header.length };
    if extent.length == 0 || !extent.lies_within(DISK_BYTES_MAX) {
        return Err(DecodeError::Payload("a record lies at an impossible place"));
    }
    Ok(extent)
}

/// The rest of the payload, as text.
fn text(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    if reader.left() > TEXT_BYTES_MAX {
        return Err(DecodeError::Payload("a name is too long"));
    }
    let bytes = reader.bytes(reader.left())?;
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Payload("a name isn't UTF-8"))
}

impl Hello {
    fn encode(&self, buffer: &mut Vec<u8>) {
        let parent = self.parent.unwrap_or(Point { epoch: Epoch::NONE, lsn: Lsn::NONE });
        let name = self.machine.as_str().as_bytes();
        Writer::new(buffer)
            .u16(self.version)
            .bytes(self.vault.as_bytes())
            .bytes(self.incarnation.as_bytes())
            .u32(self.epoch.0)
            .u64(self.committed.0)
            .u64(self.features)
            .u8(self.begins as u8)
            .u32(parent.epoch.0)
            .u64(parent.lsn.0)
            .u8(u8::try_from(name.len()).expect("a name has at most 63 bytes"))
            .bytes(name);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = reader.u16()?;
        let vault = VaultId::from_bytes(reader.array()?);
        let incarnation = Incarnation::from_bytes(reader.array()?);
        let (epoch, committed) = (Epoch(reader.u32()?), Lsn(reader.u64()?));
        let features = reader.u64()?;
        let begins = match reader.u8()? {
            1 => Begins::Copy,
            2 => Begins::Continue,
            _ => return Err(DecodeError::Payload("a hello begins in an unknown way")),
        };
        let parent = Point { epoch: Epoch(reader.u32()?), lsn: Lsn(reader.u64()?) };
        let length = usize::from(reader.u8()?);
        let name = std::str::from_utf8(reader.bytes(length)?).unwrap_or_default();
        Ok(Self {
            version,
            vault,
            incarnation,
            epoch,
            committed,
            features,
            begins,
            parent: (parent.epoch != Epoch::NONE).then_some(parent),
            machine: name
                .parse()
                .map_err(|_| DecodeError::Payload("the machine's name is no name"))?,
        })
    }
}

impl Welcome {
    fn encode(&self, buffer: &mut Vec<u8>) {
        Writer::new(buffer)
            .u32(self.epoch.0)
            .u64(self.committed.0)
            .u64(self.credit_bytes)
            .u32(self.record_bytes_max)
            .u32(self.block_bytes)
            .u64(self.features)
            .bytes(self.run.as_bytes())
            .u16(self.shard);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: Epoch(reader.u32()?),
            committed: Lsn(reader.u64()?),
            credit_bytes: reader.u64()?,
            record_bytes_max: reader.u32()?,
            block_bytes: reader.u32()?,
            features: reader.u64()?,
            run: RunId::from_bytes(reader.array()?),
            shard: reader.u16()?,
        })
    }
}

impl Ack {
    fn encode(&self, buffer: &mut Vec<u8>) {
        Writer::new(buffer)
            .u64(self.committed.0)
            .u64(self.totals.zero_bytes)
            .u64(self.totals.deduplicated_bytes)
            .u64(self.totals.kept_bytes)
            .u64(self.totals.stored_bytes);
    }

    fn decode(header: &Header, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            received: header.lsn,
            committed: Lsn(reader.u64()?),
            totals: Totals {
                zero_bytes: reader.u64()?,
                deduplicated_bytes: reader.u64()?,
                kept_bytes: reader.u64()?,
                stored_bytes: reader.u64()?,
            },
        })
    }
}

impl Slow {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let reason = match reader.u8()? {
            1 => SlowReason::Store,
            2 => SlowReason::Cores,
            3 => SlowReason::Memory,
            _ => return Err(DecodeError::Payload("the reason for waiting is unknown")),
        };
        Ok(Self { reason, waited_us: reader.u64()? })
    }
}
