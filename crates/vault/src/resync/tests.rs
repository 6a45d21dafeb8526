//! What is had of an epoch, against what a restore of its parent brings back.

use proptest::prelude::*;
use tidegate_model::{BookmarkKind, DiskNumber, Epoch, Lsn, Name};

use super::*;
use crate::fold::{Folding, fold};
use crate::layout;
use crate::meta::Begins;
use crate::testing::{
    BLOCK, Event, Op, TestLog, TestMachine, TestVault, apply, disk, event, extent, live, run,
};

/// Folds at once, and makes bases.
const FOLDING: Folding = Folding { anew: false, base_extents_min: 12, ..Folding::DEFAULT };

fn db() -> Name {
    "db-1".parse().unwrap()
}

fn window(number: u8, offset: u64, blocks: usize) -> Window {
    let disk = DiskNumber::try_from(number).unwrap();
    Window { disk, offset, blocks, block_bytes: BLOCK }
}

async fn standing(vault: &TestVault, epoch: u32, window: Window) -> Result<Standing, ResyncError> {
    read(&vault.reader(), &db(), Epoch(epoch), window, true).await
}

fn has(vault: &TestVault, standing: &Standing, offset: u64, block: &[u8]) -> bool {
    let hash = blake3::hash(block);
    standing.has(&vault.ring.block_namer(), offset, hash.as_bytes())
}

fn block(byte: u8) -> Vec<u8> {
    vec![byte; usize::try_from(BLOCK).unwrap()]
}

/// The block at `index`; beyond the disk it is zeros.
fn block_of(disk: &[u8], index: usize) -> Vec<u8> {
    let length = usize::try_from(BLOCK).unwrap();
    let mut block: Vec<u8> = disk.iter().skip(index * length).take(length).copied().collect();
    block.resize(length, 0);
    block
}

/// A machine whose copy has ended, and epoch 2 that goes on from that end.
async fn copied(vault: &mut TestVault) -> TestMachine {
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(vault, 1));
    machine.does(Op::Disk(disk(0, 8 * BLOCK)));
    machine.does(Op::Disk(disk(1, 2 * BLOCK)));
    for (place, byte) in [(0, 1), (1, 2), (2, 1), (4, 4)] {
        machine.writes(extent(0, place * BLOCK, BLOCK), byte);
    }
    machine.does(Op::Zero(extent(0, 5 * BLOCK, 3 * BLOCK)));
    machine.writes(extent(1, 0, BLOCK), 9);
    machine.marks(BookmarkKind::CopyEnd, true);
    machine.store(vault).await;
    machine.publish(vault).await;
    let end = machine.stored;
    let next = TestMachine::continuing(&machine, end, 2, TestLog::new(vault, 2));
    next.publish(vault).await;
    machine
}

#[test]
fn a_copied_disk_is_had_block_by_block_and_only_at_its_place() {
    run(async {
        let mut vault = TestVault::new();
        copied(&mut vault).await;
        for folded in [false, true] {
            if folded {
                fold(&vault.reader(), &db(), FOLDING, &|_| ()).await.unwrap();
            }
            let found = standing(&vault, 2, window(0, 0, 10)).await.unwrap();
            // Never written, zeroed, and beyond the disk's end: all are zeros.
            let holds = [1, 2, 1, 0, 4, 0, 0, 0, 0, 0];
            for (at, held) in holds.iter().enumerate() {
                for byte in 0..=9 {
                    let offset = at as u64 * BLOCK;
                    let said = has(&vault, &found, offset, &block(byte));
                    assert_eq!(said, byte == *held, "block {at}, {byte}, folded: {folded}");
                }
            }
            assert!(!has(&vault, &found, 10 * BLOCK, &block(0)), "beyond the window");
            // A window that begins elsewhere, on another disk.
            let found = standing(&vault, 2, window(1, 0, 1)).await.unwrap();
            assert!(has(&vault, &found, 0, &block(9)) && !has(&vault, &found, 0, &block(1)));
            let found = standing(&vault, 2, window(0, 4 * BLOCK, 2)).await.unwrap();
            assert!(has(&vault, &found, 4 * BLOCK, &block(4)));
            assert!(!has(&vault, &found, 0, &block(1)), "before the window");
        }
    });
}

#[test]
fn another_machines_blocks_are_never_had() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = copied(&mut vault).await;
        let mut other = TestMachine::new("db-2", 1, TestLog::new(&vault, 3));
        other.does(Op::Disk(disk(0, 8 * BLOCK)));
        for place in 0..8 {
            other.writes(extent(0, place * BLOCK, BLOCK), 77);
        }
        // In the very log and packs of this machine, and under its epochs' numbers.
        let mut third = TestMachine::new("db-3", 2, TestLog::new(&vault, 4));
        third.does(Op::Disk(disk(0, 8 * BLOCK)));
        third.writes(extent(0, 0, 8 * BLOCK), 78);
        for machine in [&mut other, &mut third] {
            machine.marks(BookmarkKind::CopyEnd, true);
            machine.store(&mut vault).await;
            machine.publish(&vault).await;
        }
        // Behind all of this machine, in a pack of its own log.
        let (of, write) = (other.of.clone(), Op::Write(extent(0, 0, BLOCK), block(79)));
        machine.log.add(&vault, &of, machine.stored, &write, None);
        machine.log.store(&mut vault, false).await;
        let found = standing(&vault, 2, window(0, 0, 8)).await.unwrap();
        for (place, byte) in (0..8).flat_map(|place| [(place, 77), (place, 78), (place, 79)]) {
            assert!(!has(&vault, &found, place * BLOCK, &block(byte)), "{place} {byte}");
        }
    });
}

#[test]
fn what_the_epoch_has_written_itself_isnt_what_it_stands_on() {
    run(async {
        let mut vault = TestVault::new();
        let machine = copied(&mut vault).await;
        let log = TestLog::new(&vault, 2);
        let mut next = TestMachine::continuing(&machine, machine.stored, 2, log);
        next.does(Op::Disk(disk(0, 4 * BLOCK)));
        next.writes(extent(0, 0, BLOCK), 50);
        next.store(&mut vault).await;
        let found = standing(&vault, 2, window(0, 0, 8)).await.unwrap();
        assert!(has(&vault, &found, 0, &block(1)) && !has(&vault, &found, 0, &block(50)));
        assert!(has(&vault, &found, 4 * BLOCK, &block(4)), "though the disk is shorter by now");
    });
}

#[test]
fn an_epoch_that_begins_with_a_copy_stands_on_zeros() {
    run(async {
        let mut vault = TestVault::new();
        copied(&mut vault).await;
        let found = standing(&vault, 1, window(0, 0, 2)).await.unwrap();
        assert!(has(&vault, &found, 0, &block(0)) && !has(&vault, &found, 0, &block(1)));
    });
}

#[test]
fn a_parent_that_isnt_whole_or_refers_to_what_is_lost_is_told_for_good() {
    run(async {
        let mut vault = TestVault::new();
        copied(&mut vault).await;
        let told = async |vault: &TestVault, epoch| {
            let error = standing(vault, epoch, window(0, 0, 2)).await.err().expect("it is broken");
            assert!(error.is_for_good(), "{error}");
            error
        };
        // Another machine of the same blocks refers to the first one's pack.
        let mut other = TestMachine::new("db-9", 1, TestLog::new(&vault, 7));
        other.does(Op::Disk(disk(0, 8 * BLOCK)));
        other.writes(extent(0, 0, BLOCK), 1);
        other.of.0 = db();
        other.of.1 = Epoch(3);
        other.record.epoch = Epoch(3);
        other.store(&mut vault).await;
        other.publish(&vault).await;
        let next = TestMachine::continuing(&other, 2, 4, TestLog::new(&vault, 8));
        next.publish(&vault).await;
        let found = standing(&vault, 4, window(0, 0, 1)).await.unwrap();
        assert!(has(&vault, &found, 0, &block(1)));
        let pack = TestLog::new(&vault, 1).place(0).path();
        vault.delete(&pack).await;
        assert!(matches!(told(&vault, 2).await, ResyncError::Broken { .. }));
        assert!(matches!(told(&vault, 4).await, ResyncError::Lacks { .. }));
        vault.delete(&layout::epoch(&db(), Epoch(3))).await;
        assert!(matches!(told(&vault, 4).await, ResyncError::Broken { .. }));
    });
}

/// Epochs that go on from another somewhere, with what happens in each.
fn lives() -> impl Strategy<Value = (Vec<Event>, Vec<Event>, u64, u64, bool)> {
    let events = || proptest::collection::vec(event(), 0..25);
    (events(), events(), any::<u64>(), any::<u64>(), any::<bool>())
}

proptest! {
    #![proptest_config(crate::testing::cases(24))]

    #[test]
    fn nothing_is_had_that_a_restore_wouldnt_bring_back(
        (first, second, cut, end, folds) in lives(),
    ) {
        run(async {
            let mut vault = TestVault::new();
            let (one, _) = live(&mut vault, &first).await;
            one.publish(&vault).await;
            let cut = 2 + cut % (one.ops.len() as u64 - 1);
            let mut two = TestMachine::continuing(&one, cut, 2, TestLog::new(&vault, 100));
            let mut logs = 100;
            for event in &second {
                apply(&mut vault, &mut two, &mut logs, event).await;
            }
            two.does(Op::Time);
            two.store(&mut vault).await;
            two.publish(&vault).await;
            let end = end % (two.ops.len() as u64 + 1);
            let three = TestMachine::continuing(&two, end, 3, TestLog::new(&vault, 200));
            three.publish(&vault).await;
            if folds {
                fold(&vault.reader(), &db(), FOLDING, &|_| ()).await.unwrap();
            }
            for (epoch, state) in [(2, &one.states[usize::try_from(cut).unwrap()]), (3, &three.states[0])] {
                for (number, held) in state {
                    let found = standing(&vault, epoch, window(number.get(), 0, 12)).await.unwrap();
                    for at in 0..12 {
                        let holds = block_of(held, at);
                        for byte in 0..4 {
                            let said = has(&vault, &found, at as u64 * BLOCK, &block(byte));
                            assert!(!said || holds == block(byte), "{epoch} {number} {at} {byte}");
                        }
                    }
                }
            }
            assert_eq!(three.record.begins, Begins::Continue);
            assert_eq!(three.record.parent.unwrap().lsn, Lsn(end));
        });
    }
}
