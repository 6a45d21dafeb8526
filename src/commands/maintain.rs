//! `tidegate maintain`: folds machines' histories, and lets go of what isn't kept.

use std::time::Instant;

use serde::Serialize;
use tidegate_model::{Counted, HumanBytes, Name};
use tidegate_vault::Vault;
use tidegate_vault::fold::{Done, FoldError, FoldReport, Folding, Keeping, fold};
use tidegate_vault::log::{CACHE_BYTES_DEFAULT, LogReader};
use tidegate_vault::meta;
use tidegate_vault::retention::policy_of;
use tidegate_vault::store::Access;

use crate::cli::MaintainArgs;
use crate::failure::{Failure, with_causes};
use crate::output::Output;

#[derive(Serialize)]
struct Maintained {
    machines: Vec<Line>,
    seconds: f64,
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
    let machines = match args.machine.is_empty() {
        true => present(&vault).await?,
        false => args.machine,
    };
    let now = vault.store().agreed_clock(super::now).await?;
    let (mut lines, mut first_failure) = (Vec::new(), None);
    for machine in machines {
        let bar = output.waiting("folding");
        let tell = |done: Done| bar.set_message(format!("folding {machine}, {} packs", done.packs));
        let policy = policy_of(vault.store(), vault.ring(), &machine).await;
        let folded = match policy {
            Ok(policy) => {
                let keeping = (!args.keep_all).then_some(Keeping { policy, now });
                let folding = Folding { anew: args.anew, keeping, ..Folding::default() };
                fold(&reader, &machine, folding, &tell).await
            }
            Err(error) => Err(error.into()),
        };
        bar.finish_and_clear();
        lines.push(line(&machine, &folded));
        // The others don't wait for what is wrong with one.
        first_failure = first_failure.or(folded.err());
    }
    let maintained = Maintained { machines: lines, seconds: begun.elapsed().as_secs_f64() };
    output.result(&maintained, text)?;
    first_failure.map_or(Ok(()), |error| Err(error.into()))
}

/// The machines of which something is there and wasn't removed.
async fn present(vault: &Vault) -> Result<Vec<Name>, Failure> {
    let (store, ring) = (vault.store(), vault.ring());
    let mut present = Vec::new();
    for machine in meta::list_machines(store).await? {
        let removed = meta::removed_upto(store, ring, &machine).await?;
        let newest = meta::epoch_numbers(store, &machine).await?.into_iter().max();
        if newest.is_some_and(|newest| newest > removed) {
            present.push(machine);
        }
    }
    Ok(present)
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
    if maintained.machines.is_empty() {
        return "the vault has no machines yet".to_owned();
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
    lines.join("\n")
}
