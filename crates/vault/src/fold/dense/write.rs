//! The bytes of dense packs: records go in, sealed packs come out. Pure, but for drawing their names.
//!
//! Frames are as a server writes them by default. A dense pack is whole by itself: it is the only one of
//! its log, and the last.

use std::sync::Arc;

use tidegate_model::limits::{FRAME_BYTES_DEFAULT, PACK_CLOSE_BYTES_DEFAULT, PACK_RECORDS_MAX};
use tidegate_model::{
    BlockName, Checksum, Epoch, Extent, FrameNumber, Lsn, Micros, Name, PackId, PackNumber, Piece,
    RunId,
};

use super::{NewPlace, RecordKey};
use crate::keys::random;
use crate::layout;
use crate::log::PackPlace;
use crate::meta::MetaError;
use crate::pack::{Codec, Content, FrameHeader, PackClose, PackHeader, PackWriter, RecordHead};
use crate::seal::{KeyRing, LogCiphers, TAG_BYTES};

/// zstd level: what is copied stays for long, and a fold has time.
const LEVEL: i32 = 3;
/// Most records of a frame: those of four frames of 64 bytes a record fit a pack.
const FRAME_RECORDS_MAX: usize = PACK_RECORDS_MAX as usize / 16;

/// A record that was read where it lay.
pub(super) struct Copied {
    pub key: RecordKey,
    pub extent: Extent,
    pub lsn: Lsn,
    pub time: Micros,
    pub checksum: Checksum,
    pub name: Option<BlockName>,
    pub bytes: Vec<u8>,
}

/// A pack that is to be stored.
pub(super) struct ClosedDense {
    pub place: Arc<PackPlace>,
    pub header: PackHeader,
    pub object: Vec<u8>,
}

/// Where records went, and packs that are full.
#[derive(Default)]
pub(super) struct Written {
    pub places: Vec<(RecordKey, NewPlace)>,
    pub closed: Vec<ClosedDense>,
}

/// Writes dense packs of one machine's epoch, for one manifest.
pub(super) struct DenseWriter {
    ring: KeyRing,
    machine: Name,
    epoch: Epoch,
    /// The manifest's number.
    number: PackNumber,
    block_bytes: u32,
    open: Option<Open>,
}

struct Open {
    place: Arc<PackPlace>,
    writer: PackWriter,
    ciphers: LogCiphers,
    frames: Vec<u8>,
    next: FrameNumber,
}

impl DenseWriter {
    /// Of a vault with such blocks.
    pub fn new(ring: KeyRing, machine: Name, epoch: Epoch, number: u64, block_bytes: u32) -> Self {
        let number = PackNumber(number);
        Self { ring, machine, epoch, number, block_bytes, open: None }
    }

    /// Writes records, in the order of the disks.
    pub fn write(&mut self, mut records: Vec<Copied>) -> Result<Written, MetaError> {
        records.sort_by_key(|record| (record.extent.disk, record.extent.offset, record.lsn));
        let mut written = Written::default();
        let (mut begin, mut bytes) = (0, 0);
        for at in 0..records.len() {
            let length = records[at].bytes.len();
            let is_full = bytes + length > FRAME_BYTES_DEFAULT as usize;
            if at > begin && (is_full || at - begin >= FRAME_RECORDS_MAX) {
                self.frame(&records[begin..at], &mut written)?;
                (begin, bytes) = (at, 0);
            }
            bytes += length;
        }
        if begin < records.len() {
            self.frame(&records[begin..], &mut written)?;
        }
        Ok(written)
    }

    /// Closes the open pack, if there is one.
    pub fn close(&mut self) -> Result<Option<ClosedDense>, MetaError> {
        let Some(mut open) = self.open.take() else { return Ok(None) };
        let closed = open.writer.close(&PackClose {
            id: PackId::from_bytes(random()?),
            last: true,
            condemned_list: 0,
            committed_packs: 0,
            // Nobody asks when: its records have their times.
            closed: Micros(0),
            frame_bytes: open.frames.len() as u64,
        });
        let mut object = closed.head;
        object.append(&mut open.frames);
        Ok(Some(ClosedDense { place: open.place, header: closed.header, object }))
    }

    fn frame(&mut self, records: &[Copied], written: &mut Written) -> Result<(), MetaError> {
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let is_full = |open: &Open| {
            open.frames.len() >= PACK_CLOSE_BYTES_DEFAULT as usize
                || !open.writer.has_room(count, 0)
        };
        if self.open.as_ref().is_some_and(is_full) {
            written.closed.extend(self.close()?);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        open.add((&self.machine, self.epoch), records, &mut written.places);
        self.open = Some(open);
        Ok(())
    }

    fn begin(&self) -> Result<Open, MetaError> {
        let log = layout::dense_log(&self.machine, RunId::from_bytes(random()?));
        let version = self.ring.current();
        let ciphers = self.ring.log_ciphers(version, log.id);
        let ciphers = ciphers.expect("a ring has its own current version");
        let vault = self.ring.vault();
        let writer =
            PackWriter::new(vault, log.clone(), version, self.block_bytes, ciphers.clone());
        let writer = writer.beginning_at(self.number);
        let place = Arc::new(PackPlace { log, number: self.number });
        Ok(Open { place, writer, ciphers, frames: Vec::new(), next: FrameNumber(0) })
    }
}

impl Open {
    fn add(
        &mut self,
        of: (&Name, Epoch),
        records: &[Copied],
        places: &mut Vec<(RecordKey, NewPlace)>,
    ) {
        let (frame, machine) = (self.next, self.writer.machine(of.0, of.1));
        let in_pack = self.seal(records);
        let (mut offset, mut ordinal) = (0, 0);
        for Copied { key, extent, lsn, time, checksum, name, .. } in records {
            let piece = Piece { number: 0, count: 1 };
            let head = RecordHead { machine, lsn: *lsn, piece, time: *time };
            let (checksum, name) = (*checksum, *name);
            let content = Content::Kept { extent: *extent, checksum, name, frame: in_pack, offset };
            self.writer.record(head, content);
            places.push((*key, NewPlace { place: self.place.clone(), frame, ordinal }));
            // No frame is longer than 2^32, nor has as many records.
            offset += u32::try_from(extent.length).unwrap_or(u32::MAX);
            ordinal += 1;
        }
    }

    /// Seals the records' bytes as the next frame; gives its place in the pack.
    fn seal(&mut self, records: &[Copied]) -> u32 {
        let number = self.next;
        self.next = number.next();
        let plain: Vec<u8> = records.iter().flat_map(|record| &record.bytes).copied().collect();
        let packed = zstd::bulk::compress(&plain, LEVEL).ok();
        let packed = packed.filter(|packed| packed.len() < plain.len());
        let plain_bytes = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        let (codec, mut content) =
            packed.map_or((Codec::Raw, plain), |packed| (Codec::Zstd, packed));
        let header = FrameHeader {
            codec,
            log: self.place.log.id,
            number,
            key_version: self.writer.key_version(),
            plain_bytes,
            sealed_bytes: u32::try_from(content.len() + TAG_BYTES).unwrap_or(u32::MAX),
        };
        let tag = self.ciphers.seal_frame(number, &header.encode(), &mut content);
        self.frames.extend_from_slice(&header.encode());
        self.frames.extend_from_slice(&content);
        self.frames.extend_from_slice(&tag);
        self.writer.frame(&header, tag)
    }
}
