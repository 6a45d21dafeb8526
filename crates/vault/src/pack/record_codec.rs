//! One record of the index, 88 bytes. docs/formats/pack.md, "Record".

use tidegate_model::limits::{DISK_BYTES_MAX, TEXT_BYTES_MAX};
use tidegate_model::{
    BlockName, Bookmark, BookmarkKind, Checksum, Disk, DiskNumber, Extent, FrameNumber, Lsn,
    Micros, PackNumber, Piece, Reader, Writer,
};

use super::PackError;
use super::index::{Content, Record, Target, TargetLog};

/// Bytes of a record.
pub const RECORD_BYTES: usize = 88;
/// The log of a reference into its own log.
const OWN_LOG: u16 = u16::MAX;

const KEPT: u8 = 1;
const ZERO: u8 = 2;
const REFERENCE: u8 = 3;
const DISK: u8 = 4;
const BOOKMARK: u8 = 5;
const TIME: u8 = 6;

/// Flag of a kept record: it is a whole block and has a name.
const NAMED: u8 = 1;
/// Flag of a bookmark: the disks are of one moment.
const CLEAN: u8 = 1;

/// The record's fields as they lie in the index; what a kind doesn't use is 0.
#[derive(Default)]
struct Fields {
    kind: u8,
    flags: u8,
    disk: u8,
    bookmark_kind: u8,
    log: u16,
    frame_or_ordinal: u32,
    offset: u64,
    length: u64,
    checksum: u64,
    place: u64,
    pack_or_text_bytes: u64,
    name: [u8; 16],
}

impl Fields {
    fn at(kind: u8, extent: Extent) -> Self {
        Self {
            kind,
            disk: extent.disk.get(),
            offset: extent.offset,
            length: extent.length,
            ..Self::default()
        }
    }

    /// `texts` gets the texts that the record's fields point at.
    fn of(content: &Content, texts: &mut Vec<u8>) -> Self {
        let mut text = |text: &str| {
            let place = texts.len() as u64;
            texts.extend_from_slice(text.as_bytes());
            (place, text.len() as u64)
        };
        match content {
            Content::Kept { extent, checksum, name, frame, offset } => Self {
                flags: if name.is_some() { NAMED } else { 0 },
                frame_or_ordinal: *frame,
                checksum: checksum.0,
                place: u64::from(*offset),
                name: name.map_or([0; 16], |name| *name.as_bytes()),
                ..Self::at(KEPT, *extent)
            },
            Content::Zero(extent) => Self::at(ZERO, *extent),
            Content::Reference { extent, checksum, name, target } => Self {
                log: match target.log {
                    TargetLog::Own => OWN_LOG,
                    TargetLog::Other(log) => log,
                },
                frame_or_ordinal: target.ordinal,
                checksum: checksum.0,
                place: target.frame.0,
                pack_or_text_bytes: target.pack.0,
                name: *name.as_bytes(),
                ..Self::at(REFERENCE, *extent)
            },
            Content::Disk(disk) => {
                let (place, bytes) = text(&disk.name);
                Self {
                    kind: DISK,
                    disk: disk.number.get(),
                    length: disk.bytes,
                    place,
                    pack_or_text_bytes: bytes,
                    ..Self::default()
                }
            }
            Content::Bookmark(bookmark) => {
                let (place, bytes) = text(&bookmark.name);
                Self {
                    kind: BOOKMARK,
                    flags: if bookmark.clean { CLEAN } else { 0 },
                    bookmark_kind: bookmark.kind.code(),
                    place,
                    pack_or_text_bytes: bytes,
                    ..Self::default()
                }
            }
            Content::Time => Self { kind: TIME, ..Self::default() },
        }
    }

    fn content(&self, texts: &[u8]) -> Result<Content, PackError> {
        Ok(match self.kind {
            KEPT => Content::Kept {
                extent: self.extent()?,
                checksum: Checksum(self.checksum),
                name: (self.flags & NAMED != 0).then(|| BlockName::from_bytes(self.name)),
                frame: self.frame_or_ordinal,
                offset: u32::try_from(self.place)
                    .map_err(|_| PackError::Field("a record lies beyond its frame"))?,
            },
            ZERO => Content::Zero(self.extent()?),
            REFERENCE => Content::Reference {
                extent: self.extent()?,
                checksum: Checksum(self.checksum),
                name: BlockName::from_bytes(self.name),
                target: Target {
                    log: match self.log {
                        OWN_LOG => TargetLog::Own,
                        log => TargetLog::Other(log),
                    },
                    pack: PackNumber(self.pack_or_text_bytes),
                    frame: FrameNumber(self.place),
                    ordinal: self.frame_or_ordinal,
                },
            },
            DISK => Content::Disk(Disk {
                number: self.disk()?,
                bytes: self.length,
                name: self.text(texts)?,
            }),
            BOOKMARK => Content::Bookmark(Bookmark {
                kind: BookmarkKind::from_code(self.bookmark_kind)
                    .ok_or(PackError::Field("a bookmark's kind is unknown"))?,
                clean: self.flags & CLEAN != 0,
                name: self.text(texts)?,
            }),
            TIME => Content::Time,
            _ => return Err(PackError::Field("a record's kind is unknown")),
        })
    }

    fn disk(&self) -> Result<DiskNumber, PackError> {
        if self.length > DISK_BYTES_MAX {
            return Err(PackError::Field("a record is longer than any disk"));
        }
        DiskNumber::try_from(self.disk)
            .map_err(|_| PackError::Field("a record's disk number is too large"))
    }

    fn extent(&self) -> Result<Extent, PackError> {
        let extent = Extent { disk: self.disk()?, offset: self.offset, length: self.length };
        if extent.length == 0 || !extent.lies_within(DISK_BYTES_MAX) {
            return Err(PackError::Field("a record lies at an impossible place"));
        }
        Ok(extent)
    }

    fn text(&self, texts: &[u8]) -> Result<String, PackError> {
        let refuse = PackError::Field("a record's text lies outside the texts");
        let begin = usize::try_from(self.place).map_err(|_| refuse.clone())?;
        let bytes = usize::try_from(self.pack_or_text_bytes).map_err(|_| refuse.clone())?;
        let text = begin
            .checked_add(bytes)
            .filter(|_| bytes <= TEXT_BYTES_MAX)
            .and_then(|end| texts.get(begin..end))
            .ok_or(refuse)?;
        String::from_utf8(text.to_vec()).map_err(|_| PackError::Field("a text isn't UTF-8"))
    }
}

/// Appends `record` to `buffer`, and the texts in it to `texts`.
pub(super) fn encode(record: &Record, buffer: &mut Vec<u8>, texts: &mut Vec<u8>) {
    let fields = Fields::of(&record.content, texts);
    Writer::new(buffer)
        .u8(fields.kind)
        .u8(fields.flags)
        .u8(fields.disk)
        .u8(fields.bookmark_kind)
        .u16(record.machine)
        .u16(fields.log)
        .u16(record.piece.number)
        .u16(record.piece.count)
        .u32(fields.frame_or_ordinal)
        .u64(record.lsn.0)
        .u64(record.time.0)
        .u64(fields.offset)
        .u64(fields.length)
        .u64(fields.checksum)
        .u64(fields.place)
        .u64(fields.pack_or_text_bytes)
        .bytes(&fields.name);
}

/// Reads one record.
pub(super) fn decode(reader: &mut Reader<'_>, texts: &[u8]) -> Result<Record, PackError> {
    let kind = reader.u8()?;
    let flags = reader.u8()?;
    let disk = reader.u8()?;
    let bookmark_kind = reader.u8()?;
    let machine = reader.u16()?;
    let log = reader.u16()?;
    let piece = Piece { number: reader.u16()?, count: reader.u16()? };
    if piece.number >= piece.count {
        return Err(PackError::Field("a record is a piece beyond its last"));
    }
    let frame_or_ordinal = reader.u32()?;
    let lsn = Lsn(reader.u64()?);
    let time = Micros(reader.u64()?);
    let fields = Fields {
        kind,
        flags,
        disk,
        bookmark_kind,
        log,
        frame_or_ordinal,
        offset: reader.u64()?,
        length: reader.u64()?,
        checksum: reader.u64()?,
        place: reader.u64()?,
        pack_or_text_bytes: reader.u64()?,
        name: reader.array()?,
    };
    if lsn == Lsn::NONE {
        return Err(PackError::Field("a record has no LSN"));
    }
    Ok(Record { machine, lsn, piece, time, content: fields.content(texts)? })
}

/// Of a record that keeps bytes: the place of its frame in the pack, and its name where it is a whole
/// block. What else it says isn't looked at.
pub(super) fn kept(
    record: &[u8; RECORD_BYTES],
) -> Result<Option<(u32, Option<BlockName>)>, PackError> {
    let mut reader = Reader::new(record);
    let (kind, flags) = (reader.u8()?, reader.u8()?);
    reader.bytes(10)?;
    let frame = reader.u32()?;
    reader.bytes(56)?;
    let name = BlockName::from_bytes(reader.array()?);
    Ok((kind == KEPT).then_some((frame, (flags & NAMED != 0).then_some(name))))
}
