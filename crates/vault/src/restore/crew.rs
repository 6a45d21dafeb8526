//! The threads of a restore, one a core: each opens frames and writes what they hold.
//!
//! What waits for them was fetched into buffers, of which there is a fixed number, so their queue
//! needs no limit of its own. When a thread finds it empty, the store is what everybody waits for:
//! then one more run may be fetched at once. A restore that is dropped stops them at their next
//! frame, and waits until they have ended: nothing is written afterwards.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tidegate_model::Name;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::RestoreError;
use super::decode::{Decoder, Job};
use super::means::Means;
use super::sink::Sink;
use crate::log::LogError;
use crate::log::buffers::Buffers;

/// The bytes that were handed to the sink, or why nothing more can be.
pub type Report = Result<u64, RestoreError>;

/// The threads at work.
pub struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    buffers: Buffers,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// No more will come.
    ended: bool,
    /// What is left isn't wanted.
    stopped: bool,
}

impl Crew {
    /// Starts the threads. Their reports end when the last of them has.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(
        machine: &Name,
        means: Means,
        buffers: Buffers,
        sink: &Arc<dyn Sink>,
    ) -> Result<(Self, UnboundedReceiver<Report>), RestoreError> {
        let (reports, received) = unbounded_channel();
        let queue = Mutex::new(Queue::default());
        let shared = Arc::new(Shared { queue, changed: Condvar::new(), buffers });
        let mut crew = Self { shared, threads: Vec::new() };
        let machine = Arc::new(machine.clone());
        for number in 0..means.threads {
            let decoder = Decoder::new(machine.clone());
            let reports = Reports(reports.clone());
            let (shared, sink) = (crew.shared.clone(), sink.clone());
            let work = move || work(&shared, decoder, sink.as_ref(), means.buffers, &reports);
            let thread = std::thread::Builder::new().name(format!("restore-{number}")).spawn(work);
            crew.threads.push(thread.map_err(|error| stopped(&error))?);
        }
        Ok((crew, received))
    }

    /// Gives them something to do.
    pub fn give(&self, job: Job) {
        self.shared.lock().jobs.push_back(job);
        self.shared.changed.notify_one();
    }

    /// Nothing more will come: they end when everything is written.
    pub fn end(&self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // One that panicked said so in its report.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The next job; waits for one. `None` when there is nothing left to do.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.ended {
                return None;
            }
            self.buffers.one_more();
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        let mut queue = self.lock();
        queue.stopped = true;
        queue.jobs.clear();
        drop(queue);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread's reports. One that panics says so with its last.
struct Reports(UnboundedSender<Report>);

impl Reports {
    /// Nobody may be there to hear it: then the restore was dropped.
    fn send(&self, report: Report) {
        let _ = self.0.send(report);
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.send(Err(stopped(&"a thread that writes disks panicked")));
        }
    }
}

fn work(shared: &Shared, mut decoder: Decoder, sink: &dyn Sink, buffers: usize, reports: &Reports) {
    let mut writer = sink.writer(buffers);
    while let Some(job) = shared.next() {
        let done = decoder.run(job, writer.as_mut(), &|| shared.lock().stopped);
        let failed = done.is_err();
        if failed {
            shared.stop();
        }
        reports.send(done);
        if failed {
            return;
        }
    }
    reports.send(decoder.flush(writer.as_mut()).map(|()| 0));
}

/// The error of a thread that isn't there.
pub fn stopped(why: &dyn ToString) -> RestoreError {
    RestoreError::Log(LogError::Stopped(why.to_string()))
}
