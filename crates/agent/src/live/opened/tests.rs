//! What an agent finds at its start after crashes of the host, and of itself while it looks.

use std::path::Path;

use super::*;
use crate::live::settings::for_tests;

fn settings(folder: &Path, boot: u8) -> LiveSettings {
    let (number, path) = (0.try_into().unwrap(), folder.join("disk"));
    let source = DiskSource::Tap { listen: "unix:/nowhere".parse().unwrap() };
    let disks = vec![LiveDisk { number, path, source }];
    LiveSettings { disks, boot: [boot; 16], ..for_tests(&folder.join("agent")) }
}

/// Opens as an agent does that ends then, perhaps just after it let the disks go; gives whose journal it
/// has, and whether it goes on.
fn opened(folder: &Path, boot: u8, closes_disks: bool) -> (Incarnation, bool) {
    let opened = open(&settings(folder, boot), Wish::GoOn).unwrap();
    if closes_disks {
        opened.taps.iter().for_each(|tap| tap.close().unwrap());
    }
    (opened.opening.incarnation, opened.goes_on)
}

/// Opens the journal alone: an agent that is killed before it decides anything.
fn looked_at(folder: &Path, boot: u8) {
    let settings = settings(folder, boot);
    let storage = UringStorage::open(&settings.journal()).unwrap();
    let incarnation = Incarnation::from_bytes((settings.random)());
    let birth = Birth { incarnation, boot: settings.boot };
    let bounds = JournalSettings::of(settings.journal_bytes).unwrap();
    drop(Journal::open(storage, bounds, &birth, Box::new(|_| {})).unwrap());
}

#[test]
fn that_the_host_went_down_is_found_again_by_whoever_was_killed_while_it_looked() {
    for closes in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("disk"), vec![1; 1 << 20]).unwrap();
        let (first, goes_on) = opened(folder.path(), 1, closes);
        assert!(!goes_on);
        let again = opened(folder.path(), 1, closes);
        assert_eq!(again, (first, true), "the same start of the host");
        looked_at(folder.path(), 2);
        looked_at(folder.path(), 2);
        let (second, goes_on) = opened(folder.path(), 2, closes);
        assert!(second != first && !goes_on);
        assert_eq!(opened(folder.path(), 2, closes), (second, true));
    }
}

#[test]
fn a_resync_that_was_asked_for_outlives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("disk"), vec![1; 1 << 20]).unwrap();
    let (first, _) = opened(folder.path(), 1, false);
    let notes = Notebook::open(&settings(folder.path(), 1).notes()).unwrap().unwrap();
    notes.change(|notes| notes.resync = true).unwrap();
    let (second, goes_on) = opened(folder.path(), 1, false);
    assert!(second != first && !goes_on);
    assert_eq!(opened(folder.path(), 1, false), (second, true), "it was begun");
}

#[test]
fn a_disk_that_was_removed_is_declared_so_by_whoever_comes_after() {
    let disk = Disk { number: 1.try_into().unwrap(), bytes: 0, name: "gone".to_owned() };
    let mut notes = Notes::new(Incarnation::from_bytes([1; 16]), Stands::Newest, Vec::new());
    notes.removed = vec![disk.clone()];
    assert_eq!(Before::of(Some(&notes)).disks, [disk]);
}

#[test]
fn what_another_source_knew_of_a_disk_is_gone_when_it_has_its_source_back() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("disk"), vec![1; 1 << 20]).unwrap();
    let tapped = settings(folder.path(), 1);
    let mut scanned = settings(folder.path(), 1);
    scanned.disks[0].source = DiskSource::Scan { snapshot: None };
    let number = tapped.disks[0].number;
    let (marks, hashes) = (tapped.marks(number), tapped.hashes(number));
    for (settings, own, other) in [(&tapped, &marks, &hashes), (&scanned, &hashes, &marks)] {
        drop(open(settings, Wish::GoOn).unwrap());
        // What the one captured since isn't in the other's.
        assert!(own.exists() && !other.exists());
    }
    drop(open(&tapped, Wish::GoOn).unwrap());
    assert!(marks.exists() && !hashes.exists());
}
