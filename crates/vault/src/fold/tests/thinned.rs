//! Thinning: what a policy keeps is as it was, everything else is refused and needs nothing.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use tidegate_model::{Epoch, Incarnation, Point, Token};

use super::*;
use crate::chain::Broken;
use crate::grant::{GrantError, GrantRequest, grant};
use crate::points::{At, ChooseError, MachinePoints};
use crate::retention::Policy;

const HOUR: u64 = 3600;

pub(super) fn policy() -> Policy {
    Policy { window_seconds: 6 * HOUR, all_seconds: 9 * HOUR, hourly: 12, daily: 2, weekly: 1 }
}

pub(super) fn keeping(vault: &TestVault) -> Folding {
    Folding { keeping: Some(Keeping { policy: policy(), now: vault.clock.now() }), ..FOLDING }
}

pub(super) async fn thinned(vault: &TestVault) -> FoldReport {
    fold(&vault.reader(), &db(), keeping(vault), &|_| ()).await.unwrap()
}

pub(super) async fn manifest(vault: &TestVault) -> Manifest {
    newest_manifest(&vault.store(), &vault.ring, &db()).await.unwrap().manifest.unwrap()
}

pub(super) async fn offered(vault: &TestVault) -> BTreeSet<Point> {
    let (_, points) = points::read(&vault.reader(), &db()).await.unwrap();
    points.points.iter().map(|point| point.point).collect()
}

/// A machine that wrote the same place and marked it, once an hour.
pub(super) async fn hourly(vault: &mut TestVault, hours: u8) -> TestMachine {
    let mut machine = begun(vault);
    machine.writes(extent(1, 0, 3 * BLOCK), 99);
    machine.store(vault).await;
    for hour in 0..hours {
        vault.clock.advance(HOUR);
        machine.writes(extent(0, 0, 5000), hour + 1);
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(vault).await;
    }
    machine.publish(vault).await;
    machine
}

/// Every layer of an epoch holds what some kept place needs and nothing else, and the packs that are
/// named are those in which that is kept.
pub(super) async fn assert_minimal(vault: &TestVault, folded: &FoldedEpoch) {
    let (mut extents, mut packs) = (Vec::new(), BTreeSet::new());
    let base = folded.base.iter().flat_map(|base| &base.layers);
    for (entry, is_base) in
        folded.layers.iter().map(|entry| (entry, false)).chain(base.map(|entry| (entry, true)))
    {
        let layer = read_layer(&vault.store(), &vault.ring, &db(), folded.epoch, *entry).await;
        let layer = layer.unwrap();
        packs.extend(layer.packs.iter().map(|place| place.key()));
        if !is_base {
            extents.extend(layer.extents);
        }
    }
    let retained = &folded.retained;
    let mut needed: BTreeSet<_> = extents
        .iter()
        .filter(|extent| extent.lsn > retained.from)
        .map(LayerExtent::order)
        .collect();
    let base = folded.base.as_ref().map(|base| base.lsn).filter(|base| *base < retained.from);
    for place in retained.points.iter().copied().chain(base).chain([retained.from]) {
        let mut there: Vec<_> = extents.iter().filter(|e| e.lsn <= place).copied().collect();
        let disks: Vec<_> = folded.disks.iter().filter(|d| d.lsn <= place).cloned().collect();
        super::super::visible::retain(&mut there, |extent| extent, &disks, |_| ());
        needed.extend(there.iter().map(LayerExtent::order));
    }
    let held: BTreeSet<_> = extents.iter().map(LayerExtent::order).collect();
    assert_eq!(held.len(), extents.len(), "no extent is there twice");
    let idle: Vec<_> = held.difference(&needed).collect();
    assert!(idle.is_empty(), "nobody needs {idle:?} of {folded:?}");
    let named: BTreeSet<_> = folded.kept_in().map(|(place, _)| place.key()).collect();
    assert_eq!(named, packs, "the packs of epoch {}", folded.epoch);
}

#[test]
fn beyond_the_window_only_what_kept_points_need_is_left() {
    run(async {
        let mut vault = TestVault::new();
        let machine = hourly(&mut vault, 40).await;
        folded(&vault).await;
        let before = manifest(&vault).await;
        let report = thinned(&vault).await;
        assert!(report.let_go > 20 && report.bookmarks_let_go > 20, "{report:?}");
        let after = manifest(&vault).await;
        assert!(after.epochs[0].packs.len() < before.epochs[0].packs.len() / 2 + 2, "{after:?}");
        assert_minimal(&vault, &after.epochs[0]).await;
        let retained = after.epochs[0].retained.clone();
        let (reader, history) = (vault.reader(), history(&vault).await);
        let points = MachinePoints::of(&history);
        let (mut kept, mut refused) = (0, 0);
        for lsn in 3..=machine.ops.len() {
            let point = Point { epoch: Epoch(1), lsn: Lsn(lsn as u64) };
            match restored(&vault, point).await {
                Ok(disks) => {
                    assert!(disks == machine.states[lsn], "LSN {lsn}");
                    assert!(points.choose(&reader, &history, At::Point(point)).await.is_ok());
                    kept += 1;
                }
                Err(error) => {
                    assert!(!retained.has(point.lsn), "{error}");
                    assert!(error.to_string().contains("no longer kept; the nearest"), "{error}");
                    assert_eq!(error.remedy(), tidegate_model::Remedy::Refuse);
                    let chosen = points.choose(&reader, &history, At::Point(point)).await;
                    let chosen = chosen.unwrap_err();
                    assert!(matches!(
                        chosen,
                        ChooseError::Broken { cause: Broken::Thinned { .. }, .. }
                    ));
                    refused += 1;
                }
            }
        }
        assert!(kept > 15 && refused > 40, "{kept} kept, {refused} refused");
        // Nothing more is let go until time has passed.
        assert_eq!(thinned(&vault).await.manifest, 0);
        // The last point stays for good, and the end of what there is.
        vault.clock.advance(1000 * 24 * HOUR);
        thinned(&vault).await;
        let end = Point { epoch: Epoch(1), lsn: Lsn(machine.ops.len() as u64) };
        assert!(offered(&vault).await.contains(&end));
        assert!(restored(&vault, end).await.unwrap() == *machine.states.last().unwrap());
        assert_minimal(&vault, &manifest(&vault).await.epochs[0]).await;
    });
}

#[test]
fn an_epoch_of_which_nothing_is_kept_goes_unless_another_continues_it() {
    run(async {
        for continues in [false, true] {
            let mut vault = TestVault::new();
            let first = hourly(&mut vault, 3).await;
            folded(&vault).await;
            let mut next = match continues {
                true => TestMachine::continuing(&first, 6, 2, TestLog::new(&vault, 8)),
                false => TestMachine::new("db-1", 2, TestLog::new(&vault, 8)),
            };
            next.does(Op::Disk(disk(0, 9 * BLOCK + 513)));
            next.marks(BookmarkKind::CopyEnd, true);
            next.store(&mut vault).await;
            next.publish(&vault).await;
            // Points of every week are kept for one week: that of the second epoch.
            vault.clock.advance(400 * 24 * HOUR);
            next.writes(extent(0, 0, 10), 7);
            next.marks(BookmarkKind::CrashConsistent, true);
            next.store(&mut vault).await;
            for hours in [1, 24, 24] {
                vault.clock.advance(hours * HOUR);
                next.marks(BookmarkKind::CrashConsistent, true);
                next.store(&mut vault).await;
            }
            vault.clock.advance(30 * HOUR);
            for _ in 0..12 {
                vault.clock.advance(HOUR);
                next.marks(BookmarkKind::CrashConsistent, true);
                next.store(&mut vault).await;
            }
            folded(&vault).await;
            let report = thinned(&vault).await;
            assert_eq!(report.epochs_gone, u64::from(!continues), "{report:?}");
            let history = history(&vault).await;
            assert_eq!(history.losses, []);
            let end = Point { epoch: Epoch(2), lsn: Lsn(next.ops.len() as u64) };
            assert!(restored(&vault, end).await.unwrap() == *next.states.last().unwrap());
            let old = Point { epoch: Epoch(1), lsn: Lsn(6) };
            match restored(&vault, old).await {
                Ok(disks) => assert!(continues && disks == first.states[6]),
                Err(error) => {
                    assert!(!continues && error.to_string().contains("epoch 1"), "{error}")
                }
            }
            assert!(MachinePoints::of(&history).gaps.is_empty());
            // What comes late of it does no harm.
            let (reader, none) = (vault.reader(), FoldReport::default());
            assert_eq!(fold(&reader, &db(), FOLDING, &|_| ()).await.unwrap(), none);
            let report = crate::verify::verify(&reader, false, &|_| ()).await.unwrap();
            assert_eq!(report.damage, []);
        }
    });
}

#[test]
fn nothing_is_let_go_while_something_is_damaged() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = hourly(&mut vault, 40).await;
        folded(&vault).await;
        machine.writes(extent(0, 0, BLOCK), 1);
        let path = machine.store(&mut vault).await;
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        let pack = vault.get(&path).await;
        vault.delete(&path).await;
        let report = thinned(&vault).await;
        assert_eq!((report.let_go, report.manifest, report.losses.len()), (0, 0, 1), "{report:?}");
        vault.put(&path, pack).await;
        assert!(thinned(&vault).await.let_go > 0);
    });
}

#[test]
fn from_the_logs_alone_nothing_is_folded_that_is_less_than_before() {
    run(async {
        let mut vault = TestVault::new();
        let machine = hourly(&mut vault, 40).await;
        folded(&vault).await;
        thinned(&vault).await;
        let anew = Folding { anew: true, ..keeping(&vault) };
        fold(&vault.reader(), &db(), anew, &|_| ()).await.unwrap();
        // The first pack, as a collector may have removed it.
        let first =
            crate::log::PackPlace { log: machine.log.name.clone(), number: Default::default() };
        let pack = vault.get(&first.path()).await;
        vault.delete(&first.path()).await;
        let error = fold(&vault.reader(), &db(), anew, &|_| ()).await.unwrap_err();
        assert!(matches!(error, FoldError::Collected { .. }), "{error}");
        vault.put(&first.path(), pack).await;
        // A damaged manifest costs nothing while the one before is there.
        let newest = manifest(&vault).await.number;
        vault.put(&layout::manifest(&db(), newest), b"nonsense".to_vec()).await;
        let (read, points) = points::read(&vault.reader(), &db()).await.unwrap();
        assert_eq!((read.losses.len(), read.fold.unwrap().number), (1, newest - 1));
        assert!(!points.points.is_empty());
    });
}

#[test]
fn no_epoch_is_granted_that_goes_on_from_what_isnt_kept() {
    run(async {
        let mut vault = TestVault::new();
        let machine = hourly(&mut vault, 40).await;
        folded(&vault).await;
        thinned(&vault).await;
        let retained = manifest(&vault).await.epochs[0].retained.clone();
        let log = TestLog::new(&vault, 9);
        let granted = async |lsn| {
            let request = GrantRequest {
                token: Token::NONE,
                machine: db(),
                incarnation: Incarnation::from_bytes([8; 16]),
                claimed: Epoch::NONE,
                begins: crate::meta::Begins::Continue,
                acknowledged: Lsn::NONE,
                parent: Some(Point { epoch: machine.of.1, lsn }),
                log: log.name.clone(),
                pack: log.number(),
                known: None,
                now: tidegate_model::Micros(7),
            };
            grant(&vault.reader(), &request).await
        };
        let let_go = (4..).map(Lsn).find(|lsn| !retained.has(*lsn)).unwrap();
        let error = granted(let_go).await.unwrap_err();
        assert!(matches!(error, GrantError::NotKept { .. }), "{error}");
        assert_eq!(granted(retained.points[0]).await.unwrap().epoch, Epoch(2));
    });
}

#[test]
fn what_a_collector_must_leave_is_what_the_two_newest_manifests_need() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = hourly(&mut vault, 40).await;
        assert_eq!(needed(&vault.store(), &vault.ring, &db()).await.unwrap(), None);
        folded(&vault).await;
        let before = needed(&vault.store(), &vault.ring, &db()).await.unwrap().unwrap();
        thinned(&vault).await;
        let both = needed(&vault.store(), &vault.ring, &db()).await.unwrap().unwrap();
        assert_eq!(both.manifests, BTreeSet::from([1, 2]));
        assert!(both.layers.is_superset(&before.layers) && both.packs == before.packs);
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        thinned(&vault).await;
        let later = needed(&vault.store(), &vault.ring, &db()).await.unwrap().unwrap();
        assert!(later.packs.len() < both.packs.len() / 2, "{} packs", later.packs.len());
        // Nothing but this is left of logs and layers, and all that is kept comes back.
        let bare = without_garbage(&vault, &later).await;
        let history = history(&bare).await;
        assert_eq!(history.losses, []);
        for point in offered(&bare).await {
            let disks = restored(&bare, point).await.unwrap();
            assert!(disks == machine.states[usize::try_from(point.lsn.0).unwrap()], "{point}");
        }
        assert_eq!(offered(&bare).await, offered(&vault).await);
        // Also by the manifest before, where the newest is damaged.
        bare.put(&layout::manifest(&db(), 3), b"nonsense".to_vec()).await;
        assert!(offered(&bare).await.is_superset(&offered(&vault).await));
        assert!(needed(&bare.store(), &bare.ring, &db()).await.unwrap_err().is_damage());
    });
}

/// The vault without what isn't needed of its one machine.
async fn without_garbage(vault: &TestVault, needed: &Needed) -> TestVault {
    let objects = Arc::new(vault.objects.fork());
    let (ring, clock) = (vault.ring.clone(), vault.clock.clone());
    let bare = TestVault { objects, ring, known: Default::default(), clock };
    let listed: Vec<_> = bare.store().list("", None).try_collect().await.unwrap();
    let mut removed = 0;
    for object in listed {
        let path = &object.path;
        let stays = match (layout::parse_pack(path), layout::parse_layer(&db(), path)) {
            (Some((log, number)), _) => {
                let place = crate::log::PackPlace { log, number };
                number >= needed.first_of(&place.log, Default::default())
                    || needed.packs.contains(&place)
            }
            (_, Some(layer)) => needed.layers.contains(&layer),
            _ => true,
        };
        if !stays {
            bare.delete(path).await;
            removed += 1;
        }
    }
    assert!(removed > 20, "{removed} objects are garbage");
    bare
}

#[test]
fn a_gap_in_which_the_window_begins_stays_known_and_the_moment_before_it_stays() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = hourly(&mut vault, 20).await;
        let before = machine.writes(extent(0, 0, 5000), 200);
        machine.marks(BookmarkKind::GapJournalFull, false);
        for hours in [1, 5, 2] {
            machine.writes(extent(0, 0, 5000), 201);
            machine.does(Op::Disk(disk(1, 9 * BLOCK)));
            machine.store(&mut vault).await;
            vault.clock.advance(hours * HOUR);
        }
        let within = machine.ops.len() as u64;
        machine.writes(extent(0, 0, 5000), 202);
        let end = machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        folded(&vault).await;
        assert!(thinned(&vault).await.let_go > 0);
        for _ in 0..2 {
            let retained = manifest(&vault).await.epochs[0].retained.clone();
            assert!(retained.points.contains(&Lsn(before)), "{retained:?}");
            assert!((before + 1..end).contains(&retained.from.0), "{retained:?}");
            let (reader, history) = (vault.reader(), history(&vault).await);
            let points = MachinePoints::of(&history);
            assert_eq!(points.gaps.len(), 1, "{:?}", points.gaps);
            let at = |lsn| At::Point(Point { epoch: Epoch(1), lsn: Lsn(lsn) });
            for lsn in retained.from.0..end {
                let error = points.choose(&reader, &history, at(lsn)).await.unwrap_err();
                assert!(matches!(error, ChooseError::InGap { .. }), "{lsn}: {error}");
            }
            for lsn in [before, end] {
                assert!(points.choose(&reader, &history, at(lsn)).await.unwrap().clean);
            }
            let time = At::Time(tidegate_model::Micros(within * 1000));
            let chosen = points.choose(&reader, &history, time).await.unwrap();
            assert_eq!(chosen.point.lsn, Lsn(before));
            machine.marks(BookmarkKind::CrashConsistent, true);
            machine.store(&mut vault).await;
            thinned(&vault).await;
        }
    });
}
