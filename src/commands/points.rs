//! `tidegate points`: to what a machine can be brought back, and what is missing.

use serde::Serialize;
use tidegate_model::HumanBytes;
use tidegate_vault::chain::EpochHistory;
use tidegate_vault::log::{CACHE_BYTES_DEFAULT, LogReader};
use tidegate_vault::points::{self, RecoveryPoint, readable_time};

use crate::cli::PointsArgs;
use crate::failure::Failure;
use crate::output::{Output, table};

#[derive(Serialize)]
struct Listed {
    machine: String,
    points: Vec<Line>,
    /// Where every LSN can be brought back, not only points.
    every_lsn: Vec<Stretch>,
    gaps: Vec<String>,
    /// What can't be read of the machine's logs, and of the packs to which they refer: why a point
    /// may be missing.
    damage: Vec<String>,
}

#[derive(Serialize)]
struct Stretch {
    epoch: u32,
    from: u64,
    to: u64,
}

#[derive(Serialize)]
struct Line {
    point: String,
    time: String,
    kind: tidegate_model::BookmarkKind,
    clean: bool,
    name: String,
    disks: Vec<tidegate_model::Disk>,
}

pub(super) async fn run(args: PointsArgs, output: Output) -> Result<(), Failure> {
    let vault = super::open(&args.vault).await?;
    let reader = LogReader::new(vault.store().clone(), vault.ring().clone(), CACHE_BYTES_DEFAULT);
    let waiting = output.waiting("reading the vault's indexes");
    let (history, found) = points::read(&reader, &args.machine).await?;
    waiting.finish_and_clear();
    let is_offered =
        |told: &&EpochHistory| found.points.iter().any(|p| p.point.epoch == told.record.epoch);
    let stretches = history.epochs.values().filter(is_offered).filter_map(stretch).collect();
    let listed = Listed {
        machine: found.machine.to_string(),
        every_lsn: stretches,
        points: found.points.into_iter().map(line).collect(),
        gaps: found.gaps.iter().map(ToString::to_string).collect(),
        damage: history.losses.iter().map(ToString::to_string).collect(),
    };
    output.result(&listed, text)?;
    Ok(())
}

/// The part of an epoch in which nothing was let go, from the end of its copy on.
fn stretch(told: &EpochHistory) -> Option<Stretch> {
    let from = told.copy_end()?.max(told.trace.retained.from).0;
    let to = told.trace.chain.end().0;
    (from <= to).then_some(Stretch { epoch: told.record.epoch.0, from, to })
}

fn line(point: RecoveryPoint) -> Line {
    Line {
        point: point.point.to_string(),
        time: readable_time(point.time),
        kind: point.kind,
        clean: point.clean,
        name: point.name,
        disks: point.disks,
    }
}

fn text(listed: &Listed) -> String {
    let row = |line: &Line| {
        let bytes = line.disks.iter().map(|disk| disk.bytes).sum();
        vec![
            line.point.clone(),
            line.time.clone(),
            serde_json::to_value(line.kind)
                .ok()
                .and_then(|kind| kind.as_str().map(str::to_owned))
                .unwrap_or_default(),
            if line.clean { "clean" } else { "UNCLEAN" }.to_owned(),
            format!("{} in {}", HumanBytes(bytes), line.disks.len()),
            line.name.clone(),
        ]
    };
    let rows: Vec<_> = listed.points.iter().map(row).collect();
    let mut text = if rows.is_empty() {
        format!("{} has no recovery points", listed.machine)
    } else {
        table(&["point", "time", "kind", "state", "disks", "name"], &rows)
    };
    for Stretch { epoch, from, to } in &listed.every_lsn {
        text.push_str(&format!("\nevery LSN: {epoch}:{from} to {epoch}:{to}"));
    }
    for gap in &listed.gaps {
        text.push_str("\nnot offered: ");
        text.push_str(gap);
    }
    for damage in &listed.damage {
        text.push_str("\ndamaged: ");
        text.push_str(damage);
    }
    if !listed.damage.is_empty() {
        text.push_str("\n'tidegate verify' says which points that touches");
    }
    text
}
