//! Carries a plan out: fetches runs of frames ahead, and has a crew open and write them.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tidegate_model::Extent;
use tokio::sync::mpsc::UnboundedReceiver;

use super::crew::{Crew, Report, stopped};
use super::cuts::{Cut, Task, tasks};
use super::decode::Job;
use super::error::Damage;
use super::{Means, RestoreError, RestorePlan, Restored, Sink};
use crate::log::LogReader;
use crate::log::buffers::Buffers;

/// Packs whose indexes are fetched ahead of their frames.
const PACKS_AHEAD: usize = 4;

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
        let finished = tokio::task::spawn_blocking(move || sink.finish()).await;
        let machine = self.machine.clone();
        finished
            .map_err(|error| stopped(&error))?
            .map_err(|cause| RestoreError::Finish { machine, cause })?;
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
        zeros.await.map_err(|error| stopped(&error))?
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
