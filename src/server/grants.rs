//! Epochs are granted by the vault: asked on the store's threads, awaited on the shard.
//!
//! Memory: so many at once as the plan has room for ([`GRANTS_MAX`]), and the indexes that they look
//! through in the one room of their reader. Before the first of them the refill has all of that.

use std::sync::Arc;
use std::time::Instant;

use futures::channel::oneshot;
use tidegate_model::{LogId, LogName, Remedy};
use tidegate_pipeline::{GRANT_BYTES, GRANTS_MAX};
use tidegate_vault::Vault;
use tidegate_vault::grant::{self, Grant, GrantError, GrantRequest};
use tidegate_vault::log::{INDEX_ROOM_BYTES, LogReader, SEARCH_BYTES};
use tidegate_vault::pack::SEALED_INDEX_BYTES_MAX;
use tidegate_wire::{Begins, Hello, Refusal, RefusalCode};
use tokio::sync::Semaphore;
use tracing::{error, warn};

use super::host::{Host, wall_clock};

/// Searches read summaries, which aren't kept.
const CACHE_BYTES: usize = 0;

const _: () = assert!(SEARCH_BYTES <= GRANT_BYTES, "the plan has what a search takes");
const _: () = assert!(INDEX_ROOM_BYTES <= SEALED_INDEX_BYTES_MAX, "and what they share");

/// What all grants share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Grants {
    reader: LogReader,
    turns: Arc<Semaphore>,
}

impl Grants {
    /// Grants of this vault.
    pub(super) fn of(vault: &Vault) -> Self {
        let reader = LogReader::new(vault.store().clone(), vault.ring().clone(), CACHE_BYTES);
        Self { reader, turns: Arc::new(Semaphore::new(GRANTS_MAX)) }
    }

    /// What they read the vault's logs with.
    pub(super) const fn reader(&self) -> &LogReader {
        &self.reader
    }
}

/// The vault didn't answer in time.
pub(super) fn too_slow() -> Refusal {
    let cause = "the vault has taken too long to grant an epoch";
    let advice = "it is tried again; see whether the server reaches its store";
    Refusal::new(RefusalCode::Store, Remedy::Retry, cause, advice)
}

fn store_advice(error: &GrantError) -> &'static str {
    match error.remedy() {
        Remedy::Retry => "it is tried again; see whether the server reaches its store",
        Remedy::Repair => {
            "nothing is overwritten; 'tidegate verify' says what is damaged: bring that back from a \
             copy of the vault, or start the agent anew, so that it copies the machine from the beginning"
        }
        Remedy::Refuse | Remedy::Stop => {
            "see that the server can read and write its store, then run this again"
        }
    }
}

/// Grants a session its epoch; its records will lie in the shard's log from the open pack on.
pub(super) async fn grant(host: &Host, hello: &Hello) -> Result<Grant, Refusal> {
    let shared = &host.shared;
    let id = LogId { run: shared.run, shard: host.number };
    let request = GrantRequest {
        machine: hello.machine.clone(),
        incarnation: hello.incarnation,
        token: hello.token,
        claimed: hello.epoch,
        begins: match hello.begins {
            Begins::Continue if shared.resyncs.is_some() => tidegate_vault::meta::Begins::Continue,
            // Without answers all of it comes: then it needn't stand on anything.
            Begins::Copy | Begins::Continue => tidegate_vault::meta::Begins::Copy,
        },
        acknowledged: hello.committed,
        parent: hello.parent,
        log: LogName { node: shared.node.clone(), id },
        pack: host.open_pack(),
        known: host.known_end(&hello.machine),
        now: wall_clock(),
    };
    let (sender, receiver) = oneshot::channel();
    let Grants { reader, turns } = shared.grants.clone();
    let server = shared.clone();
    shared.store.spawn(async move {
        let mut sender = sender;
        let _turn = turns.acquire().await;
        let _waiting = server.waits.begin(Instant::now());
        let granted = tokio::select! {
            granted = grant::grant(&reader, &request) => granted,
            // Nobody waits any more. A session that was granted all the same does no harm: the next
            // grant looks at the logs of those before it, too.
            () = sender.cancellation() => return,
        };
        let _ = sender.send(granted);
    });
    match receiver.await {
        Ok(Ok(grant)) => {
            if grant.epoch == hello.epoch && grant.committed < hello.committed {
                let (machine, told, found) = (&hello.machine, hello.committed, grant.committed);
                error!(
                    %machine, %told, %found,
                    "the vault lacks records that it had acknowledged: run 'tidegate verify'"
                );
            }
            Ok(grant)
        }
        Ok(Err(error)) => {
            warn!(machine = %hello.machine, %error, "no epoch could be granted");
            let cause = format!("the vault grants no epoch: {error}");
            let (code, advice) = match &error {
                GrantError::Log(_) | GrantError::Meta(_) => {
                    (RefusalCode::Store, store_advice(&error))
                }
                GrantError::Contended { .. } => (RefusalCode::Epoch, "it is tried again"),
                _ => (
                    RefusalCode::Epoch,
                    "start the agent anew, so that it gets an epoch of its own",
                ),
            };
            Err(Refusal::new(code, error.remedy(), &cause, advice))
        }
        Err(_) => Err(Refusal::shutting_down()),
    }
}
