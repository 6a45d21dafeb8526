use std::collections::BTreeSet;

use tidegate_model::{DiskNumber, Incarnation};

use super::*;

const BYTES: u64 = 1000 * BLOCK_BYTES - 512;

fn subject() -> Subject {
    let (incarnation, disk) = (Incarnation::from_bytes([5; 16]), DiskNumber::default());
    Subject { incarnation, disk, bytes: BYTES }
}

fn again(path: &Path) -> Marks {
    Marks::open(path, subject()).unwrap().unwrap()
}

#[test]
fn what_is_marked_is_there_after_the_process_and_what_was_half_marked_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marks");
    let marks = Marks::create(&path, subject()).unwrap();
    marks.begin([1; 16]);
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
    assert_eq!(marks.left([1; 16]), Left::Open { same_boot: true });
    assert_eq!(marks.left([2; 16]), Left::Open { same_boot: false });
    let modified = (-5, 999_999_999);
    marks.close(Lsn(77), modified).unwrap();
    assert_eq!(again(&path).left([2; 16]), Left::Closed { last: Lsn(77), modified });
    assert!(Marks::open(&folder.path().join("other"), subject()).unwrap().is_none());
}

#[test]
fn dirty_blocks_are_counted_found_in_order_and_there_after_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marks");
    let marks = Marks::create(&path, subject()).unwrap();
    let gap = Some(GapStart { after: Lsn(0), time: Micros(9) });
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
