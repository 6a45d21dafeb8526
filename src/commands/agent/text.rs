//! What an agent says of itself, for people.

use tidegate_agent::live::{self, LastPass, Marked, Mode, PassStatus, Serving, Status};
use tidegate_model::{Epoch, HumanBytes};
use tidegate_vault::points::readable_time;

pub(super) fn serving_text(serving: &Serving) -> String {
    let disk = |disk: &live::ServedDisk| {
        format!("  disk {}: {} at {}", disk.number, HumanBytes(disk.bytes), disk.uri)
    };
    let disks: Vec<String> = serving.disks.iter().map(disk).collect();
    match disks.is_empty() {
        true => format!("capturing the disks of {} in passes", serving.machine),
        false => format!("serving the disks of {}:\n{}", serving.machine, disks.join("\n")),
    }
}

pub(super) fn marked_text(marked: &Marked) -> String {
    let Marked { name, epoch, lsn, .. } = marked;
    match *epoch {
        Epoch::NONE => {
            format!("bookmark '{name}' at LSN {lsn}; no server has granted an epoch yet")
        }
        epoch => format!("bookmark '{name}' at {epoch}:{lsn}"),
    }
}

#[allow(clippy::cast_precision_loss)] // figures for people
pub(super) fn status_text(status: &Status) -> String {
    let connection = match (&status.trouble, status.connected) {
        (_, true) => format!("connected with {}", status.server),
        (None, false) => format!("connecting with {}", status.server),
        (Some(trouble), false) => format!("not connected: {trouble}"),
    };
    let backlog = format!(
        "{} records wait ({} of {}), the oldest for {:.1} s; {}/s",
        status.backlog_records,
        HumanBytes(status.backlog_bytes),
        HumanBytes(status.journal_bytes_max),
        status.lag_ms as f64 / 1000.0,
        HumanBytes(status.bytes_per_second),
    );
    let what = if status.copy.resync { "resync" } else { "initial copy" };
    let copy = match (status.copy.end, status.copy.seconds_left) {
        (Some(end), _) => format!("the {what} ended at {}:{end}", status.epoch),
        (None, left) => format!(
            "{what}: {} of {}{}",
            HumanBytes(status.copy.bytes_copied),
            HumanBytes(status.copy.bytes_total),
            left.map_or_else(String::new, |left| format!(", {left} s left"))
        ),
    };
    let disk = |disk: &live::DiskStatus| match disk.mode {
        Mode::Data => {
            let listen = disk.listen.as_deref().unwrap_or("nowhere");
            format!("disk {} ({}): data, at {listen}", disk.number, disk.path)
        }
        Mode::Pass => format!(
            "disk {} ({}): {}, in passes; {} of {} in the newest",
            disk.number,
            disk.path,
            disk.source,
            HumanBytes(disk.looked.unwrap_or_default()),
            HumanBytes(disk.bytes)
        ),
        Mode::Bitmap => format!(
            "disk {} ({}): bitmap, {} to be read again; the journal was full: history has a gap",
            disk.number,
            disk.path,
            HumanBytes(disk.dirty_bytes)
        ),
    };
    let head = format!("{}, epoch {}: {connection}", status.machine, status.epoch);
    let mut lines = vec![head, backlog, copy];
    lines.extend(status.disks.iter().map(disk));
    lines.extend(status.passes.iter().map(passes_text));
    lines.extend(status.bookmark.iter().map(|newest| format!("newest {}", marked_text(newest))));
    lines.join("\n")
}

fn passes_text(passes: &PassStatus) -> String {
    let every = match passes.every {
        Some(every) => format!("passes every {every} s"),
        None => "passes by hand".to_owned(),
    };
    let running = passes.running.as_ref().map_or_else(String::new, |running| {
        format!("; one is made since {}", readable_time(running.since))
    });
    let last = passes.last.as_ref();
    let last = last.map_or_else(String::new, |last| format!("; the last {}", pass_text(last)));
    format!("{every}{running}{last}")
}

/// What came of a pass.
pub(super) fn pass_text(pass: &LastPass) -> String {
    let time = readable_time(pass.time);
    if let Some(failed) = &pass.failed {
        return format!("came to nothing at {time}: {failed}");
    }
    let changed = HumanBytes(pass.changed_bytes);
    let marked = pass.marked.as_ref();
    let point = marked.map_or_else(String::new, |marked| format!(", {}", marked_text(marked)));
    match &pass.fuzzy {
        None => format!("captured {changed} at {time}, clean{point}"),
        Some(cause) => {
            format!(
                "captured {changed} at {time}, but fuzzy, no moment of the disks: {cause}{point}"
            )
        }
    }
}
