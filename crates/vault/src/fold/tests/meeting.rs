//! A fold and a grant that meet: whatever the moment, no machine goes on from a place that isn't kept.

use tidegate_model::{Epoch, Incarnation, LayerId, Micros, Point, Token};

use super::super::unnamed::stored_layers;
use super::thinned::{hourly, keeping, manifest, thinned};
use super::*;
use crate::grant::{Grant, GrantError, GrantRequest, grant};
use crate::meta::{Begins, remove_machine, removed_upto};
use crate::testing::TestLog;

/// The machine that goes on from a place of its first epoch.
pub(super) fn request(log: &TestLog, lsn: Lsn) -> GrantRequest {
    GrantRequest {
        token: Token::NONE,
        machine: db(),
        incarnation: Incarnation::from_bytes([6; 16]),
        claimed: Epoch::NONE,
        begins: Begins::Continue,
        acknowledged: Lsn::NONE,
        parent: Some(Point { epoch: Epoch(1), lsn }),
        log: log.name.clone(),
        pack: log.number(),
        known: None,
        now: Micros(7),
    }
}

/// A machine that was folded but not thinned, and a place of it that no policy keeps.
async fn with_a_place(vault: &mut TestVault) -> (TestMachine, Lsn) {
    let machine = hourly(vault, 40).await;
    folded(vault).await;
    (machine, Lsn(8))
}

fn not_kept(granted: &Result<Grant, GrantError>) -> bool {
    matches!(granted, Err(GrantError::NotKept { .. }))
}

#[test]
fn an_epoch_whose_parent_was_let_go_just_before_isnt_granted() {
    run(async {
        let mut vault = TestVault::new();
        let (_, place) = with_a_place(&mut vault).await;
        let (reader, folding) = (vault.reader(), keeping(&vault));
        let thins = move || {
            let report = run(fold(&reader, &db(), folding, &|_| ())).unwrap();
            assert!(report.let_go > 0, "{report:?}");
        };
        let met = vault.reader_before(&layout::epoch(&db(), Epoch(2)), thins);
        let granted = grant(&met, &request(&TestLog::new(&vault, 9), place)).await;
        assert!(not_kept(&granted), "{granted:?}");
    });
}

/// A vault in which a fold has let go of what an epoch continues that was granted meanwhile: the machine,
/// the place, and where its new epoch begins.
async fn met(vault: &mut TestVault) -> (TestMachine, Lsn, Point) {
    let (machine, place) = with_a_place(vault).await;
    let next = TestMachine::continuing(&machine, place.0, 2, TestLog::new(vault, 9));
    let (reader, asked) = (vault.reader(), request(&next.log, place));
    let grants = move || {
        assert_eq!(run(grant(&reader, &asked)).unwrap().epoch, Epoch(2));
    };
    let met = vault.reader_before(&layout::manifest(&db(), 2), grants);
    let report = fold(&met, &db(), keeping(vault), &|_| ()).await.unwrap();
    assert!(report.manifest == 2 && report.let_go > 0, "{report:?}");
    let point = Point { epoch: Epoch(2), lsn: Lsn::NONE };
    assert!(history(vault).await.whole_lineage(point).is_err(), "they have met");
    (machine, place, point)
}

#[test]
fn what_an_epoch_continues_that_was_granted_while_it_was_let_go_is_kept_again() {
    run(async {
        let mut vault = TestVault::new();
        let (machine, place, point) = met(&mut vault).await;
        // The next fold sees both, though nothing else has come; and nothing is undone again.
        let report = thinned(&vault).await;
        assert!(report.manifest == 3 && report.losses.is_empty(), "{report:?}");
        for _ in 0..2 {
            let disks = restored(&vault, point).await.unwrap();
            assert!(disks == machine.states[usize::try_from(place.0).unwrap()]);
            assert_eq!(thinned(&vault).await.manifest, 0);
        }
        assert!(manifest(&vault).await.epochs[0].retained.points.contains(&place));
    });
}

#[test]
fn it_is_kept_again_also_by_a_fold_that_lets_nothing_go() {
    run(async {
        let mut vault = TestVault::new();
        let (_, _, point) = met(&mut vault).await;
        assert_eq!(folded(&vault).await.manifest, 3);
        assert!(restored(&vault, point).await.is_ok());
    });
}

#[test]
fn a_machine_that_was_removed_just_before_isnt_granted_what_it_had() {
    run(async {
        for claims in [true, false] {
            let mut vault = TestVault::new();
            let machine = hourly(&mut vault, 1).await;
            let (store, ring) = (vault.store(), vault.ring.clone());
            let removes = move || {
                run(remove_machine(&store, &ring, &db(), Epoch(1), Micros(7))).unwrap();
            };
            let asked = request(&TestLog::new(&vault, 9), Lsn(3));
            let (asked, path) = match claims {
                true => {
                    let incarnation = machine.record.incarnation;
                    let asked =
                        GrantRequest { claimed: Epoch(1), parent: None, incarnation, ..asked };
                    (asked, layout::session(&db(), Epoch(1), 1))
                }
                false => (asked, layout::epoch(&db(), Epoch(2))),
            };
            let met = vault.reader_before(&path, removes);
            let granted = grant(&met, &asked).await;
            let removed = removed_upto(&vault.store(), &vault.ring, &db()).await.unwrap();
            assert_eq!(removed, Epoch(1), "they have met");
            assert!(not_kept(&granted), "{granted:?}");
        }
    });
}

#[test]
fn layers_that_no_manifest_names_go_with_the_next_fold_and_no_others_do() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = hourly(&mut vault, 20).await;
        let other = vault.reader();
        let folds = move || {
            assert_eq!(run(fold(&other, &db(), FOLDING, &|_| ())).unwrap().manifest, 1);
        };
        let met = vault.reader_before(&layout::manifest(&db(), 1), folds);
        assert_eq!(fold(&met, &db(), FOLDING, &|_| ()).await.unwrap().manifest, 0);
        let named = async |vault: &TestVault| {
            let needed = needed(&vault.store(), &vault.ring, &db()).await;
            needed.unwrap().unwrap().layers
        };
        let stored = async |vault: &TestVault| stored_layers(&vault.store(), &db()).await.unwrap();
        // Who came first has deleted what the other had made.
        let first = named(&vault).await;
        assert_eq!(stored(&vault).await, first);
        // What two folds have replaced is the collector's, for it may be pinned.
        for mark in 0..3 {
            let killed = LayerId::from_bytes([mark; 16]);
            vault.put(&layout::layer(&db(), killed), vec![mark]).await;
            machine.writes(extent(0, 0, BLOCK), mark);
            machine.marks(BookmarkKind::CrashConsistent, true);
            machine.store(&mut vault).await;
            folded(&vault).await;
            let left = stored(&vault).await;
            assert!(!left.contains(&killed));
            assert!(left.is_superset(&first) && left.is_superset(&named(&vault).await));
        }
    });
}
