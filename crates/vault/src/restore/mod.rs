//! Brings a machine's disks back to a point.
//!
//! Owns: applying records, finding what holds the bytes, reading it in the best order, checking
//! it, handing it to a [`Sink`]. Doesn't own which points there are (`points`) nor where disks go.
//!
//! Invariants: every byte that reaches the sink was authenticated, and belongs to a kept record
//! whose length and checksum are those that were captured. A restore that ends with an error has
//! restored nothing: its sink was never finished.
//!
//! Memory: the map of the point, about 300 bytes at its peak for each stretch of disk that a
//! record holds (0.5 % of what is stored in 64 KiB blocks); the reader's cache of indexes; and what
//! is on its way, [`IN_FLIGHT_BYTES_MAX`] at most.

mod cuts;
mod error;
mod map;
mod sink;
mod state;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tidegate_model::limits::FRAME_BYTES_MAX;
use tidegate_model::{Disk, DiskNumber, Extent, Name, Point};

pub use error::{Damage, RestoreError};
pub use sink::Sink;
pub(crate) use state::target_place;

use crate::chain::{Loss, MachineHistory};
use crate::log::frames::RUN_BYTES_MAX;
use crate::log::{LogError, LogReader};
use cuts::{Cut, Cuts, Task, tasks};
use state::{State, StateBuilder};

/// Runs of frames that are fetched, opened and written at once: enough to keep the cores busy
/// while half of the runs wait for the store.
const RUNS_IN_FLIGHT: usize = 8;
/// Packs whose indexes are fetched ahead of their frames.
const PACKS_AHEAD: usize = 4;

/// Most bytes of frames that a restore holds: each run as it was fetched, its longest frame
/// opened.
pub const IN_FLIGHT_BYTES_MAX: u64 =
    RUNS_IN_FLIGHT as u64 * (RUN_BYTES_MAX + 2 * FRAME_BYTES_MAX as u64);

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
    /// Reads the indexes that make up `point` of a machine; of the disks in `only`, or all when it
    /// is empty.
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
        let lineage = history.whole_lineage(point);
        let lineage = lineage
            .map_err(|cause| RestoreError::broken(machine.clone(), cause, &history.losses))?;
        let builder = StateBuilder::new(machine.clone(), &lineage, only);
        let cuts = Cuts::of(read_state(reader, history, builder).await?);
        if let Some(disk) = cuts::missing_disk(&cuts.disks, only) {
            return Err(RestoreError::NoDisk { machine, disk });
        }
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

    /// Writes the disks to `sink`. `progress` is told the bytes written so far, now and then.
    ///
    /// # Errors
    /// [`RestoreError`]; the sink then holds a part, and isn't finished.
    pub async fn run(
        &self,
        reader: &LogReader,
        sink: Arc<dyn Sink>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Restored, RestoreError> {
        let zeros = self.zero(sink.clone());
        let (bytes_zero, bytes_written) =
            futures::try_join!(zeros, self.write(reader, sink.clone(), progress))?;
        let finished = tokio::task::spawn_blocking(move || sink.finish()).await.map_err(stopped)?;
        let machine = self.machine.clone();
        finished.map_err(|cause| RestoreError::Finish { machine, cause })?;
        Ok(Restored { bytes_written, bytes_zero })
    }

    async fn zero(&self, sink: Arc<dyn Sink>) -> Result<u64, RestoreError> {
        let (cuts, machine) = (self.cuts.clone(), self.machine.clone());
        let zeros = tokio::task::spawn_blocking(move || {
            let mut bytes = 0;
            for range in cuts.zeros.iter().copied() {
                let done = sink.zero(range.disk, range.offset, range.length);
                done.map_err(|cause| RestoreError::Sink {
                    machine: machine.clone(),
                    range,
                    cause,
                })?;
                bytes += range.length;
            }
            Ok(bytes)
        });
        zeros.await.map_err(stopped)?
    }

    async fn write(
        &self,
        reader: &LogReader,
        sink: Arc<dyn Sink>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<u64, RestoreError> {
        // The runs are cut as they are needed: what is on its way is bounded, not the machine.
        stream::iter(self.cuts.by_pack())
            .map(|cuts| self.tasks(reader, cuts))
            .buffered(PACKS_AHEAD)
            .map_ok(|tasks| stream::iter(tasks.into_iter().map(Ok)))
            .try_flatten()
            .map_ok(|task| self.write_task(reader, task, sink.clone()))
            .try_buffer_unordered(RUNS_IN_FLIGHT)
            .try_fold(0, |written, bytes| {
                progress(written + bytes);
                futures::future::ready(Ok(written + bytes))
            })
            .await
    }

    async fn tasks(&self, reader: &LogReader, cuts: &[Cut]) -> Result<Vec<Task>, RestoreError> {
        let Some(first) = cuts.first() else { return Ok(Vec::new()) };
        let pack = reader.pack(self.cuts.packs.get(first.record.pack)).await;
        let pack = pack.map_err(|error| self.damaged(first.to, error.into()))?;
        tasks(&pack, cuts).map_err(|(range, damage)| self.damaged(range, damage))
    }

    async fn write_task(
        &self,
        reader: &LogReader,
        task: Task,
        sink: Arc<dyn Sink>,
    ) -> Result<u64, RestoreError> {
        let fetched = match reader.fetch(&task.pack, &task.run).await {
            Ok(fetched) => fetched,
            Err(error) => return Err(self.damaged(task.frames[0][0].cut.to, error.into())),
        };
        let machine = self.machine.clone();
        let written = move || write::task(&task, fetched, sink.as_ref(), &machine);
        tokio::task::spawn_blocking(written).await.map_err(stopped)?
    }

    fn damaged(&self, range: Extent, what: Damage) -> RestoreError {
        RestoreError::Damaged { machine: self.machine.clone(), range, what: Box::new(what) }
    }
}

/// Reads every index of the machine's logs. What can't be read there is told only if it matters:
/// the chain shows whether it held anything of this machine.
async fn read_state(
    reader: &LogReader,
    history: &MachineHistory,
    mut builder: StateBuilder,
) -> Result<State, RestoreError> {
    let mut losses: Vec<Loss> = Vec::new();
    for (log, first) in history.logs() {
        let survey = reader.survey(&log).await?;
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

fn stopped(error: tokio::task::JoinError) -> RestoreError {
    RestoreError::Log(LogError::Stopped(error.to_string()))
}
