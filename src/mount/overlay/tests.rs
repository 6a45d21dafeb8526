//! Overlays against a plain model: several disks, killed at any moment, opened again.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tempfile::TempDir;
use tidegate_model::{DiskNumber, Epoch, Lsn, Point, VaultId};

use super::*;

/// Odd on purpose: the last block is cut.
const DISK_BYTES: u64 = 9 * BLOCK_BYTES + 513;

fn beneath() -> Beneath {
    let disk = |number| (DiskNumber::try_from(number).unwrap(), DISK_BYTES);
    Beneath {
        vault: VaultId::from_bytes([1; 16]),
        machine: "db-1".parse().unwrap(),
        point: Point { epoch: Epoch(1), lsn: Lsn(7) },
        disks: vec![disk(0), disk(3)],
    }
}

/// What lies beneath: no two neighbours are the same.
fn below(disk: usize, offset: u64) -> u8 {
    u8::try_from((offset * 7 + offset / BLOCK_BYTES + disk as u64) % 251).unwrap()
}

fn fill_below(disk: usize) -> impl Fn(u64, &mut [u8]) -> io::Result<()> {
    move |offset, out| {
        for (at, byte) in (offset..).zip(out) {
            *byte = below(disk, at);
        }
        Ok(())
    }
}

fn read(overlay: &Overlay, disk: usize, range: Range<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let (end, has) = overlay.run(disk, at..range.end);
        assert!(end > at && end <= range.end);
        let mut part = vec![0; usize::try_from(end - at).unwrap()];
        if has {
            overlay.read(disk, at, &mut part).unwrap();
        } else {
            fill_below(disk)(at, &mut part).unwrap();
        }
        out.append(&mut part);
        at = end;
    }
    out
}

/// What the overlay calls a hole reads as zeros.
fn holes_are_zero(overlay: &Overlay, disk: usize) {
    let mut at = 0;
    while at < DISK_BYTES {
        let (end, has) = overlay.run(disk, at..DISK_BYTES);
        while has && at < end {
            let (next, is_hole) = overlay.stretch(disk, at..end).unwrap();
            assert!(next > at && next <= end);
            assert!(!is_hole || read(overlay, disk, at..next).iter().all(|byte| *byte == 0));
            at = next;
        }
        at = end;
    }
}

#[derive(Debug, Clone)]
enum Event {
    Write(usize, u64, u64, u8),
    Zero(usize, u64, u64, bool),
    Flush,
    Kill,
}

fn event() -> impl Strategy<Value = Event> {
    let range = (0..2_usize, 0..DISK_BYTES, 1..3 * BLOCK_BYTES)
        .prop_map(|(disk, offset, length)| (disk, offset, length.min(DISK_BYTES - offset)));
    prop_oneof![
        6 => (range.clone(), any::<u8>()).prop_map(|((d, o, l), byte)| Event::Write(d, o, l, byte)),
        2 => (range, any::<bool>()).prop_map(|((d, o, l), room)| Event::Zero(d, o, l, room)),
        2 => Just(Event::Flush),
        1 => Just(Event::Kill),
    ]
}

/// What each byte of the disks may be after a crash; the last is what it is without one.
struct Model(Vec<Vec<Vec<u8>>>);

impl Model {
    fn new() -> Self {
        let disk = |disk| (0..DISK_BYTES).map(|at| vec![below(disk, at)]).collect();
        Self((0..2).map(disk).collect())
    }

    fn write(&mut self, disk: usize, offset: u64, length: u64, byte: u8) {
        let range = usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap();
        self.0[disk][range].iter_mut().for_each(|may| may.push(byte));
    }

    /// Now it is what these disks say, and nothing else.
    fn is(&mut self, disks: &[Vec<u8>]) {
        for (may, bytes) in self.0.iter_mut().zip(disks) {
            may.iter_mut().zip(bytes).for_each(|(may, byte)| *may = vec![*byte]);
        }
    }

    fn now(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|disk| disk.iter().map(|may| *may.last().unwrap()).collect()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_was_written_is_read_and_what_was_flushed_survives_a_kill_at_any_moment(
        events in proptest::collection::vec(event(), 1..40),
    ) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("overlay");
        let mut overlay = Overlay::open(&path, &beneath()).unwrap();
        let mut model = Model::new();
        for event in events {
            match event {
                Event::Write(disk, offset, length, byte) => {
                    let data = vec![byte; usize::try_from(length).unwrap()];
                    overlay.write(disk, offset, &data, &fill_below(disk)).unwrap();
                    model.write(disk, offset, length, byte);
                }
                Event::Zero(disk, offset, length, takes_room) => {
                    overlay.zero(disk, offset..offset + length, takes_room, &fill_below(disk)).unwrap();
                    model.write(disk, offset, length, 0);
                }
                Event::Flush => {
                    overlay.flush().unwrap();
                    model.is(&model.now());
                }
                Event::Kill => {
                    // Nothing is done when it is dropped: this is what a kill leaves.
                    drop(overlay);
                    overlay = Overlay::open(&path, &beneath()).unwrap();
                    let disks: Vec<_> =
                        (0..2).map(|disk| read(&overlay, disk, 0..DISK_BYTES)).collect();
                    for (may, bytes) in model.0.iter().zip(&disks) {
                        for (may, byte) in may.iter().zip(bytes) {
                            prop_assert!(may.contains(byte), "{} isn't one of {:?}", byte, may);
                        }
                    }
                    model.is(&disks);
                }
            }
            for (disk, expected) in model.now().iter().enumerate() {
                prop_assert!(read(&overlay, disk, 0..DISK_BYTES) == *expected, "disk {}", disk);
                holes_are_zero(&overlay, disk);
            }
        }
    }
}

#[test]
fn an_overlay_of_anything_else_is_refused_and_left_as_it_is() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("overlay");
    drop(Overlay::open(&path, &beneath()).unwrap());
    let before = std::fs::read(&path).unwrap();
    let refused = |change: &dyn Fn(&mut Beneath), words: &[&str]| {
        let mut other = beneath();
        change(&mut other);
        let error = Overlay::open(&path, &other).err().expect("it is another's").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refused(&|other| other.vault = VaultId::from_bytes([2; 16]), &["vault 01", "another file"]);
    refused(&|other| other.machine = "db-2".parse().unwrap(), &["db-2", "another file"]);
    refused(&|other| other.point.lsn = Lsn(8), &["not of db-1 at 1:8", "--at 1:7"]);
    refused(&|other| other.point.epoch = Epoch(2), &["--at 1:7"]);
    refused(&|other| _ = other.disks.pop(), &["the same disks", "(disks 0, 3)"]);
    refused(&|other| other.disks[0].1 += 1, &["the same disks"]);
    assert!(std::fs::read(&path).unwrap() == before);
    for (content, words) in [
        (b"not an overlay".to_vec(), "no overlay"),
        (vec![], "no overlay"),
        (before[..4096].to_vec(), "cut short"),
        (before.iter().map(|byte| byte | 1).collect(), "no overlay"),
    ] {
        std::fs::write(&path, &content).unwrap();
        let error = Overlay::open(&path, &beneath()).err().expect("it is none").to_string();
        assert!(error.contains(words), "{error}");
        assert!(std::fs::read(&path).unwrap() == content);
    }
}

#[test]
fn two_mounts_do_not_share_an_overlay_and_a_failed_start_leaves_none() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("overlay");
    let first = Overlay::open(&path, &beneath()).unwrap();
    let error = Overlay::open(&path, &beneath()).err().expect("it is in use").to_string();
    assert!(error.contains("in use"), "{error}");
    drop(first);
    assert!(Overlay::open(&path, &beneath()).is_ok());
    assert!(Overlay::open(&folder.path().join("none/overlay"), &beneath()).is_err());
    let names: BTreeSet<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, BTreeSet::from(["overlay".into()]));
}

#[test]
fn parts_of_one_block_that_are_written_at_once_are_all_there() {
    let folder = TempDir::new().unwrap();
    let overlay = Overlay::open(&folder.path().join("overlay"), &beneath()).unwrap();
    let parts = 32;
    let length = BLOCK_BYTES / parts;
    for block in 0..9 {
        std::thread::scope(|scope| {
            for part in 1..parts {
                let overlay = &overlay;
                scope.spawn(move || {
                    let data = vec![u8::try_from(part).unwrap(); usize::try_from(length).unwrap()];
                    let below = |offset: u64, out: &mut [u8]| {
                        // The slower this is, the more the others are in its way.
                        std::thread::yield_now();
                        fill_below(0)(offset, out)
                    };
                    overlay.write(0, block * BLOCK_BYTES + part * length, &data, &below).unwrap();
                });
            }
        });
        let found = read(&overlay, 0, block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES);
        for (at, byte) in (0_u64..).zip(found) {
            let expected = match at / length {
                0 => below(0, block * BLOCK_BYTES + at),
                part => u8::try_from(part).unwrap(),
            };
            assert_eq!(byte, expected, "byte {at} of block {block}");
        }
    }
}

#[test]
fn what_cannot_be_read_beneath_fails_the_write_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let overlay = Overlay::open(&folder.path().join("overlay"), &beneath()).unwrap();
    let bad = |_: u64, _: &mut [u8]| Err(io::Error::other("damaged"));
    assert!(overlay.write(0, 100, b"x", &bad).is_err());
    assert!(overlay.zero(0, 5000..9000, false, &bad).is_err());
    assert_eq!(overlay.bytes(), 0);
    // Whole blocks need nothing from there; the last one is whole where the disk ends.
    overlay.write(0, BLOCK_BYTES, &[1; PAGE_BYTES], &bad).unwrap();
    overlay.zero(0, 8 * BLOCK_BYTES..DISK_BYTES, true, &bad).unwrap();
    assert_eq!(overlay.bytes(), 3 * BLOCK_BYTES);
}

#[test]
fn an_overlay_takes_only_what_was_written_of_its_disk() {
    use std::os::unix::fs::MetadataExt;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("overlay");
    let mut huge = beneath();
    huge.disks[1].1 = 1 << 40;
    let overlay = Overlay::open(&path, &huge).unwrap();
    overlay.write(1, (1 << 40) - 4096, &[7; 4096], &fill_below(1)).unwrap();
    overlay.zero(1, 1 << 30..1 << 34, false, &fill_below(1)).unwrap();
    overlay.flush().unwrap();
    drop(overlay);
    let overlay = Overlay::open(&path, &huge).unwrap();
    assert_eq!(overlay.run(1, 1 << 30..1 << 35), (1 << 34, true));
    assert_eq!(overlay.stretch(1, 1 << 30..1 << 34).unwrap(), (1 << 34, true));
    let mut last = [0];
    overlay.read(1, (1 << 40) - 1, &mut last).unwrap();
    assert_eq!(last, [7]);
    let taken = std::fs::metadata(&path).unwrap().blocks() * 512;
    assert!(taken < 1 << 20, "{taken} bytes");
}
