//! Starting again: what is taken up, and what is told to be captured anew.

use std::os::unix::fs::FileExt;

use tidegate_agent::tap::{Cause, Resumed, TapError};
use tidegate_nbd::serve::Disk;

use crate::chance::Chance;
use crate::client::Client;
use crate::world::{DISK_BYTES, PATIENCE, Place, Replay};

/// A place where a tap was at work, with something in its journal.
fn used(folder: &std::path::Path) -> Place {
    let place = Place::new(folder);
    place.make_images();
    let machine = place.create();
    let server = machine.serve();
    let mut client = Client::connect(&place.socket(), "0").unwrap();
    client.play(&mut Chance(5), 200, DISK_BYTES, 4).unwrap();
    drop(client);
    server.stop(PATIENCE);
    machine.close();
    place
}

#[track_caller]
fn resync(place: &Place) -> Cause {
    let marks = std::fs::read(place.marks(0)).ok();
    let cause = match place.try_resume().unwrap() {
        Resumed::Resync(cause) => cause,
        Resumed::Whole(_) => panic!("it was taken for whole"),
        Resumed::Reread(_, reread) => panic!("{reread:?}"),
    };
    assert!(std::fs::read(place.marks(0)).ok() == marks, "nothing was to be changed");
    cause
}

#[test]
fn after_a_proper_end_nothing_is_read_again_and_nothing_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let place = used(folder.path());
    let mut replay = Replay::default();
    for round in 0..3 {
        let machine = place.resume();
        assert!(machine.rereads.is_empty());
        let server = machine.serve();
        let mut client = Client::connect(&place.socket(), "0").unwrap();
        client.play(&mut Chance(round), 200, DISK_BYTES, 4).unwrap();
        drop(client);
        server.stop(PATIENCE);
        replay.go_on(&machine.journal, machine.settle());
        replay.assert_equals(&place);
        machine.close();
    }
    // Also in another start of the host: everything was durable.
    let later = Place { boot: [9; 16], ..place };
    assert!(later.resume().rereads.is_empty());
}

#[test]
fn marks_that_do_not_fit_or_cannot_be_believed_lead_to_a_resync() {
    let folder = tempfile::tempdir().unwrap();
    let place = used(folder.path());
    let good = std::fs::read(place.marks(0)).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut marks = good.clone();
        marks[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(place.marks(0), marks).unwrap();
        resync(&place)
    };
    // The header, each field that stays; a slot; a dirty block without a gap; one beyond the disk.
    for at in [0, 8, 16, 32, 40, 48] {
        assert_eq!(with(at, &[0xa5; 8]), Cause::Damaged, "at {at}");
    }
    assert_eq!(with(4096 + 32 * 77, &[0xa5; 24]), Cause::Damaged);
    assert_eq!(with(4096 + 32 * 8192, &[1]), Cause::Damaged);
    let gap = [5, 0, 0, 0, 0, 0, 0, 0];
    let mut with_gap = good.clone();
    with_gap[64..72].copy_from_slice(&gap);
    with_gap[80] = 1;
    std::fs::write(place.marks(0), &with_gap).unwrap();
    assert_eq!(resync(&place), Cause::Damaged, "no gap begins with such a kind");
    with_gap[80] = 6;
    with_gap[4096 + 32 * 8192 + 5] = 1;
    std::fs::write(place.marks(0), with_gap).unwrap();
    assert_eq!(resync(&place), Cause::Damaged);
    for bytes in [0, 100, 4096, good.len() - 8] {
        std::fs::write(place.marks(0), &good[..bytes]).unwrap();
        assert_eq!(resync(&place), Cause::Damaged, "{bytes} bytes");
    }
    let mut garbage = vec![0; good.len()];
    let mut chance = Chance(1);
    garbage.iter_mut().for_each(|byte| *byte = chance.next() as u8);
    std::fs::write(place.marks(0), garbage).unwrap();
    assert_eq!(resync(&place), Cause::Damaged);
    std::fs::remove_file(place.marks(0)).unwrap();
    assert_eq!(resync(&place), Cause::NoMarks);
    std::fs::write(place.marks(0), &good).unwrap();
    assert!(matches!(place.try_resume().unwrap(), Resumed::Whole(_)));
}

#[test]
fn another_journal_another_disk_and_another_start_of_the_host_lead_to_a_resync() {
    let folder = tempfile::tempdir().unwrap();
    let place = used(folder.path());
    let longer = std::fs::OpenOptions::new().write(true).open(place.image(0)).unwrap();
    longer.set_len(DISK_BYTES + 512).unwrap();
    assert_eq!(resync(&place), Cause::OtherDisk);
    longer.set_len(DISK_BYTES).unwrap();
    // Its time tells that somebody was there, even if the bytes are the same.
    assert!(matches!(resync(&place), Cause::Changed { .. }));
    let moved = Place { folder: folder.path().join("moved"), ..place.clone() };
    std::fs::create_dir(&moved.folder).unwrap();
    for name in ["journal", "disk-0.img", "disk-0.marks"] {
        std::fs::rename(folder.path().join(name), moved.folder.join(name)).unwrap();
    }
    assert_eq!(resync(&moved), Cause::OtherDisk);
    for name in ["journal", "disk-0.img", "disk-0.marks"] {
        std::fs::rename(moved.folder.join(name), folder.path().join(name)).unwrap();
    }
    std::fs::rename(folder.path().join("journal"), folder.path().join("old")).unwrap();
    let other = Place { incarnation: 2, ..place.clone() };
    assert_eq!(resync(&other), Cause::OtherJournal);

    let folder = tempfile::tempdir().unwrap();
    let place = used(folder.path());
    drop(place.resume());
    let later = Place { boot: [9; 16], ..place.clone() };
    assert_eq!(resync(&later), Cause::HostCrashed);
    // In the same start it goes on.
    place.resume().close();
    place.resume();
}

#[test]
fn a_disk_that_was_written_to_while_nobody_tapped_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let place = used(folder.path());
    let image = std::fs::OpenOptions::new().write(true).open(place.image(0)).unwrap();
    image.write_all_at(b"by somebody else", 4096).unwrap();
    assert!(matches!(resync(&place), Cause::Changed { .. }));
}

#[test]
fn a_disk_is_tapped_once_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let place = used(folder.path());
    let machine = place.resume();
    let other = tempfile::tempdir().unwrap();
    let mut second = Place::new(other.path());
    let (journal, opening) = second.journal();
    second.folder = folder.path().to_owned();
    let settings = second.settings(0);
    let clock = std::sync::Arc::new(crate::world::now);
    let error = tidegate_agent::tap::Tap::create(&settings, journal, &opening, clock).unwrap_err();
    assert!(matches!(error, TapError::InUse { .. }), "{error}");
    machine.close();
}

#[test]
fn a_file_that_was_written_to_after_a_kill_is_told_where_nothing_was_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let place = used(folder.path());
    let machine = place.resume();
    machine.taps[0].write(8192, b"by a client", false).unwrap();
    machine.settle();
    machine.taps[0].free_marks();
    drop(machine);
    drop(place.resume());
    let image = std::fs::OpenOptions::new().write(true).open(place.image(0)).unwrap();
    image.write_all_at(b"by somebody else", 4096).unwrap();
    assert!(matches!(resync(&place), Cause::Changed { .. }));
}

#[test]
fn a_file_whose_time_of_change_was_set_back_is_told_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let place = used(folder.path());
    let image = std::fs::OpenOptions::new().write(true).open(place.image(0)).unwrap();
    let modified = image.metadata().unwrap().modified().unwrap();
    image.write_all_at(b"by somebody else", 4096).unwrap();
    image.set_modified(modified).unwrap();
    assert!(matches!(resync(&place), Cause::Changed { .. }));
}
