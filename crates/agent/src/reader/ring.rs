//! Reads through io_uring: the only place where the kernel is given addresses to write to.
//!
//! A read takes its buffer and its file by value and gives the buffer back when the kernel has
//! completed it. So nobody can look at a buffer that is being written, and dropping the ring
//! waits until no read is on its way.
//!
//! Buffers are registered with the ring at their first use, which pins them once instead of at
//! every read. Where that may not be ([`super::locked`]) or fails, the same buffers are read into
//! without it, and [`Ring::unregistered_because`] says why.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, opcode, types};

use super::error::ReaderError;
use super::locked;
use super::pool::Buffer;

/// One read: `length` bytes at `offset` of `file`, to `start` in `buffer`.
pub(super) struct Read {
    /// The file.
    pub file: Arc<File>,
    /// Where in the file.
    pub offset: u64,
    /// The buffer.
    pub buffer: Buffer,
    /// Where in the buffer.
    pub start: usize,
    /// How many bytes.
    pub length: u32,
}

/// A read that the kernel has completed.
pub(super) struct Completed {
    /// As given to [`Ring::push`].
    pub tag: u64,
    /// The buffer, whole again.
    pub buffer: Buffer,
    /// How many bytes were read; perhaps fewer than asked for.
    pub result: io::Result<u32>,
}

struct Slot {
    tag: u64,
    buffer: Buffer,
    /// Held until the read is complete.
    _file: Arc<File>,
}

/// A ring of at most `depth` reads at once. It must be used on the thread that made it.
pub(super) struct Ring {
    ring: IoUring,
    slots: Vec<Option<Slot>>,
    in_flight: usize,
    completed: VecDeque<Completed>,
    registered: Vec<bool>,
    unregistered_because: Option<String>,
}

impl Ring {
    /// A ring for `depth` reads at once into `buffers` buffers of `buffer_bytes` each.
    pub(super) fn new(depth: u32, buffers: u16, buffer_bytes: usize) -> Result<Self, ReaderError> {
        let ring = set_up(depth)?;
        let bytes = u64::from(buffers) * buffer_bytes as u64;
        let unregistered_because = locked::reason_against(bytes).or_else(|| {
            let registered = ring.submitter().register_buffers_sparse(buffers.into());
            registered.err().map(|error| format!("the kernel refused ({error})"))
        });
        Ok(Self {
            ring,
            slots: (0..depth).map(|_| None).collect(),
            in_flight: 0,
            completed: VecDeque::new(),
            registered: vec![false; buffers.into()],
            unregistered_because,
        })
    }

    /// Whether another read can be pushed.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight < self.slots.len()
    }

    /// Reads that aren't complete.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Why buffers aren't registered, when they aren't.
    pub(super) const fn unregistered_because(&self) -> Option<&String> {
        self.unregistered_because.as_ref()
    }

    /// Queues a read; [`Ring::start`] or [`Ring::wait`] hands it to the kernel.
    ///
    /// # Panics
    /// When there is no room, or the range isn't the buffer's: defects of the caller.
    pub(super) fn push(&mut self, tag: u64, mut read: Read) {
        let end = read.start + read.length as usize;
        assert!(end <= read.buffer.len(), "a read lies within its buffer");
        let index = self.slots.iter().position(Option::is_none).expect("the caller saw room");
        let number = read.buffer.number();
        let fixed = self.register(&mut read.buffer);
        let file = types::Fd(read.file.as_raw_fd());
        let address = read.buffer.address().wrapping_add(read.start);
        let entry = if fixed {
            opcode::ReadFixed::new(file, address, read.length, number).offset(read.offset).build()
        } else {
            opcode::Read::new(file, address, read.length).offset(read.offset).build()
        };
        self.slots[index] = Some(Slot { tag, buffer: read.buffer, _file: read.file });
        self.in_flight += 1;
        // SAFETY: the address range lies within the buffer (asserted above). Buffer and file now
        // belong to the slot, which is emptied only when this read's completion has arrived (or
        // is leaked, see drop), so the memory stays mapped and unaliased while the kernel writes.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(index as u64)) };
        assert!(pushed.is_ok(), "the queue has an entry for every slot");
    }

    /// Hands the queued reads to the kernel and takes what is complete, without waiting.
    pub(super) fn start(&mut self) -> Result<(), ReaderError> {
        self.enter(0)?;
        self.collect();
        Ok(())
    }

    /// Whether [`Ring::wait`] would return at once with a read.
    pub(super) fn has_completed(&self) -> bool {
        !self.completed.is_empty()
    }

    /// The next completed read; waits for one. `None` when none is on its way.
    pub(super) fn wait(&mut self) -> Result<Option<Completed>, ReaderError> {
        loop {
            self.collect();
            if let Some(completed) = self.completed.pop_front() {
                return Ok(Some(completed));
            }
            if self.in_flight == 0 {
                return Ok(None);
            }
            self.enter(1)?;
        }
    }

    fn enter(&mut self, want: usize) -> Result<(), ReaderError> {
        match self.ring.submit_and_wait(want) {
            Ok(_) => Ok(()),
            // Interrupted, or the kernel is short of something that completions will free; what
            // was not taken stays queued.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(ReaderError::Ring { doing: "waiting for io_uring reads", error }),
        }
    }

    fn collect(&mut self) {
        for entry in self.ring.completion() {
            let slot = usize::try_from(entry.user_data())
                .ok()
                .and_then(|index| self.slots.get_mut(index)?.take());
            // Every completion is of a slot that we filled.
            let Some(slot) = slot else { continue };
            self.in_flight -= 1;
            let result = match u32::try_from(entry.result()) {
                Ok(bytes) => Ok(bytes),
                Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
            };
            self.completed.push_back(Completed { tag: slot.tag, buffer: slot.buffer, result });
        }
    }

    /// Registers a buffer that wasn't; false when it has to do without.
    fn register(&mut self, buffer: &mut Buffer) -> bool {
        let number = buffer.number();
        let Some(registered) = self.registered.get_mut(usize::from(number)) else { return false };
        if *registered || self.unregistered_because.is_some() {
            return *registered;
        }
        let part = libc::iovec { iov_base: buffer.address().cast(), iov_len: buffer.len() };
        // SAFETY: the buffer's whole part of the pool's mapping. The kernel keeps its pages pinned
        // until the ring is closed; it writes to them only for reads that `push` queues.
        let done =
            unsafe { self.ring.submitter().register_buffers_update(number.into(), &[part], None) };
        match done {
            Ok(()) => *registered = true,
            Err(error) => {
                self.unregistered_because = Some(format!("the kernel refused ({error})"));
            }
        }
        *registered
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            self.collect();
            if self.in_flight > 0 && self.enter(1).is_err() {
                // The kernel may still write: better to lose these buffers than to reuse them.
                std::mem::forget(std::mem::take(&mut self.slots));
                return;
            }
        }
    }
}

/// A ring that was closed gives its locked memory back a little later; one made right after it may
/// have to wait. So long, at most.
const SETUP_ATTEMPTS: u32 = 50;
const SETUP_PAUSE: Duration = Duration::from_millis(20);

fn set_up(depth: u32) -> Result<IoUring, ReaderError> {
    let attempt = || {
        let modern = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(depth);
        match modern {
            // Kernels before 6.1 don't know these.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(depth),
            ring => ring,
        }
    };
    for _ in 1..SETUP_ATTEMPTS {
        match attempt() {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                std::thread::sleep(SETUP_PAUSE);
            }
            ring => return ring.map_err(of_setup),
        }
    }
    attempt().map_err(of_setup)
}

/// Whether io_uring is allowed here: makes a ring and drops it. Other troubles show when a ring is
/// needed.
pub(super) fn probe() -> Result<(), ReaderError> {
    match IoUring::new(1).map_err(of_setup) {
        Err(error @ ReaderError::Forbidden { .. }) => Err(error),
        _ => Ok(()),
    }
}

/// The error for a ring that can't be made.
fn of_setup(error: io::Error) -> ReaderError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => ReaderError::Forbidden { error },
        Some(libc::ENOMEM) => ReaderError::Locked { limit: locked::limit_text() },
        _ => ReaderError::Ring { doing: "setting up io_uring", error },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::pool::Pool;
    use super::*;

    fn file_of(bytes: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file)
    }

    #[test]
    fn reads_come_back_with_their_tags_and_bytes() {
        let file = file_of(&[7; 10_000]);
        let pool = Pool::new(8192, 4).unwrap();
        let mut ring = Ring::new(4, 4, 8192).unwrap();
        for tag in 0..2 {
            let (file, buffer) = (file.clone(), pool.take().unwrap());
            ring.push(tag, Read { file, offset: tag * 8192, buffer, start: 0, length: 8192 });
        }
        let mut bytes = [0, 0];
        while let Some(done) = ring.wait().unwrap() {
            let count = done.result.unwrap();
            assert!(done.buffer[..count as usize].iter().all(|b| *b == 7));
            bytes[usize::from(done.tag == 1)] = count;
        }
        assert_eq!(bytes, [8192, 1808]);
    }

    #[test]
    fn a_ring_dropped_with_reads_on_their_way_gives_every_buffer_back() {
        let file = file_of(&[7; 1 << 20]);
        let pool = Pool::new(1 << 20, 8).unwrap();
        let mut ring = Ring::new(8, 8, 1 << 20).unwrap();
        for tag in 0..8 {
            let (file, buffer) = (file.clone(), pool.take().unwrap());
            ring.push(tag, Read { file, offset: 0, buffer, start: 0, length: 1 << 20 });
        }
        ring.start().unwrap();
        drop(ring);
        let all: Vec<_> = std::iter::from_fn(|| pool.try_take()).collect();
        assert_eq!(all.len(), 8);
    }

    #[test]
    fn a_failed_setup_says_whether_io_uring_is_forbidden_or_lacks_memory_and_what_to_do() {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let error = of_setup(io::Error::from_raw_os_error(errno));
            assert!(matches!(error, ReaderError::Forbidden { .. }));
            assert!(error.to_string().contains("kernel.io_uring_disabled"));
        }
        let error = of_setup(io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(error.to_string().contains("too little memory may be locked"), "{error}");
    }
}
