//! Records: what a machine's stream consists of. docs/formats/wire.md, "Records".
//!
//! Places and names are held to the limits of any disk here; whether a disk was declared and how
//! large it is, the session knows.

use tidegate_model::limits::{DISK_BYTES_MAX, TEXT_BYTES_MAX};
use tidegate_model::{
    Bookmark, BookmarkKind, Checksum, Disk, DiskNumber, Extent, Lsn, Micros, Reader, Writer,
};

use crate::{DecodeError, Header, Kind};

/// Flag of a bookmark: the disks are of one moment.
pub(crate) const CLEAN: u8 = 1;

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
    pub(super) fn header_and_payload(&self, payload: &mut Vec<u8>) -> Header {
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

pub(super) fn extent(header: &Header) -> Result<Extent, DecodeError> {
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
