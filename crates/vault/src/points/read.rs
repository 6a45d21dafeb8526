//! Reads a machine's history, and which of its points can be had.

use tidegate_model::Name;

use super::{Lacks, MachinePoints, Referred};
use crate::chain::{HistoryError, Loss, MachineHistory, READ_TRIES_MAX};
use crate::log::{LogError, LogReader};

/// The history of a machine, and its points without those that refer to packs that can't be read;
/// such packs are among the history's losses. No frame is read: damage inside one doesn't show.
///
/// # Errors
/// As [`MachineHistory::read`].
pub async fn read(
    reader: &LogReader,
    machine: &Name,
) -> Result<(MachineHistory, MachinePoints), HistoryError> {
    let mut tries = 0;
    loop {
        let (history, points, lacks) = read_once(reader, machine).await?;
        tries += 1;
        // Others folded it meanwhile, and what went isn't needed any more.
        if tries >= READ_TRIES_MAX || !lacks.errors().any(LogError::is_collected) {
            return Ok((history, points));
        }
    }
}

async fn read_once(
    reader: &LogReader,
    machine: &Name,
) -> Result<(MachineHistory, MachinePoints, Lacks), HistoryError> {
    let mut referred = Referred::default();
    let tell = |pack: &_| referred.add_pack(pack, Some(machine));
    let mut history = MachineHistory::read_telling(reader, machine, tell).await?;
    if let Some(fold) = &history.fold {
        referred.add_fold(machine, fold);
    }
    let lacks = referred.check(reader).await?;
    let mut points = MachinePoints::of(&history);
    points.withhold(&history, &lacks);
    for error in lacks.errors() {
        let loss = Loss::Log(error.clone());
        // A pack of the machine's own log was told when the log was read.
        if !history.losses.contains(&loss) {
            history.losses.push(loss);
        }
    }
    Ok((history, points, lacks))
}
