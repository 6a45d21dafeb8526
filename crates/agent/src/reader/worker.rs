//! The reader's thread: plans, reads, cuts, and hands on what is complete, disk after disk.
//!
//! Up to `depth` reads are on their way; they complete in any order and are handed on in the
//! disk's. The thread waits in three places, each of which ends when the consumer goes away: for a
//! free buffer (none of its own is waited for then: nothing is in flight), for the kernel, and for
//! room in the queue to the consumer.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use rustix::fs::SeekFrom;
use tidegate_model::DiskNumber;
use tokio::sync::mpsc;

use super::cut::{Cutter, Span};
use super::error::ReaderError;
use super::plan::{Layout, Planner, Step};
use super::pool::{Buffer, Pool};
use super::residency::{WINDOW_BYTES, is_mostly_cached};
use super::ring::{Completed, Read, Ring};
use super::{Caching, Setup};
use crate::progress::{Progress, add};
use crate::source::{DIRECT_ALIGN_BYTES, Source, SourceError};

/// What the thread hands on.
pub(super) enum Message {
    /// Spans in order.
    Spans(Vec<Span>),
    /// All disks were read to their end.
    End,
    /// Reading failed; nothing follows.
    Failed(ReaderError),
}

/// How reads went, for reports and benches.
#[derive(Debug, Default)]
pub struct ReadCounters {
    /// Bytes read past the page cache, because less than half of their window was in it.
    pub bytes_direct: AtomicU64,
    /// Bytes read through the page cache.
    pub bytes_buffered: AtomicU64,
    /// Why buffers aren't registered with io_uring, when they aren't; known at the end.
    pub unregistered_because: OnceLock<String>,
}

/// A read that was handed an error by the system this often in a row, though it is one that
/// passes (EAGAIN, EINTR), fails.
const ATTEMPTS_MAX: u8 = 100;

/// The consumer went away, or reading failed.
enum Ended {
    Unwanted,
    Failed(ReaderError),
}

impl<E: Into<ReaderError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The whole life of the thread.
pub(super) fn run(
    disks: &[(DiskNumber, Arc<Source>)],
    setup: &Setup,
    pool: &Pool,
    progress: &Progress,
    counters: &ReadCounters,
    out: &mpsc::Sender<Message>,
) {
    let read_all = || {
        let mut ring = Ring::new(setup.depth, pool.count(), pool.buffer_bytes())?;
        for (number, source) in disks {
            let cutter = Cutter::new(*number, setup.grain);
            let planner = Planner::new(source.bytes(), setup.block_bytes, setup.read_bytes);
            let work = Work { source, setup, pool, progress, counters, out };
            DiskRun { work, planner, cutter, pending: VecDeque::new(), first: 0, window: None }
                .run(&mut ring)?;
        }
        if let Some(reason) = ring.unregistered_because() {
            tracing::info!(reason, "read buffers are not registered with io_uring");
            // Set once, here.
            let _ = counters.unregistered_because.set(reason.clone());
        }
        Ok(())
    };
    let last = match read_all() {
        Ok(()) => Message::End,
        Err(Ended::Failed(error)) => Message::Failed(error),
        Err(Ended::Unwanted) => return,
    };
    // A consumer that has gone doesn't want to know.
    let _ = out.blocking_send(last);
}

/// What the reading of a disk works with.
struct Work<'a> {
    source: &'a Source,
    setup: &'a Setup,
    pool: &'a Pool,
    progress: &'a Progress,
    counters: &'a ReadCounters,
    out: &'a mpsc::Sender<Message>,
}

/// A step that hasn't been handed on.
enum Pending {
    Zeros(u64),
    Reading(Progressing),
    Read { buffer: Buffer, length: u32 },
}

/// How far a read is.
struct Progressing {
    range: Range<u64>,
    done: u32,
    direct: bool,
    attempts: u8,
}

impl Progressing {
    fn length(&self) -> u32 {
        // A read is at most `read_bytes` long, which is 32 bits.
        u32::try_from(self.range.end - self.range.start).unwrap_or(u32::MAX)
    }
}

/// The reading of one disk.
struct DiskRun<'a> {
    work: Work<'a>,
    planner: Planner,
    cutter: Cutter,
    /// Steps in order; the first has the number `first`, the tag of its read.
    pending: VecDeque<Pending>,
    first: u64,
    /// The window last decided about: its number and whether it is read past the cache.
    window: Option<(u64, bool)>,
}

impl DiskRun<'_> {
    fn run(mut self, ring: &mut Ring) -> Result<(), Ended> {
        loop {
            let planned_all = self.fill(ring)?;
            if let Some(completed) = ring.wait()? {
                self.complete(completed, ring)?;
            }
            self.hand_on()?;
            if planned_all && self.pending.is_empty() {
                break;
            }
        }
        let mut spans = Vec::new();
        self.cutter.end(&mut spans);
        self.send(spans)?;
        let found = self.work.source.bytes_now()?;
        if found < self.work.source.bytes() {
            return Err(self.work.source.shrank(found).into());
        }
        Ok(())
    }

    /// Puts reads on their way while there are buffers; true when all are planned. What is in the
    /// page cache is read at once: it is handed on while it is warm, before more is read.
    fn fill(&mut self, ring: &mut Ring) -> Result<bool, Ended> {
        while ring.has_room() && !ring.has_completed() {
            let Some(buffer) = self.buffer(ring)? else { return Ok(false) };
            let mut layout = FileLayout(self.work.source);
            match self.planner.next(&mut layout)? {
                None => return Ok(true),
                Some(Step::Zeros(range)) => {
                    self.pending.push_back(Pending::Zeros(range.end - range.start));
                }
                Some(Step::Read(range)) => {
                    let direct = self.reads_past_cache(range.start);
                    let reading = Progressing { range, done: 0, direct, attempts: 0 };
                    let tag = self.first + self.pending.len() as u64;
                    ring.push(tag, self.read_of(&reading, buffer));
                    self.pending.push_back(Pending::Reading(reading));
                    ring.start()?;
                }
            }
        }
        Ok(false)
    }

    /// A free buffer; waits for one only when nothing else can go on.
    fn buffer(&self, ring: &Ring) -> Result<Option<Buffer>, Ended> {
        if let Some(buffer) = self.work.pool.try_take() {
            return Ok(Some(buffer));
        }
        if ring.in_flight() > 0 || !self.pending.is_empty() {
            return Ok(None);
        }
        self.work.pool.take().map(Some).ok_or(Ended::Unwanted)
    }

    /// The next part of a read: past the cache as far as that is aligned, the rest through it.
    fn read_of(&self, reading: &Progressing, buffer: Buffer) -> Read {
        let offset = reading.range.start + u64::from(reading.done);
        let left = reading.length() - reading.done;
        let aligned = left - left % DIRECT_ALIGN_BYTES;
        let is_aligned = offset.is_multiple_of(DIRECT_ALIGN_BYTES.into())
            && reading.done.is_multiple_of(DIRECT_ALIGN_BYTES);
        let start = reading.done as usize;
        match self.work.source.direct() {
            Some(file) if reading.direct && is_aligned && aligned > 0 => {
                Read { file: file.clone(), offset, buffer, start, length: aligned }
            }
            _ => {
                let file = self.work.source.buffered().clone();
                Read { file, offset, buffer, start, length: left }
            }
        }
    }

    fn reads_past_cache(&mut self, offset: u64) -> bool {
        let source = self.work.source;
        if source.direct().is_none() {
            return false;
        }
        match self.work.setup.caching {
            Caching::Direct => return true,
            Caching::Buffered => return false,
            Caching::Auto => {}
        }
        let number = offset / WINDOW_BYTES;
        if let Some((known, direct)) = self.window
            && known == number
        {
            return direct;
        }
        let window = number * WINDOW_BYTES..source.bytes().min((number + 1) * WINDOW_BYTES);
        let direct = !is_mostly_cached(source.buffered(), window);
        self.window = Some((number, direct));
        direct
    }

    /// Takes a completed read: the rest of it is read if it was short.
    fn complete(&mut self, completed: Completed, ring: &mut Ring) -> Result<(), Ended> {
        let Completed { tag, buffer, result } = completed;
        // Tags are numbers of pending steps, which leave only when they are complete.
        let index = usize::try_from(tag - self.first).unwrap_or(usize::MAX);
        let Some(Pending::Reading(mut reading)) =
            self.pending.get_mut(index).map(|step| std::mem::replace(step, Pending::Zeros(0)))
        else {
            unreachable!("a read completes once, and its step waits for it");
        };
        match result {
            Ok(0) => return Err(self.ended_at(&reading)),
            Ok(count) => {
                reading.done += count;
                reading.attempts = 0;
                add(self.counter(reading.direct), count.into());
            }
            Err(error) => self.retry_or_fail(&mut reading, error)?,
        }
        self.pending[index] = if reading.done >= reading.length() {
            Pending::Read { buffer, length: reading.length() }
        } else {
            ring.push(tag, self.read_of(&reading, buffer));
            Pending::Reading(reading)
        };
        Ok(())
    }

    const fn counter(&self, direct: bool) -> &AtomicU64 {
        let counters = self.work.counters;
        if direct { &counters.bytes_direct } else { &counters.bytes_buffered }
    }

    /// An error that passes, or that only reads past the cache have, is met by reading again.
    fn retry_or_fail(&self, reading: &mut Progressing, error: io::Error) -> Result<(), Ended> {
        reading.attempts += 1;
        let passes = match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => reading.attempts < ATTEMPTS_MAX,
            Some(libc::EINVAL | libc::EOPNOTSUPP) => std::mem::take(&mut reading.direct),
            _ => false,
        };
        if passes {
            return Ok(());
        }
        let (path, offset) = (self.work.source.path().to_path_buf(), reading.range.start);
        Err(SourceError::Read { path, offset: offset + u64::from(reading.done), error }.into())
    }

    /// The error for a read that got nothing where the disk should go on.
    fn ended_at(&self, reading: &Progressing) -> Ended {
        let source = self.work.source;
        let offset = reading.range.start + u64::from(reading.done);
        match source.bytes_now() {
            Ok(now) if now < source.bytes() => source.shrank(now).into(),
            Ok(_) => {
                let (path, error) = (source.path().to_path_buf(), io::ErrorKind::UnexpectedEof);
                SourceError::Read { path, offset, error: error.into() }.into()
            }
            Err(error) => error.into(),
        }
    }

    /// Cuts and hands on the steps that are complete, in order.
    fn hand_on(&mut self) -> Result<(), Ended> {
        while !matches!(self.pending.front(), None | Some(Pending::Reading(_))) {
            let progress = self.work.progress;
            let mut spans = Vec::new();
            match self.pending.pop_front() {
                Some(Pending::Zeros(bytes)) => {
                    self.cutter.zeros(bytes);
                    add(&progress.bytes_zero, bytes);
                    add(&progress.bytes_passed, bytes);
                }
                Some(Pending::Read { buffer, length }) => {
                    let zeros = self.cutter.data(buffer, length as usize, &mut spans);
                    add(&progress.bytes_read, length.into());
                    add(&progress.bytes_zero, zeros);
                    add(&progress.bytes_passed, length.into());
                }
                Some(Pending::Reading(_)) | None => {}
            }
            self.first += 1;
            self.send(spans)?;
        }
        Ok(())
    }

    fn send(&self, spans: Vec<Span>) -> Result<(), Ended> {
        if spans.is_empty() {
            // Nothing to say, but a place to notice that nobody listens.
            return if self.work.out.is_closed() { Err(Ended::Unwanted) } else { Ok(()) };
        }
        self.work.out.blocking_send(Message::Spans(spans)).map_err(|_| Ended::Unwanted)
    }
}

/// Data and holes as the file system tells them; a block device, and a file system that doesn't
/// know, is all data.
struct FileLayout<'a>(&'a Source);

impl Layout for FileLayout<'_> {
    type Error = SourceError;

    fn data_from(&mut self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        let (source, file): (_, &File) = (self.0, self.0.buffered());
        let all = offset..source.bytes();
        let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => {
                // No data from here to the end of the file; unless the file became shorter.
                let now = source.bytes_now()?;
                return if now < source.bytes() { Err(source.shrank(now)) } else { Ok(None) };
            }
            Err(_) => return Ok(Some(all)),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(all.end);
        Ok(Some(start..end.max(start + 1)))
    }
}
