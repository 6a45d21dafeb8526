//! Single promises, each in a world made for it.

use tidegate_model::{Lsn, PackNumber};

use crate::chance::Chance;
use crate::judge::object_of;
use crate::machine::{BLOCK, Machine, What, content, disk_of, disk_of_blocks};
use crate::run::{PACK_AGE, PACK_AGE_IDLE, Shape};
use crate::vault;
use crate::world::World;

/// Room for everything, one core, one shard.
fn roomy(machines: usize, records: usize) -> Shape {
    Shape {
        seed: 1,
        shards: 1,
        workers: 1,
        machines,
        records,
        large_buffers: 512,
        pack_buffers: 4,
        pack_close_bytes: 1 << 20,
        packs_in_flight: 4,
        units_in_flight: 512,
        spoil_one_in: 0,
    }
}

fn noise(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    Chance::new(seed).fill(&mut bytes);
    bytes
}

/// One machine a record at a time, each in a unit of its own.
fn send_all(world: &mut World, machine: usize) {
    while world.sessions[machine].next <= world.machines[machine].last() {
        world.send(machine);
        world.close_unit(machine, false);
        assert!(world.sessions[machine].waiting.is_none(), "there is room for all of them");
    }
}

fn settle(world: &mut World) {
    (0..4).for_each(|_| world.round_without_sending());
}

#[test]
fn nothing_counts_behind_a_spoiled_record_and_others_may_still_refer_to_it() {
    let blocks = |seeds: [u64; 4]| disk_of_blocks(seeds.map(noise).to_vec());
    let machines =
        vec![Machine::that_sends(0, blocks([1, 2, 3, 4])), Machine::that_sends(1, blocks([4; 4]))];
    let mut world = World::of(roomy(2, 5), machines);
    world.spoil = Some(Lsn(3));
    send_all(&mut world, 0);
    world.spoil = None;
    // In the order of dispatch: LSN 5 of the first is known when the second's are looked up.
    world.work_in_order();
    send_all(&mut world, 1);
    settle(&mut world);
    assert_eq!(world.acked, [Lsn(2), Lsn(5)]);
    let told = vault::read(&world.store, &world.ring);
    let end = |machine: &Machine| told.chain_end(&machine.name, machine.epoch);
    assert_eq!((end(&world.machines[0]), end(&world.machines[1])), (Lsn(2), Lsn(5)));
    let name = (world.machines[0].name.clone(), world.machines[0].epoch);
    assert_eq!(told.records[&name].len(), 2, "what lies behind it isn't there, not even by halves");
    assert_eq!(world.totals(1).deduplicated_bytes, 4 * BLOCK as u64);
    world.finish();
}

#[test]
fn a_unit_that_is_spoiled_from_its_first_byte_leaves_no_open_pack() {
    let machines = vec![Machine::that_sends(0, disk_of_blocks(vec![noise(1)]))];
    let mut world = World::of(roomy(1, 2), machines);
    send_all(&mut world, 0);
    settle(&mut world);
    world.reconnect(0, Lsn(1));
    world.spoil = Some(Lsn(2));
    send_all(&mut world, 0);
    world.spoil = None;
    settle(&mut world);
    assert_eq!(world.run.shards[0].deadline(), None);
    world.finish();
}

#[test]
fn nothing_counts_behind_a_record_that_was_lost_on_its_way_and_others_go_on() {
    // The first of a session, one within, and the last but one.
    for lost in [1, 3, 4] {
        // None of them needs a buffer, which could be full.
        let records = (0..5).map(|number| What::Disk(disk_of(number, 1 << 20))).collect();
        let blocks = disk_of_blocks([5; 4].map(noise).to_vec());
        let machines = vec![Machine::that_sends(0, records), Machine::that_sends(1, blocks)];
        let mut world = World::of(roomy(2, 5), machines);
        while world.sessions[0].next < Lsn(lost) {
            world.send(0);
        }
        world.close_unit(0, false);
        world.send(0);
        world.lose_unit(0);
        send_all(&mut world, 0);
        send_all(&mut world, 1);
        settle(&mut world);
        assert_eq!(world.acked, [Lsn(lost - 1), Lsn(5)]);
        assert_eq!(world.spoils, 1);
        // Its next session sends what was lost, and all is well.
        world.finish();
    }
}

#[test]
fn names_of_disks_never_overfill_a_packs_texts() {
    let disk = |number: usize| {
        let mut disk = disk_of(number % 64, 1 << 20);
        disk.name = "n".repeat(tidegate_model::limits::TEXT_BYTES_MAX);
        What::Disk(disk)
    };
    let machines = vec![Machine::that_sends(0, (0..3000).map(disk).collect())];
    let mut world = World::of(roomy(1, 3000), machines);
    while world.sessions[0].next <= world.machines[0].last() {
        world.send(0);
        world.work_in_order();
        world.come_home_all();
        if world.sessions[0].next == Lsn(100) {
            // A short unit, so that the next one doesn't begin the pack.
            world.close_unit(0, false);
        }
    }
    world.close_unit(0, false);
    world.finish();
}

#[test]
fn two_copies_sent_together_to_one_shard_cost_one() {
    let blocks: Vec<Vec<u8>> = (0..64).map(noise).collect();
    let machine = |number| Machine::that_sends(number, disk_of_blocks(blocks.clone()));
    let mut world = World::of(roomy(2, 65), vec![machine(0), machine(1)]);
    while !world.is_all_committed() {
        (0..8).for_each(|turn| world.send(turn % 2));
        (0..2).for_each(|machine| world.close_unit(machine, false));
        // In order: cores that overtake each other keep some blocks twice.
        world.work_in_order();
        world.round_without_sending();
    }
    let kept = world.totals(0).kept_bytes + world.totals(1).kept_bytes;
    assert_eq!(kept, 64 * BLOCK as u64);
    world.finish();
}

/// A world of one machine whose units have come home, and no time has passed.
fn packed(records: Vec<What>) -> World {
    let count = records.len();
    let mut world = World::of(roomy(1, count), vec![Machine::that_sends(0, records)]);
    send_all(&mut world, 0);
    world.work_in_order();
    world.come_home_all();
    world
}

#[test]
fn a_pack_closes_behind_a_bookmark_or_at_its_size_without_waiting() {
    let bookmark = What::Bookmark(tidegate_model::Bookmark {
        kind: tidegate_model::BookmarkKind::CopyEnd,
        clean: true,
        name: String::new(),
    });
    let disk = || What::Disk(disk_of(0, 1 << 20));
    assert_eq!(packed(vec![disk(), bookmark]).in_flight(), (0, 1));
    assert_eq!(packed(vec![disk()]).in_flight(), (0, 0));
    let blocks = |count| disk_of_blocks((0..count).map(noise).collect());
    assert_eq!(packed(blocks(200)).in_flight(), (0, 0));
    assert_eq!(packed(blocks(260)).in_flight(), (0, 1));
}

#[test]
fn a_pack_closes_at_its_age_and_one_of_nothing_but_time_records_later() {
    for (records, age) in
        [(vec![What::Disk(disk_of(0, 1 << 20))], PACK_AGE), (vec![What::Time], PACK_AGE_IDLE)]
    {
        let mut world = packed(records);
        world.now.0 += age - 1;
        world.advance(0);
        assert_eq!(world.in_flight(), (0, 0));
        world.now.0 += 1;
        assert_eq!(world.run.shards[0].deadline(), Some(world.now));
        world.advance(0);
        assert_eq!(world.in_flight(), (0, 1));
    }
}

#[test]
fn a_packs_age_counts_from_its_first_record_also_while_that_waits_for_a_core() {
    let sent = || vec![What::Disk(disk_of(0, 1 << 20))];
    // What was sent waited so long for its core.
    for (waited, left) in
        [(0, PACK_AGE), (PACK_AGE / 4, PACK_AGE / 4 * 3), (PACK_AGE * 2, PACK_AGE / 2)]
    {
        let mut world = World::of(roomy(1, 1), vec![Machine::that_sends(0, sent())]);
        send_all(&mut world, 0);
        world.work_in_order();
        world.now.0 += waited;
        world.come_home_all();
        world.now.0 += left;
        assert_eq!(world.run.shards[0].deadline(), Some(world.now), "{waited}");
        world.advance(0);
        let mut latencies = Vec::new();
        world.run.shards[0].stored(PackNumber(0), world.now, &mut Vec::new(), &mut latencies);
        assert_eq!(latencies, [waited + left]);
    }
}

#[test]
fn zeros_of_neighbouring_blocks_become_one_piece() {
    let bytes = [content(0), content(0), noise(1), content(0)].concat();
    let extent = tidegate_model::Extent {
        disk: disk_of(0, 0).number,
        offset: 0,
        length: bytes.len() as u64,
    };
    let records = vec![What::Disk(disk_of(0, 1 << 20)), What::Write(extent, bytes)];
    let mut world = World::of(roomy(1, 2), vec![Machine::that_sends(0, records)]);
    world.drain();
    let told = vault::read(&world.store, &world.ring);
    let pack = told.packs.values().find(|pack| !pack.index.records.is_empty()).unwrap();
    let pieces = pack.index.records.iter().filter(|record| record.lsn == Lsn(2));
    assert_eq!(pieces.map(|record| record.piece.count).collect::<Vec<_>>(), [3, 3, 3]);
    world.finish();
}

#[test]
#[should_panic(expected = "a unit is worked on once")]
fn a_unit_is_never_sealed_twice() {
    let machines = vec![Machine::that_sends(0, disk_of_blocks(vec![noise(1)]))];
    let mut world = World::of(roomy(1, 2), machines);
    send_all(&mut world, 0);
    let mut away = world.run.at_cores.pop().unwrap();
    world.run.workers[0].process(&mut away.unit);
    world.run.workers[0].process(&mut away.unit);
}

/// The condemned list that each closed pack states, and how many records it has; they are then stored.
fn stated(world: &mut World) -> Vec<(u64, usize)> {
    let ring = world.ring.clone();
    let told = world.run.uploads.iter().map(|pack| {
        let read = vault::open(&object_of(pack), pack.log.id, pack.header.number, &ring);
        (read.index.condemned_list, read.index.records.len())
    });
    let told = told.collect();
    settle(world);
    told
}

#[test]
fn a_condemned_list_is_stated_when_what_was_under_way_is_packed_and_by_an_idle_log_too() {
    let machines = vec![Machine::that_sends(0, disk_of_blocks([1; 4].map(noise).to_vec()))];
    let mut world = World::of(roomy(1, 5), machines);
    let send = |world: &mut World| {
        world.send(0);
        world.close_unit(0, false);
    };
    (0..2).for_each(|_| send(&mut world));
    settle(&mut world);
    // Before the list is read it was decided that this refers to the first block.
    send(&mut world);
    world.work_in_order();
    world.run.logs.condemn(|_, _| true);
    world.run.shards[0].read_list(7);
    world.advance(0);
    assert!(world.run.uploads.is_empty(), "what was under way isn't packed");
    world.come_home_all();
    world.now.0 += PACK_AGE;
    world.advance(0);
    assert_eq!(stated(&mut world), [(7, 1)]);
    assert_eq!(world.totals(0).deduplicated_bytes, BLOCK as u64);
    send(&mut world);
    settle(&mut world);
    assert_eq!(world.totals(0).deduplicated_bytes, BLOCK as u64, "nothing new refers to it");
    world.run.shards[0].read_list(9);
    world.advance(0);
    assert_eq!(stated(&mut world), [(9, 0)], "an empty pack");
    world.advance(0);
    assert!(world.run.uploads.is_empty(), "it is stated once");
    world.finish();
}
