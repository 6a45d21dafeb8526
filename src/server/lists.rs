//! Reads which packs are condemned: before the table of known blocks is filled, and then now and then.
//!
//! Whoever deletes waits until every log has stated the list. A list is stated in this order: nothing new
//! refers to what it has; then the shards hear of it; and each states it when it has packed what was
//! under way ([`tidegate_pipeline::Shard::read_list`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_pipeline::Logs;
use tidegate_vault::gc::Collected;
use tidegate_vault::log::LogError;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::shared::{News, Shared};

/// Reads how far garbage was collected.
pub(super) async fn read(shared: &Shared) -> Result<Arc<Collected>, LogError> {
    let collected = shared.grants.reader().collected(true).await?;
    shared.condemned_list.store(collected.newest, Ordering::Release);
    Ok(collected)
}

/// Reads it again and again, until it is aborted.
pub(super) fn watch(shared: &Arc<Shared>, logs: &Logs) -> JoinHandle<()> {
    let (shared, logs) = (shared.clone(), logs.clone());
    shared.store.clone().spawn(async move {
        let mut told = shared.condemned_list.load(Ordering::Acquire);
        loop {
            tokio::time::sleep(shared.lists_interval).await;
            match read(&shared).await {
                Ok(collected) if collected.newest > told && tell(&shared, &logs, &collected) => {
                    told = collected.newest;
                    info!(list = told, "a condemned list is read");
                }
                Ok(_) => {}
                Err(error) => warn!(%error, "condemned lists can't be read yet"),
            }
        }
    })
}

/// False when a shard has too much news to hear of it now: it hears all of it again.
fn tell(shared: &Shared, logs: &Logs, collected: &Collected) -> bool {
    logs.condemn(|log, number| collected.forbids(log, number));
    shared.shards.iter().all(|ports| ports.news.post(News::List(collected.newest)).is_ok())
}
