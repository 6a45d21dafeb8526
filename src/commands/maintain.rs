//! `tidegate maintain`: folds machines' histories, lets go of what isn't kept, then collects garbage.

use std::time::{Duration, Instant};

use serde::Serialize;
use tidegate_model::{Counted, HumanBytes, LogName, Name};
use tidegate_vault::fold::{Done, FoldError, FoldReport, Folding};
use tidegate_vault::gc::{CollectReport, Collecting, collect};
use tidegate_vault::log::{CACHE_BYTES_DEFAULT, LogReader};
use tidegate_vault::store::Access;

use crate::cli::MaintainArgs;
use crate::failure::{Failure, with_causes};
use crate::maintenance::{fold_machine, present};
use crate::output::Output;

#[derive(Serialize)]
struct Maintained {
    machines: Vec<Line>,
    /// Null where none was collected.
    garbage: Option<Garbage>,
    seconds: f64,
}

/// What became of packs that nothing needs any more.
#[derive(Debug, Default, Serialize)]
struct Garbage {
    /// Whether nothing was done: then the packs that would be condemned or removed are listed.
    dry_run: bool,
    would: Vec<String>,
    packs_condemned: u64,
    packs_removed: u64,
    packs_spared: u64,
    /// Packs that nothing needs but a server that is asked how far a machine goes.
    packs_last_words: u64,
    /// Packs of machines that the vault doesn't know: they stay.
    packs_unknown: u64,
    bytes_removed: u64,
    /// Manifests and layers that newer ones have replaced.
    objects_superseded: u64,
    /// Logs that haven't read the condemned list yet.
    waits_for: Vec<String>,
    /// Logs that were closed because they hadn't for long.
    closed: Vec<String>,
}

impl Garbage {
    /// Whether there was none.
    const fn is_nothing(&self) -> bool {
        let packs = self.packs_condemned + self.packs_removed + self.packs_spared;
        packs + self.objects_superseded == 0 && self.waits_for.is_empty()
    }
}

#[derive(Serialize)]
struct Line {
    machine: String,
    /// The number of the manifest that was created; null where there was nothing to fold.
    manifest: Option<u64>,
    packs: u64,
    records: u64,
    layers: u64,
    bytes_layers: u64,
    /// What the policy doesn't keep any more: points, versions of ranges of disks, whole epochs.
    points_let_go: u64,
    versions_let_go: u64,
    epochs_let_go: u64,
    /// What is wrong with what holds the machine's history: nothing behind it is folded.
    damage: Vec<String>,
    /// Why it isn't folded.
    error: Option<String>,
}

pub(super) async fn run(args: MaintainArgs, output: Output) -> Result<(), Failure> {
    let begun = Instant::now();
    let vault = super::open_at(&args.vault.vault, &args.vault.credential, Access::Write).await?;
    let reader = LogReader::new(vault.store().clone(), vault.ring().clone(), CACHE_BYTES_DEFAULT);
    let of_all = args.machine.is_empty();
    let (machines, failed) = match of_all {
        true => present(&reader).await?,
        false => (args.machine, Vec::new()),
    };
    let now = vault.store().agreed_clock(super::now).await?;
    let (mut lines, mut first_failure) = (Vec::new(), None);
    for (machine, error) in failed {
        let folded = Err(FoldError::Meta(error));
        lines.push(line(&machine, &folded));
        first_failure = first_failure.or(folded.err().map(Failure::from));
    }
    let collects = of_all && !args.keep_garbage;
    let machines = if args.dry_run { Vec::new() } else { machines };
    for machine in machines {
        let bar = output.waiting("folding");
        let tell = |done: Done| bar.set_message(format!("folding {machine}, {} packs", done.packs));
        let folding = Folding { anew: args.anew, ..Folding::default() };
        let now = (!args.keep_all).then_some(now);
        let folded = fold_machine(&reader, &machine, folding, now, &tell).await;
        bar.finish_and_clear();
        lines.push(line(&machine, &folded));
        // The others don't wait for what is wrong with one.
        first_failure = first_failure.or(folded.err().map(Failure::from));
    }
    let patience = Duration::from_secs(3600 * u64::from(args.patience));
    let collecting = Collecting { dry_run: args.dry_run, patience, bytes_max: None };
    let garbage = match collects {
        true => garbage(&reader, collecting, &output).await.map(Some),
        false => Ok(None),
    };
    let (garbage, failure) = match garbage {
        Ok(garbage) => (garbage, None),
        Err(error) => (None, Some(error)),
    };
    let seconds = begun.elapsed().as_secs_f64();
    output.result(&Maintained { machines: lines, garbage, seconds }, text)?;
    first_failure.or(failure).map_or(Ok(()), Err)
}

async fn garbage(
    reader: &LogReader,
    collecting: Collecting,
    output: &Output,
) -> Result<Garbage, Failure> {
    let bar = output.waiting("collecting garbage");
    let collected = collect(reader, collecting).await;
    bar.finish_and_clear();
    let CollectReport { outcome, would, bytes, superseded } = collected?;
    let names = |logs: &[LogName]| logs.iter().map(ToString::to_string).collect();
    Ok(Garbage {
        dry_run: collecting.dry_run,
        would: would.places().map(|place| place.to_string()).collect(),
        packs_condemned: outcome.condemned,
        packs_removed: outcome.removed,
        packs_spared: outcome.spared,
        packs_last_words: outcome.last_words,
        packs_unknown: outcome.unknown,
        bytes_removed: bytes,
        objects_superseded: superseded,
        waits_for: names(&outcome.waits_for),
        closed: names(&outcome.fenced),
    })
}

fn line(machine: &Name, folded: &Result<FoldReport, FoldError>) -> Line {
    let none = FoldReport::default();
    let report = folded.as_ref().unwrap_or(&none);
    Line {
        machine: machine.to_string(),
        manifest: (report.manifest > 0).then_some(report.manifest),
        packs: report.packs,
        records: report.records,
        layers: report.layers,
        bytes_layers: report.bytes,
        points_let_go: report.bookmarks_let_go,
        versions_let_go: report.let_go,
        epochs_let_go: report.epochs_gone,
        damage: report.losses.iter().map(ToString::to_string).collect(),
        error: folded.as_ref().err().map(|error| with_causes(error)),
    }
}

fn text(maintained: &Maintained) -> String {
    let garbage = maintained.garbage.as_ref();
    // That of removed machines is left when there is none.
    let is_idle = garbage.is_none_or(|garbage| !garbage.dry_run && garbage.is_nothing());
    if maintained.machines.is_empty() && is_idle {
        return "the vault has no machines".to_owned();
    }
    let mut lines = Vec::new();
    for line in &maintained.machines {
        lines.push(match (&line.error, line.manifest) {
            (Some(_), _) => format!("{}: not folded", line.machine),
            (None, None) => format!("{}: nothing to fold", line.machine),
            (None, Some(number)) => format!(
                "{}: {} of {} folded into {} ({}), manifest {number}",
                line.machine,
                Counted(line.records, "record"),
                Counted(line.packs, "pack"),
                Counted(line.layers, "layer"),
                HumanBytes(line.bytes_layers)
            ),
        });
        if line.points_let_go + line.versions_let_go + line.epochs_let_go > 0 {
            lines.push(format!(
                "  let go: {}, {}, {}",
                Counted(line.points_let_go, "point"),
                Counted(line.versions_let_go, "version"),
                Counted(line.epochs_let_go, "epoch")
            ));
        }
        lines.extend(line.damage.iter().map(|damage| format!("  damaged: {damage}")));
    }
    lines.extend(maintained.garbage.iter().flat_map(garbage_text));
    lines.join("\n")
}

fn garbage_text(garbage: &Garbage) -> Vec<String> {
    let packs = |count| Counted(count, "pack");
    let mut lines = Vec::new();
    if garbage.dry_run {
        lines.push(format!("{} would be condemned or removed", packs(garbage.would.len() as u64)));
        lines.extend(garbage.would.iter().map(|pack| format!("  {pack}")));
    } else {
        lines.push(removed_text(garbage));
    }
    if garbage.packs_spared > 0 {
        lines.push(format!("  {} spared: they are needed again", packs(garbage.packs_spared)));
    }
    lines.extend(garbage.closed.iter().map(|log| format!("  silent for too long: {log}")));
    if !garbage.waits_for.is_empty() {
        let logs = Counted(garbage.waits_for.len() as u64, "log");
        lines
            .push(format!("  waiting for {logs} of servers to read the list: collect again later"));
    }
    lines
}

fn removed_text(garbage: &Garbage) -> String {
    let packs = |count| Counted(count, "pack");
    format!(
        "garbage: {} condemned, {} removed ({}), {} of folds that newer ones have replaced",
        packs(garbage.packs_condemned),
        packs(garbage.packs_removed),
        HumanBytes(garbage.bytes_removed),
        Counted(garbage.objects_superseded, "object"),
    )
}
