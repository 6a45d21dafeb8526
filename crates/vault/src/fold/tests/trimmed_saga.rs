//! The long life of a machine with thinning and collecting at random: what is kept equals the model,
//! everything else is refused, and a collection changes none of it.

use std::collections::BTreeSet;

use tidegate_model::{Epoch, Point};

use super::saga::{Folds, Model, Saga, disks_at, moments, says_more_than_time};
use super::thinned::{assert_minimal, keeping, manifest, offered, policy, thinned};
use super::*;
use crate::points::{At, MachinePoints};
use crate::retention::AgedPoint;

/// A life with thinning at random: after each the points that are offered are those of the policy.
struct Thinner;

impl Folds for Thinner {
    async fn fold(saga: &mut Saga, folding: Folding) -> u64 {
        let vault = &saga.vault;
        let report = fold(&vault.reader(), &db(), folding, &|_| ()).await;
        if let (Err(FoldError::Collected { .. }), true) =
            (&report, folding.anew && saga.collects > 0)
        {
            return 0;
        }
        let report = report.unwrap();
        assert_eq!(report.losses, []);
        if saga.folds % 4 != 3 {
            return u64::from(report.manifest > 0);
        }
        let (was, told) = (offered(vault).await, manifest(vault).await);
        let stored = |point: &Point| {
            let epoch = told.epochs.iter().find(|folded| folded.epoch == point.epoch)?;
            Some(epoch.bookmarks.iter().find(|mark| mark.lsn == point.lsn)?.stored)
        };
        let keeping = keeping(vault).keeping.unwrap();
        let aged = |point: &Point| AgedPoint {
            point: *point,
            stored: stored(point).unwrap_or(keeping.now),
            clean: true,
        };
        let aged: Vec<_> = was.iter().map(aged).collect();
        let expected = policy().kept(&aged, keeping.now);
        let folding = Folding { keeping: Some(keeping), anew: false, ..folding };
        let report = fold(&vault.reader(), &db(), folding, &|_| ()).await.unwrap();
        let is = offered(vault).await;
        assert!(is.is_superset(&expected), "{:?} went", expected.difference(&is));
        assert!(is.is_subset(&was));
        let told = manifest(vault).await;
        for folded in &told.epochs {
            assert_minimal(vault, folded).await;
        }
        if saga.dice.one_in(2) {
            saga.collect().await;
            assert!(offered(&saga.vault).await.is_superset(&is), "a collection costs no point");
        }
        1 + u64::from(report.manifest > 0)
    }
}

#[test]
fn of_ten_thousand_records_what_is_kept_equals_the_model_and_the_rest_is_refused() {
    run(async {
        let mut saga = Saga::new();
        saga.live::<Thinner>().await;
        assert!(saga.folds > 50 && saga.epochs.len() >= 7, "{} folds", saga.folds);
        let now = saga.vault.clock.now();
        thinned(&saga.vault).await;
        saga.collect().await;
        assert!(saga.collects > 3 && saga.removed > 50, "{} packs removed", saga.removed);
        let (reader, history) = (saga.vault.reader(), history(&saga.vault).await);
        let points = MachinePoints::of(&history);
        let begin = policy().window_begin(now);
        let (mut kept, mut refused) = (0, 0);
        for machine in &saga.epochs {
            let mut model = Model::of(&saga.epochs, machine.of.1);
            let moments: BTreeSet<u64> = moments(machine).into_iter().collect();
            for lsn in 1..=machine.ops.len() as u64 {
                let point = Point { epoch: machine.of.1, lsn: Lsn(lsn) };
                let whole = history.whole_lineage(point);
                let in_window = saga.stored[&point] >= begin;
                if lsn % 7 == 0
                    || lsn
                        <= history
                            .epochs
                            .get(&point.epoch)
                            .map_or(0, |told| told.trace.retained.from.0)
                {
                    let chosen = points.choose(&reader, &history, At::Point(point)).await;
                    let is_moment = whole.is_ok() && moments.contains(&lsn);
                    assert_eq!(chosen.is_ok_and(|chosen| chosen.clean), is_moment, "{point}");
                }
                match whole {
                    Ok(_) => {
                        kept += 1;
                        // Of a window of hundreds some are looked at, and every kept point.
                        let from = history.epochs[&point.epoch].trace.retained.from;
                        if point.lsn > from && !saga.dice.one_in(8) {
                            continue;
                        }
                        let disks = disks_at(&reader, &history, point).await;
                        assert!(disks == model.at(lsn), "the disks differ at {point}");
                    }
                    Err(cause) => {
                        assert!(cause.is_let_go() && !in_window, "{point}: {cause}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(kept > 100 && refused > 5_000, "{kept} kept, {refused} refused");
        assert_times(&saga, &reader, &history).await;
    });
}

/// Asks for times: what comes is the last kept moment by then, by what was changed or marked last up to
/// each.
async fn assert_times(saga: &Saga, reader: &LogReader, history: &MachineHistory) {
    let points = MachinePoints::of(history);
    // (The last event up to a kept moment, its epoch), each a time in milliseconds.
    let mut events = BTreeSet::new();
    for machine in &saga.epochs {
        let epoch = machine.of.1;
        let is_kept = |lsn: &u64| history.whole_lineage(Point { epoch, lsn: Lsn(*lsn) }).is_ok();
        for moment in moments(machine).into_iter().filter(is_kept) {
            let event = (1..=moment).rfind(|lsn| says_more_than_time(machine, *lsn)).unwrap();
            events.insert((event, epoch));
        }
    }
    let event_of = |point: Point| {
        let machine = saga.epochs.iter().find(|machine| machine.of.1 == point.epoch).unwrap();
        let event = (1..=point.lsn.0).rfind(|lsn| says_more_than_time(machine, *lsn)).unwrap();
        (event, point.epoch)
    };
    let times: BTreeSet<u64> = events.iter().map(|(lsn, _)| *lsn).collect();
    for lsn in times.into_iter().step_by(5).flat_map(|lsn| [lsn, lsn + 3]) {
        let time = tidegate_model::Micros(lsn * 1000 + 500);
        let chosen = points.choose(reader, history, At::Time(time)).await;
        let chosen = chosen.ok().map(|chosen| (event_of(chosen.point), chosen.point));
        let expected = events.range(..=(lsn, Epoch(u32::MAX))).next_back().copied();
        assert_eq!(chosen.map(|(event, _)| event), expected, "at {time:?}: {chosen:?}");
        if let Some((_, point)) = chosen {
            assert!(history.whole_lineage(point).is_ok(), "{point} isn't kept");
        }
    }
}
