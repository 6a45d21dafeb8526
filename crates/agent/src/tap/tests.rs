use std::io;
use std::path::Path;

use tidegate_hrl::journal::{Birth, Change, JournalSettings};
use tidegate_hrl::uring::UringStorage;
use tidegate_model::{Incarnation, Lsn, Micros};
use tidegate_nbd::Errno;
use tidegate_nbd::serve::Disk;

use super::backing::Applied;
use super::record::Content;
use super::*;

const BYTES: usize = 1 << 20;

fn tap(folder: &Path) -> Tap<UringStorage> {
    let path = folder.join("disk");
    std::fs::write(&path, vec![1; BYTES]).unwrap();
    let storage = UringStorage::open(&folder.join("journal")).unwrap();
    let settings = JournalSettings::of(JournalSettings::BYTES_MIN).unwrap();
    let birth = Birth { incarnation: Incarnation::from_bytes([7; 16]), boot: [1; 16] };
    let (journal, opening) = Journal::open(storage, settings, &birth, Box::new(|_| {})).unwrap();
    let (disk, marks) = (DiskNumber::default(), folder.join("marks"));
    let settings = TapSettings { disk, path, marks, boot: [1; 16] };
    Tap::create(&settings, Arc::new(journal), &opening, Arc::new(|| Micros(1))).unwrap()
}

/// The disk as the journal has it, which began with ones.
fn replayed(tap: &Tap<UringStorage>) -> Vec<u8> {
    let mut disk = vec![1; BYTES];
    let last = tap.journal.usage().last;
    tap.journal.wait_durable(last).unwrap();
    let mut reader = tap.journal.read_from(Lsn(1));
    while let Some(record) = reader.next().unwrap() {
        match record.change {
            Change::Write { offset, data, .. } => {
                let start = usize::try_from(offset).unwrap();
                disk[start..start + data.len()].copy_from_slice(&data);
            }
            Change::Zero(extent) => {
                let start = usize::try_from(extent.offset).unwrap();
                disk[start..start + usize::try_from(extent.length).unwrap()].fill(0);
            }
            other => panic!("{other:?}"),
        }
    }
    disk
}

fn found(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("disk")).unwrap()
}

#[test]
fn of_a_change_that_failed_what_it_left_is_recorded_and_not_what_it_was_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let tap = tap(folder.path());
    let data = [2; 8192];
    let failed = tap.change(&(5000..5000 + 8192), Content::Data(&data), |backing| {
        backing.write(5000, &data[..4096])?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert_eq!(failed.unwrap_err().errno, Errno::NoSpace);
    let failed = tap.change(&(20_000..30_000), Content::Zeros, |_| Err(io::Error::other("bad")));
    assert_eq!(failed.unwrap_err().errno, Errno::Io);
    assert!(replayed(&tap) == found(folder.path()));
    assert_eq!(found(folder.path())[5000 + 4095..5000 + 4097], [2, 1]);
    assert_eq!(tap.state().mode, Mode::Data);
}

#[test]
fn what_failed_and_cannot_be_read_either_is_left_to_a_climb() {
    let folder = tempfile::tempdir().unwrap();
    let tap = tap(folder.path());
    let file = std::fs::OpenOptions::new().write(true).open(folder.path().join("disk")).unwrap();
    file.set_len(100_000).unwrap();
    let range = 150_000..160_000;
    let failed = tap.change(&range, Content::Zeros, |_| Err(io::Error::other("bad")));
    assert_eq!(failed.unwrap_err().errno, Errno::Io);
    let state = tap.state();
    assert_eq!((state.mode, state.dirty_bytes), (Mode::Bitmap, 64 << 10));
    assert!(matches!(tap.climb(1 << 20), Err(CaptureError::Read { .. })));
    assert_eq!(tap.state(), state);
    file.set_len(BYTES as u64).unwrap();
    assert!(matches!(tap.climb(1 << 20).unwrap(), Climb::Done(_)));
    assert_eq!(tap.state().mode, Mode::Data);
}

#[test]
fn a_trim_is_recorded_as_zeros_only_where_it_left_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let tap = tap(folder.path());
    tap.change(&(0..4096), Content::Zeros, |_| Ok(Applied::Unchanged)).unwrap();
    assert_eq!(tap.journal.usage().last, Lsn::NONE);
    tap.trim(100, 300_000, false).unwrap();
    tap.zero(500_001, 9000, tidegate_nbd::serve::Zeroing::default()).unwrap();
    let allocate = tidegate_nbd::serve::Zeroing { allocate: true, ..Default::default() };
    tap.zero(600_001, 9000, allocate).unwrap();
    assert_eq!(tap.journal.usage().last, Lsn(3));
    assert!(replayed(&tap) == found(folder.path()));
    let disk = found(folder.path());
    assert!(disk[100..300_100].iter().all(|byte| *byte == 0) && disk[99] == 1);
    assert!(disk[600_001..609_001].iter().all(|byte| *byte == 0) && disk[609_001] == 1);
}

#[test]
fn marks_go_when_their_records_are_durable_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let tap = tap(folder.path());
    let marked = |tap: &Tap<UringStorage>| tap.marks.marked().unwrap();
    tap.change(&(0..4096), Content::Zeros, |backing| {
        assert_eq!(marked(&tap), [0..4096], "before it is made");
        backing.zero(&(0..4096), false)?;
        Ok(Applied::Changed)
    })
    .unwrap();
    // Whether the journal was quicker isn't told here; that nothing else takes the mark away is.
    assert_eq!(marked(&tap), [0..4096]);
    tap.journal.wait_durable(Lsn(1)).unwrap();
    tap.write(8192, &[3; 100], false).unwrap();
    assert_eq!(marked(&tap), [8192..8292]);
    tap.close().unwrap();
    assert_eq!(marked(&tap), []);
    let refused = tap.write(0, &[1], false).unwrap_err();
    assert_eq!(refused.errno, Errno::ShuttingDown);
}

#[test]
fn holes_are_told_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let tap = tap(folder.path());
    tap.trim(128 << 10, 256 << 10, false).unwrap();
    let spans = tap.status(0, BYTES as u64).unwrap();
    let told: Vec<_> = spans.iter().map(|span| (span.length >> 10, span.flags.0)).collect();
    assert_eq!(told, [(128, 0), (256, 3), (640, 0)]);
    assert_eq!(tap.status(200 << 10, 4096).unwrap().len(), 1);
}
