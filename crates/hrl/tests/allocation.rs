//! What reading a log takes: the same for a long one as for a short one.
//!
//! Counted by a global allocator of this test alone, for the current thread.

#![allow(clippy::unwrap_used)] // also in functions that tests share

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;

use tidegate_hrl::format::{
    Entry, FileHeader, HEADER_BYTES, Stamp, Sum, UniqueId, Version, encode_block,
};
use tidegate_hrl::scan::{Found, Scan};
use tidegate_hrl::storage::ReadAt;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed to the system's allocator as it came; counting itself allocates
// nothing, for the cells are initialised in constants and need no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.get() + layout.size();
        HELD.set(held);
        MOST.set(MOST.get().max(held));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().saturating_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A log of equal blocks of 512 bytes, each with one entry of 512 bytes, made as it is read.
struct Endless {
    header: Vec<u8>,
    first: Vec<u8>,
    block: Vec<u8>,
    blocks: u64,
}

const STEP: u64 = 1024;

impl Endless {
    fn of(blocks: u64, closed: bool) -> Self {
        let end = HEADER_BYTES + blocks * STEP;
        let header = FileHeader {
            version: Version::V2,
            created: Stamp(0),
            creator_application: *b"test",
            creator_version: 0,
            original_bytes: 0,
            current_bytes: end,
            eol_location: if closed { end } else { 0 },
            error_code: 0,
            metadata_bytes: 512,
            unique_id: UniqueId::NONE,
            previous_unique_id: UniqueId::NONE,
            last_modified: Stamp(0),
            entries_total: blocks,
            file_type: 0,
            flags: 0,
            data_write_guid: UniqueId::NONE,
        };
        let data_checksum = Sum::of(&[0; 512]).checksum();
        let entry = Entry { byte_offset: 0, data_bytes: 512, time: Stamp(0), data_checksum };
        let block = |distance| encode_block(distance, &[entry], 512);
        Self { header: header.encode(), first: block(0), block: block(STEP), blocks }
    }
}

impl ReadAt for Endless {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let end = HEADER_BYTES + self.blocks * STEP;
        if offset < HEADER_BYTES {
            let rest = &self.header[usize::try_from(offset).unwrap()..];
            let count = rest.len().min(into.len());
            into[..count].copy_from_slice(&rest[..count]);
            return Ok(count);
        }
        let place = offset.min(end) - HEADER_BYTES;
        let within = usize::try_from(place % STEP).unwrap();
        let left = usize::try_from(end - offset.min(end)).unwrap();
        let block = if place < STEP { &self.first } else { &self.block };
        let (bytes, part) = match within {
            0..512 => (&[0; 512][..], within),
            _ => (&block[..], within - 512),
        };
        let rest = &bytes[part..];
        let count = rest.len().min(into.len()).min(left);
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(HEADER_BYTES + self.blocks * STEP)
    }
}

/// How much a scan of so many blocks holds at most.
fn most_bytes(blocks: u64, closed: bool) -> usize {
    let log = Endless::of(blocks, closed);
    let before = HELD.get();
    MOST.set(before);
    let mut scan = Scan::open(log).unwrap();
    let mut entries = 0;
    while let Some(found) = scan.next().unwrap() {
        match found {
            Found::Entry(_) => entries += 1,
            Found::Problem(problem) => assert!(!closed, "{problem}"),
        }
    }
    assert_eq!(entries, blocks);
    MOST.get() - before
}

#[test]
fn a_log_of_a_million_blocks_is_read_in_the_memory_of_a_short_one() {
    let short = most_bytes(10_000, true);
    let long = most_bytes(1_000_000, true);
    assert!(long < short + 8 * 1024, "{short} bytes for 10,000 blocks, {long} for a million");
    assert!(long < 512 << 10, "{long}");
}

#[test]
fn a_long_log_that_was_not_closed_is_too() {
    let most = most_bytes(50_000, false);
    assert!(most < 512 << 10, "{most}");
}
