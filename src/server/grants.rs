//! Epochs are granted by the vault: asked on the store's threads, awaited on the shard.

use futures::channel::oneshot;
use tidegate_model::{LogId, LogName, PackNumber, Remedy};
use tidegate_vault::grant::{self, Grant, GrantRequest};
use tidegate_vault::log::LogReader;
use tidegate_wire::{Begins, Hello, Refusal, RefusalCode};
use tracing::{error, warn};

use super::host;
use super::shared::Shared;

/// The end of a chain is found in a few indexes, each read once.
const CACHE_BYTES: usize = 1 << 20;

/// Grants a session its epoch; its records will lie in the shard's log from `pack` on.
pub(super) async fn grant(
    shared: &Shared,
    shard: u16,
    pack: PackNumber,
    hello: &Hello,
) -> Result<Grant, Refusal> {
    let id = LogId { run: shared.run, shard };
    let request = GrantRequest {
        machine: hello.machine.clone(),
        incarnation: hello.incarnation,
        claimed: hello.epoch,
        begins: match hello.begins {
            Begins::Copy => tidegate_vault::meta::Begins::Copy,
            Begins::Continue => tidegate_vault::meta::Begins::Continue,
        },
        parent: hello.parent,
        log: LogName { node: shared.node.clone(), id },
        pack,
        now: host::wall_clock(),
    };
    let (sender, receiver) = oneshot::channel();
    let vault = shared.vault.clone();
    shared.store.spawn(async move {
        let reader = LogReader::new(vault.store().clone(), vault.ring().clone(), CACHE_BYTES);
        // Nobody waits any more when the session has gone; a granted epoch does no harm.
        let _ = sender.send(grant::grant(&reader, &request).await);
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
            let (code, advice) = if error.remedy() == Remedy::Retry {
                (RefusalCode::Store, "it is tried again; see whether the server reaches its store")
            } else {
                (RefusalCode::Epoch, "start the agent anew, so that it gets an epoch of its own")
            };
            Err(Refusal::new(code, error.remedy(), &cause, advice))
        }
        Err(_) => Err(Refusal::shutting_down()),
    }
}
