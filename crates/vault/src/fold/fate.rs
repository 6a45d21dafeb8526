//! What becomes of a machine's epochs by a policy. Pure.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::{Epoch, Lsn, Micros, Point};

use super::manifest::{FoldedEpoch, Manifest};
use crate::chain::{MachineHistory, Retained};
use crate::meta::Begins;
use crate::retention::{AgedPoint, Policy};

/// What becomes of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// These places of it stay.
    Stays(Retained),
    /// Nothing of it is kept any more.
    Goes,
}

/// Whether an epoch continues a place that this manifest let go, or of which it lets all go: it was granted
/// while the manifest was made.
pub(super) fn lacks_parent(manifest: &Manifest, history: &MachineHistory) -> bool {
    let continued = history.epochs.values().filter(|told| told.record.begins == Begins::Continue);
    let mut places = continued.filter_map(|told| told.record.parent);
    places.any(|Point { epoch, lsn }| {
        let folded = manifest.epochs.iter().find(|folded| folded.epoch == epoch);
        manifest.gone.contains(&epoch) || folded.is_some_and(|folded| !folded.retained.has(lsn))
    })
}

/// What becomes of the folded epochs of a machine whose offered points are `points`. What stays:
/// every LSN of the any-point window, the points that the policy keeps, the places that other epochs
/// continue, and each epoch's end, for its agent may go on from there.
pub(super) fn fates(
    history: &MachineHistory,
    folded: &[FoldedEpoch],
    points: &[AgedPoint],
    policy: &Policy,
    now: Micros,
) -> BTreeMap<Epoch, Fate> {
    let kept = policy.kept(points, now);
    let begin = policy.window_begin(now);
    let mut wanted: BTreeMap<Epoch, BTreeSet<Lsn>> = BTreeMap::new();
    for Point { epoch, lsn } in kept {
        wanted.entry(epoch).or_default().insert(lsn);
    }
    let (mut fates, mut is_superseded) = (BTreeMap::new(), false);
    // The newest first: what an epoch continues is an earlier one.
    for (epoch, told) in history.epochs.iter().rev() {
        let wanted_here = wanted.remove(epoch).unwrap_or_default();
        let here = folded.iter().find(|folded| folded.epoch == *epoch);
        let fate = here.map(|folded| {
            let is_whole = folded.chain().end() == told.trace.chain.end();
            fate(folded, &wanted_here, begin, is_superseded && is_whole)
        });
        let parent = told.record.parent.filter(|_| told.record.begins == Begins::Continue);
        if let (Some(parent), false) = (parent, fate == Some(Fate::Goes)) {
            wanted.entry(parent.epoch).or_default().insert(parent.lsn);
        }
        fates.extend(fate.map(|fate| (*epoch, fate)));
        // From before the window on the machine was in this one.
        let first = here.and_then(|folded| folded.ages.first());
        is_superseded |= first.is_some_and(|first| first.stored < begin);
    }
    fates
}

fn fate(folded: &FoldedEpoch, wanted: &BTreeSet<Lsn>, begin: Micros, may_go: bool) -> Fate {
    let known = &folded.retained;
    let [(Lsn(1), end)] = folded.runs[..] else { return Fate::Stays(known.clone()) };
    let outside = folded.ages.iter().rev().find(|age| age.stored < begin);
    // The state after the last record before the window is the window's first moment.
    let outside = outside.map_or(Lsn::NONE, |age| age.lsn.min(end));
    let from = outside.max(known.from);
    // Where that is in a gap, it is the moment before the gap.
    let gap = folded.gap_at(from).map(|(begin, _)| Lsn(begin.lsn.0.saturating_sub(1)));
    let wanted_too: BTreeSet<Lsn> = wanted.iter().copied().chain(gap).collect();
    let is_kept = |lsn: &Lsn| *lsn != Lsn::NONE && known.has(*lsn);
    let points: Vec<Lsn> = wanted_too.range(..from).copied().filter(is_kept).collect();
    if may_go && outside == end && points.is_empty() && !wanted.contains(&end) {
        return Fate::Goes;
    }
    Fate::Stays(Retained { from, points })
}
