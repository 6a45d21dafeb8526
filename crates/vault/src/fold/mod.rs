//! A machine's history, folded: its records taken out of the packs of many logs and put together,
//! sorted, so that a reader needs a manifest, some layers and the newest packs instead of every
//! index that there ever was. docs/formats/fold.md.
//!
//! Owns manifests, layers, dense packs, and making them. Doesn't own what follows from them: a
//! history is a history (`chain`), a state a state (`restore`), folded or not. The sealed frames
//! stay where they are, in their packs: a layer says where; but what is alive in those that are mostly
//! dead is copied (`dense`).
//!
//! Invariants: what is folded lies on a whole chain; a manifest is created once, after all its
//! layers, under the number after that of the one that it goes on from, so of two who fold at once
//! one begins anew, and readers see the one or the other. Folding twice changes nothing. What a policy
//! keeps (`retention`) is never let go, and nothing is while anything is damaged. A reader that can't
//! read a manifest reads the one before it, or the logs, and of a layer the logs, as long as they are
//! there: then more may be offered than the newest manifest keeps, or less, and nothing wrong.
//!
//! What a recovery reads stays in proportion to the disks, however much history there is: when a part as
//! large was folded since as tells on it, a *base* is made, of what the disks hold something of there.
//! Whoever wants that place or a later one needs nothing before it.
//!
//! Memory: of who folds, the new extents of one layer, [`LAYER_EXTENTS_MAX`] at most, some 100 bytes
//! each, and as many of those that it is put together with; where a base is made, the extents of the
//! one before and as many again, and once more what tells of them which are alive: less than the map of a
//! restore; where is thinned, what is visible of the records between two kept places, twice; the reader's
//! cache of indexes; the listing of a log; the manifest, which grows with bookmarks, packs and layers. Who
//! can't have as much as a history asks for folds within [`FoldLimits`]. Of who reads, a few layers at a
//! time.

mod ages;
mod base;
pub(crate) mod body;
mod condense;
mod dense;
mod error;
mod fate;
mod folding;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod gather;
mod keep;
mod layer;
mod layer_codec;
mod limits;
mod manifest;
mod needed;
mod objects;
mod packs;
mod run;
mod second;
mod thin;
mod unnamed;
mod visible;

#[cfg(test)]
pub(crate) use objects::create_manifest;
#[cfg(test)]
mod tests;

pub use ages::Age;
pub use error::{FoldError, TooMuch};
pub use folding::{Done, FoldReport, Folding};
pub use keep::Keeping;
pub use layer::{LAYER_EXTENTS_MAX, Layer, LayerExtent, LayerSource};
pub use limits::FoldLimits;
pub use manifest::{
    Base, Begin, Declared, FoldedEpoch, FoldedLog, FoldedUsage, LayerEntry, Manifest, Marked,
};
pub use needed::{Needed, needed};
pub use packs::FoldedPack;
pub use run::fold;
pub use second::ensure_two;

pub(crate) use objects::{
    LAYERS_AHEAD, MANIFESTS_KEPT, is_superseded, manifest_numbers, newest_manifest, newest_number,
    read_layer, read_manifest,
};
