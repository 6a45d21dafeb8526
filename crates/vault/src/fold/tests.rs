//! Folded histories against those that are read from the logs, and against a plain model.

mod bytes;
mod cost;
mod damage;
mod dense;
mod kept;
mod limited;
mod meeting;
mod saga;
mod thinned;
mod trimmed_saga;

use std::sync::Arc;

use proptest::prelude::*;
use tidegate_model::{BookmarkKind, Lsn, Name, Point};

use super::*;
use crate::chain::MachineHistory;
use crate::layout;
use crate::log::{CACHE_BYTES_DEFAULT, LogReader};
use crate::points;
use crate::restore::{Means, RestoreError, RestorePlan};
use crate::store::Store;
use crate::testing::{
    BLOCK, Disks, Event, LateStore, MemorySink, Op, TestLog, TestMachine, TestVault, apply, disk,
    event, extent, run,
};
use crate::usage::usage;

fn db() -> Name {
    "db-1".parse().unwrap()
}

/// Bases are made of few extents here.
const FOLDING: Folding = Folding { anew: false, base_extents_min: 12, ..Folding::DEFAULT };

async fn folded(vault: &TestVault) -> FoldReport {
    fold(&vault.reader(), &db(), FOLDING, &|_| ()).await.unwrap()
}

async fn history(vault: &TestVault) -> MachineHistory {
    MachineHistory::read(&vault.reader(), &db()).await.unwrap()
}

/// The same vault without what was folded.
async fn without_manifests(vault: &TestVault) -> TestVault {
    let objects = Arc::new(vault.objects.fork());
    let (ring, clock) = (vault.ring.clone(), vault.clock.clone());
    let plain = TestVault { objects, ring, known: Default::default(), clock };
    let newest = newest_manifest(&plain.store(), &plain.ring, &db()).await.unwrap().number;
    for number in 1..=newest {
        plain.delete(&layout::manifest(&db(), number)).await;
    }
    plain
}

async fn restored(vault: &TestVault, point: Point) -> Result<Disks, RestoreError> {
    let (reader, history) = (vault.reader(), history(vault).await);
    let plan = RestorePlan::build(&reader, &history, point, &[]).await?;
    let sink = Arc::new(MemorySink::new(plan.disks()));
    plan.run(&reader, sink.clone(), Means::default(), &|_| ()).await?;
    Ok(sink.disks())
}

/// All that is told of a vault, folded or not.
async fn told(vault: &TestVault) -> String {
    let (history, points) = points::read(&vault.reader(), &db()).await.unwrap();
    let traces = history.epochs.iter().map(|(epoch, told)| {
        let trace = &told.trace;
        let marks = (&trace.bookmarks, &trace.declared, trace.last_time);
        format!("{epoch}: {:?} {marks:?} {:?}", trace.chain, trace.begins)
    });
    let traces: Vec<_> = traces.collect();
    let mut usage = usage(&vault.reader()).await.unwrap();
    usage.values_mut().for_each(|usage| usage.dense_bytes = 0);
    format!("{points:#?}\n{traces:#?}\n{:?}\n{usage:#?}", history.losses)
}

/// A machine with two disks whose copy has ended.
fn begun(vault: &TestVault) -> TestMachine {
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(vault, 1));
    machine.does(Op::Disk(disk(0, 9 * BLOCK + 513)));
    machine.does(Op::Disk(disk(1, 9 * BLOCK + 513)));
    machine.marks(BookmarkKind::CopyEnd, true);
    machine
}

#[derive(Debug, Clone)]
enum Step {
    Event(Event),
    Mark,
    Fold,
    FoldAnew,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => event().prop_map(Step::Event),
        1 => Just(Step::Mark),
        3 => Just(Step::Fold),
        1 => Just(Step::FoldAnew),
    ]
}

proptest! {
    #![proptest_config(crate::testing::cases(300))]
    #[test]
    fn a_folded_history_is_the_same_history(
        steps in proptest::collection::vec(step(), 1..50),
        at in any::<prop::sample::Index>(),
    ) {
        run(async {
            let mut vault = TestVault::new();
            let mut machine = begun(&vault);
            let mut logs = 1;
            for step in &steps {
                match step {
                    Step::Event(event) => apply(&mut vault, &mut machine, &mut logs, event).await,
                    Step::Mark => {
                        machine.marks(BookmarkKind::CrashConsistent, true);
                    }
                    Step::Fold => {
                        machine.publish(&vault).await;
                        let limits = Some(FoldLimits { taken: 2, ..limited::limits() });
                        let folding = Folding { limits, ..FOLDING };
                        while fold(&vault.reader(), &db(), folding, &|_| ()).await.unwrap().more {}
                    }
                    Step::FoldAnew => {
                        machine.publish(&vault).await;
                        let folding = Folding { anew: true, ..FOLDING };
                        fold(&vault.reader(), &db(), folding, &|_| ()).await.unwrap();
                    }
                }
            }
            machine.store(&mut vault).await;
            machine.publish(&vault).await;
            let plain = without_manifests(&vault).await;
            prop_assert_eq!(told(&vault).await, told(&plain).await);
            let end = machine.ops.len();
            for lsn in [end, 3 + at.index(end - 2)] {
                let point = Point { epoch: machine.of.1, lsn: Lsn(lsn as u64) };
                let disks = restored(&vault, point).await.unwrap();
                prop_assert!(disks == machine.states[lsn], "the disks differ at LSN {}", lsn);
            }
            Ok(())
        })?;
    }
}

#[test]
fn folding_what_is_folded_creates_nothing() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = begun(&vault);
        machine.writes(extent(0, 0, 3 * BLOCK), 1);
        machine.store(&mut vault).await;
        machine.publish(&vault).await;
        let first = folded(&vault).await;
        assert_eq!((first.manifest, first.packs, first.records, first.layers), (1, 1, 4, 1));
        assert_eq!(folded(&vault).await, FoldReport::default());
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        let second = folded(&vault).await;
        assert_eq!((second.manifest, second.records, second.layers), (2, 1, 0));
    });
}

#[test]
fn what_is_folded_isnt_read_from_the_logs_again() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = begun(&vault);
        for round in 0..9 {
            // Always the same place: of the packs only the last is needed in the end.
            machine.does(Op::Write(extent(0, 0, 100), vec![round + 1; 100]));
            machine.store(&mut vault).await;
        }
        machine.publish(&vault).await;
        folded(&vault).await;
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        let late = LateStore::new(vault.objects.clone(), 1);
        let store = Store::over(late.clone(), "memory://late");
        let reader = LogReader::new(store, vault.ring.clone(), CACHE_BYTES_DEFAULT);
        let heads = || late.heads.load(std::sync::atomic::Ordering::SeqCst);
        let (history, points) = points::read(&reader, &db()).await.unwrap();
        assert_eq!((points.points.len(), heads()), (2, 1), "only the pack behind the fold");
        let point = points.points[1].point;
        let plan = RestorePlan::build(&reader, &history, point, &[]).await.unwrap();
        let sink = Arc::new(MemorySink::new(plan.disks()));
        plan.run(&reader, sink.clone(), Means::default(), &|_| ()).await.unwrap();
        assert_eq!(sink.disks(), *machine.states.last().unwrap());
        assert_eq!(heads(), 1 + 1, "and the one that holds the bytes");
        usage(&reader).await.unwrap();
        assert_eq!(heads(), 2);
    });
}

#[test]
fn a_record_that_is_cut_by_the_end_of_what_is_there_is_folded_with_its_end() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = begun(&vault);
        machine.store(&mut vault).await;
        machine.publish(&vault).await;
        let of = machine.of.clone();
        for round in 1..4_u8 {
            // Two of three pieces end a pack, and the third begins the next one, which ends alike.
            let blocks = (1..4).flat_map(|block| vec![round * 16 + block; 4096]);
            let op = Op::Write(extent(0, 0, 3 * BLOCK), blocks.collect());
            let lsn = machine.does(op.clone());
            machine.log.add_pieces(&vault, &of, lsn, &op, 0..2);
            machine.log.store(&mut vault, false).await;
            let report = folded(&vault).await;
            assert_eq!(report.records, if round == 1 { 3 } else { 0 }, "round {round}");
            machine.log.add_pieces(&vault, &of, lsn, &op, 2..3);
            machine.next = lsn + 1;
            if round % 2 == 0 {
                machine.store(&mut vault).await;
            }
            let report = folded(&vault).await;
            assert_eq!(report.records, if round % 2 == 0 { 2 } else { 0 }, "round {round}");
        }
        machine.store(&mut vault).await;
        assert_eq!(folded(&vault).await.records, 1);
        for lsn in 3..=6 {
            let point = Point { epoch: of.1, lsn: Lsn(lsn) };
            let disks = restored(&vault, point).await.unwrap();
            assert!(disks == machine.states[usize::try_from(lsn).unwrap()], "LSN {lsn}");
        }
        assert_eq!(told(&vault).await, told(&without_manifests(&vault).await).await);
    });
}

#[test]
fn nothing_is_folded_beyond_a_hole_in_the_chain() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = begun(&vault);
        machine.store(&mut vault).await;
        machine.writes(extent(0, 0, BLOCK), 1);
        let lost = machine.store(&mut vault).await;
        machine.writes(extent(0, 0, BLOCK), 2);
        machine.store(&mut vault).await;
        machine.publish(&vault).await;
        let kept = vault.get(&lost).await;
        vault.delete(&lost).await;
        let report = folded(&vault).await;
        assert_eq!((report.packs, report.records, report.losses.len()), (1, 3, 1));
        assert_eq!(folded(&vault).await.manifest, 0);
        assert_eq!(told(&vault).await, told(&without_manifests(&vault).await).await);
        // Once it is back, all can be folded.
        vault.put(&lost, kept).await;
        let report = folded(&vault).await;
        assert_eq!((report.packs, report.records, report.losses.len()), (2, 2, 0));
    });
}

#[test]
fn who_isnt_folded_is_told_as_before_in_a_log_with_one_who_is() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = begun(&vault);
        let mut web = TestMachine::new("web-1", 1, TestLog::new(&vault, 7));
        web.record.log = machine.log.name.clone();
        for lsn in 1..5 {
            machine.writes(extent(0, lsn * 50, 5000), 1);
            machine.send(&vault);
            let op = Op::Write(extent(0, lsn * 70, 6000), vec![2; 6000]);
            machine.log.seal(&mut vault);
            machine.log.add(&vault, &web.of, lsn, &op, None);
            machine.store(&mut vault).await;
        }
        machine.publish(&vault).await;
        web.publish(&vault).await;
        assert_eq!(folded(&vault).await.packs, 4);
        let both = usage(&vault.reader()).await.unwrap();
        assert_eq!((both.len(), both[&web.of.0].kept_bytes), (2, 4 * 6000));
        assert_eq!(told(&vault).await, told(&without_manifests(&vault).await).await);
    });
}

#[test]
fn two_who_fold_at_once_do_no_harm() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = begun(&vault);
        for round in 1..6 {
            machine.writes(extent(0, u64::from(round) * 100, 5000), round);
            machine.store(&mut vault).await;
            machine.publish(&vault).await;
            let late = |seed| {
                let late = LateStore::new(vault.objects.clone(), u64::from(round) * 10 + seed);
                let store = Store::over(late, "memory://late");
                LogReader::new(store, vault.ring.clone(), CACHE_BYTES_DEFAULT)
            };
            let (one, two, db) = (late(1), late(2), db());
            let both = futures::join!(
                fold(&one, &db, FOLDING, &|_| ()),
                fold(&two, &db, FOLDING, &|_| ())
            );
            let (one, two) = (both.0.unwrap(), both.1.unwrap());
            // Whoever was second found nothing left to do.
            assert_eq!(one.records.max(two.records), if round == 1 { 4 } else { 1 });
            assert_eq!(one.manifest.min(two.manifest), 0);
        }
        assert_eq!(told(&vault).await, told(&without_manifests(&vault).await).await);
        let end = Lsn(machine.ops.len() as u64);
        let disks = restored(&vault, Point { epoch: machine.of.1, lsn: end }).await.unwrap();
        assert!(disks == *machine.states.last().unwrap());
    });
}

#[test]
fn a_recovery_reads_no_more_than_its_disks_need_however_much_was_folded() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = begun(&vault);
        for round in 0..120_u8 {
            for block in 0..4 {
                machine.writes(extent(0, block * BLOCK, BLOCK), round + 1);
            }
            machine.store(&mut vault).await;
            machine.publish(&vault).await;
            let report = folded(&vault).await;
            assert_eq!(report.records, if round == 0 { 7 } else { 4 }, "round {round}");
        }
        let newest = newest_manifest(&vault.store(), &vault.ring, &db()).await.unwrap();
        let epoch = &newest.manifest.unwrap().epochs[0];
        let count = |layers: &mut dyn Iterator<Item = LayerEntry>| -> u32 {
            layers.map(|layer| layer.extents).sum()
        };
        assert_eq!(count(&mut epoch.layers.iter().copied()), 480, "every version is there");
        assert!(count(&mut epoch.needed(Lsn(u64::MAX))) <= 4 + 12, "{epoch:?}");
        assert!(epoch.layers.len() < 60, "{} layers", epoch.layers.len());
        // Any place before is there as well.
        for lsn in [483, 482, 300, 5] {
            let point = Point { epoch: machine.of.1, lsn: Lsn(lsn) };
            let disks = restored(&vault, point).await.unwrap();
            assert!(disks == machine.states[usize::try_from(lsn).unwrap()], "LSN {lsn}");
        }
    });
}
