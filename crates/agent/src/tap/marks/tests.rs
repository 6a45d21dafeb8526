//! Marks as a kill leaves them, and their bytes.

use std::collections::BTreeSet;

use tidegate_model::{Checksum, DiskNumber, Incarnation};

use super::*;

const BYTES: u64 = 1000 * BLOCK_BYTES - 512;

fn subject() -> Subject {
    let (incarnation, disk) = (Incarnation::from_bytes([5; 16]), DiskNumber::default());
    Subject { incarnation, disk, bytes: BYTES, name: Checksum::of(b"/dev/vda") }
}

fn again(path: &Path) -> Marks {
    Marks::open(path, subject()).unwrap().unwrap()
}

#[test]
fn what_is_marked_is_there_after_the_process_and_what_was_half_marked_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marks");
    let marks = Marks::create(&path, subject()).unwrap();
    marks.begin([1; 16]).unwrap();
    marks.set(0, &(100..200));
    marks.set(SLOTS - 1, &(BYTES - 1..BYTES));
    marks.set(7, &(150..300));
    marks.set(8, &(300..301));
    marks.clear(8);
    // Killed before the last word of a slot was there.
    marks.store(slot_at(9), 5000);
    marks.store(slot_at(9) + 1, 512);
    drop(marks);
    let marks = again(&path);
    assert_eq!(marks.marked().unwrap(), [100..300, BYTES - 1..BYTES]);
    assert_eq!(marks.left([1; 16]), (Left::Open, true));
    assert_eq!(marks.left([2; 16]), (Left::Open, false));
    let footprint = Footprint([1, 2, 3, 4, 5, u64::MAX]);
    marks.close(Lsn(77), footprint).unwrap();
    let closed = Left::Closed { last: Lsn(77), footprint };
    assert_eq!(again(&path).left([2; 16]), (closed, false));
    assert!(Marks::open(&folder.path().join("other"), subject()).unwrap().is_none());
}

#[test]
fn dirty_blocks_are_counted_found_in_order_and_there_after_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marks");
    let marks = Marks::create(&path, subject()).unwrap();
    let (after, time, kind) = (Lsn(0), Micros(9), BookmarkKind::GapDiskError);
    let gap = Some(GapStart { after, time, kind });
    marks.set_gap(gap);
    let mut model = BTreeSet::new();
    let mut salt = 1_u64;
    for round in 0..2000 {
        salt = salt.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let start = (salt >> 20) % BYTES;
        let end = (start + 1 + (salt >> 50) * 100).min(BYTES);
        let blocks = start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
        if round % 3 == 0 {
            let first = blocks.start * BLOCK_BYTES;
            marks.clean(&(first..(blocks.end * BLOCK_BYTES).min(BYTES)));
            model.retain(|block| !blocks.contains(block));
        } else {
            marks.soil(&(start..end));
            model.extend(blocks);
        }
        assert_eq!(marks.dirty_blocks(), model.len() as u64);
    }
    drop(marks);
    let marks = again(&path);
    assert_eq!((marks.dirty_blocks(), marks.gap()), (model.len() as u64, gap));
    let (mut found, mut from) = (BTreeSet::new(), 0);
    while let Some(range) = marks.next_dirty(from, 3 * BLOCK_BYTES) {
        assert!(range.end - range.start <= 3 * BLOCK_BYTES && range.end <= BYTES);
        found.extend(range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES));
        from = range.end.next_multiple_of(BLOCK_BYTES);
    }
    assert_eq!(found, model);
    marks.clean(&(0..BYTES));
    marks.set_gap(None);
    assert_eq!((again(&path).dirty_blocks(), again(&path).gap()), (0, None));
}

#[test]
fn the_bytes_are_those_of_the_document() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marks");
    let marks = Marks::create(&path, subject()).unwrap();
    marks.begin([0xb0; 16]).unwrap();
    marks.set(1, &(0x1122..0x1122 + 0x3344));
    let (after, time, kind) = (Lsn(0x77), Micros(0x88), BookmarkKind::GapJournalFull);
    marks.set_gap(Some(GapStart { after, time, kind }));
    marks.soil(&(9 * BLOCK_BYTES..9 * BLOCK_BYTES + 1));
    marks.close(Lsn(0x99), Footprint([0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6])).unwrap();
    let file = std::fs::read(&path).unwrap();
    let mut expected = vec![0; 4096 + 32 * 8192 + 4096];
    let mut put = |at: usize, bytes: &[u8]| expected[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"TGMARKS\0\x01\0\0\0");
    put(16, &[5; 16]);
    put(32, &(1000 * 65_536_u64 - 512).to_le_bytes());
    put(40, &Checksum::of(b"/dev/vda").0.to_le_bytes());
    put(48, &Checksum::of(&file[..48]).0.to_le_bytes());
    put(64, &[0x78]);
    put(72, &[0x88]);
    put(80, &[5]);
    put(128, &[1]);
    put(136, &[0x99]);
    put(160, &[0xb0; 16]);
    (0..6).for_each(|word: u8| put(192 + 8 * usize::from(word), &[0xa1 + word]));
    let slot = [1_u64, 0x1122, 0x3344].map(u64::to_le_bytes).concat();
    put(4096 + 32, &slot[8..]);
    put(4096 + 32 + 16, &Checksum::of(&slot).0.to_le_bytes());
    put(4096 + 32 * 8192 + 1, &[2]);
    assert!(file == expected);
}
