//! Manifests, layers and folded packs that are damaged or gone: it is told, and what can be had is.

use super::*;
use crate::points::GapCause;

/// A machine with a folded pack and one behind it; the paths of both.
async fn two_packs(vault: &mut TestVault) -> (TestMachine, [String; 2]) {
    let mut machine = begun(vault);
    machine.writes(extent(0, 0, 3 * BLOCK), 1);
    machine.marks(BookmarkKind::CrashConsistent, true);
    let first = machine.store(vault).await;
    machine.publish(vault).await;
    folded(vault).await;
    machine.writes(extent(0, BLOCK, BLOCK + 100), 2);
    machine.marks(BookmarkKind::CrashConsistent, true);
    let second = machine.store(vault).await;
    (machine, [first, second])
}

async fn change(vault: &TestVault, path: &str) {
    let mut bytes = vault.get(path).await;
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    vault.put(path, bytes).await;
}

async fn layer_path(vault: &TestVault) -> String {
    let newest = newest_manifest(&vault.store(), &vault.ring, &db()).await.unwrap();
    let layers = &newest.manifest.unwrap().epochs[0].layers;
    assert_eq!(layers.len(), 1);
    layout::layer(&db(), layers[0].layer)
}

async fn assert_recovers(vault: &TestVault, machine: &TestMachine) {
    for lsn in [5, machine.ops.len()] {
        let point = Point { epoch: machine.of.1, lsn: Lsn(lsn as u64) };
        assert!(restored(vault, point).await.unwrap() == machine.states[lsn], "LSN {lsn}");
    }
}

#[test]
fn a_damaged_manifest_is_told_and_the_logs_are_read_instead() {
    run(async {
        let mut vault = TestVault::new();
        let (machine, _) = two_packs(&mut vault).await;
        let path = layout::manifest(&db(), 1);
        change(&vault, &path).await;
        let (read, points) = points::read(&vault.reader(), &db()).await.unwrap();
        assert_eq!(points.points.len(), 3);
        assert!(read.losses[0].to_string().contains(&path), "{:?}", read.losses);
        assert_recovers(&vault, &machine).await;
        // The next fold is made from the logs, and heals it.
        let report = folded(&vault).await;
        assert_eq!((report.manifest, report.records), (2, 7));
        assert!(report.losses[0].to_string().contains(&path), "{:?}", report.losses);
        assert_eq!(history(&vault).await.losses, []);
        assert_recovers(&vault, &machine).await;
    });
}

#[test]
fn where_a_layer_is_damaged_or_missing_the_logs_are_read_instead() {
    run(async {
        for missing in [false, true] {
            let mut vault = TestVault::new();
            let (machine, [first, _]) = two_packs(&mut vault).await;
            let path = layer_path(&vault).await;
            match missing {
                true => vault.delete(&path).await,
                false => change(&vault, &path).await,
            }
            assert_recovers(&vault, &machine).await;
            // A new layer is put together with it: that can't be, and all is folded anew.
            let report = folded(&vault).await;
            assert_eq!((report.manifest, report.records), (2, 7));
            assert_ne!(layer_path(&vault).await, path);
            assert_recovers(&vault, &machine).await;
            // Without the logs it is told.
            let path = layer_path(&vault).await;
            vault.delete(&path).await;
            vault.delete(&first).await;
            let point = Point { epoch: machine.of.1, lsn: Lsn(5) };
            let error = restored(&vault, point).await.unwrap_err();
            assert_eq!(error.remedy(), tidegate_model::Remedy::Repair);
            assert!(error.to_string().contains(&path), "{error}");
        }
    });
}

#[test]
fn points_arent_offered_whose_folded_packs_are_gone_or_cut() {
    run(async {
        for cut in [false, true] {
            let mut vault = TestVault::new();
            let (_, [first, _]) = two_packs(&mut vault).await;
            let mut bytes = vault.get(&first).await;
            vault.delete(&first).await;
            if cut {
                bytes.pop();
                vault.put(&first, bytes).await;
            }
            let (read, points) = points::read(&vault.reader(), &db()).await.unwrap();
            // The end of the copy, at LSN 3, needs nothing of it.
            let lsns: Vec<_> = points.points.iter().map(|point| point.point.lsn.0).collect();
            assert_eq!(lsns, [3]);
            assert!(matches!(points.gaps[0].cause, GapCause::Referred { points: 2, .. }));
            assert!(read.losses[0].to_string().contains(&first), "{:?}", read.losses);
            let usage = &usage(&vault.reader()).await.unwrap()[&db()];
            assert_eq!(usage.points, 1);
        }
    });
}

#[test]
fn an_epoch_whose_record_is_lost_keeps_what_is_folded_of_it() {
    run(async {
        let mut vault = TestVault::new();
        let (machine, [first, _]) = two_packs(&mut vault).await;
        let path = layout::epoch(&db(), machine.of.1);
        let record = vault.get(&path).await;
        vault.put(&path, b"nonsense".to_vec()).await;
        let mut next = TestMachine::new("db-1", 2, TestLog::new(&vault, 9));
        next.does(Op::Disk(disk(0, BLOCK)));
        next.marks(BookmarkKind::CopyEnd, true);
        next.store(&mut vault).await;
        next.publish(&vault).await;
        let report = folded(&vault).await;
        assert_eq!((report.records, report.losses.len()), (2, 1));
        vault.put(&path, record).await;
        assert_recovers(&vault, &machine).await;
        folded(&vault).await;
        assert_recovers(&vault, &machine).await;
        assert_eq!(told(&vault).await, told(&without_manifests(&vault).await).await);
        // In which packs its bytes are is known as well.
        vault.delete(&first).await;
        let (_, points) = points::read(&vault.reader(), &db()).await.unwrap();
        let offered: Vec<_> = points.points.iter().map(|point| point.point.to_string()).collect();
        assert_eq!(offered, ["1:3", "2:2"]);
    });
}

#[test]
fn a_machine_whose_logs_arent_known_isnt_folded() {
    run(async {
        let mut vault = TestVault::new();
        let (mut machine, _) = two_packs(&mut vault).await;
        machine.reconnect(Some(TestLog::new(&vault, 2)), 7);
        machine.writes(extent(0, 0, 9), 3);
        machine.store(&mut vault).await;
        machine.publish(&vault).await;
        let path = layout::session(&db(), machine.of.1, 1);
        vault.put(&path, b"nonsense".to_vec()).await;
        let error = fold(&vault.reader(), &db(), FOLDING, &|_| ()).await.unwrap_err();
        assert!(matches!(error, FoldError::Strayed { .. }), "{error}");
        assert_recovers(&vault, &machine).await;
    });
}
