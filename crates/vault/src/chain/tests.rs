//! Histories of machines whose records are damaged: what is left is found, what isn't is named.

use std::sync::Arc;

use tidegate_model::{BookmarkKind, Epoch, Lsn, Point};

use super::*;
use crate::layout;
use crate::points::{At, MachinePoints};
use crate::restore::RestorePlan;
use crate::testing::{BLOCK, MemorySink, Op, TestLog, TestMachine, TestVault, disk, extent, run};

/// A machine with a copy in epoch 1 (two sessions in a log each), an epoch 2 that continues it, and
/// another copy in epoch 3.
async fn three_epochs(vault: &mut TestVault) -> [TestMachine; 3] {
    let mut first = TestMachine::new("db-1", 1, TestLog::new(vault, 1));
    first.does(Op::Disk(disk(0, 4 * BLOCK)));
    first.writes(extent(0, 0, BLOCK), 1);
    first.store(vault).await;
    first.reconnect(Some(TestLog::new(vault, 2)), 2);
    first.writes(extent(0, BLOCK, BLOCK), 2);
    first.marks(BookmarkKind::CopyEnd, true);
    first.store(vault).await;
    let mut second = TestMachine::continuing(&first, 4, 2, TestLog::new(vault, 3));
    second.writes(extent(0, 0, 10), 3);
    second.marks(BookmarkKind::CopyEnd, true);
    second.store(vault).await;
    let mut third = TestMachine::new("db-1", 3, TestLog::new(vault, 4));
    third.does(Op::Disk(disk(0, 4 * BLOCK)));
    third.writes(extent(0, 0, 2 * BLOCK), 4);
    third.marks(BookmarkKind::CopyEnd, true);
    third.store(vault).await;
    for machine in [&first, &second, &third] {
        machine.publish(vault).await;
    }
    [first, second, third]
}

async fn history(vault: &TestVault) -> MachineHistory {
    MachineHistory::read(&vault.reader(), &"db-1".parse().unwrap()).await.unwrap()
}

/// Brings the end of a machine's epoch back, and compares it.
async fn assert_recovers(vault: &TestVault, history: &MachineHistory, machine: &TestMachine) {
    let point = Point { epoch: machine.of.1, lsn: Lsn(machine.ops.len() as u64) };
    let reader = vault.reader();
    let chosen = MachinePoints::of(history).choose(&reader, history, At::Point(point)).await;
    assert_eq!(chosen.unwrap().point, point);
    let plan = RestorePlan::build(&reader, history, point, &[]).await.unwrap();
    let sink = Arc::new(MemorySink::new(plan.disks()));
    plan.run(&reader, sink.clone(), crate::restore::Means::default(), &|_| ()).await.unwrap();
    assert_eq!(&sink.disks(), machine.states.last().unwrap());
}

fn offered(history: &MachineHistory) -> Vec<u32> {
    MachinePoints::of(history).points.iter().map(|point| point.point.epoch.0).collect()
}

#[test]
fn a_damaged_epoch_takes_along_only_what_stands_on_it() {
    run(async {
        let mut vault = TestVault::new();
        let [first, second, third] = three_epochs(&mut vault).await;
        let whole = history(&vault).await;
        assert_eq!((offered(&whole), whole.losses.len()), (vec![1, 2, 3], 0));
        let path = |epoch| layout::epoch(&first.of.0, Epoch(epoch));
        for (epoch, left, stand) in [(1, vec![3], 2), (2, vec![1, 3], 2), (3, vec![1, 2], 3)] {
            let kept = vault.get(&path(epoch)).await;
            let mut changed = kept.clone();
            changed[70] ^= 1;
            vault.put(&path(epoch), changed).await;
            let history = history(&vault).await;
            assert_eq!(offered(&history), left);
            for machine in [&first, &second, &third] {
                if left.contains(&machine.of.1.0) {
                    assert_recovers(&vault, &history, machine).await;
                }
            }
            // It is named, where it is needed and as a gap.
            assert!(history.losses[0].to_string().contains(&path(epoch)), "{:?}", history.losses);
            let points = MachinePoints::of(&history);
            let at = Point { epoch: Epoch(stand), lsn: Lsn(1) };
            let error = points.choose(&vault.reader(), &history, At::Point(at)).await;
            let error = error.unwrap_err().to_string();
            assert!(error.contains(&format!("the record of epoch {epoch} is damaged")), "{error}");
            let gap = points.gaps.iter().find(|gap| gap.epoch == Epoch(epoch)).unwrap();
            assert!(gap.to_string().contains("its record is damaged"), "{gap}");
            vault.put(&path(epoch), kept).await;
        }
    });
}

#[test]
fn a_missing_epoch_is_known_by_its_number() {
    run(async {
        let mut vault = TestVault::new();
        let [first, ..] = three_epochs(&mut vault).await;
        vault.delete(&layout::epoch(&first.of.0, Epoch(1))).await;
        let history = history(&vault).await;
        assert_eq!(offered(&history), [3]);
        assert!(history.losses[0].to_string().contains("is missing"), "{:?}", history.losses);
    });
}

#[test]
fn what_a_damaged_or_missing_session_brought_is_found_all_the_same() {
    run(async {
        let mut vault = TestVault::new();
        let mut machines = three_epochs(&mut vault).await;
        let path = layout::session(&machines[0].of.0, Epoch(1), 1);
        vault.put(&path, b"nonsense".to_vec()).await;
        let read = history(&vault).await;
        assert_eq!(offered(&read), [1, 2, 3]);
        assert!(read.losses[0].to_string().contains(&path), "{:?}", read.losses);
        for machine in &machines {
            assert_recovers(&vault, &read, machine).await;
        }
        // A later session tells that there was one.
        machines[0].reconnect(Some(TestLog::new(&vault, 5)), 4);
        machines[0].publish(&vault).await;
        vault.delete(&path).await;
        let read = history(&vault).await;
        assert!(read.losses[0].to_string().contains("is missing"), "{:?}", read.losses);
        assert_recovers(&vault, &read, &machines[0]).await;
    });
}

#[test]
fn a_machine_of_which_every_epoch_is_damaged_is_no_stranger() {
    run(async {
        let vault = TestVault::new();
        let machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.publish(&vault).await;
        vault.put(&layout::epoch(&machine.of.0, Epoch(1)), b"nonsense".to_vec()).await;
        let history = history(&vault).await;
        let points = MachinePoints::of(&history);
        let error = points.choose(&vault.reader(), &history, At::Latest).await.unwrap_err();
        assert!(error.to_string().contains("epoch 1: its record is damaged"), "{error}");
    });
}

#[test]
fn a_copy_that_seems_unfinished_is_looked_for_where_no_record_names_it() {
    run(async {
        let mut vault = TestVault::new();
        let [first, second, third] = three_epochs(&mut vault).await;
        let session = layout::session(&first.of.0, Epoch(1), 1);
        vault.delete(&session).await;
        // The newest epoch is whole: for older ones no other log is read.
        assert_eq!(offered(&history(&vault).await), [3]);
        // What the newest continues isn't whole, and then its own copy seems unfinished.
        vault.delete(&layout::epoch(&first.of.0, third.of.1)).await;
        let read = history(&vault).await;
        assert_eq!((offered(&read), read.losses.len()), (vec![1, 2], 1), "{:?}", read.losses);
        assert_recovers(&vault, &read, &second).await;
        vault.delete(&layout::epoch(&first.of.0, second.of.1)).await;
        let read = history(&vault).await;
        assert_eq!(offered(&read), [1]);
        let lost = read.losses[0].to_string();
        assert!(lost.contains(&layout::sessions(&first.of.0)), "{lost}");
        assert_recovers(&vault, &read, &first).await;
    });
}

#[test]
fn a_copy_that_is_unfinished_is_no_loss_whatever_lies_in_other_logs() {
    run(async {
        let mut vault = TestVault::new();
        let mut other = TestMachine::new("web-1", 1, TestLog::new(&vault, 2));
        other.does(Op::Time);
        let path = other.store(&mut vault).await;
        other.publish(&vault).await;
        vault.put(&path, b"nonsense".to_vec()).await;
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, BLOCK)));
        machine.store(&mut vault).await;
        machine.publish(&vault).await;
        let read = history(&vault).await;
        assert_eq!((read.losses.len(), read.logs().len()), (0, 1));
        let gaps = MachinePoints::of(&read).gaps;
        assert!(gaps[0].to_string().contains("hasn't ended; it is at LSN 1"), "{gaps:?}");
    });
}
