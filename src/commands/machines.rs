//! `tidegate machines`: what a vault holds; `machines remove`.

mod remove;

pub(super) use remove::SILENCE_MAX;

use serde::Serialize;
use tidegate_model::{HumanBytes, Name};
use tidegate_vault::log::{CACHE_BYTES_DEFAULT, LogReader};
use tidegate_vault::points::readable_time;
use tidegate_vault::store::Access;
use tidegate_vault::usage::{MachineUsage, usage};

use crate::cli::{MachinesArgs, MachinesCommand};
use crate::failure::Failure;
use crate::output::{Output, table};

#[derive(Serialize)]
struct Line {
    machine: String,
    disks: usize,
    bytes_disks: u64,
    bytes_kept: u64,
    bytes_referenced: u64,
    bytes_zero: u64,
    bytes_stored: u64,
    points: usize,
    last_point: Option<String>,
    last_time: Option<String>,
    /// Whether there is no point because something is damaged or missing.
    points_lost: bool,
}

pub(super) async fn run(args: MachinesArgs, output: Output) -> Result<(), Failure> {
    if let Some(MachinesCommand::Remove(args)) = args.command {
        return remove::run(args, output).await;
    }
    let Some(vault) = args.vault else {
        return Err(Failure::usage("which vault? Give --vault"));
    };
    let vault = super::open_at(&vault, &args.credential, Access::Read).await?;
    let reader = LogReader::new(vault.store().clone(), vault.ring().clone(), CACHE_BYTES_DEFAULT);
    let waiting = output.waiting("reading the vault's indexes");
    let machines = usage(&reader).await?;
    waiting.finish_and_clear();
    let lines: Vec<Line> = machines.iter().map(line).collect();
    output.result(&lines, text)?;
    Ok(())
}

fn line((name, machine): (&Name, &MachineUsage)) -> Line {
    Line {
        machine: name.to_string(),
        disks: machine.disks.len(),
        bytes_disks: machine.disks.iter().map(|disk| disk.bytes).sum(),
        bytes_kept: machine.kept_bytes,
        bytes_referenced: machine.reference_bytes,
        bytes_zero: machine.zero_bytes,
        bytes_stored: machine.stored_bytes + machine.dense_bytes,
        points: machine.points,
        last_point: machine.last_point.as_ref().map(|point| point.point.to_string()),
        last_time: machine.last_point.as_ref().map(|point| readable_time(point.time)),
        points_lost: machine.points_lost,
    }
}

#[allow(clippy::ptr_arg)] // as Output::result hands it over
fn text(lines: &Vec<Line>) -> String {
    if lines.is_empty() {
        return "the vault has no machines yet".to_owned();
    }
    let row = |line: &Line| {
        vec![
            line.machine.clone(),
            line.disks.to_string(),
            HumanBytes(line.bytes_disks).to_string(),
            HumanBytes(line.bytes_stored).to_string(),
            line.points.to_string(),
            line.last_time.clone().unwrap_or_else(|| without_point(line).to_owned()),
        ]
    };
    let rows: Vec<_> = lines.iter().map(row).collect();
    table(&["machine", "disks", "size", "stored", "points", "last point"], &rows)
}

/// What stands where the last point would.
const fn without_point(line: &Line) -> &'static str {
    if line.points_lost { "none: see 'tidegate verify'" } else { "none yet" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_lost_its_points_isnt_told_to_have_none_yet() {
        let name = "db-1".parse().unwrap();
        let told = |points_lost| {
            text(&vec![line((&name, &MachineUsage { points_lost, ..MachineUsage::default() }))])
        };
        assert!(told(false).contains("none yet"), "{}", told(false));
        assert!(told(true).contains("tidegate verify") && !told(true).contains("yet"));
    }
}
