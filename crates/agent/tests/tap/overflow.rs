//! A journal that is full: the clients go on, and what is missing is caught up with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tidegate_agent::tap::{Climb, Gap, GapStart, Mode};
use tidegate_hrl::journal::{Change, JournalSettings};
use tidegate_model::{Bookmark, BookmarkKind};

use crate::chance::Chance;
use crate::client::Client;
use crate::world::{DISK_BYTES, Machine, PATIENCE, Place, Replay};

fn small(folder: &std::path::Path) -> Place {
    let place = Place { journal_bytes: JournalSettings::BYTES_MIN, ..Place::new(folder) };
    place.make_images();
    place
}

/// Lets the vault have everything that the journal has.
fn drain(machine: &Machine, replay: &mut Replay) {
    let last = machine.settle();
    replay.go_on(&machine.journal, last);
    machine.journal.committed(last).unwrap();
}

/// Climbs back, with the vault taking what comes.
fn climb(machine: &Machine, replay: &mut Replay) -> Gap {
    loop {
        drain(machine, replay);
        match machine.taps[0].climb(300_000).unwrap() {
            Climb::Done(gap) => return gap,
            Climb::Further { dirty_bytes } | Climb::Full { dirty_bytes } => {
                assert!(dirty_bytes > 0 && machine.taps[0].state().mode == Mode::Bitmap);
            }
            Climb::Data => panic!("it was in bitmap mode"),
        }
    }
}

/// Writes until the journal has no room.
fn fill(machine: &Machine, client: &mut Client, seed: u64) -> GapStart {
    let mut chance = Chance(seed);
    while machine.taps[0].state().mode == Mode::Data {
        client.play(&mut chance, 50, DISK_BYTES, 4).unwrap();
    }
    // And more of it, without any of it being recorded.
    client.play(&mut chance, 300, DISK_BYTES, 4).unwrap();
    let state = machine.taps[0].state();
    assert!(state.dirty_bytes > 0);
    state.since.unwrap()
}

#[test]
fn a_full_journal_costs_history_but_no_write_and_climbing_back_gives_the_disk_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = small(folder.path());
    let machine = place.create();
    let server = machine.serve();
    let mut client = Client::connect(&place.socket(), "0").unwrap();
    let mut replay = Replay::default();
    for seed in 0..3 {
        client.play(&mut Chance(seed), 40, DISK_BYTES, 4).unwrap();
        let (before, disk) = (machine.settle(), std::fs::read(place.image(0)).unwrap());
        let start = fill(&machine, &mut client, seed + 10);
        assert!(start.after >= before);
        // A moment before the gap is what it was.
        replay.go_on(&machine.journal, before);
        assert!(*replay.disk(0) == disk);
        // Clients write all the while.
        let stop = AtomicBool::new(false);
        let gap = thread::scope(|scope| {
            let (place, stop) = (&place, &stop);
            let writer = scope.spawn(move || {
                let mut client = Client::connect(&place.socket(), "0").unwrap();
                let mut chance = Chance(seed + 20);
                while !stop.load(Ordering::SeqCst) {
                    client.play(&mut chance, 2, DISK_BYTES, 1).unwrap();
                    thread::yield_now();
                }
            });
            let gap = climb(&machine, &mut replay);
            stop.store(true, Ordering::SeqCst);
            writer.join().unwrap();
            gap
        });
        assert_eq!((gap.start, gap.disk), (start, machine.taps[0].disk()));
        assert!(gap.end > start.after && gap.time >= start.time);
        drain(&machine, &mut replay);
        assert_eq!(replay.gaps.remove(&start.after.next()), Some(BookmarkKind::GapJournalFull));
        let end = Bookmark { kind: BookmarkKind::Group, clean: true, name: String::new() };
        if machine.taps[0].state().mode == Mode::Bitmap {
            // The writer was quick enough to fill it again.
            climb(&machine, &mut replay);
            drain(&machine, &mut replay);
        }
        replay.assert_equals(&place);
        machine.journal.append(&Change::Bookmark(end), start.time).unwrap();
        let state = machine.taps[0].state();
        assert_eq!((state.mode, state.dirty_bytes, state.since), (Mode::Data, 0, None));
        assert_eq!(machine.taps[0].climb(1).unwrap(), Climb::Data);
    }
    drop(client);
    server.stop(PATIENCE);
    machine.close();
}

#[test]
fn what_is_missing_is_known_after_a_kill_and_after_a_proper_end() {
    for proper in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let place = small(folder.path());
        let mut machine = place.create();
        let server = machine.serve();
        let mut client = Client::connect(&place.socket(), "0").unwrap();
        let start = fill(&machine, &mut client, 3);
        drop(client);
        server.stop(PATIENCE);
        let dirty_bytes = machine.taps[0].state().dirty_bytes;
        if proper {
            machine.close();
        } else {
            drop(machine);
        }
        machine = place.resume();
        let state = machine.taps[0].state();
        assert_eq!((state.mode, state.dirty_bytes), (Mode::Bitmap, dirty_bytes));
        let since = state.since.unwrap();
        assert!(since.after <= start.after && since.time == start.time, "{since:?} {start:?}");
        // Its first words are noted only, too, until it climbs.
        let server = machine.serve();
        let mut client = Client::connect(&place.socket(), "0").unwrap();
        let before = machine.journal.usage().last;
        client.play(&mut Chance(4), 100, DISK_BYTES, 4).unwrap();
        assert_eq!(machine.journal.usage().last, before);
        let mut replay = Replay::default();
        let gap = climb(&machine, &mut replay);
        assert_eq!(gap.start, since);
        drain(&machine, &mut replay);
        assert!(replay.gaps.contains_key(&since.after.next()), "it is named before anything else");
        replay.assert_equals(&place);
        drop(client);
        server.stop(PATIENCE);
        machine.close();
    }
}
