//! What NBD allocates: nothing on the path of data, and never more than its limits whatever a client
//! says.
//!
//! Counted by a global allocator of this test alone, for the current thread.

#![allow(clippy::unwrap_used)] // also in functions that tests share

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tidegate_nbd::client::{Agreed, Asking};
use tidegate_nbd::limits::{OPTION_BYTES_MAX, OPTION_SKIPPED_BYTES_MAX, SKIPPED_BYTES_MAX};
use tidegate_nbd::{
    Agreement, BlockSizes, ChunkCode, ChunkHeader, CommandFlags, CommandKind, Cookie, Event,
    Export, Handshake, OptionHeader, Request, Span, StatusFlags, Transmission, TransmissionFlags,
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

fn export() -> Export {
    let flags = TransmissionFlags::FLUSH.with(TransmissionFlags::FUA);
    Export::new("disk", 1 << 30, flags, BlockSizes::default()).unwrap()
}

fn transmission() -> Transmission {
    let (structured, allocation) = (true, true);
    Transmission::new(Agreement { index: 0, export: export(), structured, allocation })
}

fn append(code: u16, length: u32, bytes: &mut Vec<u8>) {
    let (flags, cookie, offset) = (CommandFlags::NONE, Cookie(1), 4096);
    Request { flags, code, cookie, offset, length }.encode(bytes);
}

#[test]
fn a_command_costs_no_allocation_from_its_request_to_its_reply() {
    let mut bytes = Vec::new();
    for _ in 0..100 {
        append(CommandKind::Write as u16, 4096, &mut bytes);
        bytes.resize(bytes.len() + 4096, 7);
        append(CommandKind::Read as u16, 4096, &mut bytes);
        append(CommandKind::BlockStatus as u16, 4096, &mut bytes);
        append(99, 4096, &mut bytes);
    }
    let (mut transmission, mut out) = (transmission(), Vec::with_capacity(4096));
    let (replies, mut commands, mut data_bytes) = (transmission.replies(), 0, 0);
    let (before, mut writing) = (COUNT.get(), None);
    for mut piece in bytes.chunks(1460) {
        while let Some(event) = transmission.next(&mut piece, &mut out).unwrap() {
            match event {
                Event::Command(command) if command.kind == CommandKind::Write => {
                    writing = Some(command);
                }
                Event::Command(command) if command.kind == CommandKind::Read => {
                    replies.read_hole(&command, command.offset, 2048, false, &mut out);
                    replies.read_data(&command, command.offset + 2048, 2048, true, &mut out);
                }
                Event::Command(command) => {
                    let spans = [Span { length: 4096, flags: StatusFlags::HOLE }];
                    replies.block_status(&command, spans, &mut out);
                }
                Event::Payload(part) => data_bytes += part.len(),
                Event::PayloadEnd => replies.done(&writing.take().unwrap(), &mut out),
                Event::Answered => {}
                Event::Disconnect => panic!("nobody went"),
            }
            commands += usize::from(!matches!(event, Event::Payload(_) | Event::PayloadEnd));
            out.clear();
        }
    }
    assert_eq!(COUNT.get() - before, 0);
    assert_eq!((commands, data_bytes), (400, 100 * 4096));
}

#[test]
fn no_option_makes_a_handshake_reserve_more_than_twice_its_limit() {
    LARGEST.set(0);
    let lengths = [1, 4096, OPTION_BYTES_MAX + 1, OPTION_SKIPPED_BYTES_MAX as usize, 1 << 31];
    for code in 0..14 {
        for length in lengths.into_iter().chain([OPTION_BYTES_MAX]) {
            let mut handshake = Handshake::new([export()].into());
            let (mut bytes, mut out) = (vec![0, 0, 0, 3], Vec::new());
            OptionHeader { code, length: u32::try_from(length).unwrap() }.encode(&mut bytes);
            let _ = handshake.next(&mut bytes.as_slice(), &mut out);
            // As much of the data as fits a read, again and again.
            for _ in 0..64 {
                let _ = handshake.next(&mut &[0xff; 1024][..], &mut out);
            }
        }
    }
    let (largest, most) = (LARGEST.get(), 2 * OPTION_BYTES_MAX);
    assert!(largest <= most, "{largest} bytes were reserved at once, {most} are allowed");
    assert!(largest >= OPTION_BYTES_MAX, "the test doesn't reach the gathering of options");
}

#[test]
fn no_reply_makes_a_client_reserve_more_than_came_in() {
    LARGEST.set(0);
    let agreed = Agreed {
        bytes: 1 << 30,
        flags: TransmissionFlags::NONE,
        sizes: BlockSizes::default(),
        contexts: vec![1],
    };
    let codes = [ChunkCode::Data, ChunkCode::BlockStatus, ChunkCode::Error];
    for code in codes {
        for length in [12, 4096, 8 << 10, 4 + (8 << 20), 8 + (32 << 20)] {
            let (mut asking, mut bytes) = (Asking::new(&agreed), Vec::new());
            asking.read(0, 32 << 20, &mut Vec::new());
            asking.status(0, 32 << 20, &mut Vec::new());
            let cookie = Cookie(if code == ChunkCode::BlockStatus { 2 } else { 1 });
            ChunkHeader { cookie, code, is_last: false, length }.encode(&mut bytes);
            let _ = asking.next(&mut bytes.as_slice());
            for _ in 0..64 {
                let mut part = &[0; 64][..];
                while let Ok(Some(_)) = asking.next(&mut part) {}
            }
        }
    }
    let largest = LARGEST.get();
    assert!(largest <= 4 * 64 * 64, "{largest} bytes were reserved at once, for 4096 that came in");
}

#[test]
fn no_write_makes_a_transmission_reserve_anything() {
    LARGEST.set(0);
    for length in [1, 4096, 32 << 20, (32 << 20) + 1, SKIPPED_BYTES_MAX, u32::MAX] {
        let (mut transmission, mut bytes, mut out) = (transmission(), Vec::new(), Vec::new());
        append(CommandKind::Write as u16, length, &mut bytes);
        let _ = transmission.next(&mut bytes.as_slice(), &mut out);
        for _ in 0..64 {
            let _ = transmission.next(&mut &[0xff; 1024][..], &mut out);
        }
    }
    let largest = LARGEST.get();
    assert!(largest <= 256, "{largest} bytes were reserved at once, for one request");
}
