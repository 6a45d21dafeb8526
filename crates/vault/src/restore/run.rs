//! Carries a plan out: fetches runs of frames ahead, and has a crew open and write them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use tidegate_model::Extent;
use tokio::sync::mpsc::UnboundedReceiver;

use super::aside::aside;
use super::crew::{Crew, Report};
use super::cuts::{Cut, Task, tasks};
use super::decode::Job;
use super::error::Damage;
use super::{Means, RestoreError, RestorePlan, Restored, Sink};
use crate::log::LogReader;
use crate::log::buffers::Buffers;

/// Packs whose indexes are fetched ahead of their frames.
const PACKS_AHEAD: usize = 4;
/// Zeros that a sink is asked for at once: a restore that is dropped waits until they are written,
/// less than a second.
const ZERO_BYTES: u64 = 64 << 20;

impl RestorePlan {
    /// Writes the disks to `sink`, with no more than `means`. `progress` is told the bytes written
    /// so far, now and then. Dropping it waits until nothing is written any more.
    ///
    /// # Errors
    /// [`RestoreError`]; the sink then holds a part, and isn't finished.
    pub async fn run(
        &self,
        reader: &LogReader,
        sink: Arc<dyn Sink>,
        means: Means,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Restored, RestoreError> {
        let buffers = Buffers::growing(means.runs_at_first(), means.runs);
        self.run_with(reader, sink, means, &buffers, progress).await
    }

    /// The same with buffers of the caller's.
    pub(super) async fn run_with(
        &self,
        reader: &LogReader,
        sink: Arc<dyn Sink>,
        means: Means,
        buffers: &Buffers,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Restored, RestoreError> {
        let (crew, reports) = Crew::start(&self.machine, means, buffers.clone(), &sink)?;
        let (bytes_zero, (), bytes_written) = futures::try_join!(
            self.zero(sink.clone()),
            self.feed(reader, &crew, means, buffers),
            written(reports, progress),
        )?;
        drop(crew);
        let machine = self.machine.clone();
        let finish = move |_: &AtomicBool| {
            sink.finish().map_err(|cause| RestoreError::Finish { machine, cause })
        };
        aside(finish).await?;
        Ok(Restored { bytes_written, bytes_zero })
    }

    async fn zero(&self, sink: Arc<dyn Sink>) -> Result<u64, RestoreError> {
        let (cuts, machine) = (self.cuts.clone(), self.machine.clone());
        aside(move |unwanted| {
            let mut bytes = 0;
            for range in cuts.zeros.iter().copied().flat_map(pieces) {
                if unwanted.load(Ordering::SeqCst) {
                    break;
                }
                let done = sink.zero(range.disk, range.offset, range.length);
                done.map_err(|cause| RestoreError::Sink {
                    machine: machine.clone(),
                    range,
                    cause,
                })?;
                bytes += range.length;
            }
            Ok(bytes)
        })
        .await
    }

    /// Fetches everything that is kept, each frame once, and gives it to the crew as it comes.
    async fn feed(
        &self,
        reader: &LogReader,
        crew: &Crew,
        means: Means,
        buffers: &Buffers,
    ) -> Result<(), RestoreError> {
        // The runs are cut as they are needed: what is on its way is bounded, not the machine.
        let jobs = stream::iter(self.cuts.by_pack())
            .map(|cuts| self.tasks(reader, cuts))
            .buffered(PACKS_AHEAD)
            .map_ok(|tasks| stream::iter(tasks.into_iter().map(Ok)))
            .try_flatten()
            .map_ok(|task| self.fetch(reader, task, buffers))
            .try_buffer_unordered(means.runs);
        let mut jobs = std::pin::pin!(jobs);
        while let Some(job) = jobs.try_next().await? {
            crew.give(job);
        }
        crew.end();
        Ok(())
    }

    async fn tasks(&self, reader: &LogReader, cuts: &[Cut]) -> Result<Vec<Task>, RestoreError> {
        let Some(first) = cuts.first() else { return Ok(Vec::new()) };
        let pack = reader.pack(self.cuts.packs.get(first.record.pack)).await;
        let pack = pack.map_err(|error| self.damaged(first.to, error.into()))?;
        tasks(&pack, cuts).map_err(|(range, damage)| self.damaged(range, damage))
    }

    async fn fetch(
        &self,
        reader: &LogReader,
        task: Task,
        buffers: &Buffers,
    ) -> Result<Job, RestoreError> {
        match reader.fetch(&task.pack, &task.run, buffers).await {
            Ok(fetched) => Ok(Job { task, fetched }),
            Err(error) => Err(self.damaged(task.frames[0][0].cut.to, error.into())),
        }
    }

    fn damaged(&self, range: Extent, what: Damage) -> RestoreError {
        RestoreError::Damaged { machine: self.machine.clone(), range, what: Box::new(what) }
    }
}

/// A range in order, as much at once as is asked of a sink.
fn pieces(range: Extent) -> impl Iterator<Item = Extent> {
    let mut left = range;
    std::iter::from_fn(move || {
        let piece = Extent { length: left.length.min(ZERO_BYTES), ..left };
        left.offset += piece.length;
        left.length -= piece.length;
        (piece.length > 0).then_some(piece)
    })
}

/// Adds up what the crew reports, until its last thread has ended.
async fn written(
    mut reports: UnboundedReceiver<Report>,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<u64, RestoreError> {
    let mut written = 0;
    while let Some(report) = reports.recv().await {
        written += report?;
        progress(written);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use tidegate_model::DiskNumber;

    use super::*;

    #[test]
    fn the_pieces_of_a_range_are_the_range() {
        let range = |offset, length| Extent { disk: DiskNumber::default(), offset, length };
        let cut: Vec<_> = pieces(range(512, 2 * ZERO_BYTES + 1)).collect();
        let second = 512 + ZERO_BYTES;
        let last = range(second + ZERO_BYTES, 1);
        assert_eq!(cut, [range(512, ZERO_BYTES), range(second, ZERO_BYTES), last]);
        assert_eq!(pieces(range(512, ZERO_BYTES)).count(), 1);
    }
}
