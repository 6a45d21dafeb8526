//! Which machines and points damage touches. Only run when there is some.

use std::collections::HashMap;

use futures::TryStreamExt;
use tidegate_model::{FrameNumber, LogId, Lsn, PackNumber, Point};

use super::report::{Finding, Spot, Touch};
use super::{VerifyError, counted_packs};
use crate::chain::{Broken, MachineHistory};
use crate::log::{LogReader, PackRead, Survey};
use crate::pack::{Content, Record};
use crate::restore::target_place;

/// Damaged places, to be found by what records name.
#[derive(Default)]
struct Places {
    /// Packs, and frames of packs.
    exact: HashMap<(LogId, PackNumber, Option<FrameNumber>), Vec<usize>>,
    /// Ranges of packs that are missing.
    ranges: Vec<(LogId, PackNumber, PackNumber, usize)>,
}

impl Places {
    fn of(findings: &[Finding]) -> Self {
        let mut places = Self::default();
        for (at, finding) in findings.iter().enumerate() {
            let exact = match &finding.spot {
                Spot::Pack(place) => (place.log.id, place.number, None),
                Spot::Frame(place, frame) => (place.log.id, place.number, Some(*frame)),
                Spot::Packs(log, first, last) => {
                    places.ranges.push((log.id, *first, *last, at));
                    continue;
                }
                Spot::Epoch(..) | Spot::Object(_) => continue,
            };
            places.exact.entry(exact).or_default().push(at);
        }
        places
    }

    /// The findings that a record which lies in (or points into) this frame depends on.
    fn at(&self, log: LogId, pack: PackNumber, frame: FrameNumber) -> Vec<usize> {
        let exact = |frame| self.exact.get(&(log, pack, frame)).into_iter().flatten().copied();
        let ranges = self.ranges.iter().filter_map(|(of, first, last, at)| {
            (*of == log && (*first..=*last).contains(&pack)).then_some(*at)
        });
        exact(None).chain(exact(Some(frame))).chain(ranges).collect()
    }
}

/// Fills in what each finding touches.
pub async fn read(
    reader: &LogReader,
    surveys: impl Iterator<Item = &Survey>,
    histories: &[MachineHistory],
    findings: &mut [Finding],
) -> Result<(), VerifyError> {
    let places = Places::of(findings);
    let mut packs = std::pin::pin!(counted_packs(reader, surveys));
    while let Some(pack) = packs.try_next().await? {
        for record in &pack.index.records {
            for at in depends_on(&places, &pack, record) {
                let machine = &pack.index.machines[usize::from(record.machine)];
                let epoch = (machine.name.clone(), machine.epoch);
                let first = findings[at].first.entry(epoch).or_insert(record.lsn);
                *first = record.lsn.min(*first);
            }
        }
    }
    for finding in findings {
        for history in histories {
            add_holes(history, finding);
        }
        finding.touches = histories.iter().filter_map(|history| touch(history, finding)).collect();
    }
    Ok(())
}

fn depends_on(places: &Places, pack: &PackRead, record: &Record) -> Vec<usize> {
    match &record.content {
        Content::Kept { frame, .. } => {
            let number = pack.index.frames[*frame as usize].number;
            places.at(pack.place.log.id, pack.place.number, number)
        }
        Content::Reference { target, .. } => {
            let place = target_place(&pack.place, &pack.index, target.log, target.pack);
            places.at(place.log.id, place.number, target.frame)
        }
        _ => Vec::new(),
    }
}

/// What a pack that can't be read held is known by what the chains lack.
fn add_holes(history: &MachineHistory, finding: &mut Finding) {
    let (log, last) = match &finding.spot {
        Spot::Pack(place) => (&place.log, place.number),
        Spot::Packs(log, _, last) => (log, *last),
        Spot::Frame(..) | Spot::Epoch(..) | Spot::Object(_) => return,
    };
    for (number, epoch) in &history.epochs {
        let sessions = epoch.sessions.iter().map(|session| (&session.log, session.pack));
        let mut begins = sessions.chain([(&epoch.record.log, epoch.record.pack)]);
        if !begins.any(|(of, first)| of == log && first <= last) {
            continue;
        }
        // What follows the end of a copy that seems unfinished may have been in that pack.
        let unfinished = epoch.copy_end().is_none().then(|| epoch.trace.chain.end().next());
        if let Some(lsn) = epoch.hole().map(|(first, _)| first).or(unfinished) {
            let key = (history.machine.clone(), *number);
            let first = finding.first.entry(key).or_insert(lsn);
            *first = lsn.min(*first);
        }
    }
}

fn touch(history: &MachineHistory, finding: &Finding) -> Option<Touch> {
    let machine = history.machine.clone();
    let first = |point: &Point| finding.first.get(&(machine.clone(), point.epoch)).copied();
    if !finding.first.keys().any(|(of, _)| *of == machine) {
        return None;
    }
    let traces = history.epochs.iter().map(|(epoch, told)| (epoch, &told.trace));
    let marks = traces.chain(&history.lost).flat_map(|(epoch, trace)| {
        let offered = trace
            .bookmarks
            .iter()
            .filter(|(lsn, (_, mark))| trace.retained.has(**lsn) && !mark.kind.begins_gap());
        offered.map(|(lsn, _)| Point { epoch: *epoch, lsn: *lsn })
    });
    let hit = |point: &Point| {
        let lineage = history.lineage(*point).unwrap_or_else(|broken| match broken {
            Broken::Lost(epoch) => vec![*point, Point { epoch, lsn: Lsn(u64::MAX) }],
            Broken::NoEpoch(_) | Broken::NoParent(_) | Broken::Ends { .. } => vec![*point],
            Broken::Gone(_) | Broken::Thinned { .. } => vec![*point],
        });
        lineage.iter().any(|part| first(part).is_some_and(|first| first <= part.lsn))
    };
    let mut points: Vec<Point> = marks.filter(hit).collect();
    points.sort_unstable();
    Some(Touch { machine: history.machine.clone(), points })
}
