//! Builds a pack's header and index while its frames are gathered elsewhere.
//!
//! Owns the index of one open pack and the log's counters (pack and frame numbers). Doesn't own
//! the frames' bytes: the caller lays them one after another and tells their total at the end.
//! In steady state nothing is allocated: the sections keep their capacity from pack to pack.

use std::collections::HashMap;

use tidegate_model::limits::{
    PACK_FRAMES_MAX, PACK_LOGS_MAX, PACK_MACHINES_MAX, PACK_RECORDS_MAX, PACK_TEXT_BYTES_MAX,
    TEXT_BYTES_MAX,
};
use tidegate_model::{
    Epoch, FrameNumber, LogId, LogName, Lsn, Micros, Name, PackId, PackNumber, Piece, VaultId,
    Writer,
};

use super::frame::FrameHeader;
use super::index::{Content, MachineEntry, Record};
use super::index_codec::{self, FRAME_BYTES, PREAMBLE_BYTES, Preamble};
use super::{PackHeader, PackKind, RECORD_BYTES, record_codec};
use crate::seal::LogCiphers;

/// What all records have.
#[derive(Debug, Clone, Copy)]
pub struct RecordHead {
    /// The machine: what [`PackWriter::machine`] gave.
    pub machine: u16,
    /// The record's number.
    pub lsn: Lsn,
    /// Which piece of the record it is.
    pub piece: Piece,
    /// When it happened.
    pub time: Micros,
}

/// What is decided when a pack closes.
#[derive(Debug, Clone, Copy)]
pub struct PackClose {
    /// 16 random bytes.
    pub id: PackId,
    /// Whether the log ends here.
    pub last: bool,
    /// The newest condemned list that the log has read.
    pub condemned_list: u64,
    /// How many packs at the log's beginning are stored.
    pub committed_packs: u64,
    /// Now.
    pub closed: Micros,
    /// Bytes of all the frames.
    pub frame_bytes: u64,
}

/// A closed pack, but for its frames: put `head`, then the frames, as one object.
#[derive(Debug, Clone)]
pub struct ClosedPack {
    /// The header.
    pub header: PackHeader,
    /// Header and sealed index, as they stand at the object's beginning.
    pub head: Vec<u8>,
}

/// The open pack of a log.
pub struct PackWriter {
    vault: VaultId,
    log: LogName,
    key_version: u32,
    block_bytes: u32,
    ciphers: LogCiphers,
    number: PackNumber,
    first_frame: FrameNumber,
    next_frame: FrameNumber,
    machines: Vec<MachineEntry>,
    machine_places: HashMap<(Name, Epoch), u16>,
    logs: Vec<LogName>,
    log_places: HashMap<LogId, u16>,
    frames: Vec<u8>,
    records: Vec<u8>,
    texts: Vec<u8>,
    plain: Vec<u8>,
}

impl PackWriter {
    /// The writer of a log's first pack.
    #[must_use]
    pub fn new(
        vault: VaultId,
        log: LogName,
        key_version: u32,
        block_bytes: u32,
        ciphers: LogCiphers,
    ) -> Self {
        Self {
            vault,
            log,
            key_version,
            block_bytes,
            ciphers,
            number: PackNumber(0),
            first_frame: FrameNumber(0),
            next_frame: FrameNumber(0),
            machines: Vec::new(),
            machine_places: HashMap::new(),
            logs: Vec::new(),
            log_places: HashMap::new(),
            frames: Vec::new(),
            records: Vec::new(),
            texts: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// The same with another number for the first pack: of one that has its log for itself.
    #[must_use]
    pub(crate) const fn beginning_at(mut self, number: PackNumber) -> Self {
        self.number = number;
        self
    }

    /// The version of the root key under which it seals.
    pub(crate) const fn key_version(&self) -> u32 {
        self.key_version
    }

    /// The log.
    #[must_use]
    pub const fn log(&self) -> &LogName {
        &self.log
    }

    /// The number of the open pack.
    #[must_use]
    pub const fn number(&self) -> PackNumber {
        self.number
    }

    /// The lowest number that a frame of the open pack can have.
    #[must_use]
    pub const fn first_frame(&self) -> FrameNumber {
        self.first_frame
    }

    /// Whether nothing has been added since the last close.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many records the open pack has.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        count(self.records.len() / RECORD_BYTES)
    }

    fn frame_count(&self) -> u32 {
        count(self.frames.len() / FRAME_BYTES)
    }

    /// Whether a frame with so many records of one machine, with references into so many other
    /// logs, fits; the caller closes the pack first where not.
    #[must_use]
    pub fn has_room(&self, records: u32, other_logs: u32) -> bool {
        let texts = count(self.texts.len()) + records.min(256) * count(TEXT_BYTES_MAX);
        self.record_count() + records <= PACK_RECORDS_MAX
            && self.frame_count() < PACK_FRAMES_MAX
            && count(self.machines.len()) < PACK_MACHINES_MAX
            && count(self.logs.len()) + other_logs <= PACK_LOGS_MAX
            && texts <= PACK_TEXT_BYTES_MAX
    }

    /// The place of a machine's epoch in the index.
    pub fn machine(&mut self, name: &Name, epoch: Epoch) -> u16 {
        if let Some(place) = self.machine_places.get(&(name.clone(), epoch)) {
            return *place;
        }
        let place = place(self.machines.len());
        self.machines.push(MachineEntry {
            name: name.clone(),
            epoch,
            first_lsn: Lsn::NONE,
            complete_lsn: Lsn::NONE,
            last_time: Micros(0),
        });
        self.machine_places.insert((name.clone(), epoch), place);
        place
    }

    /// The place of another log in the index.
    pub fn other_log(&mut self, log: &LogName) -> u16 {
        if let Some(place) = self.log_places.get(&log.id) {
            return *place;
        }
        let place = place(self.logs.len());
        self.logs.push(log.clone());
        self.log_places.insert(log.id, place);
        place
    }

    /// Units were packed that have no frame: no later frame has a number below `frame`.
    pub fn skip_to(&mut self, frame: FrameNumber) {
        self.next_frame = self.next_frame.max(frame);
    }

    /// Adds the next frame, which stands sealed behind those before it; gives its place.
    ///
    /// # Panics
    /// If its number is one that was passed, or its log another: frames come home in order.
    pub fn frame(&mut self, header: &FrameHeader, tag: [u8; 16]) -> u32 {
        assert!(header.number >= self.next_frame, "frames are packed in order, each once");
        assert_eq!(header.log, self.log.id);
        let place = self.frame_count();
        self.next_frame = header.number.next();
        let behind = u32::try_from(header.number.0 - self.first_frame.0)
            .expect("a pack closes long before 2^32 units have passed");
        Writer::new(&mut self.frames)
            .u32(header.sealed_bytes)
            .u32(header.plain_bytes)
            .u8(header.codec.code())
            .zeros(3)
            .u32(behind)
            .bytes(&tag);
        place
    }

    /// Adds a record, in the order of its machine's LSNs.
    pub fn record(&mut self, head: RecordHead, content: Content) {
        let RecordHead { machine, lsn, piece, time } = head;
        let entry = &mut self.machines[usize::from(machine)];
        if entry.first_lsn == Lsn::NONE {
            entry.first_lsn = lsn;
        }
        if piece.is_last() {
            entry.complete_lsn = entry.complete_lsn.max(lsn);
        }
        entry.last_time = entry.last_time.max(time);
        let record = Record { machine, lsn, piece, time, content };
        record_codec::encode(&record, &mut self.records, &mut self.texts);
    }

    /// Seals the index and starts the next pack.
    pub fn close(&mut self, close: &PackClose) -> ClosedPack {
        let mut header = PackHeader {
            kind: PackKind::Pack,
            key_version: self.key_version,
            vault: self.vault,
            log: self.log.id,
            number: self.number,
            first_frame: self.first_frame,
            frame_count: self.frame_count(),
            index_bytes: 0,
            object_bytes: 0,
            id: close.id,
            digest: [0; 32],
        };
        self.write_plain(close);
        let sealed =
            index_codec::seal_index(&self.plain, &mut header, close.frame_bytes, &self.ciphers);
        let mut head = Vec::with_capacity(super::HEADER_BYTES + sealed.len());
        header.encode(&mut head);
        head.extend_from_slice(&sealed);
        self.start_next();
        ClosedPack { header, head }
    }

    fn write_plain(&mut self, close: &PackClose) {
        self.plain.clear();
        self.plain.reserve(PREAMBLE_BYTES + self.records.len() + self.frames.len());
        Preamble {
            last: close.last,
            block_bytes: self.block_bytes,
            condemned_list: close.condemned_list,
            committed_packs: close.committed_packs,
            closed: close.closed,
            machines: count(self.machines.len()),
            logs: count(self.logs.len()),
            frames: self.frame_count(),
            records: self.record_count(),
            text_bytes: count(self.texts.len()),
        }
        .encode(&mut self.plain);
        for machine in &self.machines {
            index_codec::encode_machine(machine, &mut self.plain);
        }
        for log in &self.logs {
            index_codec::encode_log(log, &mut self.plain);
        }
        self.plain.extend_from_slice(&self.frames);
        self.plain.extend_from_slice(&self.records);
        self.plain.extend_from_slice(&self.texts);
    }

    fn start_next(&mut self) {
        self.first_frame = self.next_frame;
        self.number = self.number.next();
        self.machines.clear();
        self.machine_places.clear();
        self.logs.clear();
        self.log_places.clear();
        self.frames.clear();
        self.records.clear();
        self.texts.clear();
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("every section is held to its limit, far below 2^32")
}

fn place(length: usize) -> u16 {
    u16::try_from(length).expect("has_room holds machines and logs below 2^16")
}
