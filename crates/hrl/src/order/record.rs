//! The records of an order file: 72 bytes each, some with a text behind them.

use tidegate_model::limits::{DISK_BYTES_MAX, RECORD_BYTES_MAX, TEXT_BYTES_MAX};
use tidegate_model::{
    Bookmark, BookmarkKind, Checksum, Disk, DiskNumber, Extent, Incarnation, Lsn, Micros, Reader,
    Short, Writer,
};

/// Bytes of a record without its text.
pub const RECORD_BYTES: usize = 72;

/// The codes of the wire (docs/formats/wire.md), and two that never travel.
const DISK: u8 = 2;
const WRITE: u8 = 3;
const ZERO: u8 = 4;
const BOOKMARK: u8 = 5;
const TIME: u8 = 6;
const END: u8 = 128;
const COMMITTED: u8 = 129;

const CLEAN: u8 = 1;

/// What binds records to their file: XXH3 of the journal's incarnation and the segment's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    /// The mark of a segment.
    #[must_use]
    pub fn of(incarnation: Incarnation, segment: u64) -> Self {
        let mut bytes = incarnation.as_bytes().to_vec();
        Writer::new(&mut bytes).u64(segment);
        Self(Checksum::of(&bytes).0)
    }

    /// The check of a record of that segment, whose bytes behind the check these are.
    #[must_use]
    pub fn check(self, bytes: &[u8]) -> u64 {
        Checksum::of(bytes).0 ^ self.0
    }
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderBody {
    /// The machine has this disk, with this size, from here on.
    Disk(Disk),
    /// Data was written; it stands in the .hrl file of the disk.
    Write {
        /// Where on the disk.
        extent: Extent,
        /// Where in the file.
        location: u64,
        /// Of the data.
        checksum: Checksum,
    },
    /// The range reads as zeros from here on.
    Zero(Extent),
    /// A named place.
    Bookmark(Bookmark),
    /// Nothing happened up to this time.
    Time,
    /// The segment ends here; its LSN is the last one, and it takes none itself.
    End {
        /// The last LSN that was known to be committed.
        committed: Lsn,
        /// Why.
        ending: SegmentEnding,
    },
    /// Everything up to here is committed, and may be missing from now on; its own LSN is the last one,
    /// and it takes none itself.
    Committed(Lsn),
}

/// Why a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentEnding {
    /// The journal was closed.
    Closed = 0,
    /// It was long enough: there is a next one.
    Continued = 1,
    /// Nobody had closed it; whoever opened the journal then wrote this.
    Recovered = 2,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRecord {
    /// Its LSN.
    pub lsn: Lsn,
    /// When it happened.
    pub time: Micros,
    /// Everything up to this LSN was durable before this record was written.
    pub durable: Lsn,
    /// What it says.
    pub body: OrderBody,
}

/// Why some bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// More bytes are needed to tell; at the end of a file the record isn't whole.
    #[error("the record isn't whole: {0}")]
    Short(#[from] Short),
    /// The check is another one: torn, or of another file.
    #[error("the record's check doesn't fit")]
    Check,
    /// The check fits, but a field can't be: written by a newer Tidegate, or by a defect.
    #[error("the record's {0} can't be")]
    Field(&'static str),
}

/// The fields as they stand, those that a record doesn't use 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Raw<'a> {
    kind: u8,
    flags: u8,
    disk: u8,
    bookmark: u8,
    lsn: u64,
    time: u64,
    offset: u64,
    length: u64,
    location: u64,
    checksum: u64,
    durable: u64,
    text: &'a [u8],
}

impl OrderRecord {
    /// Appends the record's bytes to `into`.
    ///
    /// # Panics
    /// When a text is longer than the limit: a defect of the caller.
    pub fn encode(&self, mark: Mark, into: &mut Vec<u8>) {
        let raw = self.raw();
        let text_bytes = u32::try_from(raw.text.len()).unwrap_or(u32::MAX);
        assert!(text_bytes as usize <= TEXT_BYTES_MAX, "texts are cut before they come here");
        let start = into.len();
        let mut fields = Writer::new(into);
        fields.u64(0).u8(raw.kind).u8(raw.flags).u8(raw.disk).u8(raw.bookmark).u32(text_bytes);
        fields.u64(raw.lsn).u64(raw.time).u64(raw.offset).u64(raw.length).u64(raw.location);
        fields.u64(raw.checksum).u64(raw.durable).bytes(raw.text);
        let check = mark.check(&into[start + 8..]);
        into[start..start + 8].copy_from_slice(&check.to_le_bytes());
    }

    /// The record at the beginning of `bytes`, and how many bytes it has.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(mark: Mark, bytes: &[u8]) -> Result<(Self, usize), RecordError> {
        let mut fields = Reader::new(bytes);
        let check = fields.u64()?;
        let [kind, flags, disk, bookmark] = fields.array()?;
        let text_bytes = fields.u32()? as usize;
        if text_bytes > TEXT_BYTES_MAX {
            return Err(RecordError::Check);
        }
        let mut raw = Raw { kind, flags, disk, bookmark, ..Raw::default() };
        for field in [&mut raw.lsn, &mut raw.time, &mut raw.offset, &mut raw.length] {
            *field = fields.u64()?;
        }
        for field in [&mut raw.location, &mut raw.checksum, &mut raw.durable] {
            *field = fields.u64()?;
        }
        raw.text = fields.bytes(text_bytes)?;
        let length = RECORD_BYTES + text_bytes;
        if mark.check(&bytes[8..length]) != check {
            return Err(RecordError::Check);
        }
        let record = Self {
            lsn: Lsn(raw.lsn),
            time: Micros(raw.time),
            durable: Lsn(raw.durable),
            body: raw.body()?,
        };
        // What a record doesn't use is 0: then writing it again gives the same bytes.
        if record.raw() != raw {
            return Err(RecordError::Field("unused fields"));
        }
        Ok((record, length))
    }

    fn raw(&self) -> Raw<'_> {
        let (lsn, time, durable) = (self.lsn.0, self.time.0, self.durable.0);
        let raw = Raw { lsn, time, durable, ..Raw::default() };
        let placed = |kind, extent: &Extent| Raw {
            kind,
            disk: extent.disk.get(),
            offset: extent.offset,
            length: extent.length,
            ..raw
        };
        match &self.body {
            OrderBody::Disk(disk) => Raw {
                kind: DISK,
                disk: disk.number.get(),
                length: disk.bytes,
                text: disk.name.as_bytes(),
                ..raw
            },
            OrderBody::Write { extent, location, checksum } => {
                Raw { location: *location, checksum: checksum.0, ..placed(WRITE, extent) }
            }
            OrderBody::Zero(extent) => placed(ZERO, extent),
            OrderBody::Bookmark(bookmark) => Raw {
                kind: BOOKMARK,
                flags: if bookmark.clean { CLEAN } else { 0 },
                bookmark: bookmark.kind.code(),
                text: bookmark.name.as_bytes(),
                ..raw
            },
            OrderBody::Time => Raw { kind: TIME, ..raw },
            OrderBody::End { committed, ending } => {
                Raw { kind: END, flags: *ending as u8, location: committed.0, ..raw }
            }
            OrderBody::Committed(lsn) => Raw { kind: COMMITTED, location: lsn.0, ..raw },
        }
    }
}

impl Raw<'_> {
    fn body(&self) -> Result<OrderBody, RecordError> {
        Ok(match self.kind {
            DISK => OrderBody::Disk(Disk {
                number: self.disk()?,
                bytes: Some(self.length)
                    .filter(|bytes| *bytes <= DISK_BYTES_MAX)
                    .ok_or(RecordError::Field("size of a disk"))?,
                name: self.text()?,
            }),
            WRITE => OrderBody::Write {
                extent: self.extent(u64::from(RECORD_BYTES_MAX))?,
                location: self.location,
                checksum: Checksum(self.checksum),
            },
            ZERO => OrderBody::Zero(self.extent(DISK_BYTES_MAX)?),
            BOOKMARK => OrderBody::Bookmark(Bookmark {
                kind: BookmarkKind::from_code(self.bookmark)
                    .ok_or(RecordError::Field("kind of bookmark"))?,
                clean: self.flags & CLEAN != 0,
                name: self.text()?,
            }),
            TIME => OrderBody::Time,
            END => OrderBody::End {
                committed: Lsn(self.location),
                ending: match self.flags {
                    0 => SegmentEnding::Closed,
                    1 => SegmentEnding::Continued,
                    2 => SegmentEnding::Recovered,
                    _ => return Err(RecordError::Field("ending")),
                },
            },
            COMMITTED => OrderBody::Committed(Lsn(self.location)),
            _ => return Err(RecordError::Field("kind")),
        })
    }

    fn disk(&self) -> Result<DiskNumber, RecordError> {
        DiskNumber::try_from(self.disk).map_err(|_| RecordError::Field("disk"))
    }

    fn extent(&self, length_max: u64) -> Result<Extent, RecordError> {
        let extent = Extent { disk: self.disk()?, offset: self.offset, length: self.length };
        if !(1..=length_max).contains(&self.length) || !extent.lies_within(DISK_BYTES_MAX) {
            return Err(RecordError::Field("extent"));
        }
        Ok(extent)
    }

    fn text(&self) -> Result<String, RecordError> {
        String::from_utf8(self.text.to_vec()).map_err(|_| RecordError::Field("text"))
    }
}
