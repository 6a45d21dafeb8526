//! Makes the base of an epoch: what its disks hold something of in the end, and where that is kept.
//!
//! What lies in frames that are mostly dead is copied into dense packs, so that who recovers this place
//! or a later one reads little more than what is alive.

use std::collections::HashMap;

use futures::{StreamExt, stream};
use tidegate_model::{Epoch, LogId, Lsn, PackNumber};

use super::FoldError;
use super::dense::{Alive, Copier, Part, choose, is_sparse, parts};
use super::layer::{LOOKED_EXTENTS, LayerBuilder};
use super::manifest::{Base, FoldedEpoch};
use super::packs::{Needs, list, sizes_of};
use super::run::Folder;

/// The sizes of packs, and of their heads.
pub(super) type Sizes = HashMap<(LogId, PackNumber), (u64, u32)>;

impl<'r> Folder<'r> {
    /// Makes the base of an epoch at its end, and condenses what lies before its window; `packs` are those
    /// of its layers. False where the base would hold too much.
    pub(super) async fn make_base(
        &mut self,
        folded: &mut FoldedEpoch,
        packs: &mut Needs,
        lsn: Lsn,
    ) -> Result<bool, FoldError> {
        let Some(mut all) = self.visible_at(folded, lsn).await? else { return Ok(false) };
        let mut sizes = Sizes::new();
        let mut unfinished = self.copy_out(folded, packs, &mut all, &mut sizes).await?;
        all.sort();
        unfinished |= self.condense(folded, packs, &all, &mut sizes).await?;
        let (mut needs, mut layers) = (Needs::new(), Vec::new());
        for layer in all.split(folded.epoch) {
            layer.add_needs(&mut needs);
            layers.push(self.create_layer(layer).await?);
        }
        for (place, need) in &mut needs {
            // Who wants an earlier place goes by the epoch's layers.
            (need.first, need.last) = (lsn, lsn);
            (need.bytes, need.head) = sizes.get(&place.key()).copied().unwrap_or_default();
        }
        let (packs, pack_logs) = list(&needs);
        folded.base = Some(Base { lsn, layers, packs, pack_logs, unfinished });
        Ok(true)
    }

    /// What the disks hold something of at `lsn`.
    async fn visible_at(
        &self,
        folded: &FoldedEpoch,
        lsn: Lsn,
    ) -> Result<Option<LayerBuilder>, FoldError> {
        let (mut all, mut visible) = (LayerBuilder::default(), 0);
        for entry in folded.needed(lsn) {
            all.add_layer(&self.read_layer(folded.epoch, entry).await?);
            // What is hidden already needn't be held until all is there.
            if all.len() > 2 * visible + LOOKED_EXTENTS {
                all.retain_visible(&folded.disks);
                visible = all.len();
            }
            if self.folding.is_beyond(all.len()) {
                return Ok(None);
            }
        }
        all.retain_visible(&folded.disks);
        Ok(Some(all))
    }

    /// Copies what should lie denser, and says so in `all`; gives whether more is to be copied than one
    /// fold does.
    async fn copy_out(
        &mut self,
        folded: &FoldedEpoch,
        packs: &Needs,
        all: &mut LayerBuilder,
        sizes: &mut Sizes,
    ) -> Result<bool, FoldError> {
        let alive = all.alive();
        let window = (packs, folded.retained.from);
        let parts = self.parts_of(all, &alive, window, sizes).await?;
        let (chosen, unfinished) = choose(parts, self.folding.copied_most());
        let mut copier = self.copier(folded.epoch);
        copier.copy(all.packs(), &alive, chosen).await?;
        self.end_copying(&mut copier, sizes).await?;
        all.move_kept(&copier);
        Ok(unfinished)
    }

    /// Who copies records of an epoch, for the manifest that is to be made.
    pub(super) fn copier(&self, epoch: Epoch) -> Copier<'r> {
        let number = self.newest.saturating_add(1);
        Copier::new(self.reader, &self.history.machine, epoch, number)
    }

    /// Stores the last of what is copied, and notes it.
    pub(super) async fn end_copying(
        &mut self,
        copier: &mut Copier<'_>,
        sizes: &mut Sizes,
    ) -> Result<(), FoldError> {
        copier.finish().await?;
        self.report.dense_packs += copier.made.len() as u64;
        self.report.dense_bytes += copier.stored_bytes;
        sizes.extend(&copier.made);
        Ok(())
    }

    /// What a recovery reads for these records; notes the sizes of their packs. What of packs that the
    /// window doesn't need is less than half alive must go. A pack that can't be read is left to who needs
    /// it.
    pub(super) async fn parts_of(
        &self,
        all: &LayerBuilder,
        alive: &[Alive],
        (packs, from): (&Needs, Lsn),
        sizes: &mut Sizes,
    ) -> Result<Vec<Part>, FoldError> {
        let (mut begin, mut groups) = (0, Vec::new());
        for group in alive.chunk_by(|a, b| a.key.0 == b.key.0) {
            groups.push((begin, group));
            begin += group.len();
        }
        let reader = self.reader;
        let read = stream::iter(groups).map(|(begin, group)| async move {
            let place = &all.packs()[group[0].key.0 as usize];
            (begin, group, reader.pack(place).await)
        });
        let mut all_parts = Vec::new();
        let mut read = std::pin::pin!(read.buffered(reader.ahead()));
        while let Some((begin, group, pack)) = read.next().await {
            let pack = match pack {
                Ok(pack) => pack,
                Err(error) if error.is_damage() => continue,
                Err(error) => return Err(error.into()),
            };
            sizes.insert(pack.place.key(), sizes_of(&pack.header));
            let in_window = packs.get(&pack.place).is_some_and(|need| need.last > from);
            let must_go = !in_window && is_sparse(&pack, &self.history.machine, group);
            let parts = parts(&pack, group, begin).into_iter();
            all_parts.extend(parts.map(|part| Part { must_go, ..part }));
        }
        Ok(all_parts)
    }
}
