//! Epochs are granted by the vault: asked on the store's threads, awaited on the shard.

use futures::channel::oneshot;
use tidegate_model::{LogId, LogName, Remedy};
use tidegate_vault::grant::{self, Grant, GrantError, GrantRequest};
use tidegate_vault::log::LogReader;
use tidegate_wire::{Begins, Hello, Refusal, RefusalCode};
use tracing::{error, warn};

use super::host::{Host, wall_clock};

/// The end of a chain is found in a few indexes, each read once.
const CACHE_BYTES: usize = 1 << 20;

/// The vault didn't answer in time.
pub(super) fn too_slow() -> Refusal {
    let cause = "the vault has taken too long to grant an epoch";
    let advice = "it is tried again; see whether the server reaches its store";
    Refusal::new(RefusalCode::Store, Remedy::Retry, cause, advice)
}

fn store_advice(error: &GrantError) -> &'static str {
    match error.remedy() {
        Remedy::Retry => "it is tried again; see whether the server reaches its store",
        Remedy::Repair => "nothing is overwritten; run 'tidegate verify' to see what is damaged",
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
        claimed: hello.epoch,
        begins: match hello.begins {
            Begins::Copy => tidegate_vault::meta::Begins::Copy,
            Begins::Continue => tidegate_vault::meta::Begins::Continue,
        },
        acknowledged: hello.committed,
        parent: hello.parent,
        log: LogName { node: shared.node.clone(), id },
        pack: host.open_pack(),
        known: host.known_end(&hello.machine),
        now: wall_clock(),
    };
    let (sender, receiver) = oneshot::channel();
    let (vault, grants) = (shared.vault.clone(), shared.grants.clone());
    shared.store.spawn(async move {
        let mut sender = sender;
        let _turn = grants.acquire().await;
        let reader = LogReader::new(vault.store().clone(), vault.ring().clone(), CACHE_BYTES);
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
