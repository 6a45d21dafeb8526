//! Golden bytes: the example of [MS-HRL], and a journal of ours, byte by byte.

#![allow(clippy::unwrap_used)] // also in functions that tests share

use std::path::{Path, PathBuf};

use tidegate_hrl::format::{
    BLOCK_HEADER_BYTES, Block, BlockHeader, ENTRY_BYTES, Entry, FileHeader, HEADER_BYTES, Stamp,
    UniqueId, Version, encode_block,
};
use tidegate_hrl::journal::{Birth, Change, Ending, JournalSettings, open};
use tidegate_hrl::order::{Mark, OrderBody, OrderRecord};
use tidegate_hrl::scan::{DataState, Found, Scan};
use tidegate_hrl::storage::ReadAt;
use tidegate_hrl::uring::UringStorage;
use tidegate_hrl::{Journal, JournalReader};
use tidegate_model::{
    Bookmark, BookmarkKind, Checksum, Disk, DiskNumber, Extent, Incarnation, Lsn, Micros,
};

const EXAMPLE: &str = include_str!("example-entries.csv");
const EXAMPLE_END: u64 = 332_288;
const FILES: [&str; 3] = ["00000001-disk-00.hrl", "00000001-disk-03.hrl", "00000001.order"];

struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
        let rest = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn bytes(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

/// The entries of the example, oldest first, each with the checksum that it has there.
fn example() -> Vec<(Entry, u32)> {
    let parse = |line: &str| {
        let fields: Vec<u64> = line.split(',').map(|field| field.parse().unwrap()).collect();
        let small = |index: usize| u32::try_from(fields[index]).unwrap();
        let entry = Entry {
            byte_offset: fields[2],
            data_bytes: small(1),
            time: Stamp(small(3)),
            data_checksum: 0,
        };
        (entry, small(4))
    };
    // The example prints its newest entry first.
    let mut entries: Vec<_> = EXAMPLE.lines().skip(1).map(parse).collect();
    entries.reverse();
    entries
}

fn example_log() -> Vec<u8> {
    let entries: Vec<Entry> = example().into_iter().map(|(entry, _)| entry).collect();
    let header = FileHeader {
        version: Version::V2,
        created: Stamp(539_842_381),
        creator_application: *b"hvr ",
        creator_version: 1,
        original_bytes: 8192,
        current_bytes: EXAMPLE_END,
        eol_location: EXAMPLE_END,
        error_code: 0,
        metadata_bytes: 4096,
        unique_id: UniqueId([1; 16]),
        previous_unique_id: UniqueId([2; 16]),
        last_modified: Stamp(539_842_382),
        entries_total: 58,
        file_type: 0,
        flags: 0,
        data_write_guid: UniqueId([3; 16]),
    };
    let mut log = header.encode();
    log.extend(encode_block(0, &[], 4096));
    log.resize(328_192, 0);
    log.extend(encode_block(328_192 - 4096, &entries, 4096));
    log
}

fn checksum_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn the_specifications_example_has_its_checksums() {
    let log = example_log();
    assert_eq!(log.len() as u64, EXAMPLE_END);
    assert_eq!(checksum_at(&log, 4096 + 12), 4_294_967_295);
    assert_eq!(checksum_at(&log, 328_192 + 12), 4_294_966_991);
    for (index, (_, checksum)) in example().iter().enumerate() {
        let at = 328_192 + BLOCK_HEADER_BYTES + index * ENTRY_BYTES + 8;
        assert_eq!(checksum_at(&log, at), *checksum, "entry {}", index + 1);
    }
    let data: u32 = example().iter().map(|(entry, _)| entry.data_bytes).sum();
    assert_eq!(data, 320_000);
}

#[test]
fn the_specifications_example_is_read_as_it_says() {
    let mut scan = Scan::open(Bytes(example_log())).unwrap();
    assert!(scan.is_closed() && scan.doubts().is_empty());
    let mut at = 8192;
    for (entry, _) in example() {
        let Some(Found::Entry(found)) = scan.next().unwrap() else { panic!("an entry") };
        assert_eq!((found.entry, found.data), (entry, DataState::Unchecked));
        assert_eq!((found.data_location, found.block_location), (at, 328_192));
        at += u64::from(entry.data_bytes);
    }
    assert_eq!((at, scan.next().unwrap()), (328_192, None));
}

#[test]
fn a_block_that_was_filled_from_the_back_reads_the_same() {
    let entries: Vec<Entry> = example().into_iter().map(|(entry, _)| entry).collect();
    let front = encode_block(324_096, &entries, 4096);
    let expected = Block::decode(&front).unwrap();
    assert_eq!(expected.entries, entries);
    assert_eq!(expected.header, BlockHeader { previous_distance: 324_096, entries: 58 });
    // The first entry in the last slot, the second before it, and so on.
    let back = |from: &[u8], count: usize| {
        let mut block = from[..BLOCK_HEADER_BYTES].to_vec();
        block.resize(from.len(), 0);
        for index in 0..count {
            let slot = &from[BLOCK_HEADER_BYTES + index * ENTRY_BYTES..][..ENTRY_BYTES];
            let at = from.len() - (index + 1) * ENTRY_BYTES;
            block[at..at + ENTRY_BYTES].copy_from_slice(slot);
        }
        block
    };
    assert_eq!(Block::decode(&back(&front, 58)), Ok(expected));
    // A full one shows by its times.
    let time = |second| Entry { byte_offset: 1, time: Stamp(second), ..Entry::default() };
    let full: Vec<Entry> = (0..127).map(time).collect();
    let front = encode_block(4096, &full, 4096);
    assert_eq!(Block::decode(&front).unwrap().entries, full);
    assert_eq!(Block::decode(&back(&front, 127)).unwrap().entries, full);
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn birth() -> Birth {
    Birth { incarnation: Incarnation::from_bytes([0xa1; 16]), boot: [0xb0; 16] }
}

fn disk(number: u8) -> DiskNumber {
    DiskNumber::try_from(number).unwrap()
}

/// One record of each kind; 2026-01-01 00:00:00 UTC and a second for each.
fn records() -> Vec<(Micros, Change<Vec<u8>>)> {
    let write = |number, offset, data: &[u8]| Change::Write {
        disk: disk(number),
        offset,
        data: data.to_vec(),
    };
    let vda = Disk { number: disk(0), bytes: 1 << 30, name: "/dev/vda".to_owned() };
    let mark = Bookmark {
        kind: BookmarkKind::ApplicationConsistent,
        clean: true,
        name: "before the upgrade".to_owned(),
    };
    let (kind, name) = (BookmarkKind::GapJournalFull, String::new());
    let gap = Bookmark { kind, clean: false, name };
    let changes = [
        Change::Disk(vda),
        write(0, 4096, b"sixteen bytes..."),
        write(3, 0, &[7; 512]),
        Change::Zero(Extent { disk: disk(0), offset: 8192, length: 65_536 }),
        write(0, 1 << 20, b"and as many more"),
        Change::Bookmark(mark),
        Change::Time,
        Change::Bookmark(gap),
    ];
    let times = (1_767_225_600_000_000..).step_by(1_000_001).map(Micros);
    times.zip(changes).collect()
}

/// Makes the journal of which the golden files are, in `path`.
fn make(path: &Path) {
    let storage = UringStorage::open(path).unwrap();
    let settings = JournalSettings::of(JournalSettings::BYTES_MIN).unwrap();
    let (mut state, mut writer, _) = open(storage, settings, &birth()).unwrap();
    for (index, (time, change)) in records().iter().enumerate() {
        let borrowed = match change {
            Change::Write { disk, offset, data } => {
                Change::Write { disk: *disk, offset: *offset, data: &data[..] }
            }
            Change::Disk(disk) => Change::Disk(disk.clone()),
            Change::Zero(extent) => Change::Zero(*extent),
            Change::Bookmark(bookmark) => Change::Bookmark(bookmark.clone()),
            Change::Time => Change::Time,
        };
        state.append(&borrowed, *time).unwrap();
        // Two batches, so that what is durable is stated, and blocks follow each other.
        if index == 2 {
            let batch = state.take_batch().unwrap();
            let written = batch.written();
            writer.carry_out(batch).unwrap();
            state.written(written);
            state.committed(Lsn(2)).unwrap();
        }
    }
    writer.close(&mut state).unwrap();
}

/// Writes the golden files anew: after a wanted change of the format only.
#[test]
#[ignore = "writes the golden files; run it by name"]
fn make_the_golden_files() {
    let made = tempfile::tempdir().unwrap();
    make(made.path());
    for name in FILES {
        std::fs::copy(made.path().join(name), folder().join(name)).unwrap();
    }
}

#[test]
fn a_journals_bytes_are_golden() {
    let made = tempfile::tempdir().unwrap();
    make(made.path());
    for name in FILES {
        let golden = std::fs::read(folder().join(name)).unwrap();
        let bytes = std::fs::read(made.path().join(name)).unwrap();
        assert!(bytes == golden, "{name}: the format changed");
    }
}

#[test]
fn the_golden_journal_is_read_back() {
    let copy = tempfile::tempdir().unwrap();
    for name in FILES {
        std::fs::copy(folder().join(name), copy.path().join(name)).unwrap();
    }
    let storage = UringStorage::open(copy.path()).unwrap();
    let settings = JournalSettings::of(JournalSettings::BYTES_MIN).unwrap();
    let (journal, opening) = Journal::open(storage, settings, &birth(), Box::new(|_| {})).unwrap();
    assert_eq!((opening.ending, opening.recovered_to), (Ending::Clean, Lsn(8)));
    assert_eq!(opening.committed, Lsn(2));
    let mut reader: JournalReader<_> = journal.read_from(Lsn(1));
    for (index, (time, change)) in records().into_iter().enumerate().skip(2) {
        let record = reader.next().unwrap().unwrap();
        assert_eq!(record.lsn, Lsn(index as u64 + 1));
        assert_eq!((record.time, record.change), (time, change));
    }
    assert_eq!(reader.next().unwrap(), None);
    journal.close().unwrap();
}

/// The example of docs/formats/order.md.
#[test]
fn the_documents_example_is_what_the_program_writes() {
    const DOCUMENT: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/formats/order.md"));
    let record = OrderRecord {
        lsn: Lsn(2),
        time: Micros(1_767_225_601_000_001),
        durable: Lsn(0),
        body: OrderBody::Write {
            extent: Extent { disk: disk(0), offset: 4096, length: 16 },
            location: HEADER_BYTES + 4096,
            checksum: Checksum::of(b"sixteen bytes..."),
        },
    };
    let mut bytes = Vec::new();
    record.encode(Mark::of(birth().incarnation, 1), &mut bytes);
    let golden = std::fs::read(folder().join(FILES[2])).unwrap();
    assert!(golden.windows(bytes.len()).any(|window| window == bytes), "it is in the golden file");
    for line in bytes.chunks(16) {
        let text: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(DOCUMENT.contains(&text.join(" ")), "the document lacks {}", text.join(" "));
    }
}
