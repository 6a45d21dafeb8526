//! `tidegate verify`: checks a vault.

use serde::Serialize;
use tidegate_model::{Counted, HumanBytes, Remedy};
use tidegate_vault::layout;
use tidegate_vault::log::{CACHE_BYTES_DEFAULT, LogReader};
use tidegate_vault::verify::{Done, OpenLog, Report, Touch, verify};

use crate::cli::VerifyArgs;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Serialize)]
struct Verified {
    clean: bool,
    contents: bool,
    runs: u64,
    logs: u64,
    packs: u64,
    leftovers: u64,
    frames: u64,
    records: u64,
    references: u64,
    layers: u64,
    dense_packs: u64,
    bytes_kept: u64,
    bytes_stored: u64,
    duplicate_blocks: u64,
    duplicate_bytes: u64,
    machines: usize,
    damage: Vec<Damage>,
    /// Logs without a closing pack.
    open_logs: Vec<Open>,
    strays: Vec<String>,
    seconds: f64,
}

#[derive(Serialize)]
struct Damage {
    place: String,
    what: String,
    touches: Vec<String>,
}

#[derive(Serialize)]
struct Open {
    /// Its folder.
    log: String,
    /// The last pack that is there; null when there is none.
    after_pack: Option<u64>,
    /// Whether others of its run were closed, so that its own end may be lost.
    others_closed: bool,
    #[serde(skip)]
    text: String,
}

/// How many logs without an end are named to a person; --json has them all.
const OPEN_LOGS_SHOWN: usize = 10;

pub(super) async fn run(args: VerifyArgs, output: Output) -> Result<(), Failure> {
    let begun = std::time::Instant::now();
    let vault = super::open(&args.vault).await?;
    let bar = output.bytes_bar(0, "verifying");
    let tell = |done: Done| {
        if args.contents {
            bar.set_length(done.bytes_all);
            bar.set_position(done.bytes);
        } else {
            bar.set_length(done.packs_all);
            bar.set_position(done.packs);
        }
    };
    let reader = LogReader::new(vault.store().clone(), vault.ring().clone(), CACHE_BYTES_DEFAULT);
    let report = verify(&reader, args.contents, &tell).await;
    bar.finish_and_clear();
    let report = report?;
    let verified = Verified::of(&report, args.contents, begun.elapsed().as_secs_f64());
    output.result(&verified, text)?;
    if report.is_clean() {
        return Ok(());
    }
    let places = Counted(report.damage.len(), "place");
    Err(Failure::new(
        format!(
            "the vault is damaged in {places}; bring back what is listed from a copy of the vault's \
             objects"
        ),
        Remedy::Repair,
    ))
}

impl Verified {
    fn of(report: &Report, contents: bool, seconds: f64) -> Self {
        let damage = report.damage.iter().map(|finding| Damage {
            place: finding.spot.to_string(),
            what: finding.what.clone(),
            touches: finding.touches.iter().map(touched).collect(),
        });
        let counts = &report.counts;
        Self {
            clean: report.is_clean(),
            contents,
            runs: counts.runs,
            logs: counts.logs,
            packs: counts.packs,
            leftovers: counts.leftovers,
            frames: counts.frames,
            records: counts.records,
            references: counts.references,
            layers: counts.layers,
            dense_packs: counts.dense_packs,
            bytes_kept: counts.kept_bytes,
            bytes_stored: counts.stored_bytes,
            duplicate_blocks: counts.duplicate_blocks,
            duplicate_bytes: counts.duplicate_bytes,
            machines: report.machines.len(),
            damage: damage.collect(),
            open_logs: report.open_logs.iter().map(open).collect(),
            strays: report.strays.clone(),
            seconds,
        }
    }
}

fn open(log: &OpenLog) -> Open {
    Open {
        log: layout::log(&log.log),
        after_pack: log.after.map(|pack| pack.0),
        others_closed: log.others_end,
        text: log.to_string(),
    }
}

fn touched(touch: &Touch) -> String {
    let points: Vec<String> = touch.points.iter().map(ToString::to_string).collect();
    if points.is_empty() {
        format!("machine {}: none of the recovery points that can still be seen", touch.machine)
    } else {
        format!("machine {}: {}", touch.machine, points.join(", "))
    }
}

fn text(verified: &Verified) -> String {
    let mut lines = vec![format!(
        "{} of {}, {} with {} (stored as {}), {}: {}",
        Counted(verified.packs, "pack"),
        Counted(verified.logs, "log"),
        Counted(verified.frames, "frame"),
        HumanBytes(verified.bytes_kept),
        HumanBytes(verified.bytes_stored),
        Counted(verified.references, "reference"),
        match (verified.clean, verified.contents) {
            (true, true) => "every byte is as it was written",
            (true, false) => "indexes and references are whole (--contents reads every frame)",
            (false, _) => "DAMAGED",
        }
    )];
    if verified.leftovers > 0 {
        let packs = Counted(verified.leftovers, "pack");
        lines.push(format!("no harm: a crash left {packs} that never counted"));
    }
    lines.extend(open_lines(&verified.open_logs));
    lines.extend(verified.strays.iter().map(|stray| format!("not ours, passed over: {stray}")));
    for damage in &verified.damage {
        // The sentence names the place.
        lines.push(format!("damaged: {}", damage.what));
        lines.extend(damage.touches.iter().map(|touch| format!("  touches {touch}")));
    }
    lines.join("\n")
}

/// What a check can't tell: no damage, but no proof of the contrary either.
fn open_lines(open: &[Open]) -> Vec<String> {
    if open.is_empty() {
        return Vec::new();
    }
    let count = match open.len() {
        1 => "1 log has no closing pack: its server runs or was killed".to_owned(),
        count => format!("{count} logs have no closing pack: their servers run or were killed"),
    };
    let mut lines = vec![format!("{count}; a lost end would look the same:")];
    // Those first that are less likely to be so by right.
    let (suspect, usual): (Vec<_>, Vec<_>) = open.iter().partition(|log| log.others_closed);
    let shown = suspect.into_iter().chain(usual).take(OPEN_LOGS_SHOWN);
    lines.extend(shown.map(|log| format!("  {}", log.text)));
    if open.len() > OPEN_LOGS_SHOWN {
        lines.push(format!("  and {} more (--json lists them)", open.len() - OPEN_LOGS_SHOWN));
    }
    lines
}

#[cfg(test)]
mod tests {
    use tidegate_vault::verify::Counts;

    use super::*;

    #[test]
    fn one_of_a_thing_is_told_from_several() {
        let told = |counts| {
            let report = Report { counts, ..Report::default() };
            text(&Verified::of(&report, false, 0.0))
        };
        let one = told(Counts { packs: 1, logs: 1, frames: 1, references: 1, ..Counts::default() });
        assert!(one.starts_with("1 pack of 1 log, 1 frame with 0 B (stored as 0 B), 1 reference:"));
        let several = told(Counts { packs: 2, leftovers: 1, ..Counts::default() });
        assert!(several.starts_with("2 packs of 0 logs, 0 frames"), "{several}");
        assert!(several.contains("a crash left 1 pack that"), "{several}");
    }
}
