//! Restores against a plain model, and from vaults that were broken on purpose.

mod flow;
mod view;

use std::sync::Arc;

use proptest::prelude::*;
use tidegate_model::{BookmarkKind, DiskNumber, Lsn, Point};

use super::*;
use crate::log::LogError;
use crate::points::{At, MachinePoints};
use crate::testing::{
    BLOCK, Disks, MemorySink, Op, TestLog, TestMachine, TestVault, disk, event, extent, live, run,
};

/// Restores a machine's disks as they were after `lsn`.
async fn restored(
    vault: &TestVault,
    machine: &TestMachine,
    lsn: u64,
) -> Result<Disks, RestoreError> {
    let history = machine.history(vault).await;
    let point = Point { epoch: machine.of.1, lsn: Lsn(lsn) };
    let plan = RestorePlan::build(&vault.reader(), &history, point, &[]).await?;
    let sink = Arc::new(MemorySink::new(plan.disks()));
    let done = plan.run(&vault.reader(), sink.clone(), Means::default(), &|_| ()).await;
    assert_eq!(*sink.finished.lock().unwrap(), done.is_ok());
    let done = done?;
    assert_eq!(done.bytes_written, plan.bytes_to_write());
    let all: u64 = plan.disks().iter().map(|disk| disk.bytes).sum();
    assert_eq!(done.bytes_written + done.bytes_zero, all);
    Ok(sink.disks())
}

proptest! {
    #![proptest_config(crate::testing::cases(400))]
    #[test]
    fn a_machine_comes_back_as_it_was_at_any_lsn(
        events in proptest::collection::vec(event(), 1..40),
        at in any::<prop::sample::Index>(),
    ) {
        run(async {
            let mut vault = TestVault::new();
            let (machine, copy_end) = live(&mut vault, &events).await;
            let end = machine.ops.len() as u64;
            let history = machine.history(&vault).await;
            let epoch = &history.epochs[&machine.of.1];
            prop_assert_eq!((epoch.trace.chain.end(), epoch.hole()), (Lsn(end), None));
            for lsn in [end, copy_end + at.index(usize::try_from(end - copy_end + 1).unwrap()) as u64] {
                let disks = restored(&vault, &machine, lsn).await.unwrap();
                let expected = &machine.states[usize::try_from(lsn).unwrap()];
                prop_assert!(disks == *expected, "the disks differ at LSN {}", lsn);
            }
            Ok(())
        })?;
    }
}

/// A machine whose data lies in three packs of one log, with a reference from the last to the
/// first.
async fn three_packs(vault: &mut TestVault) -> (TestMachine, Vec<String>) {
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(vault, 1));
    machine.does(Op::Disk(disk(0, 8 * BLOCK)));
    machine.writes(extent(0, 0, 2 * BLOCK), 1);
    let mut paths = vec![machine.store(vault).await];
    machine.writes(extent(0, 2 * BLOCK, 2 * BLOCK), 2);
    machine.marks(BookmarkKind::CopyEnd, true);
    paths.push(machine.store(vault).await);
    machine.writes(extent(0, 4 * BLOCK, BLOCK), 1);
    machine.writes(extent(0, 5 * BLOCK, 100), 3);
    machine.marks(BookmarkKind::CrashConsistent, true);
    paths.push(machine.store(vault).await);
    (machine, paths)
}

/// Changes a pack's bytes, and gives the error of restoring the end of the machine's history.
fn broken(pack: usize, change: impl Fn(&mut Vec<u8>)) -> String {
    run(async {
        let mut vault = TestVault::new();
        let (machine, paths) = three_packs(&mut vault).await;
        let end = machine.ops.len() as u64;
        assert_eq!(restored(&vault, &machine, end).await.unwrap(), machine.states[7]);
        let mut bytes = vault.get(&paths[pack]).await;
        change(&mut bytes);
        vault.put(&paths[pack], bytes).await;
        let error = restored(&vault, &machine, end).await.unwrap_err();
        assert_eq!(error.remedy(), tidegate_model::Remedy::Repair, "{error}");
        error.to_string()
    })
}

#[test]
fn a_pack_cut_short_is_named_whatever_is_left_of_it() {
    for keep in [0, 100, 160, 200] {
        let error = broken(0, |bytes| bytes.truncate(keep));
        assert!(error.contains("log/ps-1/"), "{keep}: {error}");
        assert!(error.contains("epoch 1 ends at LSN 0"), "{keep}: {error}");
    }
    let error = broken(0, |bytes| bytes.truncate(bytes.len() - 1));
    assert!(error.contains("cut or changed"), "{error}");
}

#[test]
fn a_changed_bit_in_a_frame_stops_the_restore_and_names_the_range() {
    let error = broken(0, |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert!(error.contains("frame 0 in log/ps-1/"), "{error}");
    assert!(error.contains("bytes 0 to 4096 of disk 0 of db-1"), "{error}");
}

#[test]
fn a_changed_bit_in_an_index_breaks_the_chain_where_it_was() {
    let error = broken(1, |bytes| bytes[170] ^= 4);
    assert!(error.contains("ends at LSN 2") && error.contains("digest"), "{error}");
}

#[test]
fn two_packs_that_were_swapped_are_known_for_what_they_are() {
    run(async {
        let mut vault = TestVault::new();
        let (machine, paths) = three_packs(&mut vault).await;
        let (first, second) = (vault.get(&paths[0]).await, vault.get(&paths[1]).await);
        vault.put(&paths[0], second).await;
        vault.put(&paths[1], first).await;
        let error = restored(&vault, &machine, 7).await.unwrap_err().to_string();
        assert!(error.contains("another pack") && error.contains("another number"), "{error}");
    });
}

#[test]
fn a_missing_pack_is_told_from_a_gap_that_a_crash_left() {
    run(async {
        let mut vault = TestVault::new();
        let (mut machine, paths) = three_packs(&mut vault).await;
        // Pack 4 was stored, pack 3 wasn't when the server died: the chain ends before it.
        machine.writes(extent(0, 0, BLOCK), 9);
        machine.send(&vault);
        machine.log.close(&mut vault, false);
        machine.writes(extent(0, 0, BLOCK), 8);
        machine.send(&vault);
        machine.log.committed = 3;
        let (path, bytes) = machine.log.close(&mut vault, false);
        vault.put(&path, bytes).await;
        let history = machine.history(&vault).await;
        assert_eq!(history.epochs[&machine.of.1].hole(), None);
        assert!(history.losses.is_empty());
        assert_eq!(restored(&vault, &machine, 7).await.unwrap(), machine.states[7]);
        // But a pack that was committed is lost.
        vault.delete(&paths[1]).await;
        let history = machine.history(&vault).await;
        assert_eq!(history.losses, [LogError::Missing(machine.log.place(1)).into()]);
        let error = restored(&vault, &machine, 7).await.unwrap_err().to_string();
        assert!(error.contains("ends at LSN 2") && error.contains("is missing"), "{error}");
        // The first pack is whole, but the copy didn't end in it: nothing is offered.
        let points = MachinePoints::of(&history);
        assert_eq!(points.points, []);
        assert!(points.gaps[0].to_string().contains("LSNs 3 to 4 are missing"), "{points:?}");
        assert!(points.choose(&vault.reader(), &history, At::Latest).await.is_err());
    });
}

#[test]
fn only_the_disks_that_are_asked_for_are_restored() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, BLOCK)));
        machine.does(Op::Disk(disk(1, 2 * BLOCK)));
        machine.writes(extent(0, 0, BLOCK), 1);
        machine.writes(extent(1, 5, BLOCK), 2);
        machine.store(&mut vault).await;
        let history = machine.history(&vault).await;
        let point = Point { epoch: machine.of.1, lsn: Lsn(4) };
        let one = [DiskNumber::try_from(1).unwrap()];
        let plan = RestorePlan::build(&vault.reader(), &history, point, &one).await.unwrap();
        assert_eq!(plan.disks(), [disk(1, 2 * BLOCK)]);
        let sink = Arc::new(MemorySink::new(plan.disks()));
        plan.run(&vault.reader(), sink.clone(), Means::default(), &|_| ()).await.unwrap();
        assert_eq!(sink.disks()[&one[0]], machine.states[4][&one[0]]);
        let none = [DiskNumber::try_from(2).unwrap()];
        let error = RestorePlan::build(&vault.reader(), &history, point, &none).await.err();
        assert!(matches!(error, Some(RestoreError::NoDisk { .. })), "{error:?}");
    });
}

#[test]
fn an_epoch_that_continues_another_stands_on_it_where_it_was_left() {
    run(async {
        let mut vault = TestVault::new();
        let (parent, _) = three_packs(&mut vault).await;
        // The parent went on to LSN 7; this branch leaves it at 5, after its copy had ended.
        let log = TestLog::new(&vault, 2);
        let mut child = TestMachine::continuing(&parent, 5, 2, log);
        child.writes(extent(0, 0, 10), 9);
        child.marks(BookmarkKind::CopyEnd, true);
        child.store(&mut vault).await;
        parent.publish(&vault).await;
        child.publish(&vault).await;
        let (reader, name) = (vault.reader(), child.of.0.clone());
        let history = MachineHistory::read(&reader, &name).await.unwrap();
        let points = MachinePoints::of(&history);
        let latest = points.choose(&reader, &history, At::Latest).await.unwrap();
        assert_eq!(latest.point, Point { epoch: child.of.1, lsn: Lsn(2) });
        assert_eq!(latest.disks, [disk(0, 8 * BLOCK)]);
        let plan = RestorePlan::build(&reader, &history, latest.point, &[]).await.unwrap();
        let sink = Arc::new(MemorySink::new(plan.disks()));
        plan.run(&reader, sink.clone(), Means::default(), &|_| ()).await.unwrap();
        assert_eq!(sink.disks(), child.states[2]);
    });
}

#[test]
fn a_reference_to_another_block_than_it_names_is_refused() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, 8 * BLOCK)));
        machine.writes(extent(0, 0, BLOCK), 1);
        machine.writes(extent(0, BLOCK, BLOCK), 2);
        machine.store(&mut vault).await;
        // A server that mixes its table up: the name of one block leads to the other.
        let targets: Vec<_> = vault.known.values().cloned().collect();
        for (value, other) in vault.known.values_mut().zip(targets.into_iter().rev()) {
            *value = other;
        }
        machine.writes(extent(0, 2 * BLOCK, BLOCK), 1);
        machine.store(&mut vault).await;
        let error = restored(&vault, &machine, 4).await.unwrap_err().to_string();
        assert!(error.contains("name, checksum or length differ"), "{error}");
        assert!(error.contains("bytes 8192 to 12288 of disk 0"), "{error}");
    });
}

#[test]
fn bytes_that_changed_before_they_were_sealed_are_not_restored() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, 8 * BLOCK)));
        machine.log.bad_memory = true;
        machine.writes(extent(0, 0, 2 * BLOCK), 1);
        // The byte that changed isn't even wanted: the record as a whole is checked.
        machine.does(Op::Zero(extent(0, 0, 100)));
        machine.store(&mut vault).await;
        let error = restored(&vault, &machine, 3).await.unwrap_err().to_string();
        assert!(error.contains("doesn't have the checksum"), "{error}");
        assert!(error.contains("bytes 100 to 4096 of disk 0"), "{error}");
    });
}
