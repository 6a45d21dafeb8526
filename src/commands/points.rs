//! `tidegate points`: to what a machine can be brought back, and what is missing.

use serde::Serialize;
use tidegate_model::{BookmarkKind, HumanBytes};
use tidegate_vault::chain::EpochHistory;
use tidegate_vault::log::{CACHE_BYTES_DEFAULT, LogReader};
use tidegate_vault::points::{self, Gap, RecoveryPoint, readable_time};

use crate::cli::PointsArgs;
use crate::failure::Failure;
use crate::output::{Output, table};

#[derive(Serialize)]
struct Listed {
    machine: String,
    points: Vec<Line>,
    /// Where every LSN can be brought back, not only points, but for those in `stretches`.
    every_lsn: Vec<Whole>,
    gaps: Vec<String>,
    /// Those gaps in which nothing is missing or damaged: LSNs that are no moments of the disks.
    stretches: Vec<Stretched>,
    /// What can't be read of the machine's logs, and of the packs to which they refer: why a point
    /// may be missing.
    damage: Vec<String>,
}

#[derive(Serialize)]
struct Whole {
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

/// LSNs from `first` on, and before `end`.
#[derive(Serialize)]
struct Stretched {
    epoch: u32,
    first: u64,
    end: Option<u64>,
    since: String,
    until: Option<String>,
    cause: BookmarkKind,
}

pub(super) async fn run(args: PointsArgs, output: Output) -> Result<(), Failure> {
    let vault = super::open(&args.vault).await?;
    let reader = LogReader::new(vault.store().clone(), vault.ring().clone(), CACHE_BYTES_DEFAULT);
    let waiting = output.waiting("reading the vault's indexes");
    let (history, found) = points::read(&reader, &args.machine).await?;
    waiting.finish_and_clear();
    let is_offered =
        |told: &&EpochHistory| found.points.iter().any(|p| p.point.epoch == told.record.epoch);
    let every_lsn = history.epochs.values().filter(is_offered).filter_map(whole).collect();
    let listed = Listed {
        machine: found.machine.to_string(),
        every_lsn,
        points: found.points.into_iter().map(line).collect(),
        gaps: found.gaps.iter().filter(|gap| !is_of_passes(gap)).map(ToString::to_string).collect(),
        stretches: found.gaps.iter().filter_map(stretched).collect(),
        damage: history.losses.iter().map(ToString::to_string).collect(),
    };
    output.result(&listed, text)?;
    Ok(())
}

/// Whether nothing is wrong: passes are made, and their ends are the points.
fn is_of_passes(gap: &Gap) -> bool {
    gap.stretch().is_some_and(|stretch| stretch.cause == BookmarkKind::GapPass)
}

fn stretched(gap: &Gap) -> Option<Stretched> {
    let stretch = gap.stretch()?;
    Some(Stretched {
        epoch: gap.epoch.0,
        first: stretch.first.0,
        end: stretch.end.map(|(lsn, _)| lsn.0),
        since: readable_time(stretch.since),
        until: stretch.end.map(|(_, time)| readable_time(time)),
        cause: stretch.cause,
    })
}

/// The part of an epoch in which nothing was let go, from the end of its copy on.
fn whole(told: &EpochHistory) -> Option<Whole> {
    let from = told.copy_end()?.max(told.trace.retained.from).0;
    let to = told.trace.chain.end().0;
    (from <= to).then_some(Whole { epoch: told.record.epoch.0, from, to })
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
    for Whole { epoch, from, to } in &listed.every_lsn {
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
