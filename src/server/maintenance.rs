//! Maintenance in the background: now and then the server folds every machine of its vault, lets go of
//! what isn't kept, and collects garbage, as `tidegate maintain` does by hand.
//!
//! On a thread of its own that yields to everything else, with a store client of its own: neither a core
//! nor a connection of the pipeline waits for it. Several servers of a vault do each other no harm, for
//! what is made is created under numbers; a part by chance keeps them from beginning together.
//!
//! Invariants: what goes wrong is told, and ends no server; a server that stops drops this wherever it
//! waits, as if it had been killed. Memory: one term of the plan, by the limits of those who fold and
//! collect; what would take more is left to a person.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use serde::Serialize;
use tidegate_model::Name;
use tidegate_pipeline::MAINTENANCE_BYTES_MIN;
use tidegate_vault::fold::{FoldLimits, FoldReport, Folding};
use tidegate_vault::gc::{CollectReport, Collecting, collect};
use tidegate_vault::log::LogReader;
use tidegate_vault::points::readable_time;
use tidegate_vault::store::Store;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::host::wall_clock;
use super::shared::Shared;
use crate::failure::with_causes;
use crate::maintenance::{fold_machine, present};

/// The lowest priority: any other thread that wants to run does.
const NICE: i32 = 19;
/// Threads for what blocks: the files of a vault in a directory, layers that are packed.
const BLOCKING_THREADS_MAX: usize = 2;
/// Whole indexes on their way at once, and memory for those that are kept: a part of what the limits say
/// is read at a time.
const INDEXES_AHEAD: usize = 2;
const CACHE_BYTES: usize = 4 << 20;
/// Most failures that are told of a round.
const FAILURES_MAX: usize = 16;

const _: () = assert!(FoldLimits::BYTES_MIN <= MAINTENANCE_BYTES_MIN);

/// What maintenance is told.
pub(crate) struct MaintenanceSettings {
    /// The vault's store, by a client of its own.
    pub store: Store,
    /// How long after a round the next begins, more or less by half.
    pub interval: Duration,
}

/// What became of it so far.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct MaintenanceReport {
    /// `off`, `no memory`, `waiting` or `running`.
    pub state: &'static str,
    /// Rounds that have ended.
    pub rounds: u64,
    /// What the last one did.
    pub last: Option<Round>,
}

/// What a round did.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Round {
    pub ended: String,
    pub seconds: f64,
    pub machines: usize,
    pub packs_folded: u64,
    pub points_let_go: u64,
    pub versions_let_go: u64,
    pub epochs_let_go: u64,
    pub packs_condemned: u64,
    pub packs_removed: u64,
    pub bytes_removed: u64,
    /// Logs of servers that haven't read the condemned list yet.
    pub logs_waited_for: usize,
    /// What went wrong, and of what.
    pub failures: Vec<String>,
}

/// Where it is told. Shared by its thread and whoever asks.
#[derive(Clone)]
pub(crate) struct Told(Arc<Mutex<MaintenanceReport>>);

impl Told {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(MaintenanceReport { state: "off", ..Default::default() })))
    }

    pub(super) fn report(&self) -> MaintenanceReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn state(&self, state: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).state = state;
    }

    fn ended(&self, round: Round) {
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (report.rounds, report.last) = (report.rounds + 1, Some(round));
    }
}

/// The thread; it ends with [`Maintenance::end`].
pub(super) struct Maintenance {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Maintenance {
    /// Starts it; `None` where the plan has no room for it, or the system no thread.
    pub(super) fn start(shared: &Shared, settings: MaintenanceSettings) -> Option<Self> {
        let bytes = shared.plan.maintenance_bytes;
        let Some(limits) = FoldLimits::within(bytes) else {
            shared.maintenance.state("no memory");
            return None;
        };
        let MaintenanceSettings { store, interval } = settings;
        let (told, ring) = (shared.maintenance.clone(), shared.vault.ring().clone());
        let reader = LogReader::with_ahead(store, ring, CACHE_BYTES, INDEXES_AHEAD);
        let rounds = Rounds { reader, limits, bytes_max: bytes as u64, interval, told };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("maintenance".to_owned());
        match thread.spawn(move || rounds.run(stopped)) {
            Ok(thread) => Some(Self { stop, thread }),
            Err(error) => {
                warn!(%error, "the vault isn't maintained by this server");
                None
            }
        }
    }

    /// Ends it: what it was about is dropped where it waits.
    pub(super) async fn end(self) {
        drop(self.stop);
        let thread = self.thread;
        // A panic has ended the process before.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

struct Rounds {
    reader: LogReader,
    limits: FoldLimits,
    bytes_max: u64,
    interval: Duration,
    told: Told,
}

impl Rounds {
    fn run(self, stopped: oneshot::Receiver<()>) {
        // Of this thread, and of those that it starts: in Linux each has its own.
        if let Err(error) = setpriority_process(None, NICE) {
            warn!(%error, "maintenance has no lower priority than the rest");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("maintenance")
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return warn!(%error, "the vault isn't maintained by this server"),
        };
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stopped => {}
                () = self.rounds() => {}
            }
        });
        // What blocks ends by itself: a file, or a layer.
        runtime.shutdown_background();
    }

    async fn rounds(&self) {
        loop {
            self.told.state("waiting");
            tokio::time::sleep(self.interval.mul_f64(0.5 + chance())).await;
            self.told.state("running");
            let begun = Instant::now();
            let mut round = self.round().await;
            round.ended = readable_time(wall_clock());
            round.seconds = begun.elapsed().as_secs_f64();
            info!(
                seconds = round.seconds,
                machines = round.machines,
                packs_folded = round.packs_folded,
                points_let_go = round.points_let_go,
                packs_removed = round.packs_removed,
                failures = round.failures.len(),
                "the vault is maintained"
            );
            self.told.ended(round);
        }
    }

    async fn round(&self) -> Round {
        let mut round = Round::default();
        let (machines, failed) = match present(&self.reader).await {
            Ok(present) => present,
            Err(error) => {
                round.fail("its machines", &error);
                return round;
            }
        };
        failed.iter().for_each(|(machine, error)| round.fail(machine.as_str(), error));
        round.machines = machines.len();
        for machine in machines {
            self.fold(&machine, &mut round).await;
        }
        let collecting = Collecting { bytes_max: Some(self.bytes_max), ..Collecting::default() };
        match collect(&self.reader, collecting).await {
            Ok(collected) => round.collected(&collected),
            Err(error) => round.fail("its garbage", &error),
        }
        round
    }

    /// Folds all that there is of a machine, as much at a time as there is memory for.
    async fn fold(&self, machine: &Name, round: &mut Round) {
        let folding = Folding { limits: Some(self.limits), ..Folding::default() };
        let mut more = true;
        while more {
            // Asked anew each time: a fold may take hours.
            let now = match self.reader.store().agreed_clock(wall_clock).await {
                Ok(now) => now,
                Err(error) => return round.fail(machine.as_str(), &error),
            };
            more = match fold_machine(&self.reader, machine, folding, Some(now), &|_| ()).await {
                Ok(report) => {
                    round.folded(machine, &report);
                    // Where nothing was folded the next try would come to the same place.
                    report.more && report.manifest > 0
                }
                Err(error) => {
                    round.fail(machine.as_str(), &error);
                    false
                }
            };
        }
    }
}

impl Round {
    fn folded(&mut self, machine: &Name, report: &FoldReport) {
        self.packs_folded += report.packs;
        self.points_let_go += report.bookmarks_let_go;
        self.versions_let_go += report.let_go;
        self.epochs_let_go += report.epochs_gone;
        for loss in &report.losses {
            self.fail(machine.as_str(), loss);
        }
        if report.too_long > 0 {
            self.tell(format!(
                "{machine}: what it holds takes more memory than maintenance has: run `tidegate maintain {machine}`, or give the server more (--memory)"
            ));
        }
    }

    fn collected(&mut self, report: &CollectReport) {
        self.packs_condemned = report.outcome.condemned;
        self.packs_removed = report.outcome.removed;
        self.bytes_removed = report.bytes;
        self.logs_waited_for = report.outcome.waits_for.len();
        for log in &report.outcome.fenced {
            self.tell(format!("log {log} was closed: its server hadn't read the condemned list"));
        }
    }

    fn fail(&mut self, of: &str, error: &dyn std::error::Error) {
        self.tell(format!("{of}: {}", with_causes(error)));
    }

    fn tell(&mut self, text: String) {
        warn!("maintenance of the vault: {text}");
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(text);
        }
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without chance servers may begin together: no harm.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
