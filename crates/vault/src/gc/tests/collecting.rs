//! Collections on vaults in memory: what is removed, and that everything else reads as before.

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::{BookmarkKind, Epoch, Lsn, Name, Point};

use crate::chain::MachineHistory;
use crate::fold::{FoldError, Folding, create_manifest, fold, newest_manifest};
use crate::gc::objects::create_step;
use crate::gc::{CollectReport, Collecting, PackSet, Pin, Step, collect};
use crate::grant::chain_end;
use crate::layout;
use crate::points;
use crate::restore::{Means, RestorePlan};
use crate::testing::{
    BLOCK, Disks, MemorySink, Op, TestLog, TestMachine, TestVault, disk, extent, run,
};
use crate::verify::verify;

/// Nobody is waited for: these logs have no servers.
const NOW: Collecting = Collecting { dry_run: false, patience: Duration::ZERO };
/// Servers are borne with.
const PATIENT: Collecting = Collecting { dry_run: false, patience: Duration::from_secs(3600) };

fn db() -> Name {
    "db-1".parse().unwrap()
}

async fn folded(vault: &TestVault) {
    fold(&vault.reader(), &db(), Folding::default(), &|_| ()).await.unwrap();
}

async fn collected(vault: &TestVault, how: Collecting) -> CollectReport {
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
async fn lived(vault: &mut TestVault) -> TestMachine {
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

async fn is_there(vault: &TestVault, machine: &TestMachine, pack: u64) -> bool {
    vault.store().head(&machine.log.place(pack).path()).await.is_ok()
}

/// Every point that is offered comes back as it was, and nothing is wrong with the vault.
async fn assert_whole(vault: &TestVault, machine: &TestMachine) {
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
        manifest.number += 1;
        for epoch in &mut manifest.epochs {
            epoch.packs.retain(|pack| pack.pack.0 != 3);
        }
        create_manifest(&vault.store(), &vault.ring, &db(), &manifest).await.unwrap();
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
        machine.writes(extent(0, 0, 100), 9);
        machine.store(&mut vault).await;
        folded(&vault).await;
        pin.renew().await.unwrap();
        let report = collected(&vault, NOW).await;
        assert_eq!((report.outcome.removed, report.superseded), (5, 0), "{report:?}");
        pin.release().await.unwrap();
        // Its manifest: the newest one names its layer as well.
        assert_eq!(collected(&vault, NOW).await.superseded, 1);
    });
}

#[test]
fn nothing_is_folded_anew_from_logs_of_which_something_was_removed() {
    run(async {
        let mut vault = TestVault::new();
        let machine = lived(&mut vault).await;
        folded(&vault).await;
        collected(&vault, NOW).await;
        let anew = Folding { anew: true, ..Folding::default() };
        let refused = fold(&vault.reader(), &db(), anew, &|_| ()).await;
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
