//! `tidegate hrl show`: logs of other writers, made here by hand after the specification, whole and
//! not.

#![allow(clippy::unwrap_used)] // also in functions that tests share

mod support;

use std::fs;
use std::path::PathBuf;

use support::process::{Output, Tidegate};
use support::refusals::shown;
use support::scratch;
use tempfile::TempDir;

/// The entries of the specification's own example, newest first: slot, bytes, offset, time, checksum.
const EXAMPLE: &str = include_str!("../crates/hrl/tests/golden/example-entries.csv");
/// Where the example's second block begins, and where its log ends.
const BLOCK: usize = 328_192;
const END: usize = 332_288;

/// The checksum of the specification: all bytes but its own four, added up and inverted.
fn put_checksum(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let sum = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    bytes[at..at + 4].copy_from_slice(&(!sum).to_le_bytes());
}

fn header(version: u32, end: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..7].copy_from_slice(b"msctlog");
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes[12..16].copy_from_slice(&539_842_381_u32.to_le_bytes());
    bytes[16..20].copy_from_slice(b"hvr ");
    bytes[44..52].copy_from_slice(&end.to_le_bytes());
    bytes[56..60].copy_from_slice(&4096_u32.to_le_bytes());
    bytes[60..76].fill(0x11);
    bytes[76..92].fill(0x22);
    put_checksum(&mut bytes, 40);
    bytes
}

fn block(distance: u64, entries: &[[u8; 32]]) -> Vec<u8> {
    let mut bytes = distance.to_le_bytes().to_vec();
    bytes.extend(u32::try_from(entries.len()).unwrap().to_le_bytes());
    bytes.resize(32, 0);
    put_checksum(&mut bytes, 12);
    bytes.extend(entries.as_flattened());
    bytes.resize(4096, 0);
    bytes
}

/// The example: an empty block, and one with 58 entries.
fn example(version: u32, end: usize) -> Vec<u8> {
    let mut entries: Vec<[u8; 32]> = Vec::new();
    for line in EXAMPLE.lines().skip(1) {
        let fields: Vec<u64> = line.split(',').map(|field| field.parse().unwrap()).collect();
        let mut entry = [0; 32];
        entry[..8].copy_from_slice(&fields[2].to_le_bytes());
        entry[12..20].copy_from_slice(&(fields[1] | fields[3] << 32).to_le_bytes());
        entry[20] = 1;
        put_checksum(&mut entry, 8);
        assert_eq!(entry[8..12], fields[4].to_le_bytes()[..4], "as the specification prints it");
        entries.insert(0, entry);
    }
    let mut bytes = header(version, end as u64);
    bytes.extend(block(0, &[]));
    bytes.resize(BLOCK, 0xee);
    bytes.extend(block(BLOCK as u64 - 4096, &entries));
    bytes
}

struct Log {
    _folder: TempDir,
    path: PathBuf,
}

impl Log {
    fn of(bytes: &[u8]) -> Self {
        let folder = scratch();
        let path = folder.path().join("disk.hrl");
        fs::write(&path, bytes).unwrap();
        Self { _folder: folder, path }
    }

    fn show(&self) -> Output {
        Tidegate::new(["hrl", "show", shown(&self.path)]).run()
    }

    fn show_json(&self) -> Output {
        Tidegate::new(["--json", "hrl", "show", shown(&self.path)]).run()
    }
}

#[test]
fn a_log_of_another_writer_is_shown_with_its_header_and_entries() {
    for (version, text) in [(0x0002_0000, "version 2.0"), (0x0001_0000, "version 1.0")] {
        let log = Log::of(&example(version, END));
        let words = [text, "closed, ends at 332288", "'hvr', version 0", "2017-02-08T04:13:01Z"];
        let output = log.show().success().says(&words);
        output.says(&["3626348544", "58 entries, 320 kB of data; nothing is amiss"]);
        let shown = log.show_json().success().json();
        let header = &shown["header"];
        assert_eq!((&header["closed"], &header["eol_location"]), (&true.into(), &END.into()));
        assert_eq!(header["unique_id"], "11111111-1111-1111-1111-111111111111");
        assert_eq!(header["previous_unique_id"], "22222222-2222-2222-2222-222222222222");
        let entries = shown["entries"].as_array().unwrap();
        assert_eq!(entries.len(), 58);
        assert_eq!(entries[0]["byte_offset"], 3_626_348_544_u64);
        assert_eq!(
            (&entries[0]["data_location"], &entries[0]["data"]),
            (&8192.into(), &"unchecked".into())
        );
        assert_eq!(entries[57]["byte_offset"], 3_626_340_352_u64);
        assert_eq!(entries[57]["block_location"], BLOCK);
        assert_eq!(
            (&shown["problems"], &shown["damaged"]),
            (&serde_json::json!([]), &false.into())
        );
        assert_eq!(shown["data_bytes"], 320_000);
    }
}

#[test]
fn a_log_that_was_not_closed_is_shown_up_to_its_last_whole_entry() {
    let mut bytes = example(0x0002_0000, 0);
    bytes.extend([0x77; 5000]);
    let log = Log::of(&bytes);
    log.show().success().says(&[
        "not closed",
        "! the log wasn't closed properly",
        "58 entries",
        "! bytes 332288 to 337288 hold no whole block",
    ]);
    let shown = log.show_json().success().json();
    assert_eq!((&shown["header"]["closed"], &shown["entries_found"]), (&false.into(), &58.into()));
    assert_eq!((&shown["problems_found"], &shown["damaged"]), (&2.into(), &false.into()));
}

#[test]
fn a_damaged_log_is_told_with_the_place_and_what_is_whole_is_shown() {
    // Closed, and cut.
    let mut cut = example(0x0002_0000, END);
    cut.truncate(200_000);
    let output = Log::of(&cut).show().failure();
    assert_eq!(output.status.code(), Some(3), "{output}");
    output.says(&["stated to end at 332288, and the file has 200000 bytes", "disk.hrl is damaged"]);
    // An entry of the last block.
    let mut entry = example(0x0002_0000, END);
    entry[BLOCK + 40] ^= 1;
    let output = Log::of(&entry).show_json();
    assert_eq!(output.status.code(), Some(3), "{output}");
    let problem = output.json()["problems"][0].to_string();
    assert!(problem.contains("block at 328192 isn't whole: its entry 1 of 58"), "{problem}");
    // The way back to the first block.
    let mut chain = example(0x0002_0000, END);
    chain[4096] = 1;
    let output = Log::of(&chain).show().failure();
    output.says(&["block at 4096 isn't whole", "58 entries", "disk.hrl is damaged"]);
    // The header only: nothing else depends on it.
    let mut doubt = example(0x0002_0000, END);
    doubt[4000] = 1;
    Log::of(&doubt).show().success().says(&["! the header's checksum is", "58 entries"]);
}

#[test]
fn data_that_changed_is_told() {
    let mut entry = [0_u8; 32];
    entry[12] = 4;
    entry[20] = 1;
    // The checksum of 1, 2, 3, 4.
    entry[21..25].copy_from_slice(&(!10_u32).to_le_bytes());
    put_checksum(&mut entry, 8);
    let log = |data: &[u8; 4]| {
        let mut bytes = header(0x0002_0000, 8196);
        bytes.extend(data);
        bytes.extend(block(0, &[entry]));
        Log::of(&bytes)
    };
    log(&[1, 2, 3, 4]).show().success().says(&["whole", "1 entry, 4 B of data"]);
    let changed = log(&[1, 2, 3, 5]).show().failure();
    changed.says(&["DIFFERS", "4294967285 is stated, and its bytes give 4294967284"]);
    let shown = log(&[1, 2, 3, 5]).show_json().json();
    assert_eq!(
        (&shown["entries"][0]["data"], &shown["damaged"]),
        (&"differs".into(), &true.into())
    );
}

#[test]
fn what_is_no_log_is_refused_and_says_why() {
    let refuses = |bytes: &[u8], words: &[&str]| {
        let log = Log::of(bytes);
        let output = log.show().refused(&[&[shown(&log.path)], words].concat());
        assert_eq!(output.stdout, "", "no result");
    };
    refuses(b"", &["doesn't begin with 'msctlog'"]);
    refuses(b"TGORDER\0", &["doesn't begin with 'msctlog'"]);
    refuses(
        &example(0x0002_0000, END)[..4095],
        &["has 4095 bytes, and the header alone takes 4096"],
    );
    refuses(&example(0x0003_0000, END), &["its version is 0x00030000"]);
    let mut blocks = example(0x0002_0000, END);
    blocks[56..60].copy_from_slice(&513_u32.to_le_bytes());
    refuses(&blocks, &["blocks have 513 bytes", "a multiple of 512"]);
    let none = Tidegate::new(["hrl", "show", "/no/such.hrl"]).run();
    none.refused(&["/no/such.hrl", "No such file", "check its path"]);
    Tidegate::new(["hrl", "show", "/dev"]).run().refused(&["/dev isn't a file"]);
}
