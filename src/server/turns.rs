//! Executors, and how their tasks take turns with the reactor.
//!
//! glommio 0.9 sleeps though tasks can run if it is preempted after it has set the preemption timer
//! and before it ran anything, as when its core is taken away in between; nothing may wake it then
//! (mended in its pull request 53, which isn't released). So nothing preempts here: the timer never
//! fires, and no queue's latency matters, whose wake-ups would interrupt whoever runs. The tasks
//! themselves let the reactor look at its rings, timers and wake-ups: a worker after a unit or several
//! small ones, a shard's sessions after each [`TURN_BYTES`].

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::oneshot;
use glommio::timer::Timer;
use glommio::{ExecutorJoinHandle, GlommioError, Latency, LocalExecutorBuilder, Placement};

/// The latency of every queue.
pub(super) const LATENCY: Latency = Latency::NotImportant;
/// The sessions of a shard let the reactor look after so many bytes: less than a millisecond's work.
pub(super) const TURN_BYTES: usize = 512 << 10;
/// Longer than any executor lives.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// No timer is due sooner than that after it was made, and the reactor's look takes longer.
const SOON: Duration = Duration::from_micros(1);
/// A wake-up could still preempt if it came to an executor that had just thought better of sleeping:
/// what that would hold up goes on after so long.
const NUDGE_INTERVAL: Duration = Duration::from_millis(20);
/// Memory for an executor's own I/O buffers; payload doesn't pass through them.
const IO_BYTES: usize = 1 << 20;
/// Entries of an executor's ring.
const RING_DEPTH: usize = 256;

/// An executor for a shard, on its core.
pub(super) fn executor(shard: usize, core: usize) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(Placement::Fixed(core))
        .name(&format!("shard-{shard}"))
        .preempt_timer(NEVER)
        .io_memory(IO_BYTES)
        .ring_depth(RING_DEPTH)
}

/// Starts an executor, and returns when it runs. One that can't have its core or its ring ends in its
/// own thread, where nobody would notice while the others wait for it.
pub(super) async fn start<F: Future<Output = ()> + 'static>(
    executor: LocalExecutorBuilder,
    run: impl FnOnce() -> F + Send + 'static,
) -> Result<ExecutorJoinHandle<()>, GlommioError<()>> {
    let (begun, begins) = oneshot::channel();
    let thread = executor.spawn(move || {
        // Who starts it is gone only when the process ends.
        let _ = begun.send(());
        run()
    })?;
    match begins.await {
        Ok(()) => Ok(thread),
        Err(_) => Err(thread.join().err().unwrap_or_else(|| {
            GlommioError::IoError(io::Error::other("its thread has ended before it ran"))
        })),
    }
}

/// Ready when the reactor has had its turn: a timer that is due at once, but only the reactor finds
/// what is due.
pub(super) fn reactor() -> Timer {
    Timer::new(SOON)
}

/// Wakes the executor from time to time, for ever.
pub(super) async fn nudge() {
    loop {
        Timer::new(NUDGE_INTERVAL).await;
    }
}

/// What a shard's sessions took in since the reactor's last turn, in bytes.
#[derive(Default)]
pub(crate) struct Taken(Cell<usize>);

impl Taken {
    /// Adds what a session has read.
    pub(super) fn add(&self, bytes: usize) {
        self.0.set(self.0.get().saturating_add(bytes));
    }

    /// Ready if a session may read on; `pause` is where it keeps its wait for the reactor's turn.
    pub(super) fn poll(&self, pause: &mut Option<Timer>, context: &mut Context<'_>) -> Poll<()> {
        if pause.is_none() && self.0.get() < TURN_BYTES {
            return Poll::Ready(());
        }
        let timer = pause.get_or_insert_with(reactor);
        std::task::ready!(std::pin::Pin::new(timer).poll(context));
        *pause = None;
        self.0.set(0);
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_executor_that_cant_run_is_told_of_at_its_start() {
        let core = super::super::settings::cores(1).unwrap()[0];
        // More than any ring has, which shows only in the executor's own thread.
        let deep = executor(0, core).ring_depth(1 << 20);
        assert!(start(deep, || async {}).await.is_err());
        start(executor(0, core), || async {}).await.unwrap().join().unwrap();
    }
}
