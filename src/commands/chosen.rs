//! Which point a command is about, and what a person must know of it.

use serde::Serialize;
use tidegate_model::{Micros, Name, Remedy};
use tidegate_vault::chain::{Loss, MachineHistory};
use tidegate_vault::log::LogReader;
use tidegate_vault::points::{At, ChooseError, MachinePoints, RecoveryPoint, readable_time};
use tidegate_vault::restore::RestoreError;

use crate::failure::{Failure, with_causes};
use crate::output::Output;

/// What to do when something that is stored is damaged.
const AFTER_DAMAGE: &str = "nothing is brought back: 'tidegate verify --contents' lists all damage \
    and the points it touches; bring those objects back from a copy of the vault, or take \
    another point (see 'tidegate points')";

/// What `--at` says.
pub(super) struct Wanted {
    at: At,
    typed: String,
}

impl Wanted {
    /// Understands it, before anything else is asked for.
    pub(super) fn parse(typed: &str) -> Result<Self, Failure> {
        let at = typed.parse().map_err(|error| Failure::usage(format!("--at: {error}")))?;
        Ok(Self { at, typed: typed.to_owned() })
    }
}

/// A point of a machine, and the history in which it lies.
pub(super) struct Chosen {
    pub history: MachineHistory,
    pub point: RecoveryPoint,
    /// Whether the moment that was asked for hasn't come yet: then this is the last one before it.
    pub at_in_future: bool,
}

/// The same as a command's result says it.
#[derive(Serialize)]
pub(super) struct ToldPoint {
    pub machine: String,
    pub epoch: u32,
    pub lsn: u64,
    time: String,
    clean: bool,
    at_in_future: bool,
}

impl Chosen {
    /// Reads a machine's history and finds the point that is `wanted`. What a person may not expect of
    /// it is said on standard error.
    pub(super) async fn read(
        reader: &LogReader,
        machine: &Name,
        wanted: &Wanted,
        output: &Output,
    ) -> Result<Self, Failure> {
        let at = wanted.at;
        let waiting = output.waiting("reading the vault's indexes");
        let history = MachineHistory::read(reader, machine).await?;
        let points = MachinePoints::of(&history);
        let point = points.choose(reader, &history, at).await;
        waiting.finish_and_clear();
        let point = point.map_err(|error| not_chosen(error, &history.losses))?;
        let at_in_future = is_in_future(at, super::now(), &history);
        warn(wanted, &points, &point, at_in_future);
        Ok(Self { history, point, at_in_future })
    }

    /// The point as a result says it.
    pub(super) fn result(&self) -> ToldPoint {
        let RecoveryPoint { point, time, clean, .. } = self.point;
        ToldPoint {
            machine: self.history.machine.to_string(),
            epoch: point.epoch.0,
            lsn: point.lsn.0,
            time: readable_time(time),
            clean,
            at_in_future: self.at_in_future,
        }
    }

    /// The point as a person is told it.
    pub(super) fn told(&self) -> String {
        let RecoveryPoint { point, time, clean, .. } = &self.point;
        let mixture = if *clean { "" } else { ", UNCLEAN: the disks are a mixture of moments" };
        format!("{point} ({}{mixture})", readable_time(*time))
    }
}

fn warn(wanted: &Wanted, points: &MachinePoints, chosen: &RecoveryPoint, at_in_future: bool) {
    // Who asks for the latest must learn that there was a later one.
    let missing = points.gaps.iter().filter(|gap| gap.stretch().is_none());
    for gap in missing.filter(|gap| gap.epoch > chosen.point.epoch) {
        eprintln!("tidegate: warning: a later copy isn't offered: {gap}");
    }
    if let At::Time(time) = wanted.at
        && let Some(gap) = points.gap_at(chosen.point.epoch, time)
    {
        eprintln!(
            "tidegate: warning: {} lies in a gap: the last moment before it is taken; {gap}",
            wanted.typed
        );
    }
    if at_in_future {
        eprintln!(
            "tidegate: warning: {} lies in the future: the last moment before it is taken. Is the \
             year, the day or the zone mistyped?",
            wanted.typed
        );
    }
    if let (At::Latest, Some(later)) = (wanted.at, points.clean_after(chosen.time)) {
        eprintln!(
            "tidegate: warning: {} is of {}, later than the newest epoch's newest, by the machine's \
             clock: two agents sent at once, or the clock was set back. For that one, use --at {}",
            later.point,
            readable_time(later.time),
            later.point
        );
    }
}

/// Whether a time was asked for that hasn't come yet, by this host's clock and by the machine's own,
/// as far as its records tell it.
fn is_in_future(at: At, now: Micros, history: &MachineHistory) -> bool {
    let At::Time(time) = at else { return false };
    time > now && history.epochs.values().all(|told| told.trace.last_time < time)
}

/// A point may be missing because what holds it is damaged: then that is what a person must know.
fn not_chosen(error: ChooseError, losses: &[Loss]) -> Failure {
    match losses.first() {
        None => error.into(),
        Some(loss) => Failure::new(format!("{error}; {loss}; {AFTER_DAMAGE}"), Remedy::Repair),
    }
}

/// The failure of a point that can't be brought back.
pub(super) fn not_restored(error: RestoreError) -> Failure {
    let (text, remedy) = (with_causes(&error), error.remedy());
    match remedy {
        Remedy::Repair => Failure::new(format!("{text}; {AFTER_DAMAGE}"), remedy),
        _ => Failure::new(text, remedy),
    }
}
