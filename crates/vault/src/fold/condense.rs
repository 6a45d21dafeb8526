//! Has what was thinned lie dense, too: so garbage shrinks, though a machine has points from long ago.
//!
//! What is left from before the any-point window is little of what was written, spread over many packs.
//! Most of it is in the base as well: then the layers name the places that the base names. What else keeps
//! packs that are less than half alive is copied. Nothing of the window is: all of that is alive, and
//! most of it is let go before it gets old.
//!
//! Memory: besides the base, [`OTHERS_MAX`] records, some 200 bytes each, and a layer.

use super::FoldError;
use super::base::Sizes;
use super::dense::{Copier, choose};
use super::layer::{Layer, LayerBuilder, kept_at};
use super::manifest::{FoldedEpoch, LayerEntry};
use super::packs::Needs;
use super::run::Folder;

/// Records that are looked at in one fold, of those that aren't in the base.
const OTHERS_MAX: usize = 1 << 20;

impl Folder<'_> {
    /// Condenses the layers of an epoch from before its window. `packs` are those of its layers, and
    /// `base` is what its base has. Gives whether more is to be copied than one fold does.
    pub(super) async fn condense(
        &mut self,
        folded: &mut FoldedEpoch,
        packs: &mut Needs,
        base: &LayerBuilder,
        sizes: &mut Sizes,
    ) -> Result<bool, FoldError> {
        let (epoch, from) = (folded.epoch, folded.retained.from);
        let is_old = |entry: &LayerEntry| entry.first <= from;
        if !folded.layers.iter().any(is_old) {
            return Ok(false);
        }
        let others = self.others(folded, base).await?;
        let alive = others.alive();
        let mut parts = self.parts_of(&others, &alive, (packs, from), sizes).await?;
        parts.retain(|part| part.must_go);
        let (chosen, unfinished) = choose(parts, self.folding.copied_most());
        let mut copier = self.copier(epoch);
        copier.copy(others.packs(), &alive, chosen).await?;
        self.end_copying(&mut copier, sizes).await?;
        let mut needs = Needs::new();
        let mut layers = std::mem::take(&mut folded.layers);
        for entry in layers.iter_mut().filter(|entry| is_old(entry)) {
            let layer = self.read_layer(epoch, *entry).await?;
            match moved(&layer, base, &others, &copier) {
                Some(moved) => {
                    moved.add_needs(&mut needs);
                    *entry = self.create_layer(moved).await?;
                }
                None => layer.add_needs(&mut needs),
            }
        }
        folded.layers = layers;
        put_needs(packs, needs, folded, sizes);
        Ok(unfinished)
    }

    /// What the layers from before the window have that the base hasn't.
    async fn others(
        &self,
        folded: &FoldedEpoch,
        base: &LayerBuilder,
    ) -> Result<LayerBuilder, FoldError> {
        let mut others = LayerBuilder::default();
        let from = folded.retained.from;
        // Two thirds are the base's.
        let most = self.folding.limits.map_or(OTHERS_MAX, |limits| limits.extents / 3);
        for entry in folded.layers.iter().filter(|entry| entry.first <= from) {
            let layer = self.read_layer(folded.epoch, *entry).await?;
            for extent in layer.extents.iter().filter(|extent| base.place_of(extent).is_none()) {
                if others.len() < most {
                    others.add_of(&layer.packs, extent);
                }
            }
        }
        Ok(others)
    }
}

/// The layer with the places to which its records were copied, by now or before; `None` when it names
/// these already.
fn moved(
    layer: &Layer,
    base: &LayerBuilder,
    others: &LayerBuilder,
    copier: &Copier<'_>,
) -> Option<Layer> {
    let (mut made, mut is_new) = (LayerBuilder::default(), false);
    for extent in &layer.extents {
        let now = kept_at(&layer.packs, extent);
        let copied = || {
            let (place, frame, ordinal) = now?;
            copier.new_place((others.place_in_table(place)?, frame, ordinal))
        };
        match base.place_of(extent).or_else(copied) {
            Some(new) => {
                is_new |= now != Some(new);
                made.add_at(extent, new);
            }
            None => made.add_of(&layer.packs, extent),
        }
    }
    made.close(layer.epoch).filter(|_| is_new)
}

/// Puts together what the layers from before the window need now, and what the window does.
fn put_needs(packs: &mut Needs, needs: Needs, folded: &FoldedEpoch, sizes: &Sizes) {
    let from = folded.retained.from;
    let known: Sizes =
        packs.iter().map(|(place, need)| (place.key(), (need.bytes, need.head))).collect();
    packs.retain(|_, need| {
        need.first = need.first.max(from.next());
        need.last > from
    });
    for (place, mut need) in needs {
        let size = known.get(&place.key()).filter(|(bytes, _)| *bytes > 0);
        let size = size.or_else(|| sizes.get(&place.key())).copied();
        (need.bytes, need.head) = size.unwrap_or_default();
        match packs.get_mut(&place) {
            Some(of_window) => {
                of_window.add(need.first);
                of_window.add(need.last);
            }
            None => drop(packs.insert(place, need)),
        }
    }
}
