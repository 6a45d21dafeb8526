//! Random changes by many clients at once.

use std::thread;

use tidegate_hrl::journal::Change;
use tidegate_model::Lsn;

use crate::chance::Chance;
use crate::client::Client;
use crate::world::{DISK_BYTES, PATIENCE, Place, Replay};

#[test]
fn the_journal_replayed_is_the_disk_after_overlapping_changes_on_many_connections() {
    for seed in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { disks: 2, ..Place::new(folder.path()) };
        place.make_images();
        let machine = place.create();
        let server = machine.serve();
        thread::scope(|scope| {
            for number in 0..6_u64 {
                let place = &place;
                scope.spawn(move || {
                    let export = (number % 2).to_string();
                    let mut client = Client::connect(&place.socket(), &export).unwrap();
                    let mut chance = Chance(seed * 100 + number);
                    client.play(&mut chance, 1500, DISK_BYTES, 8).unwrap();
                });
            }
            // Beside them a copy, as it is made when replication begins.
            for tap in &machine.taps {
                scope.spawn(move || {
                    for offset in (0..DISK_BYTES).step_by(100_000) {
                        tap.capture(offset, 100_000.min(DISK_BYTES - offset)).unwrap();
                    }
                });
            }
        });
        server.stop(PATIENCE);
        let mut replay = Replay::default();
        replay.go_on(&machine.journal, machine.settle());
        replay.assert_equals(&place);
        machine.close();
    }
}

#[test]
fn what_was_written_before_replication_began_comes_with_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path());
    place.make_images();
    let mut disk = vec![0; DISK_BYTES as usize];
    disk[100_000..1_300_000].fill(7);
    std::fs::write(place.image(0), &disk).unwrap();
    let machine = place.create();
    let mut data_bytes = 0;
    for offset in (0..DISK_BYTES).step_by(1 << 20) {
        let captured = machine.taps[0].capture(offset, (1 << 20).min(DISK_BYTES - offset)).unwrap();
        data_bytes += captured.data_bytes;
    }
    let mut replay = Replay::default();
    replay.go_on(&machine.journal, machine.settle());
    replay.assert_equals(&place);
    assert!(data_bytes < 1_400_000, "{data_bytes} bytes of data: zeros are recorded as zeros");
}

#[test]
fn at_no_lsn_do_numbers_written_to_two_disks_in_turn_differ_by_more_than_one() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place { disks: 2, ..Place::new(folder.path()) };
    place.make_images();
    let machine = place.create();
    let server = machine.serve();
    let mut clients = ["0", "1"].map(|export| Client::connect(&place.socket(), export).unwrap());
    for number in 1..2000_u64 {
        for client in &mut clients {
            client.write(4096, &number.to_le_bytes()).unwrap();
        }
    }
    server.stop(PATIENCE);
    let last = machine.settle();
    let (mut reader, mut numbers) = (machine.journal.read_from(Lsn(1)), [0_u64; 2]);
    for lsn in 1..=last.0 {
        let record = reader.next().unwrap().unwrap();
        let Change::Write { disk, data, .. } = record.change else { panic!("{record:?}") };
        numbers[disk.index()] = u64::from_le_bytes(data.try_into().unwrap());
        assert!(numbers[0].abs_diff(numbers[1]) <= 1, "{numbers:?} at LSN {lsn}");
    }
    assert_eq!(numbers, [1999, 1999]);
    machine.close();
}
