//! Folding within limits: what a machine has is folded in steps, and what would take too much is left or
//! refused with a clear word.

use std::collections::BTreeSet;

use futures::TryStreamExt;

use super::thinned::{hourly, keeping, manifest, offered, thinned};
use super::*;
use crate::fold::{FoldLimits, TooMuch};

pub(super) fn limits() -> FoldLimits {
    FoldLimits::within(FoldLimits::BYTES_MIN).unwrap()
}

fn limited(vault: &TestVault, limits: FoldLimits) -> Folding {
    Folding { limits: Some(limits), ..keeping(vault) }
}

async fn layers(vault: &TestVault) -> BTreeSet<String> {
    let listed: Vec<_> =
        vault.store().list(&layout::layers(&db()), None).try_collect().await.unwrap();
    listed.into_iter().map(|object| object.path).collect()
}

#[test]
fn less_memory_than_the_least_has_no_limits_and_more_has_wider_ones() {
    assert_eq!(FoldLimits::within(FoldLimits::BYTES_MIN - 1), None);
    let (least, more) = (limits(), FoldLimits::within(1 << 30).unwrap());
    assert!(least.extents >= 2 * LAYER_EXTENTS_MAX, "{least:?}");
    assert!(least.taken > 0 && least.waiting >= least.taken && least.stored >= least.waiting);
    assert!(more.extents > least.extents && more.manifest_bytes > least.manifest_bytes);
}

#[test]
fn a_fold_within_limits_goes_on_next_time_and_comes_to_the_same() {
    run(async {
        let mut vault = TestVault::new();
        let machine = hourly(&mut vault, 20).await;
        let few = FoldLimits { taken: 4, ..limits() };
        let before = history(&vault).await;
        let (mut steps, mut more) = (0, true);
        while more {
            let report = fold(&vault.reader(), &db(), limited(&vault, few), &|_| ()).await.unwrap();
            assert!(report.packs <= 4 && report.losses.is_empty(), "{report:?}");
            assert_eq!(report.manifest, steps + 1, "each step is a whole manifest");
            (steps, more) = (steps + 1, report.more);
        }
        assert_eq!(steps, 6, "21 packs by four");
        let after = history(&vault).await;
        assert_eq!(after.newest(), before.newest());
        assert_eq!(thinned(&vault).await.manifest, 0, "nothing is left");
        for point in offered(&vault).await {
            let disks = restored(&vault, point).await.unwrap();
            assert!(disks == machine.states[usize::try_from(point.lsn.0).unwrap()], "{point}");
        }
    });
}

#[test]
fn what_would_hold_too_much_is_left_as_it_was_and_leaves_nothing() {
    run(async {
        let mut vault = TestVault::new();
        hourly(&mut vault, 40).await;
        let folding = Folding { base_extents_min: u64::MAX, ..FOLDING };
        fold(&vault.reader(), &db(), folding, &|_| ()).await.unwrap();
        let (told, stored) = (manifest(&vault).await, layers(&vault).await);
        let few = FoldLimits { extents: 3, ..limits() };
        let report = fold(&vault.reader(), &db(), limited(&vault, few), &|_| ()).await.unwrap();
        // Neither a base nor thinning: twice the same epoch.
        assert_eq!((report.too_long, report.manifest, report.let_go), (2, 0, 0), "{report:?}");
        assert_eq!((manifest(&vault).await, layers(&vault).await), (told, stored));
        // With memory it goes.
        assert!(thinned(&vault).await.let_go > 0);
    });
}

#[test]
fn what_cant_be_read_within_limits_is_refused() {
    run(async {
        let mut vault = TestVault::new();
        let machine = hourly(&mut vault, 20).await;
        let refused =
            async |limits| match fold(&vault.reader(), &db(), limited(&vault, limits), &|_| ())
                .await
            {
                Err(FoldError::TooMuch { what, found, most, .. }) => Some((what, found, most)),
                _ => None,
            };
        let log = machine.log.name.clone();
        let few = FoldLimits { waiting: 20, ..limits() };
        assert_eq!(refused(few).await, Some((TooMuch::WaitingPacks(log.clone()), 21, 20)));
        folded(&vault).await;
        assert_eq!(refused(few).await, None, "none of them waits any more");
        let few = FoldLimits { stored: 20, ..limits() };
        assert_eq!(refused(few).await, Some((TooMuch::StoredPacks(log), 21, 20)));
        let (what, found, most) =
            refused(FoldLimits { manifest_bytes: 1000, ..limits() }).await.unwrap();
        assert!(what == TooMuch::ManifestBytes && found > most && most == 1000, "{found}");
    });
}

#[test]
fn what_was_made_before_it_became_too_much_goes_again() {
    run(async {
        let mut vault = TestVault::new();
        // A base in the midst: what lies before it is made by itself.
        let mut machine = hourly(&mut vault, 20).await;
        folded(&vault).await;
        for hour in 0..20 {
            vault.clock.advance(3600);
            machine.writes(extent(0, 0, 5000), 100 + hour);
            machine.marks(BookmarkKind::CrashConsistent, true);
            machine.store(&mut vault).await;
        }
        let whole = Folding { base_extents_min: u64::MAX, ..FOLDING };
        fold(&vault.reader(), &db(), whole, &|_| ()).await.unwrap();
        let stored = layers(&vault).await;
        let (mut left, mut most) = (0, 0);
        loop {
            most += 1;
            let few = FoldLimits { extents: most, ..limits() };
            let folding = Folding { base_extents_min: u64::MAX, ..limited(&vault, few) };
            let report = fold(&vault.reader(), &db(), folding, &|_| ()).await.unwrap();
            if report.too_long == 0 {
                break;
            }
            left += 1;
            assert_eq!((report.layers, report.bytes, layers(&vault).await), (0, 0, stored.clone()));
        }
        assert!(left > 20, "{left} limits were too narrow");
    });
}
