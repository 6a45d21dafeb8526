//! What an agent finds at its start after crashes of the host, and of itself while it looks.

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tidegate_model::{Incarnation, Micros, VaultId};

use super::*;
use crate::RetryPolicy;
use crate::live::{Hooks, PassSettings};

fn settings(folder: &Path, boot: u8) -> LiveSettings {
    static LIVES: AtomicU8 = AtomicU8::new(1);
    let life = || [LIVES.fetch_add(1, Ordering::Relaxed); 16];
    let (number, path) = (0.try_into().unwrap(), folder.join("disk"));
    let source = DiskSource::Tap { listen: "unix:/nowhere".parse().unwrap() };
    let disk = LiveDisk { number, path, source };
    LiveSettings {
        machine: "db-1".parse().unwrap(),
        vault: VaultId::from_bytes([7; 16]),
        folder: folder.join("agent"),
        journal_bytes: 64 << 20,
        window_bytes: 1 << 20,
        disks: vec![disk],
        servers: Arc::default(),
        bookmark_interval: Duration::from_secs(60),
        application_interval: None,
        passes: PassSettings::default(),
        hooks: Hooks::default(),
        retry: RetryPolicy::default(),
        clock: Arc::new(|| Micros(u64::MAX >> 1)),
        boot: [boot; 16],
        random: Arc::new(life),
    }
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
