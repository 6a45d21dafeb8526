//! The disk reader: reads disks through io_uring on a thread of its own and gives them out as
//! [`Span`]s, in disk order, one disk after the other.
//!
//! One disk after the other because a deep queue of large reads already fills a fast device, and
//! two disks on one slow device would fight for its head.
//!
//! Owns the pool of buffers, whose size is the bound on all data that was read and not yet
//! committed: a span's [`Payload`] holds its buffer, and the reader waits when none is free. So
//! the consumer must let go of payloads without waiting for further spans.
//!
//! Parts: `plan` (what to read), `ring` (how), `worker` (the thread), `cut` (what it
//! is), `pool` (where it lies), `residency` (through the page cache or past it), `locked`
//! (whether buffers are registered). Unsafe code is in `pool`, `ring` and `residency` only.

mod cut;
mod error;
mod locked;
mod plan;
pub(crate) mod pool;
mod residency;
mod ring;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_model::DiskNumber;
use tidegate_model::limits::{
    BLOCK_BYTES_DEFAULT, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, RECORD_BYTES_DEFAULT, RECORD_BYTES_MAX,
    WINDOW_BYTES_DEFAULT,
};
use tokio::sync::mpsc;

pub use cut::Span;
pub use error::ReaderError;
pub use pool::Payload;
pub use worker::ReadCounters;

use crate::progress::Progress;
use crate::source::Source;
use cut::Grain;
use pool::Pool;
use worker::Message;

/// Messages between the thread and the consumer; each carries what one read gave, so the pool
/// bounds their bytes and this their number.
const QUEUE_MESSAGES: usize = 64;

/// Fewest buffers: one being read, one being sent.
const BUFFERS_MIN: u64 = 2;

/// Bytes of one read unless told otherwise.
const READ_BYTES_DEFAULT: u32 = 1 << 20;

/// Smallest pool for reads of the usual size.
pub const POOL_BYTES_MIN: u64 = BUFFERS_MIN * READ_BYTES_DEFAULT as u64;

/// Most buffers: as many as io_uring registers with one ring.
const BUFFERS_MAX: u64 = 16_384;

/// Most reads at once; more than any device's queue.
const DEPTH_MAX: u32 = 1024;

/// Largest read.
const READ_BYTES_MAX: u32 = 16 << 20;

/// Through the page cache or past it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Caching {
    /// By what is in the page cache, for every 64 MiB of a disk.
    #[default]
    Auto,
    /// Always through it.
    Buffered,
    /// Past it wherever the disk allows.
    Direct,
}

/// How to read.
#[derive(Debug, Clone)]
pub struct ReaderSettings {
    /// The vault's block size, a power of two.
    pub block_bytes: u32,
    /// Most bytes of one record.
    pub record_bytes_max: u32,
    /// Bytes of one read and of one buffer, a multiple of the block size.
    pub read_bytes: u32,
    /// Reads at once.
    pub depth: u32,
    /// Bytes of all buffers.
    pub pool_bytes: u64,
    /// Through the page cache or past it.
    pub caching: Caching,
}

impl Default for ReaderSettings {
    /// 16 reads of 1 MiB keep an NVMe device busy.
    fn default() -> Self {
        Self {
            block_bytes: BLOCK_BYTES_DEFAULT,
            record_bytes_max: RECORD_BYTES_DEFAULT,
            read_bytes: READ_BYTES_DEFAULT,
            depth: 16,
            pool_bytes: WINDOW_BYTES_DEFAULT,
            caching: Caching::Auto,
        }
    }
}

/// Settings that were checked.
struct Setup {
    block_bytes: u32,
    read_bytes: u32,
    depth: u32,
    buffers: u16,
    grain: Grain,
    caching: Caching,
}

impl ReaderSettings {
    fn check(&self) -> Result<Setup, ReaderError> {
        let refuse = |what: String| Err(ReaderError::Settings { what });
        let Self { block_bytes, record_bytes_max, read_bytes, depth, pool_bytes, caching } = *self;
        if !block_bytes.is_power_of_two()
            || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes)
        {
            return refuse(format!("blocks of {block_bytes} bytes"));
        }
        if !(1..=RECORD_BYTES_MAX).contains(&record_bytes_max) {
            return refuse(format!("records of {record_bytes_max} bytes"));
        }
        if !(block_bytes..=READ_BYTES_MAX).contains(&read_bytes)
            || !read_bytes.is_multiple_of(block_bytes)
        {
            return refuse(format!("reads of {read_bytes} bytes at blocks of {block_bytes}"));
        }
        if !(1..=DEPTH_MAX).contains(&depth) {
            return refuse(format!("a queue of {depth} reads"));
        }
        let buffers = pool_bytes / u64::from(read_bytes);
        if buffers < BUFFERS_MIN {
            return refuse(format!(
                "{pool_bytes} bytes of buffers (at least {BUFFERS_MIN} reads of {read_bytes} \
                 bytes are needed)"
            ));
        }
        let buffers = u16::try_from(buffers.min(BUFFERS_MAX)).unwrap_or(u16::MAX);
        let grain = Grain::new(block_bytes, record_bytes_max);
        Ok(Setup { block_bytes, read_bytes, depth, buffers, grain, caching })
    }
}

/// Disks being read. Dropping it stops the thread, which first waits for the reads on their way.
#[derive(Debug)]
pub struct Reader {
    messages: mpsc::Receiver<Message>,
    spans: VecDeque<Span>,
    ended: bool,
    pool: PoolGuard,
    counters: Arc<ReadCounters>,
}

/// Closes the pool, so that a thread waiting for a buffer ends.
struct PoolGuard(Pool);

impl Drop for PoolGuard {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl std::fmt::Debug for PoolGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} buffers)", self.0.count())
    }
}

impl Reader {
    /// Whether io_uring is allowed here.
    ///
    /// # Errors
    /// [`ReaderError::Forbidden`] where it is not allowed.
    pub fn probe() -> Result<(), ReaderError> {
        ring::probe()
    }

    /// Starts to read `disks`.
    ///
    /// # Errors
    /// Settings that can't work, memory or a thread that can't be had. Everything else comes out
    /// of [`Reader::next`].
    pub fn start(
        disks: Vec<(DiskNumber, Arc<Source>)>,
        settings: &ReaderSettings,
        progress: Arc<Progress>,
    ) -> Result<Self, ReaderError> {
        let setup = settings.check()?;
        let pool = Pool::new(setup.read_bytes as usize, setup.buffers)
            .map_err(|error| ReaderError::Memory { bytes: settings.pool_bytes, error })?;
        let counters = Arc::<ReadCounters>::default();
        let (sender, messages) = mpsc::channel(QUEUE_MESSAGES);
        let reader = Self {
            messages,
            spans: VecDeque::new(),
            ended: false,
            pool: PoolGuard(pool.clone()),
            counters: counters.clone(),
        };
        std::thread::Builder::new()
            .name("disk-reader".to_owned())
            .spawn(move || worker::run(&disks, &setup, &pool, &progress, &counters, &sender))
            .map_err(|error| ReaderError::Ring { doing: "starting the reader's thread", error })?;
        Ok(reader)
    }

    /// The next span; `None` after the last of the last disk. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Whatever ended the reading; nothing follows it.
    pub async fn next(&mut self) -> Result<Option<Span>, ReaderError> {
        loop {
            if let Some(span) = self.spans.pop_front() {
                return Ok(Some(span));
            }
            if self.ended {
                return Ok(None);
            }
            match self.messages.recv().await {
                Some(Message::Spans(spans)) => self.spans = spans.into(),
                Some(Message::End) => self.ended = true,
                Some(Message::Failed(error)) => return Err(error),
                None => return Err(ReaderError::Died),
            }
        }
    }

    /// The most bytes of buffers that were in use at once.
    #[must_use]
    pub fn buffer_bytes_max(&self) -> u64 {
        self.pool.0.out_max() as u64 * self.pool.0.buffer_bytes() as u64
    }

    /// How reads went.
    #[must_use]
    pub const fn counters(&self) -> &Arc<ReadCounters> {
        &self.counters
    }
}
