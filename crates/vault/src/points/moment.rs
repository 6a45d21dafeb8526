//! Moments between bookmarks: the last change of an epoch up to a time or an LSN, and when it was.
//!
//! The time of an LSN stands where its change is kept: in a layer, or in the index of a pack that isn't
//! folded yet. There it is looked up when somebody asks; nothing is held for each LSN. What says nothing
//! of disks but that time passed is left out, for folding leaves it out: so the answer is the same,
//! folded or not, and so are the disks.
//!
//! Where a history was thinned, only kept places are moments. What was changed last up to one is visible
//! there, so it is in the layers still, and says of when the place is. Of what comes before it is only
//! there what is visible, too.
//!
//! Memory: one layer and one index at a time, besides the reader's cache, and the kept places between two
//! bookmarks beyond the any-point window.

use std::collections::BTreeMap;

use tidegate_model::{Epoch, Lsn, Micros};

use crate::chain::{Chain, HistoryError, MachineHistory, Retained};
use crate::fold::{FoldedEpoch, Layer, read_layer};
use crate::log::{LogError, LogReader, PackRead};
use crate::meta::MetaError;

/// Which moment is wanted: the last of those from a bookmark on and before `below`, at or before `until`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub epoch: Epoch,
    /// The bookmark, and its time.
    pub after: Lsn,
    pub since: Micros,
    pub below: Lsn,
    pub until: Micros,
}

impl Wanted {
    /// Whether there are LSNs in between.
    fn is_empty(&self) -> bool {
        self.after.next() >= self.below
    }

    /// Whether all of them are among these.
    fn lies_within(&self, chain: &Chain) -> bool {
        chain.runs().any(|(first, last)| first <= self.after.next() && self.below <= last.next())
    }
}

/// The last kept place that is wanted, and the time of the last change or bookmark up to it; `None` when
/// there is none. The epoch's chain is whole up to `below`.
pub(super) async fn last_moment(
    reader: &LogReader,
    history: &MachineHistory,
    wanted: Wanted,
) -> Result<Option<(Lsn, Micros)>, HistoryError> {
    let Some(told) = history.epochs.get(&wanted.epoch) else { return Ok(None) };
    let mut search =
        Search { wanted, retained: &told.trace.retained, last: BTreeMap::new(), late: None };
    search.take(wanted.after, wanted.since);
    if wanted.is_empty() {
        return Ok(search.found());
    }
    for (lsn, (time, _)) in told.trace.declared.range(wanted.after.next()..wanted.below) {
        search.take(*lsn, *time);
    }
    let mut folds = history.fold.iter().flat_map(|fold| &fold.epochs);
    let Some(folded) = folds.find(|folded| folded.epoch == wanted.epoch) else {
        search.logs(reader, history).await?;
        return Ok(search.found());
    };
    match search.layers(reader, history, folded).await {
        Ok(()) if wanted.lies_within(&folded.chain()) => {}
        Ok(()) => search.logs(reader, history).await?,
        Err(error) if error.is_damage() => {
            tracing::warn!(%error, "the logs are read instead");
            search.logs(reader, &history.unfolded()).await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(search.found())
}

struct Search<'r> {
    wanted: Wanted,
    retained: &'r Retained,
    /// For each kept place up to where every LSN is kept, the last change behind the kept place before.
    last: BTreeMap<Lsn, (Lsn, Micros)>,
    /// Behind that, the last change that isn't too late.
    late: Option<(Lsn, Micros)>,
}

impl Search<'_> {
    fn take(&mut self, lsn: Lsn, time: Micros) {
        let Wanted { after, below, until, .. } = self.wanted;
        let place = self.retained.next(lsn);
        if lsn < after || below <= place {
            return;
        }
        if lsn <= self.retained.from {
            let last = self.last.entry(place).or_insert((lsn, time));
            *last = (lsn, time).max(*last);
        } else if time <= until {
            self.late = self.late.max(Some((lsn, time)));
        }
    }

    fn found(&self) -> Option<(Lsn, Micros)> {
        let mut places = self.last.iter().rev().map(|(place, (_, time))| (*place, *time));
        self.late.or_else(|| places.find(|(_, time)| *time <= self.wanted.until))
    }

    /// Looks at what is folded.
    async fn layers(
        &mut self,
        reader: &LogReader,
        history: &MachineHistory,
        folded: &FoldedEpoch,
    ) -> Result<(), MetaError> {
        let Wanted { after, below, .. } = self.wanted;
        let (store, ring, machine) = (reader.store(), reader.ring(), &history.machine);
        for entry in folded.layers.iter().filter(|entry| entry.last > after && entry.first < below)
        {
            let layer: Layer = read_layer(store, ring, machine, folded.epoch, *entry).await?;
            layer.extents.iter().for_each(|extent| self.take(extent.lsn, extent.time));
        }
        Ok(())
    }

    /// Looks at what isn't. What can't be read there held nothing of a chain that is whole.
    async fn logs(&mut self, reader: &LogReader, history: &MachineHistory) -> Result<(), LogError> {
        for (log, first) in history.logs() {
            let (survey, first) = history.survey(reader, &log, first).await?;
            let mut packs = std::pin::pin!(reader.packs(&survey, survey.counted_from(first)));
            while let Some((_, pack)) = futures::StreamExt::next(&mut packs).await {
                match pack {
                    Ok(pack) => self.pack(history, &pack),
                    Err(error) if error.is_damage() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn pack(&mut self, history: &MachineHistory, pack: &PackRead) {
        let machines = &pack.index.machines;
        let ours = |of: u16| {
            let of = &machines[usize::from(of)];
            of.epoch == self.wanted.epoch && of.name == history.machine
        };
        let changes = pack.index.records.iter().filter(|record| record.content.extent().is_some());
        let changes: Vec<_> = changes.filter(|record| ours(record.machine)).collect();
        changes.into_iter().for_each(|record| self.take(record.lsn, record.time));
    }
}
