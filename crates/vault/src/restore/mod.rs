//! Brings a machine's disks back to a point.
//!
//! Owns: applying records, finding what holds the bytes, reading it in the best order, checking
//! it, handing it to a [`Sink`], or to who reads a part of it ([`PointView`]). Doesn't own which points
//! there are (`points`) nor where disks go.
//!
//! Invariants: every byte that reaches the sink was authenticated, and belongs to a kept record
//! whose length and checksum are those that were captured. A restore that ends with an error has
//! restored nothing: its sink was never finished.
//!
//! Memory: the map of the point, about 300 bytes at its peak for each stretch of disk that a
//! record holds (0.5 % of what is stored in 64 KiB blocks); the reader's cache of indexes; and what
//! is on its way, [`Means::bytes`] at most: buffers into which is fetched, and buffers into which is
//! opened and from which is written, both used again and again.

mod aside;
mod crew;
mod cuts;
mod decode;
mod error;
mod map;
mod means;
mod run;
mod sink;
mod state;
mod view;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::{StreamExt, stream};
use tidegate_model::{Disk, DiskNumber, Name, Point};

pub use error::{Damage, RestoreError};
pub use means::{MEMORY_DEFAULT, MEMORY_MIN, Means};
pub use sink::{Part, Sink, Waiting, WriteError, Writer};
pub(crate) use state::{Ordinals, target_place};
pub use view::{PointView, Stretch, VIEW_MEMORY_MIN, ViewMeans};

use crate::chain::{HistoryError, Loss, MachineHistory};
use crate::fold::{LAYERS_AHEAD, Manifest, read_layer};
use crate::log::LogReader;
use crate::meta::MetaError;
use cuts::Cuts;
use state::{State, StateBuilder};

/// What a restore did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes that are zero.
    pub bytes_zero: u64,
}

/// All that is needed to bring a point back but its bytes.
pub struct RestorePlan {
    machine: Name,
    point: Point,
    cuts: Arc<Cuts>,
}

impl RestorePlan {
    /// Reads the layers and indexes that make up `point` of a machine; of the disks in `only`, or all
    /// when it is empty.
    ///
    /// # Errors
    /// [`RestoreError`] when something that makes up the point is missing or damaged.
    pub async fn build(
        reader: &LogReader,
        history: &MachineHistory,
        point: Point,
        only: &[DiskNumber],
    ) -> Result<Self, RestoreError> {
        let machine = history.machine.clone();
        let cuts = Cuts::of(state_at(reader, history, point, only).await?);
        Ok(Self { machine, point, cuts: Arc::new(cuts) })
    }

    /// The point.
    #[must_use]
    pub const fn point(&self) -> Point {
        self.point
    }

    /// The disks, with their sizes at the point.
    #[must_use]
    pub fn disks(&self) -> &[Disk] {
        &self.cuts.disks
    }

    /// Bytes that will be written: all that isn't zero.
    #[must_use]
    pub fn bytes_to_write(&self) -> u64 {
        self.cuts.kept.iter().map(|cut| cut.to.length).sum()
    }
}

/// What the disks in `only`, or all when it is empty, hold at `point`.
async fn state_at(
    reader: &LogReader,
    history: &MachineHistory,
    point: Point,
    only: &[DiskNumber],
) -> Result<State, RestoreError> {
    let machine = history.machine.clone();
    let lineage = history.whole_lineage(point);
    let lineage =
        lineage.map_err(|cause| RestoreError::broken(machine.clone(), cause, &history.losses))?;
    let builder = StateBuilder::new(machine.clone(), &lineage, only);
    let state = read_state(reader, history, builder).await?;
    if let Some(disk) = state.missing_disk(only) {
        let there = history.disks(&lineage).iter().map(|disk| disk.number).collect();
        return Err(RestoreError::NoDisk { machine, disk, there });
    }
    Ok(state)
}

/// Reads the layers of what is folded of the machine, and every index of its logs beyond. What can't
/// be read there is told only if it matters: the chain shows whether it held anything of this machine.
/// Where a layer can't be read, the logs are read instead, as far as they are there.
async fn read_state(
    reader: &LogReader,
    history: &MachineHistory,
    builder: StateBuilder,
) -> Result<State, RestoreError> {
    let Some(fold) = &history.fold else {
        return read_logs(reader, history, builder, Vec::new()).await;
    };
    let mut folded = builder.clone();
    match read_layers(reader, fold, &mut folded).await {
        Ok(()) => read_logs(reader, history, folded, Vec::new()).await,
        Err(error) if error.is_damage() => {
            tracing::warn!(%error, "the logs are read instead");
            read_logs(reader, &history.unfolded(), builder, vec![error.into()]).await
        }
        Err(error) => Err(HistoryError::Meta(error).into()),
    }
}

/// Applies what is folded, as far as the point needs it.
async fn read_layers(
    reader: &LogReader,
    fold: &Manifest,
    builder: &mut StateBuilder,
) -> Result<(), MetaError> {
    let mut wanted = Vec::new();
    for epoch in &fold.epochs {
        let Some(upto) = builder.add_fold(epoch) else { continue };
        wanted.extend(epoch.needed(upto).map(|layer| (epoch.epoch, layer)));
        reader.note_heads(epoch.kept_in().map(|(place, need)| (place.key(), need.head)));
    }
    let (store, ring, machine) = (reader.store(), reader.ring(), builder.machine().clone());
    let layers = stream::iter(wanted).map(|(epoch, entry)| {
        let machine = machine.clone();
        async move { read_layer(store, ring, &machine, epoch, entry).await }
    });
    let mut layers = std::pin::pin!(layers.buffered(LAYERS_AHEAD));
    while let Some(layer) = layers.next().await {
        builder.add_layer(&layer?);
    }
    Ok(())
}

async fn read_logs(
    reader: &LogReader,
    history: &MachineHistory,
    mut builder: StateBuilder,
    mut losses: Vec<Loss>,
) -> Result<State, RestoreError> {
    for (log, first) in history.logs() {
        let (survey, first) = history.survey(reader, &log, first).await?;
        let mut packs = std::pin::pin!(reader.packs(&survey, survey.counted_from(first)));
        while let Some((_, pack)) = packs.next().await {
            match pack {
                Ok(pack) => builder.add_pack(&pack)?,
                Err(error) if error.is_damage() => losses.push(error.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    builder.finish(&losses)
}
