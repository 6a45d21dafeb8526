//! Collections on vaults in memory: what is removed, and that everything else reads as before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::{BookmarkKind, Epoch, LogName, Lsn, Micros, Name, PackNumber, Point, RunId};

use crate::chain::MachineHistory;
use crate::fold::{
    FoldError, Folding, Keeping, create_manifest, fold, newest_manifest, newest_number,
};
use crate::gc::objects::create_step;
use crate::gc::{CollectReport, Collecting, GcError, PackSet, Pin, Step, collect};
use crate::grant::chain_end;
use crate::layout;
use crate::log::PackPlace;
use crate::meta::remove_machine;
use crate::points;
use crate::restore::{Means, RestorePlan};
use crate::retention::Policy;
use crate::testing::{
    BLOCK, Disks, MemorySink, Op, TestLog, TestMachine, TestVault, disk, extent, run,
};
use crate::verify::verify;

/// Nobody is waited for: these logs have no servers.
pub(super) const NOW: Collecting =
    Collecting { dry_run: false, patience: Duration::ZERO, bytes_max: None };
/// Servers are borne with.
pub(super) const PATIENT: Collecting =
    Collecting { dry_run: false, patience: Duration::from_secs(3600), bytes_max: None };

/// From the logs alone.
const ANEW: Folding = Folding { anew: true, ..Folding::DEFAULT };

pub(super) fn db() -> Name {
    "db-1".parse().unwrap()
}

pub(super) async fn folded(vault: &TestVault) {
    fold(&vault.reader(), &db(), Folding::default(), &|_| ()).await.unwrap();
}

pub(super) async fn collected(vault: &TestVault, how: Collecting) -> CollectReport {
    collect(&vault.reader(), how).await.unwrap()
}

async fn restored(vault: &TestVault, lsn: usize) -> Disks {
    let reader = vault.reader();
    let history = MachineHistory::read(&reader, &db()).await.unwrap();
    let point = Point { epoch: Epoch(1), lsn: Lsn(lsn as u64) };
    let plan = RestorePlan::build(&reader, &history, point, &[]).await.unwrap();
    let sink = Arc::new(MemorySink::new(plan.disks()));
    plan.run(&reader, sink.clone(), Means::default(), &|_| ()).await.unwrap();
    sink.disks()
}

/// A machine whose every second pack keeps no bytes: after a fold nobody needs those.
pub(super) async fn lived(vault: &mut TestVault) -> TestMachine {
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(vault, 1));
    machine.does(Op::Disk(disk(0, 9 * BLOCK)));
    machine.marks(BookmarkKind::CopyEnd, true);
    machine.store(vault).await;
    for round in 1..6_u8 {
        machine.writes(extent(0, u64::from(round) * BLOCK, BLOCK), round);
        machine.store(vault).await;
        machine.does(Op::Zero(extent(0, 0, 100)));
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(vault).await;
    }
    machine.publish(vault).await;
    machine
}

pub(super) async fn is_there(vault: &TestVault, machine: &TestMachine, pack: u64) -> bool {
    vault.store().head(&machine.log.place(pack).path()).await.is_ok()
}

/// Every point that is offered comes back as it was, and nothing is wrong with the vault.
pub(super) async fn assert_whole(vault: &TestVault, machine: &TestMachine) {
    let (_, offered) = points::read(&vault.reader(), &db()).await.unwrap();
    assert!(offered.gaps.is_empty(), "{:?}", offered.gaps);
    let marks = machine.ops.iter().filter(|op| matches!(op, Op::Bookmark(_))).count();
    assert_eq!(offered.points.len(), marks);
    for point in offered.points {
        let lsn = usize::try_from(point.point.lsn.0).unwrap();
        assert!(restored(vault, lsn).await == machine.states[lsn], "LSN {lsn} differs");
    }
    let report = verify(&vault.reader(), true, &|_| ()).await.unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

#[test]
fn packs_that_nothing_needs_go_and_every_point_comes_back_as_before() {
    run(async {
        let mut vault = TestVault::new();
        let machine = lived(&mut vault).await;
        // Nothing is folded: every pack is needed.
        assert_eq!(collected(&vault, NOW).await.outcome.condemned, 0);
        folded(&vault).await;
        let dry = collected(&vault, Collecting { dry_run: true, ..NOW }).await;
        assert_eq!((dry.would.count(), dry.outcome.removed), (5, 0));
        assert!(vault.store().head(&layout::step(1)).await.is_err());
        let report = collected(&vault, NOW).await;
        // The first and every second but the last, which is the machine's last word.
        assert_eq!((report.outcome.condemned, report.outcome.removed), (5, 5), "{report:?}");
        assert!(report.bytes > 0);
        for pack in 0..11 {
            let gone = pack % 2 == 0 && pack < 10;
            assert_eq!(is_there(&vault, &machine, pack).await, !gone, "pack {pack}");
        }
        assert_whole(&vault, &machine).await;
        let again = collected(&vault, NOW).await;
        assert_eq!((again.outcome.condemned, again.bytes), (0, 0), "{again:?}");
    });
}

#[test]
fn a_server_finds_where_a_chain_ends_though_what_lay_between_was_removed() {
    run(async {
        let mut vault = TestVault::new();
        let machine = lived(&mut vault).await;
        folded(&vault).await;
        collected(&vault, NOW).await;
        let end = chain_end(&vault.reader(), &db(), &machine.record).await.unwrap();
        assert_eq!(end, Lsn(machine.ops.len() as u64));
    });
}

#[test]
fn a_log_that_may_grow_is_waited_for_until_it_states_the_list_or_is_closed() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = lived(&mut vault).await;
        folded(&vault).await;
        let report = collected(&vault, PATIENT).await;
        assert_eq!((report.outcome.condemned, report.outcome.removed), (5, 0));
        // The log, and that of the run's other shard.
        assert_eq!(report.outcome.waits_for.len(), 2);
        machine.log.condemned_list = 1;
        machine.writes(extent(0, 0, 50), 77);
        machine.store(&mut vault).await;
        let waits = collected(&vault, PATIENT).await.outcome.waits_for;
        assert_eq!(waits.len(), 1, "only the other shard's: {waits:?}");
        let report = collected(&vault, NOW).await;
        assert_eq!((report.outcome.fenced, report.outcome.removed), (waits, 5));
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        assert_whole(&vault, &machine).await;
    });
}

#[test]
fn what_is_referred_to_between_condemning_and_removing_is_spared() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = lived(&mut vault).await;
        folded(&vault).await;
        // Pack 3 keeps a block that is written over everywhere, and its history is thinned away: here
        // by hand, for nothing that was folded may need it.
        let newest = newest_manifest(&vault.store(), &vault.ring, &db()).await.unwrap();
        let mut manifest = newest.manifest.unwrap();
        for epoch in &mut manifest.epochs {
            epoch.packs.retain(|pack| pack.pack.0 != 3);
        }
        // Two manifests count.
        for number in [2, 3] {
            manifest.number = number;
            create_manifest(&vault.store(), &vault.ring, &db(), &manifest).await.unwrap();
            let dry = collected(&vault, Collecting { dry_run: true, ..NOW }).await;
            assert_eq!(dry.would.count(), if number == 2 { 5 } else { 6 });
        }
        let report = collected(&vault, PATIENT).await;
        assert_eq!((report.outcome.condemned, report.outcome.removed), (6, 0));
        // A server that hasn't read the list refers to it, and then reads.
        machine.writes(extent(0, 8 * BLOCK, BLOCK), 2);
        machine.store(&mut vault).await;
        let report = collected(&vault, NOW).await;
        assert_eq!((report.outcome.removed, report.outcome.spared), (5, 1), "{report:?}");
        assert!(is_there(&vault, &machine, 3).await);
        assert!(restored(&vault, machine.ops.len()).await == *machine.states.last().unwrap());
    });
}

#[test]
fn a_pinned_manifest_keeps_its_packs_and_layers_until_the_pin_goes() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = lived(&mut vault).await;
        let pin = Pin::newest(&vault.reader(), &db()).await.unwrap().unwrap();
        assert_eq!(pin.manifest(), 0);
        folded(&vault).await;
        // Who reads from the logs needs them all.
        assert_eq!(collected(&vault, NOW).await.outcome.condemned, 0);
        pin.release().await.unwrap();
        let mut pin = Pin::newest(&vault.reader(), &db()).await.unwrap().unwrap();
        // One manifest more counts besides the newest.
        for byte in [9, 10] {
            machine.writes(extent(0, 0, 100), byte);
            machine.store(&mut vault).await;
            folded(&vault).await;
        }
        pin.renew().await.unwrap();
        let report = collected(&vault, NOW).await;
        assert_eq!((report.outcome.removed, report.superseded), (5, 0), "{report:?}");
        pin.release().await.unwrap();
        // Its manifest; newer ones name its layers.
        assert_eq!(collected(&vault, NOW).await.superseded, 1);
    });
}

#[test]
fn who_pinned_what_was_superseded_and_was_killed_then_stops_nobody() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = lived(&mut vault).await;
        folded(&vault).await;
        for byte in [9, 10] {
            machine.writes(extent(0, 0, 100), byte);
            machine.store(&mut vault).await;
            folded(&vault).await;
        }
        assert_eq!(collected(&vault, NOW).await.superseded, 1);
        drop(Pin::of(&vault.reader(), &db(), 1).await.unwrap());
        collected(&vault, NOW).await;
        // But one that counts and can't be read may need anything.
        vault.delete(&layout::manifest(&db(), 2)).await;
        drop(Pin::of(&vault.reader(), &db(), 2).await.unwrap());
        let refused = collect(&vault.reader(), NOW).await;
        assert!(refused.is_err(), "{refused:?}");
    });
}

#[test]
fn a_run_that_began_lately_isnt_closed_out_because_a_list_is_old() {
    run(async {
        let mut vault = TestVault::new();
        let _old = lived(&mut vault).await;
        folded(&vault).await;
        assert_eq!(collected(&vault, PATIENT).await.outcome.condemned, 5);
        vault.clock.advance(2 * 3600);
        let young = TestMachine::new("web-1", 1, TestLog::new(&vault, 2));
        young.publish(&vault).await;
        let outcome = collected(&vault, PATIENT).await.outcome;
        let runs = |logs: &[LogName]| logs.iter().map(|log| log.id.run).collect::<BTreeSet<_>>();
        let run_of = |number| BTreeSet::from([RunId::from_bytes([number; 16])]);
        assert_eq!((runs(&outcome.fenced), runs(&outcome.waits_for)), (run_of(1), run_of(2)));
        assert_eq!(outcome.removed, 0);
        vault.clock.advance(2 * 3600);
        let outcome = collected(&vault, PATIENT).await.outcome;
        assert_eq!((runs(&outcome.fenced), outcome.removed), (run_of(2), 5));
    });
}

#[test]
fn nothing_is_folded_anew_from_logs_of_which_something_was_removed() {
    run(async {
        let mut vault = TestVault::new();
        let machine = lived(&mut vault).await;
        folded(&vault).await;
        collected(&vault, NOW).await;
        let refused = fold(&vault.reader(), &db(), ANEW, &|_| ()).await;
        assert!(matches!(refused, Err(FoldError::Collected { .. })), "{refused:?}");
        // Nor where the manifest is damaged: what it told would be forgotten.
        let path = layout::manifest(&db(), 1);
        let mut bytes = vault.get(&path).await;
        bytes[100] ^= 1;
        vault.put(&path, bytes).await;
        let refused = fold(&vault.reader(), &db(), Folding::default(), &|_| ()).await;
        assert!(matches!(refused, Err(FoldError::Collected { .. })), "{refused:?}");
        assert!(collect(&vault.reader(), NOW).await.is_err(), "nor is anything collected");
        assert!(is_there(&vault, &machine, 1).await);
    });
}

#[test]
fn of_a_closed_log_whose_newest_packs_are_gone_it_is_still_known_where_it_ended() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = lived(&mut vault).await;
        folded(&vault).await;
        let closed = machine.log.name.clone();
        assert_eq!(collected(&vault, NOW).await.outcome.fenced.len(), 2);
        // It goes on elsewhere, so that what the closed log has last is no last word any more.
        let all = machine.ops.len() as u64;
        machine.reconnect(Some(TestLog::new(&vault, 2)), all);
        machine.publish(&vault).await;
        for byte in [7, 8] {
            machine.writes(extent(0, 0, 100), byte);
            machine.store(&mut vault).await;
            folded(&vault).await;
        }
        let report = collected(&vault, PATIENT).await;
        machine.log.condemned_list = 3;
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        assert_eq!(report.outcome.condemned, 1, "{report:?}");
        let report = collected(&vault, NOW).await;
        assert_eq!(report.outcome.removed, 1, "{report:?}");
        let (newest, end) = (PackNumber(10), PackNumber(11));
        let newest = PackPlace { log: closed.clone(), number: newest };
        assert!(vault.store().head(&newest.path()).await.is_err());
        let survey = vault.reader().survey(&closed).await.unwrap();
        assert_eq!((survey.tombstone, survey.counted.next), (Some(end), end));
        assert_eq!(survey.counted.missing, []);
        let refused = fold(&vault.reader(), &db(), ANEW, &|_| ()).await;
        assert!(matches!(refused, Err(FoldError::Collected { .. })), "{refused:?}");
        assert_whole(&vault, &machine).await;
        assert_eq!(collected(&vault, PATIENT).await.outcome.waits_for, []);
    });
}

#[test]
fn a_needed_pack_that_was_removed_is_damage() {
    run(async {
        let mut vault = TestVault::new();
        let machine = lived(&mut vault).await;
        folded(&vault).await;
        let mut packs = PackSet::default();
        packs.add(&machine.log.place(1));
        let step = Step { number: 2, packs };
        create_step(&vault.store(), &vault.ring, &step).await.unwrap();
        vault.delete(&machine.log.place(1).path()).await;
        let report = verify(&vault.reader(), false, &|_| ()).await.unwrap();
        let told = report.damage.iter().any(|finding| finding.what.contains("was collected"));
        assert!(told, "{:?}", report.damage);
    });
}

#[test]
fn what_the_manifest_before_needs_stays_for_when_the_newest_is_damaged() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = lived(&mut vault).await;
        folded(&vault).await;
        for byte in [8, 9] {
            machine.does(Op::Zero(extent(0, 0, byte)));
            machine.store(&mut vault).await;
            machine.marks(BookmarkKind::CrashConsistent, true);
            machine.store(&mut vault).await;
            folded(&vault).await;
        }
        let report = collected(&vault, NOW).await;
        // What the newest has folded and the one before hasn't stays, and so does the last word before.
        assert_eq!((report.outcome.removed, report.superseded), (7, 1), "{report:?}");
        assert_whole(&vault, &machine).await;
        vault.put(&layout::manifest(&db(), 3), b"nonsense".to_vec()).await;
        let (history, offered) = points::read(&vault.reader(), &db()).await.unwrap();
        assert_eq!((history.losses.len(), history.folded_by()), (1, 2));
        assert!(offered.gaps.is_empty(), "{:?}", offered.gaps);
        for point in offered.points {
            let lsn = usize::try_from(point.point.lsn.0).unwrap();
            assert!(restored(&vault, lsn).await == machine.states[lsn], "LSN {lsn} differs");
        }
        // A recovery pins the manifest from which it reads, and not the damaged one.
        let pin = Pin::manifest_of(&vault.reader(), &db(), 2).await.unwrap().unwrap();
        assert_eq!(pin.manifest(), 2);
        // Nobody can tell what the damaged one needs, until it counts no more.
        assert!(collect(&vault.reader(), NOW).await.is_err());
        for byte in [3, 4] {
            machine.writes(extent(0, 0, 100), byte);
            machine.store(&mut vault).await;
            folded(&vault).await;
        }
        collected(&vault, NOW).await;
        let restored = restored(&vault, machine.ops.len()).await;
        assert!(restored == *machine.states.last().unwrap());
    });
}

#[test]
fn of_a_removed_machine_all_goes_but_what_others_refer_to() {
    run(async {
        let mut vault = TestVault::new();
        let removed = lived(&mut vault).await;
        folded(&vault).await;
        let mut other = TestMachine::new("web-1", 1, TestLog::new(&vault, 2));
        other.does(Op::Disk(disk(0, 9 * BLOCK)));
        other.writes(extent(0, 0, BLOCK), 2);
        other.marks(BookmarkKind::CopyEnd, true);
        other.store(&mut vault).await;
        other.publish(&vault).await;
        let (store, ring) = (vault.store(), vault.ring.clone());
        let pin = Pin::newest(&vault.reader(), &db()).await.unwrap().unwrap();
        remove_machine(&store, &ring, &db(), Epoch(1), Micros(7)).await.unwrap();
        // Who reads it still does so to the end.
        let dry = collected(&vault, Collecting { dry_run: true, ..NOW }).await;
        assert_eq!(dry.would.count(), 5);
        pin.release().await.unwrap();
        let report = collected(&vault, NOW).await;
        assert_eq!((report.outcome.removed, report.superseded), (9, 1), "{report:?}");
        // The newest of a log stays, and what the other machine refers to.
        let left = (0..11).map(|pack| is_there(&vault, &removed, pack));
        let left: Vec<bool> = futures::future::join_all(left).await;
        let left: Vec<usize> = (0..11).filter(|pack| left[*pack]).collect();
        assert_eq!(left, [3, 10]);
        let report = verify(&vault.reader(), true, &|_| ()).await.unwrap();
        assert_eq!((report.damage, report.machines.len()), (Vec::new(), 1));
        // It may begin anew: no name is used twice.
        let mut again = TestMachine::new("db-1", 2, TestLog::new(&vault, 3));
        again.does(Op::Disk(disk(0, 9 * BLOCK)));
        again.writes(extent(0, 0, BLOCK), 7);
        again.marks(BookmarkKind::CopyEnd, true);
        again.store(&mut vault).await;
        again.publish(&vault).await;
        folded(&vault).await;
        assert_eq!(newest_number(&store, &db()).await.unwrap(), 2);
        collected(&vault, NOW).await;
        let report = verify(&vault.reader(), true, &|_| ()).await.unwrap();
        assert_eq!((report.damage, report.machines.len()), (Vec::new(), 2));
    });
}

#[test]
fn nothing_is_folded_anew_where_what_was_let_go_refers_to_what_was_removed() {
    run(async {
        let mut vault = TestVault::new();
        let mut web = TestMachine::new("web-1", 1, TestLog::new(&vault, 2));
        web.does(Op::Disk(disk(0, 9 * BLOCK)));
        web.writes(extent(0, 0, BLOCK), 50);
        web.store(&mut vault).await;
        web.marks(BookmarkKind::CopyEnd, true);
        web.store(&mut vault).await;
        web.publish(&vault).await;
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, 9 * BLOCK)));
        machine.writes(extent(0, 0, BLOCK), 50);
        machine.writes(extent(0, 5 * BLOCK, BLOCK), 51);
        machine.marks(BookmarkKind::CopyEnd, true);
        machine.store(&mut vault).await;
        machine.writes(extent(0, 0, BLOCK), 52);
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        machine.publish(&vault).await;
        folded(&vault).await;
        vault.clock.advance(400 * 24 * 3600);
        let policy = Policy { window_seconds: 1, all_seconds: 1, hourly: 1, daily: 0, weekly: 0 };
        let keeping = Some(Keeping { policy, now: vault.clock.now() });
        let folding = Folding { keeping, ..Folding::default() };
        let report = fold(&vault.reader(), &db(), folding, &|_| ()).await.unwrap();
        assert_eq!(report.let_go, 1, "{report:?}");
        // The next manifest is the second that doesn't need the other machine's block.
        machine.writes(extent(0, 6 * BLOCK, BLOCK), 53);
        machine.store(&mut vault).await;
        fold(&vault.reader(), &db(), folding, &|_| ()).await.unwrap();
        remove_machine(&vault.store(), &vault.ring, &web.of.0, Epoch(1), Micros(7)).await.unwrap();
        let report = collected(&vault, NOW).await;
        assert!(!is_there(&vault, &web, 0).await, "{report:?}");
        let there = futures::future::join_all((0..3).map(|n| is_there(&vault, &machine, n))).await;
        assert_eq!(there, [true; 3], "its own logs are whole");
        let refused = fold(&vault.reader(), &db(), ANEW, &|_| ()).await;
        assert!(matches!(refused, Err(FoldError::Collected { .. })), "{refused:?}");
        assert!(restored(&vault, machine.ops.len()).await == *machine.states.last().unwrap());
    });
}

#[test]
fn within_limits_a_collection_looks_into_few_packs_at_a_time() {
    run(async {
        let mut vault = TestVault::new();
        let machine = lived(&mut vault).await;
        folded(&vault).await;
        let reading = 96 << 20;
        let refused =
            collect(&vault.reader(), Collecting { bytes_max: Some(reading), ..NOW }).await;
        assert!(matches!(refused, Err(GcError::TooMuch { packs: 11, .. })), "{refused:?}");
        // The least that isn't refused: there is room for what is told of one pack at a time.
        let mut bytes = reading;
        let report = loop {
            let few = Collecting { bytes_max: Some(bytes), ..NOW };
            match collect(&vault.reader(), few).await {
                Err(GcError::TooMuch { .. }) => bytes += 64,
                collected => break collected.unwrap(),
            }
        };
        assert_eq!(report.outcome.removed, 5, "{report:?}");
        assert_whole(&vault, &machine).await;
    });
}
