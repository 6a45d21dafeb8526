//! Runs, machines, epochs, sessions: that they can be read, and that the logs hold what they say.

use std::collections::HashSet;

use futures::TryStreamExt;
use tidegate_model::{Epoch, LogName, Lsn, Name};

use super::VerifyError;
use super::report::{Finding, MachineReport, Spot};
use crate::chain::{MachineHistory, Traces};
use crate::layout;
use crate::log::LogReader;
use crate::meta::{self, EpochRecord, MetaError, SessionRecord};
use crate::points::{GapCause, MachinePoints};

/// Checks that every run can be read, and that every log belongs to one; gives their number.
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
        if let Some(run) = kept(read, &object.path, findings)?.flatten() {
            claimed.extend(run.logs());
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
    let mut histories = Vec::new();
    for machine in meta::list_machines(reader.store()).await? {
        let epochs = read_epochs(reader, &machine, findings).await?;
        let mut sessions: Vec<SessionRecord> = Vec::new();
        for epoch in &epochs {
            let (store, ring) = (reader.store(), reader.ring());
            let read = meta::list_sessions(store, ring, &machine, epoch.epoch).await;
            let folder = layout::sessions(&machine);
            sessions.extend(kept(read, &folder, findings)?.unwrap_or_default());
        }
        histories.push(MachineHistory::new(machine, epochs, sessions));
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
        if history.epochs.values().any(|told| told.hole().is_some() && !told.lost()) {
            look_again(reader, history).await?;
        }
        check_chains(history, findings);
    }
    for (machine, epoch) in traces.0.keys() {
        // One that was granted after the records were read is no orphan.
        let read = meta::read_epoch(reader.store(), reader.ring(), machine, *epoch).await;
        if !matches!(read, Ok(Some(_))) {
            add_orphan(machine, *epoch, findings);
        }
    }
    Ok(())
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

async fn read_epochs(
    reader: &LogReader,
    machine: &Name,
    findings: &mut Vec<Finding>,
) -> Result<Vec<EpochRecord>, VerifyError> {
    let mut listed = reader.store().list(&layout::epochs(machine), None);
    let mut epochs = Vec::new();
    while let Some(object) = listed.try_next().await.map_err(MetaError::from)? {
        let Some(epoch) = layout::parse_epoch(machine, &object.path) else { continue };
        let read = meta::read_epoch(reader.store(), reader.ring(), machine, epoch).await;
        epochs.extend(kept(read, &object.path, findings)?.flatten());
    }
    Ok(epochs)
}

/// Takes what could be read, and notes what is damaged; other errors end the check.
fn kept<T>(
    read: Result<T, MetaError>,
    path: &str,
    findings: &mut Vec<Finding>,
) -> Result<Option<T>, VerifyError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(MetaError::Damaged { path, cause }) => {
            let error = MetaError::Damaged { path: path.clone(), cause };
            findings.push(Finding::new(Spot::Object(path), error));
            Ok(None)
        }
        Err(MetaError::Store(error)) if crate::log::LogError::Store(error.clone()).is_damage() => {
            findings.push(Finding::new(Spot::Object(path.to_owned()), error));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn check_chains(history: &MachineHistory, findings: &mut Vec<Finding>) {
    for (epoch, told) in &history.epochs {
        let Some((first, last)) = told.hole() else { continue };
        let spot = Spot::Epoch(history.machine.clone(), *epoch);
        let what = format!("{spot}: LSNs {first} to {last} were committed and aren't in its logs");
        let mut finding = Finding::new(spot, what);
        finding.first.insert((history.machine.clone(), *epoch), first);
        findings.push(finding);
    }
}

fn add_orphan(machine: &Name, epoch: Epoch, findings: &mut Vec<Finding>) {
    let spot = Spot::Object(layout::epoch(machine, epoch));
    let what = format!("{spot} is missing or damaged: the logs hold records of that epoch");
    let mut finding = Finding::new(spot, what);
    finding.first.insert((machine.clone(), epoch), Lsn(1));
    findings.push(finding);
}

/// What is told of a machine.
pub fn report(history: &MachineHistory) -> MachineReport {
    let points = MachinePoints::of(history);
    // What is missing was told as damage; it is a gap all the same.
    let gaps = points.gaps.iter().map(|gap| match &gap.cause {
        GapCause::CopyUnfinished(_) => format!("{gap} (no damage)"),
        GapCause::Missing { .. } | GapCause::Parent(_) => gap.to_string(),
    });
    let (machine, gaps) = (points.machine.clone(), gaps.collect());
    MachineReport { machine, points: points.points.len(), gaps }
}
