//! Maintenance of a vault: what `tidegate maintain` does by hand, and a server in the background.
//!
//! Owns which machines are folded, and by what they are kept. Doesn't own when, nor what is told of it.

use tidegate_model::{Micros, Name};
use tidegate_vault::fold::{Done, FoldError, FoldReport, Folding, Keeping, ensure_two, fold};
use tidegate_vault::log::LogReader;
use tidegate_vault::meta::{self, MetaError};
use tidegate_vault::retention::policy_of;

/// The machines of which something is there and wasn't removed; and those of which that can't be told, which
/// others don't wait for.
pub(crate) async fn present(
    reader: &LogReader,
) -> Result<(Vec<Name>, Vec<(Name, MetaError)>), MetaError> {
    let (mut present, mut failed) = (Vec::new(), Vec::new());
    for machine in meta::list_machines(reader.store()).await? {
        match is_present(reader, &machine).await {
            Ok(true) => present.push(machine),
            Ok(false) => {}
            Err(error) if error.is_damage() => failed.push((machine, error)),
            Err(error) => return Err(error),
        }
    }
    Ok((present, failed))
}

async fn is_present(reader: &LogReader, machine: &Name) -> Result<bool, MetaError> {
    let (store, ring) = (reader.store(), reader.ring());
    let removed = meta::removed_upto(store, ring, machine).await?;
    let newest = meta::epoch_numbers(store, machine).await?.into_iter().max();
    Ok(newest.is_some_and(|newest| newest > removed))
}

/// Folds a machine; lets go of what its policy doesn't keep where `now`, the store's, is told.
pub(crate) async fn fold_machine(
    reader: &LogReader,
    machine: &Name,
    folding: Folding,
    now: Option<Micros>,
    progress: &(dyn Fn(Done) + Send + Sync),
) -> Result<FoldReport, FoldError> {
    let policy = policy_of(reader.store(), reader.ring(), machine).await?;
    let keeping = now.map(|now| Keeping { policy, now });
    let report = fold(reader, machine, Folding { keeping, ..folding }, progress).await?;
    // Before anything is deleted by them.
    ensure_two(reader, machine).await?;
    Ok(report)
}
