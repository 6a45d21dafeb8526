//! What a round costs besides time: processor time by thread, and resident memory.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time at one moment, since the process began.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cpu {
    /// Of all threads, those that have ended among them.
    pub process: Duration,
    /// Of the load's threads.
    pub load: Duration,
    /// Of the shards' threads, and how long these waited for a core.
    pub shards: Duration,
    pub shards_waited: Duration,
}

impl Cpu {
    /// Reads it, all zero where the system doesn't tell.
    pub(super) fn now() -> Self {
        let process = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime));
        let mut cpu = Self { process: process.unwrap_or_default(), ..Self::default() };
        for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            // Time on a core and time in the line before it, in nanoseconds (proc(5), schedstat).
            let times = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let mut times = times.split_whitespace().map(|field| field.parse().unwrap_or(0));
            let mut next = || Duration::from_nanos(times.next().unwrap_or(0));
            let (ran, waited) = (next(), next());
            if name.starts_with(super::LOAD_THREAD) {
                cpu.load += ran;
            } else if name.starts_with("shard-") {
                cpu.shards += ran;
                cpu.shards_waited += waited;
            }
        }
        cpu
    }

    /// What was spent since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            process: self.process.saturating_sub(before.process),
            load: self.load.saturating_sub(before.load),
            shards: self.shards.saturating_sub(before.shards),
            shards_waited: self.shards_waited.saturating_sub(before.shards_waited),
        }
    }

    /// All but the load.
    pub(super) fn server(&self) -> Duration {
        self.process.saturating_sub(self.load)
    }

    /// The part of the time, as a shard's clock on the wall saw it, that it had its core.
    pub(super) fn shards_on_core(&self) -> f64 {
        let (ran, waited) = (self.shards.as_secs_f64(), self.shards_waited.as_secs_f64());
        if ran > 0.0 { ran / (ran + waited) } else { 1.0 }
    }
}

/// Resident memory of this process in bytes: now (`VmRSS`), or its peak (`VmHWM`).
pub(super) fn memory_bytes(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Starts the peak anew, where the system lets it.
pub(super) fn forget_peak() {
    // 5 resets VmHWM (proc(5)); where it can't, the peak is that of the whole process.
    let _ = fs::write("/proc/self/clear_refs", "5");
}
