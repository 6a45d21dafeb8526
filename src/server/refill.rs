//! Fills the table of known blocks from the vault when a server starts: the newest packs first,
//! until the table is full or the vault is through.
//!
//! Only packs that count are looked at: a block may be referred to only where it is committed.
//!
//! Memory: what grants have in the plan, for it ends before there is one. Their room for sealed
//! indexes, and of what each has of its own a search's part and the blocks of one pack.

use std::collections::BTreeMap;

use futures::StreamExt;
use tidegate_model::{LogName, Micros, PackNumber, RunId};
use tidegate_pipeline::{
    GRANT_BYTES, GRANTS_MAX, Known, KnownBlocks, LogSlot, Logs, PACKS_REMEMBERED_MAX,
};
use tidegate_vault::gc::Collected;
use tidegate_vault::log::{LogError, LogReader, SEARCH_BYTES, Stated, Survey};
use tidegate_vault::pack::{BLOCKS_BYTES_MAX, PackBlock, PackBlocks, PackHeader};
use tracing::{info, warn};

use super::settings::ServerError;

const _: () = assert!(SEARCH_BYTES + BLOCKS_BYTES_MAX <= GRANTS_MAX * GRANT_BYTES);

/// The table is filled to this part, so that the newest blocks aren't forgotten for old ones.
const FILL_PERCENT: usize = 80;
/// Packs are read in groups of so many, from the newest group back.
const GROUP: usize = 64;

/// Fills `known`, and makes the logs known to which its entries point. `reader` is the grants'. What is
/// `collected`, or may be, stays unknown.
pub(super) async fn refill(
    reader: &LogReader,
    known: &KnownBlocks,
    logs: &Logs,
    collected: &Collected,
) -> Result<(), ServerError> {
    let mut names = reader.logs().await?;
    let started = run_starts(reader).await?;
    names.sort_by_key(|log| std::cmp::Reverse(started.get(&log.id.run).copied()));
    let most = known.capacity() / 100 * FILL_PERCENT;
    let (mut blocks, mut packs) = (0, 0);
    for log in &names {
        if blocks >= most || packs >= PACKS_REMEMBERED_MAX {
            break;
        }
        let Some(slot) = logs.add(log) else { break };
        let mut filler = Filler { known, logs, slot, collected, blocks: 0, packs: 0 };
        filler.fill(reader, log, most - blocks, PACKS_REMEMBERED_MAX - packs).await?;
        blocks += filler.blocks;
        packs += filler.packs;
    }
    info!(blocks, packs, logs = names.len(), "the table of known blocks is filled");
    Ok(())
}

/// When each run began.
async fn run_starts(reader: &LogReader) -> Result<BTreeMap<RunId, Micros>, ServerError> {
    let runs = tidegate_vault::meta::list_runs(reader.store(), reader.ring()).await?;
    // Without their times the logs of a damaged run come last; `verify` tells of the damage.
    runs.damaged.iter().for_each(|error| warn!(%error, "passed over a damaged run"));
    Ok(runs.whole.into_iter().map(|run| (run.run, run.started)).collect())
}

/// Fills from one log.
struct Filler<'a> {
    known: &'a KnownBlocks,
    logs: &'a Logs,
    slot: LogSlot,
    /// What may be deleted isn't made known.
    collected: &'a Collected,
    blocks: usize,
    packs: usize,
}

impl Filler<'_> {
    async fn fill(
        &mut self,
        reader: &LogReader,
        log: &LogName,
        most: usize,
        packs_most: usize,
    ) -> Result<(), LogError> {
        let begin = PackNumber(0);
        let mut stretch = Some(reader.tail(log, begin, Stated::default()).await?);
        while let Some(survey) = stretch {
            warn_of_missing(&survey);
            for group in survey.counted.packs.rchunks(GROUP) {
                self.fill_group(reader, &survey, group).await?;
                if self.blocks >= most || self.packs + GROUP > packs_most {
                    return Ok(());
                }
            }
            stretch = reader.before(&survey, begin).await?;
        }
        Ok(())
    }

    async fn fill_group(
        &mut self,
        reader: &LogReader,
        survey: &Survey,
        group: &[PackNumber],
    ) -> Result<(), LogError> {
        let (known, logs, slot) = (self.known, self.logs, self.slot);
        let add = |header: &PackHeader, found: PackBlocks| add(known, logs, slot, header, &found);
        let may_stay = |number: &PackNumber| !self.collected.forbids(&survey.log, *number);
        let group = group.iter().copied().filter(may_stay).collect();
        let mut read = Box::pin(reader.blocks(survey, group, add));
        while let Some((place, added)) = read.next().await {
            match added {
                Ok(blocks) => {
                    self.blocks += blocks;
                    self.packs += 1;
                }
                Err(error) if error.is_damage() => {
                    // Its blocks are merely not known; `verify` tells of the damage.
                    warn!(%place, %error, "passed over a damaged pack");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A start is where damage is seen first: `verify` tells whom it touches.
fn warn_of_missing(survey: &Survey) {
    for (first, last) in &survey.counted.missing {
        let (first, last) = (survey.place(*first), last.0);
        warn!(%first, last, "packs that were committed are missing: run 'tidegate verify'");
    }
}

/// Adds a pack's blocks; gives how many.
fn add(
    known: &KnownBlocks,
    logs: &Logs,
    log: LogSlot,
    header: &PackHeader,
    found: &PackBlocks,
) -> usize {
    logs.place_pack(log, header.first_frame, header.number);
    for PackBlock { name, frame, ordinal } in found.blocks.iter().copied() {
        known.insert(name, Known { log, frame, ordinal });
    }
    logs.commit(log, found.frames_end);
    found.blocks.len()
}
