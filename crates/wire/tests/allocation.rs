//! What the protocol allocates: nothing on the path of data, and never more than its limits
//! whatever a peer says.
//!
//! Counted by a global allocator of this test alone, for the current thread.

#![allow(clippy::unwrap_used)] // also in functions that tests share

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tidegate_model::{
    Checksum, Disk, DiskNumber, Epoch, Extent, Lsn, Micros, RunId, Token, VaultId,
};
use tidegate_wire::limits::CONTROL_BYTES_MAX;
use tidegate_wire::{
    Begins, Decoder, Header, Hello, Item, Kind, Message, Record, RecordKind, Side, Totals, Welcome,
    server,
};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn note(bytes: usize) {
    COUNT.with(|count| count.set(count.get() + 1));
    LARGEST.with(|largest| largest.set(largest.get().max(bytes)));
}

// SAFETY: every call is handed to the system's allocator as it came; counting itself allocates
// nothing, for the cells are initialised in constants and need no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note(bytes);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DATA: [u8; 4096] = [7; 4096];
const RECORD: u64 = DATA.len() as u64;

/// A session that streams, with disk 0 of 1 MiB stated.
fn streaming() -> server::Session {
    let vault = VaultId::from_bytes([1; 16]);
    let mut session = server::Session::new(vault);
    let hello = Hello {
        version: 1,
        vault,
        incarnation: tidegate_model::Incarnation::from_bytes([2; 16]),
        epoch: Epoch(1),
        committed: Lsn::NONE,
        features: 0,
        begins: Begins::Copy,
        parent: None,
        token: Token::NONE,
        machine: "m".parse().unwrap(),
    };
    session.hello(Message::Hello(hello)).unwrap();
    let welcome = Welcome {
        epoch: Epoch(1),
        committed: Lsn::NONE,
        credit_bytes: 1 << 40,
        record_bytes_max: 4096,
        block_bytes: 4096,
        features: 0,
        run: RunId::from_bytes([3; 16]),
        shard: 0,
        before: Token::NONE,
    };
    session.grant(&welcome, &mut Vec::new());
    let kind =
        RecordKind::Disk(Disk { number: DiskNumber::default(), bytes: 1 << 20, name: "d".into() });
    session.record(&Record { lsn: Lsn::NONE, time: Micros(0), kind }).unwrap();
    session
}

#[test]
fn a_write_costs_no_allocation_from_its_header_to_its_acknowledgement() {
    let mut bytes = Vec::new();
    for lsn in 1..=100 {
        let extent = Extent { disk: DiskNumber::default(), offset: lsn * RECORD, length: RECORD };
        let header = Record::write_header(Lsn(lsn), Micros(lsn), extent, Checksum::of(&DATA));
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(&DATA);
    }
    let (mut session, mut decoder) = (streaming(), Decoder::new(Side::Server));
    let (mut out, mut taken, mut data_bytes) = (Vec::with_capacity(4096), 0, 0);
    let before = COUNT.get();
    for mut piece in bytes.chunks(1460) {
        while let Some(item) = decoder.next(&mut piece).unwrap() {
            match item {
                Item::Write(record) => assert!(session.record(&record).unwrap()),
                Item::Payload(part) => data_bytes += part.len(),
                Item::WriteEnd => {
                    taken += 1;
                    out.clear();
                    session.ack(session.received(), Totals::default(), &mut out);
                    session.credit(RECORD, &mut out);
                }
                Item::Message(message) => panic!("{message:?}"),
            }
        }
    }
    assert_eq!(COUNT.get() - before, 0);
    assert_eq!((taken, data_bytes), (100, 100 * DATA.len()));
}

#[test]
fn no_frame_makes_a_decoder_reserve_more_than_twice_its_limit() {
    LARGEST.set(0);
    for code in 0..=u8::MAX {
        let Some(kind) = Kind::from_code(code) else { continue };
        let side = if kind.is_from_agent() { Side::Server } else { Side::Agent };
        for bytes in [1, 40, 1024, 2055, 4096, 65_536, 1 << 30, u32::MAX] {
            let mut decoder = Decoder::new(side);
            let header = Header { payload_bytes: bytes, lsn: Lsn(1), ..Header::of(kind) };
            let header = if matches!(kind, Kind::Ack | Kind::Disk | Kind::Bookmark) {
                header
            } else {
                Header { lsn: Lsn::NONE, ..header }
            };
            let _ = decoder.next(&mut &header.encode()[..]);
            // As much of the payload as fits a read, again and again.
            for _ in 0..8 {
                let _ = decoder.next(&mut &[0xff; 1024][..]);
            }
        }
    }
    let (largest, most) = (LARGEST.get(), 2 * CONTROL_BYTES_MAX);
    assert!(largest <= most, "{largest} bytes were reserved at once, {most} are allowed");
    assert!(largest >= 1024, "the test doesn't reach the gathering of payloads");
}
