//! `tidegate recover`: writes a machine's disks back as they were.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tidegate_model::{Counted, ExactBytes, HumanBytes};
use tidegate_vault::log::{CACHE_BYTES_DEFAULT, LogReader};
use tidegate_vault::restore::{
    MEMORY_DEFAULT, MEMORY_MIN, Means, RestoreError, RestorePlan, Restored,
};

use super::chosen::{ToldPoint, Wanted, not_restored};
use super::pinned::Pinned;
use super::target::Target;
use crate::cli::{PointArgs, RecoverArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Stop;

#[derive(Serialize)]
struct Recovered {
    #[serde(flatten)]
    point: ToldPoint,
    disks: usize,
    bytes_total: u64,
    bytes_written: u64,
    bytes_zero: u64,
    threads: usize,
    memory_bound_bytes: u64,
    seconds: f64,
    cpu_seconds: f64,
}

pub(super) async fn run(args: RecoverArgs, output: Output, stop: Stop) -> Result<(), Failure> {
    let (begun, cpu) = (Instant::now(), super::cpu_seconds(libc::RUSAGE_SELF));
    let pinned = Pinned::default();
    let written = async {
        tokio::select! {
            written = write(args, &pinned, &output) => written,
            never = pinned.keep() => match never {},
        }
    };
    let written = super::unless_stopped(&stop, written).await;
    pinned.release().await;
    let written = written?;
    // No stop comes between this and the result: what has its name is told as recovered.
    written.target.name()?;
    let Written { plan, point, restored, means, .. } = written;
    let recovered = Recovered {
        point,
        disks: plan.disks().len(),
        bytes_total: plan.disks().iter().map(|disk| disk.bytes).sum(),
        bytes_written: restored.bytes_written,
        bytes_zero: restored.bytes_zero,
        threads: means.threads,
        memory_bound_bytes: means.bytes(),
        seconds: begun.elapsed().as_secs_f64(),
        cpu_seconds: super::cpu_seconds(libc::RUSAGE_SELF) - cpu,
    };
    output.result(&recovered, |r| {
        #[allow(clippy::cast_precision_loss)] // a figure for people
        let rate = r.bytes_total as f64 / 1e6 / r.seconds.max(1e-9);
        format!(
            "{} of {} recovered in {:.1} s ({rate:.0} MB/s), {} written, the rest zero",
            Counted(r.disks, "disk"),
            HumanBytes(r.bytes_total),
            r.seconds,
            HumanBytes(r.bytes_written)
        )
    })
}

/// Disks that are whole and durable, and what was written.
struct Written {
    plan: RestorePlan,
    point: ToldPoint,
    target: Arc<Target>,
    restored: Restored,
    means: Means,
}

/// Does all but to give new files their names. Dropped before its end, it waits until nothing is
/// written any more, and takes away what it made.
async fn write(args: RecoverArgs, pinned: &Pinned, output: &Output) -> Result<Written, Failure> {
    let PointArgs { machine, vault, disk, at } = args.point;
    let wanted = Wanted::parse(&at)?;
    let means = means(args.memory)?;
    let vault = super::open_to_pin(&vault).await?;
    let reader = LogReader::new(vault.store().clone(), vault.ring().clone(), CACHE_BYTES_DEFAULT);
    let found = pinned.read(&reader, &machine, &wanted, output).await?;
    // Said before anything is written.
    eprintln!("recovering {machine} to {}", found.told());
    let only: Vec<_> = disk.into_iter().collect();
    let plan = RestorePlan::build(&reader, &found.history, found.point.point, &only);
    let plan = plan.await.map_err(not_restored)?;
    let target = Arc::new(match (disk, plan.disks()) {
        (Some(_), [disk]) => Target::single(&args.to, disk, args.force)?,
        _ => Target::directory(&args.to, plan.disks(), args.force)?,
    });
    let bar = output.bytes_bar(plan.bytes_to_write(), "recovering");
    let told = |bytes| bar.set_position(bytes);
    let restored = plan.run(&reader, target.clone(), means, &told).await;
    bar.finish_and_clear();
    let restored = restored.map_err(|error| not_written(error, &target))?;
    Ok(Written { plan, point: found.result(), target, restored, means })
}

/// The threads and the memory of a recovery.
fn means(memory: Option<u64>) -> Result<Means, Failure> {
    let memory = memory.unwrap_or(MEMORY_DEFAULT);
    if memory < MEMORY_MIN {
        let (given, least) = (ExactBytes(memory), ExactBytes(MEMORY_MIN));
        return Err(Failure::usage(format!(
            "--memory {given} is too little: give {least} or more"
        )));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(Means::of(memory, cores))
}

/// The failure of a recovery, where the target may be what failed.
fn not_written(error: RestoreError, target: &Target) -> Failure {
    let text = error.to_string();
    match error {
        RestoreError::Sink { range, cause, .. } => {
            target.not_written(Some(range.disk), &text, &cause)
        }
        RestoreError::Finish { cause, .. } => target.not_written(None, &text, &cause),
        error => not_restored(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_memory_than_a_recovery_needs_is_refused() {
        let refused = means(Some(MEMORY_MIN >> 1)).unwrap_err().to_string();
        assert_eq!(refused, "--memory 16MiB is too little: give 32MiB or more");
        assert!(means(Some(MEMORY_MIN - 1)).is_err());
        assert!(means(Some(MEMORY_MIN)).is_ok_and(|means| means.bytes() <= MEMORY_MIN));
        assert!(means(None).is_ok_and(|means| means.bytes() <= MEMORY_DEFAULT));
    }
}
