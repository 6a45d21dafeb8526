//! Lets go, while a machine is folded, of what its policy doesn't keep.
//!
//! Nothing is let go while anything of the machine is damaged or missing: what is called its newest
//! good point might be none.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use tidegate_model::{Epoch, Lsn, Micros};

use super::FoldError;
use super::fate::{Fate, fates, lacks_parent};
use super::layer::Layer;
use super::manifest::{FoldedEpoch, LayerEntry, Manifest};
use super::objects::{create_layer, manifest_before, read_layer};
use super::packs::{Needs, sizes_of};
use super::run::Folder;
use super::thin::{Outcome, Thinning};
use crate::chain::{Loss, MachineHistory, Retained};
use crate::layout;
use crate::log::{LogReader, PackPlace};
use crate::meta::MetaError;
use crate::points::MachinePoints;
use crate::retention::{AgedPoint, Policy};

/// By what a machine's past is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// The rules.
    pub policy: Policy,
    /// Now, by the store's clock.
    pub now: Micros,
}

/// The manifest before the newest one, where that let go what an epoch continues: the epoch was granted
/// while it was made. Both are there until two more are.
pub(super) async fn goes_back_to(
    reader: &LogReader,
    history: &MachineHistory,
    newest: u64,
    manifest: Option<&Manifest>,
) -> Result<Option<Manifest>, FoldError> {
    if !manifest.is_some_and(|manifest| lacks_parent(manifest, history)) {
        return Ok(None);
    }
    let (store, ring, machine) = (reader.store(), reader.ring(), &history.machine);
    let before = manifest_before(store, ring, machine, newest).await?;
    let before = before.filter(|before| !lacks_parent(before, history));
    if before.is_some() {
        tracing::info!(%machine, "an epoch continues what was let go meanwhile: it is kept again");
    }
    Ok(before)
}

impl Folder<'_> {
    /// What becomes of the epochs; of none anything, where nothing is to be let go.
    pub(super) async fn fates(
        &mut self,
        folded: &[FoldedEpoch],
    ) -> Result<BTreeMap<Epoch, Fate>, FoldError> {
        let Some(Keeping { policy, now }) = self.folding.keeping else {
            return Ok(BTreeMap::new());
        };
        let mut referred = std::mem::take(&mut self.referred);
        referred.add_fold(&self.history.machine, &self.base);
        let lacks = referred.check(self.reader).await?;
        for error in lacks.errors() {
            let loss = Loss::Log(error.clone());
            if !self.report.losses.contains(&loss) {
                self.report.losses.push(loss);
            }
        }
        if !self.report.losses.is_empty() || !self.history.lost.is_empty() {
            return Ok(BTreeMap::new());
        }
        let stored = |epoch: Epoch, lsn: Lsn| {
            let epoch = folded.iter().find(|folded| folded.epoch == epoch)?;
            let place = epoch.bookmarks.binary_search_by_key(&lsn, |mark| mark.lsn).ok()?;
            Some(epoch.bookmarks[place].stored)
        };
        let aged = |point: &crate::points::RecoveryPoint| AgedPoint {
            point: point.point,
            // What isn't folded yet came just now.
            stored: stored(point.point.epoch, point.point.lsn).unwrap_or(now),
            clean: point.clean,
        };
        let points = MachinePoints::of(&self.history);
        let points: Vec<AgedPoint> = points.points.iter().map(aged).collect();
        Ok(fates(&self.history, folded, &points, &policy, now))
    }

    /// Lets go of what isn't `retained` of an epoch, nor needed by its base, unless that `is_replaced`; true
    /// if that changes anything.
    pub(super) async fn thin(
        &mut self,
        folded: &mut FoldedEpoch,
        packs: &mut Needs,
        retained: Retained,
        is_replaced: bool,
    ) -> Result<bool, FoldError> {
        let base = folded.base.as_ref().map(|base| base.lsn);
        let lets_go = is_replaced && base.is_some_and(|base| base < retained.from);
        if retained == folded.retained && !lets_go {
            return Ok(false);
        }
        let (epoch, from) = (folded.epoch, retained.from);
        let base = base.filter(|_| !is_replaced);
        let disks = folded.disks.clone();
        let mut thinning = Thinning::new(epoch, &retained, base, &disks);
        let mut layers = std::mem::take(&mut folded.layers);
        let before = layers.clone();
        layers.sort_by_key(|layer| (layer.first, layer.last));
        let behind = layers.split_off(layers.partition_point(|layer| layer.first <= from));
        let mut layers = layers.into_iter().peekable();
        let mut left: Vec<LayerEntry> = Vec::new();
        while let Some(place) = thinning.next() {
            while let Some(entry) = layers.next_if(|entry| entry.first <= place) {
                thinning.add(entry, self.read_layer(epoch, entry).await?);
                if self.folding.is_beyond(thinning.held()) {
                    folded.layers = before;
                    return self.give_up(&folded.layers, left).await;
                }
            }
            self.take_outcomes(thinning.decide(), &mut left).await?;
        }
        self.take_outcomes(thinning.finish(), &mut left).await?;
        left.extend(behind);
        left.sort_by_key(|layer| (layer.last, layer.first));
        packs.retain(|place, need| match thinning.needed.get(place) {
            Some(first) => {
                need.first = *first;
                true
            }
            // Behind the last place everything stays.
            None => {
                need.first = need.first.max(from.next());
                need.last > from
            }
        });
        let bookmarks = folded.bookmarks.len();
        (folded.layers, self.report.let_go) = (left, self.report.let_go + thinning.dropped);
        folded.retain(retained);
        self.report.bookmarks_let_go += (bookmarks - folded.bookmarks.len()) as u64;
        Ok(true)
    }

    /// Leaves an epoch as it was, which takes more memory than the limits allow: what was made of its
    /// layers goes.
    async fn give_up(
        &mut self,
        before: &[LayerEntry],
        made: Vec<LayerEntry>,
    ) -> Result<bool, FoldError> {
        for entry in made.iter().filter(|entry| !before.contains(entry)) {
            let path = layout::layer(&self.history.machine, entry.layer);
            self.reader.store().delete(&path).await.map_err(MetaError::from)?;
            self.report.layers -= 1;
            self.report.bytes -= entry.bytes;
        }
        self.report.too_long += 1;
        Ok(false)
    }

    async fn take_outcomes(
        &mut self,
        outcomes: Vec<Outcome>,
        left: &mut Vec<LayerEntry>,
    ) -> Result<(), FoldError> {
        for outcome in outcomes {
            left.push(match outcome {
                Outcome::Stays(entry) => entry,
                Outcome::Made(layer) => self.create_layer(layer).await?,
            });
        }
        Ok(())
    }

    /// Reads the packs whose sizes aren't known: those to which is only referred. One that can't be
    /// read is looked at by whoever needs it.
    pub(super) async fn look_at(&self, packs: &mut Needs) -> Result<(), FoldError> {
        let unknown = packs.iter().filter(|(_, need)| need.bytes == 0);
        let unknown: Vec<PackPlace> = unknown.map(|(place, _)| place.clone()).collect();
        let looked = stream::iter(unknown).map(|place| async {
            let pack = self.reader.pack(&place).await;
            (place, pack)
        });
        let mut looked = std::pin::pin!(looked.buffer_unordered(self.reader.ahead()));
        while let Some((place, pack)) = looked.next().await {
            match pack {
                Ok(pack) => {
                    if let Some(need) = packs.get_mut(&place) {
                        (need.bytes, need.head) = sizes_of(&pack.header);
                    }
                }
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) async fn create_layer(&mut self, layer: Layer) -> Result<LayerEntry, FoldError> {
        let (store, ring) = (self.reader.store(), self.reader.ring());
        let entry = create_layer(store, ring, &self.history.machine, layer).await?;
        self.report.layers += 1;
        self.report.bytes += entry.bytes;
        Ok(entry)
    }

    pub(super) async fn read_layer(
        &self,
        epoch: Epoch,
        entry: LayerEntry,
    ) -> Result<Layer, FoldError> {
        let (store, ring) = (self.reader.store(), self.reader.ring());
        Ok(read_layer(store, ring, &self.history.machine, epoch, entry).await?)
    }
}
