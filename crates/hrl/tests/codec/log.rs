//! Logs as another writer would make them, held in memory.

use proptest::prelude::*;
use tidegate_hrl::format::{
    Entry, FileHeader, HEADER_BYTES, Stamp, Sum, UniqueId, Version, encode_block,
};
use tidegate_hrl::scan::{Found, Problem, Scan};
use tidegate_hrl::storage::ReadAt;

#[derive(Debug, Clone)]
pub struct Bytes(pub Vec<u8>);

impl ReadAt for Bytes {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.get(start..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn bytes(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

/// A log, with the end of each of its blocks and how many entries there are up to it.
#[derive(Debug, Clone)]
pub struct Log {
    pub bytes: Vec<u8>,
    pub blocks: Vec<(usize, usize)>,
    pub entries: Vec<Entry>,
}

impl Log {
    /// A log of writes of these lengths, each list one block; closed or not.
    pub fn of(version: Version, metadata_bytes: u32, blocks: &[Vec<usize>], closed: bool) -> Self {
        let header = FileHeader {
            version,
            created: Stamp(1),
            creator_application: *b"test",
            creator_version: 7,
            original_bytes: HEADER_BYTES,
            current_bytes: HEADER_BYTES,
            eol_location: 0,
            error_code: 0,
            metadata_bytes,
            unique_id: UniqueId([1; 16]),
            previous_unique_id: UniqueId::NONE,
            last_modified: Stamp(1),
            entries_total: 0,
            file_type: 0,
            flags: 0,
            data_write_guid: UniqueId::NONE,
        };
        let mut log = Self { bytes: header.encode(), blocks: Vec::new(), entries: Vec::new() };
        let mut previous = None;
        for (number, lengths) in (1_u32..).zip(blocks) {
            let entries: Vec<Entry> =
                lengths.iter().map(|length| log.append(*length, number)).collect();
            let at = log.bytes.len();
            let distance = previous.map_or(0, |previous| at - previous);
            log.bytes.extend(encode_block(distance as u64, &entries, metadata_bytes));
            previous = Some(at);
            log.entries.extend(entries);
            log.blocks.push((log.bytes.len(), log.entries.len()));
        }
        if closed {
            let eol_location = log.bytes.len() as u64;
            let header = FileHeader { eol_location, current_bytes: eol_location, ..header };
            log.bytes[..4096].copy_from_slice(&header.encode());
        }
        log
    }

    fn append(&mut self, length: usize, time: u32) -> Entry {
        let number = self.entries.len() + self.bytes.len();
        let data: Vec<u8> = (0..length).map(|index| (number + index).to_le_bytes()[0]).collect();
        self.bytes.extend(&data);
        Entry {
            byte_offset: number as u64,
            data_bytes: u32::try_from(length).unwrap(),
            time: Stamp(time),
            data_checksum: Sum::of(&data).checksum(),
        }
    }
}

/// The first block empty, as the specification's example has it, or not.
pub fn blocks() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let lengths = prop::collection::vec(1_usize..3000, 1..15);
    (prop::collection::vec(lengths, 1..8), any::<bool>()).prop_map(|(mut blocks, empty)| {
        if empty {
            blocks.insert(0, Vec::new());
        }
        blocks
    })
}

/// Everything that a scan finds.
pub fn scan(bytes: Vec<u8>) -> (Vec<Entry>, Vec<Problem>) {
    let mut scan = Scan::open(Bytes(bytes)).unwrap();
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    while let Some(found) = scan.next().unwrap() {
        match found {
            Found::Entry(found) => entries.push(found.entry),
            Found::Problem(problem) => problems.push(problem),
        }
    }
    (entries, problems)
}
