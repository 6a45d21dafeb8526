//! Dense packs: what they make smaller, what a crash leaves of them, and what damage of one costs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::TryStreamExt;

use super::cost::noise;
use super::thinned::{keeping, manifest};
use super::*;
use crate::gc::{Collecting, collect, read_collected};
use crate::verify::{Finding, Spot, verify};

const BLOCKS: u64 = 64;

/// A machine with two disks that are written anew at random, some blocks a round.
struct Busy {
    machine: TestMachine,
    seed: u64,
}

impl Busy {
    async fn copied(vault: &mut TestVault) -> Self {
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(vault, 1));
        // Noise is never found again; and what was collected mustn't be referred to.
        machine.log.references = false;
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        for number in [1, 0] {
            machine.does(Op::Disk(disk(number, BLOCKS * BLOCK)));
            let bytes = noise(BLOCKS, &mut seed);
            machine.does(Op::Write(extent(number, 0, BLOCKS * BLOCK), bytes));
            machine.store(vault).await;
        }
        machine.marks(BookmarkKind::CopyEnd, true);
        machine.store(vault).await;
        machine.publish(vault).await;
        Self { machine, seed }
    }

    /// Writes some blocks of disk 0, and stores them.
    async fn round(&mut self, vault: &mut TestVault) {
        for _ in 0..12 {
            let bytes = noise(1, &mut self.seed);
            let at = self.seed % BLOCKS * BLOCK;
            self.machine.does(Op::Write(extent(0, at, BLOCK), bytes));
        }
        self.machine.marks(BookmarkKind::CrashConsistent, true);
        self.machine.store(vault).await;
    }

    fn end(&self) -> Point {
        Point { epoch: self.machine.of.1, lsn: Lsn(self.machine.ops.len() as u64) }
    }

    async fn assert_whole(&self, vault: &TestVault) {
        for lsn in (5..=self.end().lsn.0).rev().step_by(13) {
            let point = Point { lsn: Lsn(lsn), ..self.end() };
            let disks = restored(vault, point).await.unwrap();
            assert!(disks == self.machine.states[usize::try_from(lsn).unwrap()], "LSN {lsn}");
        }
    }

    /// Collects what nobody needs. The machine's log reads the list.
    async fn collect(&mut self, vault: &mut TestVault) {
        for _ in 0..3 {
            collect(&vault.reader(), Collecting::default()).await.unwrap();
            let collected = read_collected(&vault.store(), &vault.ring).await.unwrap();
            self.machine.log.condemned_list = collected.newest;
            self.machine.does(Op::Time);
            self.machine.store(vault).await;
        }
        let how = Collecting { patience: Duration::ZERO, ..Collecting::default() };
        let report = collect(&vault.reader(), how).await.unwrap();
        assert!(!report.outcome.fenced.contains(&self.machine.log.name), "{report:?}");
    }
}

/// A vault with dense packs in which all is kept.
async fn busy() -> (TestVault, Busy) {
    let mut vault = TestVault::new();
    let mut busy = Busy::copied(&mut vault).await;
    for _ in 0..12 {
        busy.round(&mut vault).await;
        folded(&vault).await;
    }
    (vault, busy)
}

/// The sizes of the objects below a path.
async fn stored(vault: &TestVault, folder: &str) -> BTreeMap<String, u64> {
    let listed = vault.store().list(folder, None);
    listed.map_ok(|object| (object.path, object.bytes)).try_collect().await.unwrap()
}

/// The paths of the dense packs that there are.
async fn dense(vault: &TestVault) -> BTreeSet<String> {
    stored(vault, "machines/db-1/dense").await.into_keys().collect()
}

/// Those that a manifest names.
fn named(manifest: &Manifest) -> BTreeSet<String> {
    let packs = manifest.epochs.iter().flat_map(FoldedEpoch::kept_in);
    let dense = packs.filter(|(place, _)| layout::is_dense(&place.log));
    dense.map(|(place, _)| place.path()).collect()
}

async fn found(vault: &TestVault, contents: bool) -> Vec<Finding> {
    verify(&vault.reader(), contents, &|_| ()).await.unwrap().damage
}

#[test]
fn whatever_lies_dense_every_place_comes_back_and_a_check_is_clean() {
    run(async {
        let (vault, busy) = busy().await;
        let newest = manifest(&vault).await;
        assert!(!named(&newest).is_empty(), "{newest:?}");
        busy.assert_whole(&vault).await;
        assert_eq!(found(&vault, true).await, []);
        assert_eq!(told(&vault).await, told(&without_manifests(&vault).await).await);
        let usage = usage(&vault.reader()).await.unwrap();
        assert!(usage[&db()].dense_bytes > 0);
    });
}

#[test]
fn what_a_killed_fold_left_is_collected_once_nobody_can_come_to_name_it() {
    run(async {
        let (mut vault, mut busy) = busy().await;
        // Without its manifest a fold was killed before it created that.
        let (mut number, mut left) = (0, BTreeSet::new());
        while left.is_empty() {
            busy.round(&mut vault).await;
            let before = dense(&vault).await;
            number = folded(&vault).await.manifest;
            left = dense(&vault).await.difference(&before).cloned().collect();
        }
        vault.delete(&layout::manifest(&db(), number)).await;
        assert_eq!(found(&vault, true).await, []);
        busy.assert_whole(&vault).await;
        busy.collect(&mut vault).await;
        assert!(dense(&vault).await.is_superset(&left), "its fold might be under way");
        assert_eq!(folded(&vault).await.manifest, number);
        busy.collect(&mut vault).await;
        assert!(dense(&vault).await.is_disjoint(&left));
        busy.assert_whole(&vault).await;
        assert_eq!(found(&vault, true).await, []);
    });
}

#[test]
fn of_two_who_fold_at_once_only_what_one_copied_is_left() {
    run(async {
        let (mut vault, mut busy) = busy().await;
        for round in 0..4_u64 {
            busy.round(&mut vault).await;
            let late = |seed| {
                let late = LateStore::new(vault.objects.clone(), round * 10 + seed);
                let store = Store::over(late, "memory://late");
                LogReader::new(store, vault.ring.clone(), CACHE_BYTES_DEFAULT)
            };
            let (one, two, db) = (late(1), late(2), db());
            let both = futures::join!(
                fold(&one, &db, FOLDING, &|_| ()),
                fold(&two, &db, FOLDING, &|_| ())
            );
            let reports = [both.0.unwrap(), both.1.unwrap()];
            assert!(reports.iter().any(|report| report.manifest > 0));
        }
        busy.collect(&mut vault).await;
        let newest = manifest(&vault).await;
        let (store, ring) = (vault.store(), &vault.ring);
        let before = read_manifest(&store, ring, &db(), newest.number - 1).await.unwrap();
        let needed: BTreeSet<_> = named(&newest).union(&named(&before)).cloned().collect();
        assert_eq!(dense(&vault).await, needed);
        busy.assert_whole(&vault).await;
    });
}

#[test]
fn damage_of_a_dense_pack_costs_what_it_keeps_and_nothing_else() {
    run(async {
        let (vault, busy) = busy().await;
        let path = named(&manifest(&vault).await).pop_last().unwrap();
        let whole = vault.get(&path).await;
        for (at, contents) in [(whole.len() - 20, true), (200, false)] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            vault.put(&path, bytes).await;
            let damage = found(&vault, contents).await;
            let is_there = |finding: &Finding| match &finding.spot {
                Spot::Pack(place) | Spot::Frame(place, _) => place.path() == path,
                _ => false,
            };
            assert!(damage.len() == 1 && is_there(&damage[0]), "{damage:?}");
            let touched = &damage[0].touches[0].points;
            assert!(touched.contains(&busy.end()) && touched.len() < 12, "{touched:?}");
            let error = restored(&vault, busy.end()).await.unwrap_err();
            assert!(error.to_string().contains(&path), "{error}");
            // The other disk was never written anew, and no place before a base needs what it has.
            let (reader, history) = (vault.reader(), history(&vault).await);
            let other = tidegate_model::DiskNumber::try_from(1).unwrap();
            let plan = RestorePlan::build(&reader, &history, busy.end(), &[other]).await.unwrap();
            let sink = Arc::new(MemorySink::new(plan.disks()));
            plan.run(&reader, sink.clone(), Means::default(), &|_| ()).await.unwrap();
            assert!(sink.disks()[&other] == busy.machine.states.last().unwrap()[&other]);
        }
        // A fold leaves it where it is.
        let mut cut = whole.clone();
        cut[whole.len() - 20] ^= 1;
        vault.put(&path, cut).await;
        let anew = Folding { base_extents_min: 0, ..FOLDING };
        fold(&vault.reader(), &db(), anew, &|_| ()).await.unwrap();
        vault.put(&path, whole).await;
        busy.assert_whole(&vault).await;
        assert_eq!(found(&vault, true).await, []);
    });
}

#[test]
fn a_fold_copies_no_more_than_it_may_and_the_next_one_goes_on() {
    run(async {
        let mut vault = TestVault::new();
        let mut busy = Busy::copied(&mut vault).await;
        for _ in 0..12 {
            busy.round(&mut vault).await;
        }
        let copied_bytes_max = 12 * BLOCK;
        let little = Folding { copied_bytes_max, ..FOLDING };
        let (mut folds, mut longer) = (0, 0);
        loop {
            let report = fold(&vault.reader(), &db(), little, &|_| ()).await.unwrap();
            // Each record has some bytes of head besides. The pack of the initial copy goes at once.
            longer += u64::from(report.dense_bytes > 2 * copied_bytes_max);
            if report.manifest == 0 {
                break;
            }
            folds += 1;
        }
        assert!((3..30).contains(&folds) && longer <= 1, "{folds} folds, {longer} copied more");
        busy.assert_whole(&vault).await;
    });
}

#[test]
fn garbage_shrinks_to_about_what_is_needed() {
    run(async {
        let mut vault = TestVault::new();
        let mut busy = Busy::copied(&mut vault).await;
        for _ in 0..100 {
            vault.clock.advance(3600);
            busy.round(&mut vault).await;
            fold(&vault.reader(), &db(), keeping(&vault), &|_| ()).await.unwrap();
        }
        // Nothing more is written, and the window passes.
        vault.clock.advance(7 * 3600);
        for _ in 0..3 {
            busy.machine.does(Op::Time);
            busy.machine.store(&mut vault).await;
            fold(&vault.reader(), &db(), keeping(&vault), &|_| ()).await.unwrap();
            busy.collect(&mut vault).await;
        }
        assert_eq!(found(&vault, true).await, []);
        let newest = manifest(&vault).await;
        let mut needed = BTreeMap::new();
        for epoch in &newest.epochs {
            for entry in &epoch.layers {
                let (store, ring) = (vault.store(), &vault.ring);
                let layer = read_layer(&store, ring, &db(), epoch.epoch, *entry).await.unwrap();
                let kept = layer.extents.iter().filter(|e| e.source != LayerSource::Zero);
                needed.extend(kept.map(|entry| (entry.order(), entry.extent.length)));
            }
        }
        let needed: u64 = needed.values().sum();
        let mut all = stored(&vault, "log").await;
        all.extend(stored(&vault, "machines/db-1/dense").await);
        let all: u64 = all.values().sum();
        assert!(all <= 2 * needed, "{all} bytes are stored, {needed} are needed");
        let written = (12 * 100 + 2 * BLOCKS) * BLOCK;
        assert!(needed < written / 3, "{needed} of {written} are needed");
        for point in super::thinned::offered(&vault).await {
            let lsn = usize::try_from(point.lsn.0).unwrap();
            let disks = restored(&vault, point).await.unwrap();
            assert!(disks == busy.machine.states[lsn], "{point}");
        }
    });
}
