//! Runs, machines, epochs, sessions: that they can be read, and that the logs hold what they say.

use std::collections::HashSet;

use futures::TryStreamExt;
use tidegate_model::{Epoch, LogName, Lsn, Name, Point};

use super::VerifyError;
use super::report::{Finding, MachineReport, Spot};
use crate::chain::{MachineHistory, Traces, Unnamed};
use crate::layout;
use crate::log::LogReader;
use crate::meta::{self, Begins, MetaError, Run};
use crate::points::{GapCause, MachinePoints};

/// Checks that every run can be read, and that every log (stored, or named by a record) belongs to
/// one, for a run is claimed before anything names it; gives the number of runs.
pub async fn check_runs(
    reader: &LogReader,
    logs: impl Iterator<Item = &LogName>,
    findings: &mut Vec<Finding>,
) -> Result<u64, VerifyError> {
    let mut listed = reader.store().list(layout::RUNS, None);
    let mut claimed = HashSet::new();
    let mut count = 0;
    while let Some(object) = listed.try_next().await.map_err(MetaError::from)? {
        let Some(run) = layout::parse_run(&object.path) else { continue };
        count += 1;
        let read = meta::read_run(reader.store(), reader.ring(), run).await;
        match read {
            Ok(run) => claimed.extend(run.iter().flat_map(Run::logs)),
            Err(error) if error.is_damage() => {
                findings.push(Finding::new(Spot::Object(object.path), error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    for log in logs.filter(|log| !claimed.contains(log)) {
        // That a run's record is damaged was told above.
        let spot = Spot::Object(layout::run(log.id.run));
        if !findings.iter().any(|known| known.spot == spot) {
            let what = format!("{spot} doesn't claim log {log}: it is missing, or of other shards");
            findings.push(Finding::new(spot, what));
        }
    }
    Ok(count)
}

/// Reads what is recorded of every machine. Done before the logs are listed: what a session record
/// calls committed must then be in them.
pub async fn records(
    reader: &LogReader,
    findings: &mut Vec<Finding>,
) -> Result<Vec<MachineHistory>, VerifyError> {
    let (store, ring) = (reader.store(), reader.ring());
    let mut histories = Vec::new();
    for machine in meta::list_machines(store).await? {
        let epochs = meta::list_epochs(store, ring, &machine).await?;
        let sessions = meta::list_sessions(store, ring, &machine).await?;
        for error in epochs.damaged.iter().chain(&sessions.damaged) {
            let path = error.damaged_path().unwrap_or("machines");
            findings.push(Finding::new(Spot::Object(path.to_owned()), error));
        }
        let removed = meta::removed_upto(store, ring, &machine).await?;
        let mut history = MachineHistory::new(machine, epochs, sessions);
        history.remove_upto(removed);
        if !history.is_gone() {
            histories.push(history);
        }
    }
    Ok(histories)
}

/// Compares what is recorded of the machines with what the logs hold.
pub async fn compare(
    reader: &LogReader,
    histories: &mut [MachineHistory],
    mut traces: Traces,
    findings: &mut Vec<Finding>,
) -> Result<(), VerifyError> {
    for history in histories {
        history.take_traces(&mut traces);
        for unnamed in history.unnamed(reader).await? {
            findings.push(lost_session(&unnamed));
        }
        if history.epochs.values().any(|told| told.hole().is_some() && !told.lost()) {
            look_again(reader, history).await?;
        }
        check_chains(history, findings);
        for epoch in history.lost.keys() {
            add_orphan(&history.machine, *epoch, findings);
        }
    }
    for (machine, epoch) in traces.0.keys() {
        // One that was granted after the records were read is no orphan.
        match meta::read_epoch(reader.store(), reader.ring(), machine, *epoch).await {
            Ok(Some(_)) => {}
            Ok(None) => add_orphan(machine, *epoch, findings),
            Err(error) if error.is_damage() => add_orphan(machine, *epoch, findings),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A session whose record is missing, which only what it brought tells of.
fn lost_session(unnamed: &Unnamed) -> Finding {
    let spot = Spot::Object(layout::sessions(&unnamed.machine));
    let mut finding = Finding::new(spot, unnamed);
    finding.first.insert((unnamed.machine.clone(), unnamed.epoch), unnamed.lsn);
    finding
}

/// All logs were listed at once, in no particular order: a machine that moved from one to another
/// meanwhile shows a hole that isn't there. Its own logs, newest first, tell.
async fn look_again(reader: &LogReader, history: &mut MachineHistory) -> Result<(), VerifyError> {
    let mut again = history.clone();
    again.read_logs(reader).await?;
    for (epoch, told) in &mut history.epochs {
        if let Some(now) = again.epochs.remove(epoch) {
            told.trace = now.trace;
        }
    }
    Ok(())
}

/// What was committed by what is recorded must be there: by the epoch's own sessions, and by the
/// epochs that continue it, which the vault granted only when it had all up to there.
fn check_chains(history: &MachineHistory, findings: &mut Vec<Finding>) {
    for (epoch, told) in &history.epochs {
        let Some((first, last)) = told.hole() else { continue };
        let spot = Spot::Epoch(history.machine.clone(), *epoch);
        let what = format!("{spot}: LSNs {first} to {last} were committed and aren't in its logs");
        let mut finding = Finding::new(spot, what);
        finding.first.insert((history.machine.clone(), *epoch), first);
        findings.push(finding);
    }
    for (epoch, told) in &history.epochs {
        let parent = told.record.parent.filter(|_| told.record.begins == Begins::Continue);
        let Some(Point { epoch: of, lsn }) = parent else { continue };
        let spot = Spot::Epoch(history.machine.clone(), of);
        let first = match history.epochs.get(&of) {
            // That its record is lost was told.
            None if history.lost.contains_key(&of) => continue,
            None => Lsn(1),
            Some(parent) if parent.hole().is_some_and(|(first, _)| first <= lsn) => continue,
            Some(parent) if parent.trace.chain.end() < lsn => parent.trace.chain.end().next(),
            Some(_) => continue,
        };
        let what = format!(
            "{spot}: LSNs {first} to {lsn} aren't in its logs, and epoch {epoch} continues it from there: they were committed"
        );
        let mut finding = Finding::new(spot, what);
        finding.first.insert((history.machine.clone(), of), first);
        findings.push(finding);
    }
}

/// An epoch without a record: everything in it is touched.
fn add_orphan(machine: &Name, epoch: Epoch, findings: &mut Vec<Finding>) {
    let spot = Spot::Object(layout::epoch(machine, epoch));
    let known = findings.iter_mut().find(|known| known.spot == spot);
    let touched = ((machine.clone(), epoch), Lsn(1));
    if let Some(known) = known {
        known.first.extend([touched]);
        return;
    }
    let what = format!("{spot} is missing or damaged: the logs hold records of that epoch");
    let mut finding = Finding::new(spot, what);
    finding.first.extend([touched]);
    findings.push(finding);
}

/// What is told of a machine.
pub fn report(history: &MachineHistory) -> MachineReport {
    let points = MachinePoints::of(history);
    // What is missing was told as damage; it is a gap all the same.
    let gaps = points.gaps.iter().map(|gap| match &gap.cause {
        GapCause::CopyUnfinished(_) | GapCause::Stretch(_) => format!("{gap} (no damage)"),
        GapCause::Missing { .. }
        | GapCause::Referred { .. }
        | GapCause::Parent(_)
        | GapCause::Record => gap.to_string(),
    });
    let (machine, gaps) = (points.machine.clone(), gaps.collect());
    MachineReport { machine, points: points.points.len(), gaps }
}
