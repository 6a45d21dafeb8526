//! Answers to agents that ask what of their disks the vault holds: the vault is read on the store's
//! threads, answers are awaited on the shard.
//!
//! A session's questions go through its machine's disks from their beginnings to their ends, so what its
//! epoch stands on is read for a window at a time, and kept as long as no other machine needs its place. Who
//! needs another window stands in line: one reads at a time, and whoever has read is behind all others again.
//! Who waits is sent by its agent all that is written meanwhile. What is read for an agent that has gone is
//! kept, too, for it comes again.
//!
//! Invariant: of nothing but the session's own machine is anything told.
//!
//! Memory: [`RESYNCS_MAX`] windows, and what one of them takes while it is read; the plan has both. A
//! server whose bound has no room for that answers nothing, and machines are copied instead.

mod windows;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

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
use windows::Windows;

/// Indexes are read once for each window.
const CACHE_BYTES: usize = 0;
/// Longest reading of one window: others wait meanwhile. A grant looks through 120,000 packs in 300 seconds,
/// and a history is folded long before it has six times that.
const READING_MAX: Duration = Duration::from_secs(1800);

/// What all sessions that ask share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Resyncs {
    reader: LogReader,
    namer: BlockNamer,
    block_bytes: u32,
    window_blocks: usize,
    windows: Arc<Mutex<Windows<Standing>>>,
    /// The line of those who read; the first that came is the next.
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
            windows: Arc::new(Mutex::new(Windows::new(RESYNCS_MAX))),
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

    /// The answer by what is in memory.
    fn known(&self, machine: &Name, epoch: Epoch, question: &Hashes) -> Option<Have> {
        let mut windows = self.windows();
        let fits = |standing: &Standing| standing.window().covers(&question.extent);
        let standing = windows.find(machine, epoch, Instant::now(), fits)?;
        Some(self.answer(standing, question))
    }

    fn windows(&self) -> MutexGuard<'_, Windows<Standing>> {
        // It is whole between statements, whoever panicked.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
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
        while let Some(question) = self.questions.next().await {
            let known = self.resyncs.known(&self.machine, self.epoch, &question);
            let answer = match known {
                Some(have) => Ok(have),
                None => match self.read(&question).await {
                    Some(answer) => answer,
                    None => return,
                },
            };
            let is_last = answer.is_err();
            if self.answers.send(answer).await.is_err() || is_last {
                return;
            }
        }
    }

    /// Reads the window that begins with a question, in turn, and answers that. `None` when whoever asked
    /// had gone before it was read.
    async fn read(&mut self, question: &Hashes) -> Option<Result<Have, Refusal>> {
        let line = self.resyncs.readings.clone();
        let _turn = line.acquire().await.ok()?;
        // A session of the same machine before this one may have been in line.
        if let Some(have) = self.resyncs.known(&self.machine, self.epoch, question) {
            return Some(Ok(have));
        }
        self.looked |= self.resyncs.windows().remove(&self.machine, self.epoch);
        loop {
            if self.answers.is_closed() {
                return None;
            }
            let room = self.resyncs.windows().make_room(Instant::now());
            let Err(at) = room else { break };
            tokio::time::sleep_until(at.into()).await;
        }
        let window = self.resyncs.window(question);
        let (machine, disk, offset) = (&self.machine, window.disk, window.offset);
        info!(%machine, %disk, offset, "reads what its disk is compared with");
        let reading = resync::read(&self.resyncs.reader, machine, self.epoch, window, !self.looked);
        let standing = match tokio::time::timeout(READING_MAX, reading).await {
            Ok(Ok(standing)) => standing,
            Ok(Err(error)) => return Some(Err(refusal(machine, &error))),
            Err(_) => return Some(Err(too_slow(machine))),
        };
        self.looked = true;
        let have = self.resyncs.answer(&standing, question);
        self.resyncs.windows().keep(machine, self.epoch, standing, Instant::now());
        Some(Ok(have))
    }
}

fn too_slow(machine: &Name) -> Refusal {
    warn!(%machine, "what its disks are compared with can't be read in time");
    let cause = "reading what the disks are compared with takes too long";
    let advice =
        "it is tried again; see whether the server reaches its store, and run 'tidegate maintain'";
    Refusal::new(RefusalCode::Store, Remedy::Retry, cause, advice)
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
