//! Machines that have committed nothing for long get a record of where their chain ends, so that
//! after a restart nobody has to search for it under all that other machines have sent since.
//!
//! Costs one small put a machine each time that it falls quiet: one that commits all the time, or
//! nothing at all, costs none. One at a time for each shard, and no place is kept for those that wait:
//! the directory is asked again.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidegate_model::{LogId, LogName, PackNumber};
use tidegate_vault::grant::{QuietEnd, record_end};
use tidegate_vault::log::STRETCH_PACKS;
use tidegate_vault::store::Put;
use tracing::{debug, warn};

use super::directory::{Quiet, Recorded};
use super::host::wall_clock;
use super::shared::Shared;

/// A machine is quiet when so many packs of its log were committed since its last one: about what a
/// search looks through anyway, ten seconds' reads.
pub(super) const QUIET_PACKS: u64 = STRETCH_PACKS;
/// Each time that a log has grown by so many packs its machines are looked at.
pub(super) const LOOK_PACKS: u64 = QUIET_PACKS / 4;
/// So many machines are taken from the directory at once.
const BATCH: usize = 64;

/// When a shard looks for machines that are quiet.
#[derive(Default)]
pub(super) struct Looks {
    /// The last look was at this pack.
    last: Cell<u64>,
    /// Whether what one has found is still being recorded.
    busy: Arc<AtomicBool>,
}

impl Looks {
    /// All packs of the shard's log before `stored` are committed, and what that means is noted.
    pub(super) fn look(&self, shared: &Arc<Shared>, shard: u16, stored: PackNumber) {
        if stored.0 < self.last.get() + LOOK_PACKS || self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        self.last.set(stored.0);
        let (shared, busy) = (shared.clone(), self.busy.clone());
        shared.store.clone().spawn(async move {
            record_all(&shared, shard, stored).await;
            busy.store(false, Ordering::Release);
        });
    }
}

/// Records the ends of all that are quiet in a shard's log.
async fn record_all(shared: &Shared, shard: u16, stored: PackNumber) {
    let log = LogName { node: shared.node.clone(), id: LogId { run: shared.run, shard } };
    loop {
        let quiet = shared.directory.quiet(shard, stored, BATCH);
        if quiet.is_empty() {
            return;
        }
        for quiet in quiet {
            if !record(shared, &log, quiet).await {
                return;
            }
        }
    }
}

/// False when the store doesn't take it: the next look tries again.
async fn record(shared: &Shared, log: &LogName, quiet: Quiet) -> bool {
    let Quiet { machine, recorded, end } = quiet;
    let asked = QuietEnd {
        machine: machine.clone(),
        incarnation: recorded.incarnation,
        token: recorded.token,
        session: recorded.session,
        end,
        log: log.clone(),
        now: wall_clock(),
    };
    match record_end(shared.vault.store(), shared.vault.ring(), &asked).await {
        Ok(Put::Created) => {
            debug!(%machine, committed = %end.committed, "the end of a quiet machine is recorded");
            let (session, committed) = (recorded.session.saturating_add(1), end.committed);
            shared.directory.note_recorded(&machine, Recorded { session, committed, ..recorded });
            true
        }
        Ok(Put::Exists) => {
            shared.directory.forget_recorded(&machine, recorded.session);
            true
        }
        Err(error) => {
            warn!(%machine, %error, "the end of a quiet machine isn't recorded yet");
            false
        }
    }
}
