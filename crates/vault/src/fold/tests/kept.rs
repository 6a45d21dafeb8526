//! What letting go must leave, and when it must not, case by case.

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_model::{Epoch, Point};

use super::limited::limits;
use super::meeting::request;
use super::thinned::{hourly, manifest, offered, thinned};
use super::*;
use crate::fold::FoldLimits;
use crate::grant::{GrantError, GrantRequest, grant};
use crate::retention::Policy;

const HOUR: u64 = 3600;
/// Older than anything that is kept for its age.
const OLD: u64 = 400 * 24 * HOUR;

/// Keeps the newest point of each of so many hours, and nothing for its age.
fn by(vault: &TestVault, hourly: u32) -> Folding {
    let policy = Policy { window_seconds: 0, all_seconds: 0, hourly, daily: 0, weekly: 0 };
    Folding { keeping: Some(Keeping { policy, now: vault.clock.now() }), ..FOLDING }
}

async fn kept_by(vault: &TestVault, folding: Folding) -> FoldReport {
    let report = fold(&vault.reader(), &db(), folding, &|_| ()).await.unwrap();
    assert_eq!(report.losses, []);
    report
}

/// A second epoch, which begins with a copy and has one point, all of it old.
async fn copied_later(vault: &mut TestVault) {
    vault.clock.advance(2 * HOUR);
    let mut next = TestMachine::new("db-1", 2, TestLog::new(vault, 8));
    next.does(Op::Disk(disk(0, 9 * BLOCK + 513)));
    next.marks(BookmarkKind::CopyEnd, true);
    next.store(vault).await;
    next.publish(vault).await;
    vault.clock.advance(OLD);
}

async fn assert_restores(vault: &TestVault, machine: &TestMachine, lsn: u64) {
    let disks = restored(vault, Point { epoch: machine.of.1, lsn: Lsn(lsn) }).await.unwrap();
    assert!(disks == machine.states[usize::try_from(lsn).unwrap()], "LSN {lsn}");
}

#[test]
fn an_epoch_of_which_nothing_but_its_end_is_kept_stays() {
    run(async {
        let mut vault = TestVault::new();
        let first = hourly(&mut vault, 3).await;
        copied_later(&mut vault).await;
        assert_eq!(kept_by(&vault, by(&vault, 2)).await.epochs_gone, 0);
        assert_eq!(offered(&vault).await.len(), 2);
        assert_restores(&vault, &first, first.ops.len() as u64).await;
    });
}

#[test]
fn where_the_machine_was_when_the_window_began_stays_though_no_point_of_it_is_kept() {
    run(async {
        let mut vault = TestVault::new();
        let first = hourly(&mut vault, 3).await;
        vault.clock.advance(OLD);
        copied_later(&mut vault).await;
        let folding = by(&vault, 1);
        // The window begins before the second epoch did, and the second has the only kept point.
        let window = |folding: Folding| {
            let keeping = folding.keeping.unwrap();
            let policy = Policy { window_seconds: OLD + HOUR, ..keeping.policy };
            Folding { keeping: Some(Keeping { policy, ..keeping }), ..folding }
        };
        assert_eq!(kept_by(&vault, window(folding)).await.epochs_gone, 0);
        assert_restores(&vault, &first, first.ops.len() as u64).await;
        assert_eq!(kept_by(&vault, folding).await.epochs_gone, 1);
    });
}

#[test]
fn an_epoch_without_a_point_stays_until_another_has_taken_its_place() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, 9 * BLOCK)));
        machine.writes(extent(0, 0, BLOCK), 1);
        machine.store(&mut vault).await;
        machine.publish(&vault).await;
        vault.clock.advance(OLD);
        assert_eq!(kept_by(&vault, by(&vault, 0)).await.epochs_gone, 0);
        // Its copy goes on, however long that took.
        machine.marks(BookmarkKind::CopyEnd, true);
        machine.store(&mut vault).await;
        assert_eq!(offered(&vault).await.len(), 1);
    });
}

#[test]
fn nothing_goes_while_what_a_machine_refers_to_is_lost() {
    run(async {
        let mut vault = TestVault::new();
        let mut web = TestMachine::new("web-1", 1, TestLog::new(&vault, 5));
        web.does(Op::Disk(disk(0, 9 * BLOCK)));
        web.writes(extent(0, 0, BLOCK), 177);
        let shared = web.store(&mut vault).await;
        web.publish(&vault).await;
        let mut machine = hourly(&mut vault, 20).await;
        machine.writes(extent(0, 8 * BLOCK, BLOCK), 177);
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        folded(&vault).await;
        let pack = vault.get(&shared).await;
        vault.delete(&shared).await;
        let report = thinned(&vault).await;
        assert_eq!((report.let_go, report.manifest, report.losses.len()), (0, 0, 1), "{report:?}");
        vault.put(&shared, pack).await;
        assert!(thinned(&vault).await.let_go > 0);
    });
}

#[test]
fn a_place_before_a_disk_became_shorter_has_what_it_had() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = hourly(&mut vault, 4).await;
        vault.clock.advance(HOUR);
        machine.writes(extent(1, 8 * BLOCK, BLOCK), 9);
        let whole = machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        vault.clock.advance(HOUR);
        machine.does(Op::Disk(disk(1, 4 * BLOCK)));
        machine.writes(extent(1, 0, 10), 9);
        let short = machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        vault.clock.advance(OLD);
        assert!(kept_by(&vault, by(&vault, 2)).await.let_go > 0);
        assert_eq!(offered(&vault).await.len(), 2);
        assert_restores(&vault, &machine, whole).await;
        assert_restores(&vault, &machine, short).await;
    });
}

#[test]
fn thinning_on_both_sides_of_a_base_needs_no_log() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = hourly(&mut vault, 20).await;
        folded(&vault).await;
        assert!(manifest(&vault).await.epochs[0].base.is_some());
        for hour in 0..20 {
            vault.clock.advance(HOUR);
            machine.writes(extent(0, 0, 5000), 100 + hour);
            machine.marks(BookmarkKind::CrashConsistent, true);
            machine.store(&mut vault).await;
        }
        let without = Folding { base_extents_min: u64::MAX, ..FOLDING };
        kept_by(&vault, without).await;
        vault.clock.advance(OLD);
        let packs = AtomicU64::new(0);
        let count = |done: Done| packs.store(done.packs, Ordering::Relaxed);
        // No place that is kept is the base's.
        let folding = Folding { base_extents_min: u64::MAX, ..by(&vault, 5) };
        let report = fold(&vault.reader(), &db(), folding, &count).await.unwrap();
        assert!(report.let_go > 0 && report.losses.is_empty(), "{report:?}");
        assert_eq!(packs.into_inner(), 0, "what isn't right is made from the logs again");
        for point in offered(&vault).await {
            assert_restores(&vault, &machine, point.lsn.0).await;
        }
    });
}

#[test]
fn in_steps_the_same_is_let_go_as_at_once() {
    run(async {
        let mut kept = Vec::new();
        for taken in [u64::MAX, 3] {
            let mut vault = TestVault::new();
            let first = hourly(&mut vault, 20).await;
            copied_later(&mut vault).await;
            let limits = Some(FoldLimits { taken, ..limits() });
            let (mut more, mut steps) = (true, 0);
            while more {
                let report = kept_by(&vault, Folding { limits, ..by(&vault, 2) }).await;
                assert_eq!(report.epochs_gone, 0, "{report:?}");
                (more, steps) = (report.more, steps + 1);
            }
            assert_eq!(steps > 1, taken == 3);
            let points = offered(&vault).await;
            for point in points.iter().filter(|point| point.epoch == first.of.1) {
                assert_restores(&vault, &first, point.lsn.0).await;
            }
            kept.push(points);
        }
        assert_eq!((kept[0].len(), &kept[1]), (2, &kept[0]));
    });
}

#[test]
fn nothing_goes_on_from_an_epoch_of_which_nothing_is_kept() {
    run(async {
        let mut vault = TestVault::new();
        let first = hourly(&mut vault, 2).await;
        copied_later(&mut vault).await;
        assert_eq!(kept_by(&vault, by(&vault, 1)).await.epochs_gone, 1);
        let continues = request(&TestLog::new(&vault, 9), Lsn(6));
        let incarnation = first.record.incarnation;
        let resumes =
            GrantRequest { claimed: Epoch(1), parent: None, incarnation, ..continues.clone() };
        for asked in [continues, resumes] {
            let granted = grant(&vault.reader(), &asked).await;
            assert!(matches!(granted, Err(GrantError::NotKept { .. })), "{granted:?}");
        }
    });
}
