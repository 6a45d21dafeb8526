//! Collections on vaults that have lost an object: nothing is deleted that could still be brought back.

use tidegate_model::{BookmarkKind, Epoch};

use super::collecting::{NOW, PATIENT, assert_whole, collected, db, folded, is_there, lived};
use crate::fold::ensure_two;
use crate::gc::{GcError, collect};
use crate::layout;
use crate::meta::MetaError;
use crate::points;
use crate::testing::{BLOCK, TestVault, extent, run};

#[test]
fn the_record_of_an_epoch_that_is_lost_isnt_taken_for_a_removal() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = lived(&mut vault).await;
        folded(&vault).await;
        machine.writes(extent(0, 0, 100), 9);
        machine.store(&mut vault).await;
        folded(&vault).await;
        let path = layout::epoch(&db(), Epoch(1));
        let record = vault.get(&path).await;
        vault.delete(&path).await;
        let refused = collect(&vault.reader(), NOW).await;
        assert!(matches!(refused, Err(GcError::Meta(MetaError::Missing { .. }))), "{refused:?}");
        vault.put(&path, record).await;
        assert_whole(&vault, &machine).await;
    });
}

#[test]
fn a_step_that_is_lost_is_never_made_again() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = lived(&mut vault).await;
        folded(&vault).await;
        assert_eq!(collected(&vault, PATIENT).await.outcome.condemned, 5);
        machine.log.condemned_list = 1;
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        vault.delete(&layout::step(1)).await;
        let refused = collect(&vault.reader(), NOW).await;
        assert!(matches!(refused, Err(GcError::LostStep { step: 1, .. })), "{refused:?}");
        assert!(vault.store().head(&layout::step(1)).await.is_err());
    });
}

#[test]
fn what_a_settled_list_had_removed_is_told_again_where_that_is_lost() {
    run(async {
        let mut vault = TestVault::new();
        let machine = lived(&mut vault).await;
        folded(&vault).await;
        assert_eq!(collected(&vault, NOW).await.outcome.removed, 5);
        vault.delete(&layout::step(2)).await;
        let outcome = collected(&vault, NOW).await.outcome;
        assert_eq!((outcome.removed, outcome.spared), (5, 0));
        assert_whole(&vault, &machine).await;
    });
}

#[test]
fn what_lies_behind_a_lost_pack_stays_if_a_manifest_names_it() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = lived(&mut vault).await;
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        for byte in [7, 8] {
            // Closed while pack 11 was under way: that it was committed only the manifest tells.
            machine.writes(extent(0, 7 * BLOCK, BLOCK), byte);
            machine.send(&vault);
            machine.log.committed = 11;
            let (path, object) = machine.log.close(&mut vault, false);
            vault.put(&path, object).await;
        }
        folded(&vault).await;
        vault.delete(&machine.log.place(11).path()).await;
        let survey = vault.reader().survey(&machine.log.name).await.unwrap();
        assert_eq!(survey.counted.leftovers.len(), 2);
        let (first, second) = (collected(&vault, NOW).await, collected(&vault, NOW).await);
        assert!(is_there(&vault, &machine, 13).await, "{first:?}, {second:?}");
    });
}

#[test]
fn nothing_is_collected_where_the_manifests_are_lost_by_which_it_was_before() {
    run(async {
        let mut vault = TestVault::new();
        let machine = lived(&mut vault).await;
        folded(&vault).await;
        assert_eq!(collected(&vault, NOW).await.outcome.removed, 5);
        vault.delete(&layout::manifest(&db(), 1)).await;
        let refused = collect(&vault.reader(), NOW).await;
        assert!(matches!(refused, Err(GcError::LostFold { .. })), "{refused:?}");
        assert!(is_there(&vault, &machine, 1).await);
    });
}

#[test]
fn two_manifests_are_kept_whole_though_nothing_comes_to_be_folded() {
    run(async {
        let mut vault = TestVault::new();
        let machine = lived(&mut vault).await;
        folded(&vault).await;
        let reader = vault.reader();
        for written in [1, 0] {
            assert_eq!(ensure_two(&reader, &db()).await.unwrap(), written);
        }
        assert_eq!(collected(&vault, NOW).await.outcome.removed, 5);
        // Either may get damaged: all comes back, and the next time two are whole again.
        for (damaged, written) in [(2, 2), (3, 1)] {
            vault.put(&layout::manifest(&db(), damaged), b"nonsense".to_vec()).await;
            let (_, offered) = points::read(&reader, &db()).await.unwrap();
            assert_eq!((offered.points.len(), offered.gaps.len()), (6, 0));
            assert!(collect(&reader, NOW).await.is_err());
            assert_eq!(ensure_two(&reader, &db()).await.unwrap(), written);
            collected(&vault, NOW).await;
        }
        assert_whole(&vault, &machine).await;
    });
}

#[test]
fn who_is_closed_out_is_closed_out_though_its_newest_pack_was_lost() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = lived(&mut vault).await;
        folded(&vault).await;
        vault.delete(&machine.log.place(10).path()).await;
        assert_eq!(collected(&vault, NOW).await.outcome.fenced.len(), 2);
        // Its owner knows nothing of that.
        machine.marks(BookmarkKind::CrashConsistent, true);
        let path = machine.log.place(11).path();
        assert!(vault.store().head(&path).await.is_ok(), "its next put fails");
    });
}
