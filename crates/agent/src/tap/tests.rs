//! What a tap does with changes that fail, that race and that find no journal.

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
    std::fs::write(folder.join("disk"), vec![1; BYTES]).unwrap();
    let (journal, opening) = journal(storage(folder));
    Tap::create(&settings(folder), journal, &opening, clock()).unwrap()
}

fn storage(folder: &Path) -> UringStorage {
    UringStorage::open(&folder.join("journal")).unwrap()
}

fn journal<S>(storage: S) -> (Arc<Journal<S>>, Opening)
where
    S: Storage + Send + 'static,
    S::File: Send,
{
    let settings = JournalSettings::of(JournalSettings::BYTES_MIN).unwrap();
    let birth = Birth { incarnation: Incarnation::from_bytes([7; 16]), boot: [1; 16] };
    let (journal, opening) = Journal::open(storage, settings, &birth, Box::new(|_| {})).unwrap();
    (Arc::new(journal), opening)
}

fn settings(folder: &Path) -> TapSettings {
    let (path, marks) = (folder.join("disk"), folder.join("marks"));
    TapSettings { disk: DiskNumber::default(), path, marks, boot: [1; 16] }
}

fn clock() -> Clock {
    Arc::new(|| Micros(1))
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
            Change::Bookmark(bookmark) if bookmark.kind.begins_gap() => {}
            other => panic!("{other:?}"),
        }
    }
    disk
}

/// What was appended behind `after`, once it is durable.
fn appended(journal: &Journal<UringStorage>, after: Lsn) -> Vec<Change<Vec<u8>>> {
    journal.wait_durable(journal.usage().last).unwrap();
    let mut reader = journal.read_from(after.next());
    std::iter::from_fn(|| Some(reader.next().unwrap()?.change)).collect()
}

fn begins(kind: BookmarkKind) -> Change<Vec<u8>> {
    Change::Bookmark(tidegate_model::Bookmark { kind, clean: false, name: String::new() })
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
    let marked = |tap: &Tap<UringStorage>| -> Vec<(u64, u64)> {
        tap.marks.marked().unwrap().iter().map(|range| (range.start, range.end)).collect()
    };
    tap.change(&(0..4096), Content::Zeros, |backing| {
        assert_eq!(marked(&tap), [(0, 4096)], "before it is made");
        backing.zero(&(0..4096), false)?;
        Ok(Applied::Changed)
    })
    .unwrap();
    // Whether the journal was quicker isn't told here; that nothing else takes the mark away is.
    assert_eq!(marked(&tap), [(0, 4096)]);
    tap.journal.wait_durable(Lsn(1)).unwrap();
    tap.write(8192, &[3; 100], false).unwrap();
    assert_eq!(marked(&tap), [(8192, 8292)]);
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

/// Has a client write at 0 when the tap is about to append what it read there, and goes on once that
/// write is done, or waits.
fn write_meanwhile(folder: &Path, read: impl FnOnce(&Tap<UringStorage>)) {
    let (said, heard) = std::sync::mpsc::channel::<std::sync::mpsc::Sender<()>>();
    let first = AtomicBool::new(true);
    let clock = move || {
        if first.swap(false, Ordering::SeqCst) {
            let (done, waited) = std::sync::mpsc::channel();
            said.send(done).unwrap();
            waited.recv().unwrap();
        }
        Micros(1)
    };
    let tap = Tap { clock: Arc::new(clock), ..tap(folder) };
    std::thread::scope(|scope| {
        let tap = &tap;
        scope.spawn(move || {
            let go_on = heard.recv().unwrap();
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| tap.write(4096, &[9; 4096], false).unwrap());
                while !writer.is_finished() && !tap.ranges.has_waiting() {
                    std::thread::yield_now();
                }
                go_on.send(()).unwrap();
            });
        });
        read(tap);
    });
    assert!(replayed(&tap) == found(folder), "what was read is older than what was written");
}

#[test]
fn what_is_captured_is_not_older_than_a_change_before_it() {
    let folder = tempfile::tempdir().unwrap();
    write_meanwhile(folder.path(), |tap| _ = tap.capture(0, 64 << 10).unwrap());
}

#[test]
fn a_block_that_is_caught_up_with_is_not_older_than_a_change_before_it() {
    let folder = tempfile::tempdir().unwrap();
    write_meanwhile(folder.path(), |tap| {
        let (after, time, kind) = (Lsn::NONE, Micros(1), BookmarkKind::GapJournalFull);
        let gap = Some(GapStart { after, time, kind });
        tap.marks.set_gap(gap);
        tap.marks.soil(&(0..1));
        *tap.history() = History { gap, climbing: false };
        assert!(matches!(tap.climb(1 << 20).unwrap(), Climb::Done(_)));
    });
}

#[test]
fn from_the_fall_of_one_disk_on_nothing_of_any_disk_stands_outside_of_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let tap = tap(folder.path());
    std::fs::write(folder.path().join("other"), vec![1; BYTES]).unwrap();
    let opening = Opening {
        incarnation: Incarnation::from_bytes([7; 16]),
        ending: tidegate_hrl::journal::Ending::New,
        recovered_to: Lsn::NONE,
        committed: Lsn::NONE,
        time: Micros(0),
    };
    let (path, marks) = (folder.path().join("other"), folder.path().join("other marks"));
    let told = TapSettings { disk: 1.try_into().unwrap(), path, marks, boot: [1; 16] };
    let other = Tap::create(&told, tap.journal.clone(), &opening, clock()).unwrap();
    other.write(0, &[2; 10], false).unwrap();
    tap.fall(&(0..100), BookmarkKind::GapJournalFull, &"a test");
    assert_eq!(tap.journal.usage().last, Lsn(1), "there may be no room for it");
    other.write(10, &[3; 10], false).unwrap();
    let found = appended(&tap.journal, Lsn(1));
    assert_eq!(found[0], begins(BookmarkKind::GapJournalFull));
    assert!(matches!(found[1], Change::Write { offset: 10, .. }), "{:?}", found[1]);
    // It is said once, whatever falls and climbs until a bookmark.
    assert!(matches!(tap.climb(1 << 20).unwrap(), Climb::Done(_)));
    other.fall(&(0..100), BookmarkKind::GapDiskError, &"a test");
    assert!(matches!(other.climb(1 << 20).unwrap(), Climb::Done(_)));
    let (kind, clean, name) = (BookmarkKind::CrashConsistent, true, String::new());
    let whole = tidegate_model::Bookmark { kind, clean, name };
    let lsn = tap.journal.append(&Change::Bookmark(whole), Micros(1)).unwrap();
    let gaps = |found: &[Change<Vec<u8>>]| {
        let kind = |change: &Change<_>| match change {
            Change::Bookmark(mark) if mark.kind.begins_gap() => Some(mark.kind),
            _ => None,
        };
        found.iter().filter_map(kind).collect::<Vec<_>>()
    };
    assert_eq!(gaps(&appended(&tap.journal, Lsn(2))), []);
    other.fall(&(0..100), BookmarkKind::GapDiskError, &"a test");
    assert!(matches!(other.climb(1 << 20).unwrap(), Climb::Done(_)));
    assert_eq!(gaps(&appended(&tap.journal, lsn)), [BookmarkKind::GapDiskError]);
}

#[test]
fn a_climb_ends_whatever_is_written_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let tap = tap(folder.path());
    tap.fall(&(0..200_000), BookmarkKind::GapJournalFull, &"a test");
    tap.write(0, &[5; 100], false).unwrap();
    assert_eq!((tap.journal.usage().last, tap.state().dirty_bytes), (Lsn::NONE, 256 << 10));
    assert_eq!(tap.climb(64 << 10).unwrap(), Climb::Further { dirty_bytes: 192 << 10 });
    let before = tap.journal.usage().last;
    // Of a block that is clean, one that is clean again, and one that is dirty still.
    for offset in [500_000, 0, 150_000] {
        tap.write(offset, &[6; 100], false).unwrap();
    }
    assert_eq!(tap.journal.usage().last, Lsn(before.0 + 3));
    assert_eq!(tap.state().dirty_bytes, 192 << 10);
    assert!(matches!(tap.climb(1 << 20).unwrap(), Climb::Done(_)));
    assert!(replayed(&tap) == found(folder.path()));
}

/// A directory that can be written to only until the test wants otherwise.
#[derive(Debug, Clone)]
struct Failing(UringStorage, Arc<AtomicBool>);

impl Storage for Failing {
    type File = tidegate_hrl::uring::DiskFile;

    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        self.0.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Self::File> {
        self.0.create(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn truncate(&self, file: &Self::File, bytes: u64) -> io::Result<()> {
        self.0.truncate(file, bytes)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.sync_names()
    }

    fn write(&self, writes: Vec<tidegate_hrl::storage::Write<Self::File>>) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) {
            return Err(io::Error::other("the journal's disk is broken"));
        }
        self.0.write(writes)
    }
}

/// A tap with a durable write, whose journal fails once it is told to.
fn tap_that_may_fail(folder: &Path) -> (Tap<Failing>, Arc<AtomicBool>) {
    std::fs::write(folder.join("disk"), vec![1; BYTES]).unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let (failing, opening) = journal(Failing(storage(folder), broken.clone()));
    let tap = Tap::create(&settings(folder), failing, &opening, clock()).unwrap();
    tap.write(0, &[2; 5000], false).unwrap();
    tap.journal.wait_durable(Lsn(1)).unwrap();
    (tap, broken)
}

#[test]
fn a_journal_that_fails_harms_no_client_and_what_it_lacks_is_known_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (tap, broken) = tap_that_may_fail(folder.path());
    broken.store(true, Ordering::SeqCst);
    // Taken by the journal, and never durable.
    tap.write(100_000, &[3; 5000], false).unwrap();
    tap.journal.wait_durable(Lsn(2)).unwrap_err();
    tap.write(300_000, &[4; 5000], false).unwrap();
    let state = tap.state();
    assert_eq!((state.mode, state.dirty_bytes), (Mode::Bitmap, 64 << 10));
    assert_eq!(state.since.unwrap().after, Lsn(1));
    assert!(matches!(tap.climb(1 << 20).unwrap(), Climb::Full { .. }));
    assert!(tap.close().is_err());
    drop(tap);
    let (journal, opening) = journal(storage(folder.path()));
    let resumed = Tap::resume(&settings(folder.path()), journal, &opening, clock()).unwrap();
    let Resumed::Reread(tap, reread) = resumed else { panic!("nothing was in flight") };
    assert_eq!((reread.after, reread.bytes), (Lsn(1), 5000));
    assert!(matches!(tap.climb(1 << 20).unwrap(), Climb::Done(_)));
    assert!(replayed(&tap) == found(folder.path()));
}

#[test]
fn a_gap_is_forgotten_only_when_the_record_that_names_it_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let (tap, broken) = tap_that_may_fail(folder.path());
    tap.fall(&(0..100), BookmarkKind::GapDiskError, &"a test");
    broken.store(true, Ordering::SeqCst);
    assert!(matches!(tap.climb(1 << 20).unwrap(), Climb::Full { .. }));
    drop(tap);
    let (journal, opening) = journal(storage(folder.path()));
    let resumed = Tap::resume(&settings(folder.path()), journal.clone(), &opening, clock());
    let (Resumed::Whole(tap) | Resumed::Reread(tap, _)) = resumed.unwrap() else { panic!() };
    assert_eq!(tap.state().since.map(|gap| gap.kind), Some(BookmarkKind::GapDiskError));
    assert!(matches!(tap.climb(1 << 20).unwrap(), Climb::Done(_)));
    assert_eq!(appended(&journal, Lsn(1))[0], begins(BookmarkKind::GapDiskError));
}

#[test]
fn while_a_tap_is_held_no_change_that_finds_the_journal_full_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let tap = tap(folder.path());
    let mut offset = 0;
    let answered = AtomicBool::new(false);
    let hold = tap.hold();
    assert!(hold.is_whole());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while tap.recording.load(Ordering::Acquire) {
                tap.write(offset, &[3; 65536], false).unwrap();
                offset = (offset + 65536) % BYTES as u64;
            }
            answered.store(true, Ordering::Release);
        });
        // Nothing more fits, and what finds that out waits for us.
        while !matches!(
            tap.journal
                .append(&Change::Write { disk: tap.disk, offset: 0, data: &[3; 65536] }, Micros(1)),
            Err(tidegate_hrl::journal::AppendError::Full { .. })
        ) {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(hold.is_whole() && !answered.load(Ordering::Acquire));
        drop(hold);
    });
    assert!(!tap.hold().is_whole());
}
