//! Answers to agents that ask what of their disks the vault holds: the vault is read on the store's
//! threads, answers are awaited on the shard.
//!
//! A session's questions go through its machine's disks from their beginnings to their ends, so what its
//! epoch stands on is read for a window at a time. Machines take turns at windows, the first that asked
//! first; who waits is sent by its agent all that is written meanwhile.
//!
//! Invariant: of nothing but the session's own machine is anything told.
//!
//! Memory: [`RESYNCS_MAX`] windows, and what one of them takes while it is read; the plan has both. A
//! server whose bound has no room for that answers nothing, and machines are copied instead.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use tidegate_model::{Epoch, Name, Remedy};
use tidegate_pipeline::{MemoryPlan, RESYNCS_MAX};
use tidegate_vault::Vault;
use tidegate_vault::log::LogReader;
use tidegate_vault::resync::{self, BLOCK_MEMORY_BYTES, ResyncError, Standing, Window};
use tidegate_vault::seal::BlockNamer;
use tidegate_wire::limits::{HASHES_MAX, QUESTIONS_MAX};
use tidegate_wire::{Hashes, Have, Refusal, RefusalCode};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::shared::Shared;

/// Indexes are read once for each window.
const CACHE_BYTES: usize = 0;
/// A session that asks nothing for so long leaves its window to others.
const IDLE: Duration = Duration::from_secs(5);

/// What all sessions that ask share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Resyncs {
    reader: LogReader,
    namer: BlockNamer,
    block_bytes: u32,
    window_blocks: usize,
    /// Windows that may be in memory at once.
    windows: Arc<Semaphore>,
    /// Of which so many may be read.
    readings: Arc<Semaphore>,
}

impl Resyncs {
    /// Answers from this vault; none where the plan has no room for them.
    pub(super) fn of(vault: &Vault, plan: &MemoryPlan) -> Option<Self> {
        let window_blocks = plan.resync_window_bytes / BLOCK_MEMORY_BYTES;
        let reader = LogReader::new(vault.store().clone(), vault.ring().clone(), CACHE_BYTES);
        (window_blocks >= HASHES_MAX).then(|| Self {
            reader,
            namer: vault.ring().block_namer(),
            block_bytes: vault.description().block_bytes,
            window_blocks,
            windows: Arc::new(Semaphore::new(RESYNCS_MAX)),
            readings: Arc::new(Semaphore::new(1)),
        })
    }

    /// The window that begins with a question.
    fn window(&self, question: &Hashes) -> Window {
        Window {
            disk: question.extent.disk,
            offset: question.extent.offset,
            blocks: self.window_blocks,
            block_bytes: u64::from(self.block_bytes),
        }
    }

    fn answer(&self, standing: &Standing, question: &Hashes) -> Have {
        let mut blocks = 0;
        let mut offset = question.extent.offset;
        for (index, hash) in question.hashes.iter().enumerate() {
            blocks |= u128::from(standing.has(&self.namer, offset, hash)) << index;
            offset += u64::from(self.block_bytes);
        }
        Have { extent: question.extent, blocks }
    }
}

/// A session's questions that have no answer yet.
pub(super) struct Questions {
    asked: mpsc::Sender<Hashes>,
    answered: mpsc::Receiver<Result<Have, Refusal>>,
}

impl Questions {
    /// Those of a session of this epoch of a machine. `None` where nothing is answered.
    pub(super) fn begin(shared: &Arc<Shared>, machine: &Name, epoch: Epoch) -> Option<Self> {
        let resyncs = shared.resyncs.clone()?;
        let (asked, questions) = mpsc::channel(QUESTIONS_MAX);
        let (answers, answered) = mpsc::channel(QUESTIONS_MAX);
        let answering = Answering {
            resyncs,
            machine: machine.clone(),
            epoch,
            questions,
            answers,
            looked: false,
        };
        shared.store.spawn(answering.run());
        Some(Self { asked, answered })
    }

    /// Asks. The protocol allows no more than there is room for.
    pub(super) fn ask(&mut self, question: Hashes) {
        // Whoever answers is gone only when the answer is a refusal, which ends the session.
        let _ = self.asked.try_send(question);
    }

    /// The next answer.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Have, Refusal>> {
        match self.answered.poll_next_unpin(context) {
            Poll::Ready(Some(answer)) => Poll::Ready(answer),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// The answering of one session; ends with it.
struct Answering {
    resyncs: Resyncs,
    machine: Name,
    epoch: Epoch,
    questions: mpsc::Receiver<Hashes>,
    answers: mpsc::Sender<Result<Have, Refusal>>,
    /// Whether it was looked at that what the epoch stands on can be brought back.
    looked: bool,
}

impl Answering {
    async fn run(mut self) {
        let mut next = self.questions.next().await;
        while let Some(question) = next {
            next = match self.window(question).await {
                // Whoever asked is gone, or is told why it can't go on.
                None => return,
                Some(None) => self.questions.next().await,
                Some(question) => question,
            };
        }
    }

    /// Answers what lies in the window that begins with `question`; gives the first that doesn't, if it
    /// was asked soon. `None` when nothing more is to be answered.
    async fn window(&mut self, question: Hashes) -> Option<Option<Hashes>> {
        let windows = self.resyncs.windows.clone();
        let _turn = windows.acquire().await.ok()?;
        if self.answers.is_closed() {
            return None;
        }
        let standing = match self.read(self.resyncs.window(&question)).await {
            Ok(standing) => standing,
            Err(error) => {
                let refusal = refusal(&self.machine, &error);
                let _ = self.answers.send(Err(refusal)).await;
                return None;
            }
        };
        let mut next = Some(question);
        while let Some(question) = next {
            if !standing.window().covers(&question.extent) {
                return Some(Some(question));
            }
            let have = self.resyncs.answer(&standing, &question);
            self.answers.send(Ok(have)).await.ok()?;
            next = match tokio::time::timeout(IDLE, self.questions.next()).await {
                Ok(None) => return None,
                Ok(question) => question,
                Err(_) => None,
            };
        }
        Some(None)
    }

    async fn read(&mut self, window: Window) -> Result<Standing, ResyncError> {
        let Resyncs { reader, readings, .. } = self.resyncs.clone();
        let _turn = readings.acquire().await;
        let (machine, disk, offset) = (&self.machine, window.disk, window.offset);
        info!(%machine, %disk, offset, "reads what its disk is compared with");
        let standing = resync::read(&reader, machine, self.epoch, window, !self.looked).await?;
        self.looked = true;
        Ok(standing)
    }
}

fn refusal(machine: &Name, error: &ResyncError) -> Refusal {
    warn!(%machine, %error, "its disks can't be compared with the vault");
    let cause = format!("the disks can't be compared with the vault: {error}");
    if error.is_for_good() {
        let advice = "the agent copies them anew by itself; 'tidegate verify' says what is damaged";
        return Refusal::new(RefusalCode::Epoch, Remedy::Refuse, &cause, advice);
    }
    let advice = "it is tried again; see whether the server reaches its store";
    Refusal::new(RefusalCode::Store, Remedy::Retry, &cause, advice)
}
