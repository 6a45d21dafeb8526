//! A log of a test vault: cuts, finds zeros and known blocks, seals, packs, when it is told to.

use std::ops::Range;

use tidegate_model::{
    BlockName, Checksum, Epoch, Extent, FrameNumber, LogId, LogName, Lsn, Micros, Name, PackId,
    PackNumber, Piece, RunId,
};

use super::{BLOCK, Op, TestVault};
use crate::log::PackPlace;
use crate::pack::{
    Codec, Content, FrameHeader, HEADER_BYTES, PackClose, PackWriter, RecordHead, Target, TargetLog,
};
use crate::seal::{BlockNamer, LogCiphers};

/// A log that is being written.
pub struct TestLog {
    pub name: LogName,
    writer: PackWriter,
    ciphers: LogCiphers,
    namer: BlockNamer,
    frames: Vec<u8>,
    next_frame: FrameNumber,
    /// The records of the frame that is being filled, and what it keeps.
    unit: Vec<(Name, Epoch, RecordHead, Part)>,
    plain: Vec<u8>,
    /// What the next pack states as committed.
    pub committed: u64,
    /// The newest condemned list that the next pack states.
    pub condemned_list: u64,
    /// Whether known blocks are referred to.
    pub references: bool,
    /// Whether the server's memory changes a bit of each frame before it is sealed.
    pub bad_memory: bool,
}

/// A piece whose frame isn't sealed yet.
enum Part {
    Kept { extent: Extent, checksum: Checksum, name: Option<BlockName>, offset: u32 },
    Other(Content),
    Reference { extent: Extent, checksum: Checksum, name: BlockName, log: LogName, target: Target },
}

impl TestLog {
    /// The first pack of the log with this test number.
    pub fn new(vault: &TestVault, number: u8) -> Self {
        Self::of_shard(vault, number, 0)
    }

    /// The log of this shard of a run.
    pub fn of_shard(vault: &TestVault, run: u8, shard: u16) -> Self {
        let id = LogId { run: RunId::from_bytes([run; 16]), shard };
        let name = LogName { node: "ps-1".parse().unwrap(), id };
        let ciphers = vault.ring.log_ciphers(1, id).unwrap();
        let block = u32::try_from(BLOCK).unwrap();
        let writer = PackWriter::new(vault.ring.vault(), name.clone(), 1, block, ciphers.clone());
        Self {
            name,
            writer,
            ciphers,
            namer: vault.ring.block_namer(),
            frames: Vec::new(),
            next_frame: FrameNumber(0),
            unit: Vec::new(),
            plain: Vec::new(),
            committed: 0,
            condemned_list: 0,
            references: true,
            bad_memory: false,
        }
    }

    pub fn place(&self, number: u64) -> PackPlace {
        PackPlace { log: self.name.clone(), number: PackNumber(number) }
    }

    /// The number of the open pack.
    pub fn number(&self) -> PackNumber {
        self.writer.number()
    }

    /// Adds a record with all its pieces, or only the first `pieces` of them.
    pub fn add(
        &mut self,
        vault: &TestVault,
        of: &(Name, Epoch),
        lsn: u64,
        op: &Op,
        pieces: Option<usize>,
    ) {
        self.add_pieces(vault, of, lsn, op, 0..pieces.unwrap_or(usize::MAX));
    }

    /// Adds some of a record's pieces.
    pub fn add_pieces(
        &mut self,
        vault: &TestVault,
        of: &(Name, Epoch),
        lsn: u64,
        op: &Op,
        pieces: Range<usize>,
    ) {
        let parts = self.split(vault, op);
        let count = u16::try_from(parts.len()).unwrap();
        let parts = (0..).zip(parts).skip(pieces.start).take(pieces.len());
        for (number, part) in parts {
            let piece = Piece { number, count };
            let head = RecordHead { machine: 0, lsn: Lsn(lsn), piece, time: Micros(lsn * 1000) };
            let part = match part {
                (part, None) => part,
                (part, Some(bytes)) => self.keep(part, &bytes),
            };
            self.unit.push((of.0.clone(), of.1, head, part));
        }
    }

    fn keep(&mut self, part: Part, bytes: &[u8]) -> Part {
        let Part::Kept { extent, checksum, name, .. } = part else { return part };
        let offset = u32::try_from(self.plain.len()).unwrap();
        self.plain.extend_from_slice(bytes);
        Part::Kept { extent, checksum, name, offset }
    }

    fn split(&self, vault: &TestVault, op: &Op) -> Vec<(Part, Option<Vec<u8>>)> {
        let other = |content| vec![(Part::Other(content), None)];
        let (extent, mut rest) = match op {
            Op::Write(extent, bytes) => (extent, bytes.as_slice()),
            Op::Disk(disk) => return other(Content::Disk(disk.clone())),
            Op::Zero(extent) => return other(Content::Zero(*extent)),
            Op::Bookmark(bookmark) => return other(Content::Bookmark(bookmark.clone())),
            Op::Time => return other(Content::Time),
        };
        let mut parts = Vec::new();
        let mut offset = extent.offset;
        while !rest.is_empty() {
            let length = rest.len().min(usize::try_from(BLOCK - offset % BLOCK).unwrap());
            let (bytes, after) = rest.split_at(length);
            let extent = Extent { offset, length: length as u64, ..*extent };
            parts.push(self.part(vault, extent, bytes));
            (rest, offset) = (after, offset + length as u64);
        }
        parts
    }

    fn part(&self, vault: &TestVault, extent: Extent, bytes: &[u8]) -> (Part, Option<Vec<u8>>) {
        if bytes.iter().all(|byte| *byte == 0) {
            return (Part::Other(Content::Zero(extent)), None);
        }
        let checksum = Checksum::of(bytes);
        let name = (extent.length == BLOCK).then(|| self.namer.name_block(bytes));
        if let Some(name) = name
            && let Some((log, target)) = vault.known.get(&name).filter(|_| self.references)
        {
            let (log, target) = (log.clone(), *target);
            return (Part::Reference { extent, checksum, name, log, target }, None);
        }
        (Part::Kept { extent, checksum, name, offset: 0 }, Some(bytes.to_vec()))
    }

    /// Seals the frame that is being filled, and gives its records to the pack.
    pub fn seal(&mut self, vault: &mut TestVault) {
        let number = self.next_frame;
        self.next_frame = number.next();
        let mut place = 0;
        if !self.plain.is_empty() {
            place = self.seal_frame(number);
        }
        let mut ordinal = 0;
        for (machine, epoch, head, part) in std::mem::take(&mut self.unit) {
            let head = RecordHead { machine: self.writer.machine(&machine, epoch), ..head };
            let content = match part {
                Part::Other(content) => content,
                Part::Kept { extent, checksum, name, offset } => {
                    let target =
                        Target { log: TargetLog::Own, pack: self.number(), frame: number, ordinal };
                    if let Some(name) = name {
                        vault.known.entry(name).or_insert((self.name.clone(), target));
                    }
                    ordinal += 1;
                    Content::Kept { extent, checksum, name, frame: place, offset }
                }
                Part::Reference { extent, checksum, name, log, target } => {
                    let place = match log == self.name {
                        true => TargetLog::Own,
                        false => TargetLog::Other(self.writer.other_log(&log)),
                    };
                    let target = Target { log: place, ..target };
                    Content::Reference { extent, checksum, name, target }
                }
            };
            self.writer.record(head, content);
        }
    }

    fn seal_frame(&mut self, number: FrameNumber) -> u32 {
        let mut plain = std::mem::take(&mut self.plain);
        plain[0] ^= u8::from(self.bad_memory);
        let packed = zstd::bulk::compress(&plain, 1).unwrap();
        let (codec, mut content) = match packed.len() < plain.len() {
            true => (Codec::Zstd, packed),
            false => (Codec::Raw, plain.clone()),
        };
        let header = FrameHeader {
            codec,
            log: self.name.id,
            number,
            key_version: 1,
            plain_bytes: u32::try_from(plain.len()).unwrap(),
            sealed_bytes: u32::try_from(content.len() + 16).unwrap(),
        };
        let tag = self.ciphers.seal_frame(number, &header.encode(), &mut content);
        self.frames.extend_from_slice(&header.encode());
        self.frames.extend_from_slice(&content);
        self.frames.extend_from_slice(&tag);
        self.writer.frame(&header, tag)
    }

    /// Closes the pack; gives its path and bytes, which aren't stored yet.
    pub fn close(&mut self, vault: &mut TestVault, last: bool) -> (String, Vec<u8>) {
        self.seal(vault);
        let number = self.number();
        let closed = self.writer.close(&PackClose {
            id: PackId::from_bytes([u8::try_from(number.0 % 256).unwrap(); 16]),
            last,
            condemned_list: self.condemned_list,
            committed_packs: self.committed,
            closed: Micros(1),
            frame_bytes: self.frames.len() as u64,
        });
        assert!(closed.head.len() > HEADER_BYTES);
        let mut object = closed.head;
        object.append(&mut self.frames);
        (self.place(number.0).path(), object)
    }

    /// Closes and stores the pack; all before it were stored.
    pub async fn store(&mut self, vault: &mut TestVault, last: bool) -> String {
        self.committed = self.number().0;
        let (path, object) = self.close(vault, last);
        vault.put(&path, object).await;
        path
    }
}
