//! Leaves of an epoch's versions those that some kept place needs. Pure: layers come in, layers and
//! what is needed of packs come out.
//!
//! Between two kept places that follow each other only what is visible at the later one counts: whoever
//! wants that, or a later one, doesn't see the rest, and nobody can want a place between them. What is
//! visible there of the records between doesn't depend on any other place. So layers are read once, in
//! the order of their LSNs, and what they hold is decided from place to place.
//!
//! Memory: what is visible of the records between two places, twice at most, and a layer.

use std::collections::{BTreeMap, VecDeque};

use tidegate_model::{Epoch, Lsn};

use super::layer::{
    LAYER_CLOSE_EXTENTS, LOOKED_EXTENTS, Layer, LayerBuilder, LayerExtent, LayerSource,
};
use super::manifest::{Declared, LayerEntry};
use super::visible;
use crate::chain::Retained;
use crate::log::PackPlace;

/// What becomes of layers.
pub(super) enum Outcome {
    /// All of it is needed: it stays as it is.
    Stays(LayerEntry),
    /// This takes the place of others.
    Made(Layer),
}

/// The versions of an epoch up to where every LSN is kept.
pub(super) struct Thinning<'d> {
    epoch: Epoch,
    /// The declarations of disks, by LSN.
    disks: &'d [Declared],
    /// The kept places that are still to come.
    places: VecDeque<Lsn>,
    /// Where no layer may lie across.
    base: Option<Lsn>,
    sources: Vec<Source>,
    made: LayerBuilder,
    /// How many extents were left when it was looked last.
    looked: usize,
    /// The packs of what is left, with the first LSN that needs each.
    pub needed: BTreeMap<PackPlace, Lsn>,
    /// How many extents nobody needs.
    pub dropped: u64,
}

/// A layer of which something isn't decided yet.
struct Source {
    entry: LayerEntry,
    packs: Vec<PackPlace>,
    /// Behind the places that were decided.
    waiting: Vec<LayerExtent>,
    /// What some place needs.
    left: Vec<LayerExtent>,
    is_whole: bool,
}

impl<'d> Thinning<'d> {
    /// Of an epoch with a base at `base`, which stays what it is.
    pub fn new(
        epoch: Epoch,
        retained: &Retained,
        base: Option<Lsn>,
        disks: &'d [Declared],
    ) -> Self {
        let base = base.filter(|base| *base < retained.from);
        let mut places: Vec<Lsn> = retained.points.clone();
        places.extend(base.into_iter().chain([retained.from]));
        places.sort_unstable();
        places.dedup();
        Self {
            epoch,
            disks,
            places: places.into(),
            base,
            sources: Vec::new(),
            made: LayerBuilder::default(),
            looked: 0,
            needed: BTreeMap::new(),
            dropped: 0,
        }
    }

    /// The place that is decided next. Every layer that begins at or before it must have been added.
    pub fn next(&self) -> Option<Lsn> {
        self.places.front().copied()
    }

    /// Adds a layer; they come by their first LSN.
    pub fn add(&mut self, entry: LayerEntry, layer: Layer) {
        let Layer { packs, extents: waiting, .. } = layer;
        self.sources.push(Source { entry, packs, waiting, left: Vec::new(), is_whole: true });
        let held: usize = self.sources.iter().map(Source::len).sum();
        // What is hidden already needn't be held until all is there.
        if held > 2 * self.looked + LOOKED_EXTENTS
            && let Some(place) = self.next()
        {
            for (number, extent) in self.visible(place) {
                self.sources[number].waiting.push(extent);
            }
            self.looked = self.sources.iter().map(Source::len).sum();
        }
    }

    /// How many extents it holds.
    pub fn held(&self) -> usize {
        self.sources.iter().map(Source::len).sum::<usize>() + self.made.len()
    }

    /// Decides what the next place needs; gives what became of layers that end there.
    pub fn decide(&mut self) -> Vec<Outcome> {
        let Some(place) = self.places.pop_front() else { return Vec::new() };
        for (number, extent) in self.visible(place) {
            self.sources[number].left.push(extent);
        }
        let mut outcomes = self.settle(|source| source.entry.last <= place);
        if self.made.len() > LAYER_CLOSE_EXTENTS || self.base == Some(place) {
            outcomes.extend(self.close());
        }
        outcomes
    }

    /// Gives what became of the rest: behind the last place everything stays.
    pub fn finish(&mut self) -> Vec<Outcome> {
        let mut outcomes = self.settle(|_| true);
        outcomes.extend(self.close());
        outcomes
    }

    /// Takes what waits up to `place` and is visible there; the rest is dropped.
    fn visible(&mut self, place: Lsn) -> Vec<(usize, LayerExtent)> {
        let mut taken = Vec::new();
        for (number, source) in self.sources.iter_mut().enumerate() {
            let (here, behind) =
                std::mem::take(&mut source.waiting).into_iter().partition(|e| e.lsn <= place);
            source.waiting = behind;
            let here: Vec<LayerExtent> = here;
            taken.extend(here.into_iter().map(|extent| (number, extent)));
        }
        let declared = self.disks.partition_point(|told| told.lsn <= place);
        let mut dropped = Vec::new();
        visible::retain(
            &mut taken,
            |(_, extent)| extent,
            &self.disks[..declared],
            |(number, _)| {
                dropped.push(*number);
            },
        );
        self.dropped += dropped.len() as u64;
        for number in dropped {
            self.sources[number].is_whole = false;
        }
        taken
    }

    /// Puts away the layers of which all is decided.
    fn settle(&mut self, is_settled: impl Fn(&Source) -> bool) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let sources = std::mem::take(&mut self.sources);
        for source in sources {
            if !is_settled(&source) {
                self.sources.push(source);
                continue;
            }
            for extent in source.left.iter().chain(&source.waiting) {
                if let LayerSource::Kept { pack, .. } = extent.source {
                    let place = &source.packs[pack as usize];
                    match self.needed.get_mut(place) {
                        Some(first) => *first = extent.lsn.min(*first),
                        None => drop(self.needed.insert(place.clone(), extent.lsn)),
                    }
                }
                if !source.is_whole {
                    self.made.add_of(&source.packs, extent);
                }
            }
            if source.is_whole {
                outcomes.push(Outcome::Stays(source.entry));
            }
        }
        outcomes
    }

    fn close(&mut self) -> impl Iterator<Item = Outcome> + use<> {
        std::mem::take(&mut self.made).split(self.epoch).map(Outcome::Made)
    }
}

impl Source {
    fn len(&self) -> usize {
        self.waiting.len() + self.left.len()
    }
}
