//! Fills the table of known blocks from the vault when a server starts: the newest packs first,
//! until the table is full or the vault is through.
//!
//! Only packs that count are looked at: a block may be referred to only where it is committed.

use std::collections::BTreeMap;

use futures::StreamExt;
use tidegate_model::{FrameNumber, LogName, Micros, PackNumber, RunId};
use tidegate_pipeline::{Known, KnownBlocks, LogSlot, Logs, PACKS_REMEMBERED_MAX};
use tidegate_vault::Vault;
use tidegate_vault::log::{LogError, LogReader, PackRead, Stated, Survey};
use tidegate_vault::pack::Content;
use tracing::{info, warn};

use super::settings::ServerError;

/// The table is filled to this part, so that the newest blocks aren't forgotten for old ones.
const FILL_PERCENT: usize = 80;
/// Packs are read in groups of so many, from the newest group back.
const GROUP: usize = 64;
/// Indexes are read once: they needn't be kept.
const CACHE_BYTES: usize = 1 << 20;

/// Fills `known`, and makes the logs known to which its entries point.
pub(super) async fn refill(
    vault: &Vault,
    known: &KnownBlocks,
    logs: &Logs,
) -> Result<(), ServerError> {
    let reader = LogReader::new(vault.store().clone(), vault.ring().clone(), CACHE_BYTES);
    let mut names = reader.logs().await?;
    let started = run_starts(vault).await?;
    names.sort_by_key(|log| std::cmp::Reverse(started.get(&log.id.run).copied()));
    let most = known.capacity() / 100 * FILL_PERCENT;
    let (mut blocks, mut packs) = (0, 0);
    for log in &names {
        if blocks >= most || packs >= PACKS_REMEMBERED_MAX {
            break;
        }
        let Some(slot) = logs.add(log) else { break };
        let mut filler = Filler { known, logs, slot, blocks: 0, packs: 0 };
        filler.fill(&reader, log, most - blocks, PACKS_REMEMBERED_MAX - packs).await?;
        blocks += filler.blocks;
        packs += filler.packs;
    }
    info!(blocks, packs, logs = names.len(), "the table of known blocks is filled");
    Ok(())
}

/// When each run began.
async fn run_starts(vault: &Vault) -> Result<BTreeMap<RunId, Micros>, ServerError> {
    let runs = tidegate_vault::meta::list_runs(vault.store(), vault.ring()).await?;
    // Without their times the logs of a damaged run come last; `verify` tells of the damage.
    runs.damaged.iter().for_each(|error| warn!(%error, "passed over a damaged run"));
    Ok(runs.whole.into_iter().map(|run| (run.run, run.started)).collect())
}

/// Fills from one log.
struct Filler<'a> {
    known: &'a KnownBlocks,
    logs: &'a Logs,
    slot: LogSlot,
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
        let mut read = Box::pin(reader.packs(survey, group.to_vec()));
        while let Some((place, found)) = read.next().await {
            match found {
                Ok(pack) => self.add(&pack),
                Err(error) if error.is_damage() => {
                    // Its blocks are merely not known; `verify` tells of the damage.
                    warn!(%place, %error, "passed over a damaged pack");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn add(&mut self, pack: &PackRead) {
        let (header, index) = (&pack.header, &pack.index);
        self.logs.place_pack(self.slot, header.first_frame, header.number);
        let end = index.frames.last().map_or(header.first_frame, |frame| frame.number.next());
        for (place, frame) in (0..).zip(&index.frames) {
            for (ordinal, record) in (0..).zip(index.kept_of(place)) {
                let Content::Kept { name: Some(name), .. } = record.content else { continue };
                let frame: FrameNumber = frame.number;
                self.known.insert(name, Known { log: self.slot, frame, ordinal });
                self.blocks += 1;
            }
        }
        self.logs.commit(self.slot, end);
        self.packs += 1;
    }
}
