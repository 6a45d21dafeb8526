//! Where logs end. A log whose server was stopped ends with a pack that says so; what is lost at the
//! end of another shows only where something else tells of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tidegate_model::LogName;

use super::report::{Finding, OpenLog, Spot};
use crate::chain::MachineHistory;
use crate::log::Survey;

/// The logs that records of epochs and sessions name.
pub fn named_logs(histories: &[MachineHistory]) -> BTreeSet<LogName> {
    histories.iter().flat_map(MachineHistory::logs).map(|(log, _)| log).collect()
}

/// The logs without an end: those of which something is stored, and those of which nothing is,
/// though a session was to write there. Where the last pack itself is damaged, that is told instead.
pub fn open_logs(
    surveys: &BTreeMap<LogName, Survey>,
    closed: &HashSet<LogName>,
    histories: &[MachineHistory],
    findings: &[Finding],
) -> Vec<OpenLog> {
    let ended_runs: HashSet<_> = closed.iter().map(|log| log.id.run).collect();
    let mut logs = named_logs(histories);
    logs.extend(surveys.keys().cloned());
    let open = logs.into_iter().filter(|log| !closed.contains(log)).filter_map(|log| {
        let survey = surveys.get(&log);
        if survey.is_some_and(|survey| survey.tombstone.is_some()) {
            return None; // where it ends is known
        }
        let after = survey.and_then(|survey| survey.counted.packs.last().copied());
        if ends_in_damage(survey, findings) {
            return None;
        }
        let others_end = ended_runs.contains(&log.id.run);
        Some(OpenLog { log, after, others_end })
    });
    open.collect()
}

/// Whether the last pack that was committed can't be read, or isn't there.
fn ends_in_damage(survey: Option<&Survey>, findings: &[Finding]) -> bool {
    let Some(survey) = survey else { return false };
    let last_stored = survey.counted.packs.last();
    if survey.counted.missing.last().map(|(_, last)| last) > last_stored {
        return true;
    }
    last_stored.is_some_and(|last| {
        let place = survey.place(*last);
        findings.iter().any(|finding| matches!(&finding.spot, Spot::Pack(at) if *at == place))
    })
}
