//! Makes the base of an epoch: what its disks hold something of in the end, and where that is kept.
//!
//! What lies in frames that are mostly dead is copied into dense packs, so that who recovers this place
//! or a later one reads little more than what is alive.

use std::collections::HashMap;

use futures::{StreamExt, stream};
use tidegate_model::{LogId, Lsn, PackNumber};

use super::FoldError;
use super::dense::{Alive, Copier, Part, choose, parts};
use super::layer::{LOOKED_EXTENTS, LayerBuilder};
use super::manifest::{Base, FoldedEpoch};
use super::packs::{Needs, list, sizes_of};
use super::run::Folder;
use crate::log::INDEXES_AHEAD;

/// The sizes of packs, and of their heads.
type Sizes = HashMap<(LogId, PackNumber), (u64, u32)>;

impl Folder<'_> {
    /// Makes the base of an epoch at its end; `None` where it would hold too much.
    pub(super) async fn make_base(
        &mut self,
        folded: &FoldedEpoch,
        lsn: Lsn,
    ) -> Result<Option<Base>, FoldError> {
        let Some(mut all) = self.visible_at(folded, lsn).await? else { return Ok(None) };
        let (sizes, unfinished) = self.copy_out(folded, &mut all).await?;
        let mut needs = Needs::new();
        let mut layers = Vec::new();
        for layer in all.split(folded.epoch) {
            layer.add_needs(&mut needs);
            layers.push(self.create_layer(layer).await?);
        }
        for (place, need) in &mut needs {
            // Who wants an earlier place goes by the epoch's layers.
            need.first = lsn;
            need.last = lsn;
            (need.bytes, need.head) = sizes.get(&place.key()).copied().unwrap_or_default();
        }
        let (packs, pack_logs) = list(&needs);
        Ok(Some(Base { lsn, layers, packs, pack_logs, unfinished }))
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

    /// Copies what should lie denser, and says so in `all`; gives the sizes of packs, and whether more is to
    /// be copied than one fold does.
    async fn copy_out(
        &mut self,
        folded: &FoldedEpoch,
        all: &mut LayerBuilder,
    ) -> Result<(Sizes, bool), FoldError> {
        let alive = all.alive();
        let (parts, mut sizes) = self.parts_of(all, &alive).await?;
        let (chosen, unfinished) = choose(parts, |_| false, self.folding.copied_bytes_max);
        let number = self.newest.saturating_add(1);
        let (reader, machine) = (self.reader, &self.history.machine);
        let mut copier = Copier::new(reader, machine, folded.epoch, number);
        copier.copy(all.packs(), &alive, chosen).await?;
        copier.finish().await?;
        self.report.dense_packs += copier.made.len() as u64;
        self.report.dense_bytes += copier.stored_bytes;
        sizes.extend(copier.made);
        all.move_kept(&copier.moved);
        Ok((sizes, unfinished))
    }

    /// What a recovery reads for these records, and the sizes of their packs. A pack that can't be read
    /// is left to who needs it.
    async fn parts_of(
        &self,
        all: &LayerBuilder,
        alive: &[Alive],
    ) -> Result<(Vec<Part>, Sizes), FoldError> {
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
        let (mut all_parts, mut sizes) = (Vec::new(), Sizes::new());
        let mut read = std::pin::pin!(read.buffered(INDEXES_AHEAD));
        while let Some((begin, group, pack)) = read.next().await {
            match pack {
                Ok(pack) => {
                    sizes.insert(pack.place.key(), sizes_of(&pack.header));
                    all_parts.extend(parts(&pack, group, begin));
                }
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((all_parts, sizes))
    }
}
