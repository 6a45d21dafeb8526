//! The pool of read buffers: the bound on what the agent keeps in memory.
//!
//! One anonymous mapping of fixed size, cut into buffers of equal size, all aligned to the page.
//! Only what was used once costs memory: the buffer freed last is given out first, and one never
//! used only when no other is free. A [`Buffer`] is a guard: it has its part of the mapping for
//! itself, and gives it back when it is dropped; a [`Payload`] is a share of a buffer, which goes
//! back with the last of its shares.
//!
//! Bound: at most `count` buffers are out, ever. Who needs one and can wait waits in
//! [`Pool::take`], until one comes back or the pool is closed.

use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{fmt, io, ptr};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use tidegate_model::Checksum;

/// An anonymous mapping, unmapped when dropped.
struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; `Region` gives no access by itself,
// and `Buffer`, which does, holds disjoint parts of it.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn map(bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no memory
        // that anyone else uses.
        let address = unsafe {
            let how = MapFlags::PRIVATE | MapFlags::NORESERVE;
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                how,
            )?
        };
        let start = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let region = Self { start, bytes };
        // SAFETY: exactly our mapping. Large pages save time only, so a refusal is no error.
        let _ = unsafe { rustix::mm::madvise(address, bytes, Advice::LinuxHugepage) };
        Ok(region)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: exactly our mapping; every buffer holds the region alive, so none is left.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

struct Shelf {
    free: Vec<u16>,
    /// Buffers from this number on were never given out.
    fresh: u16,
    closed: bool,
    out_max: usize,
}

struct Shared {
    region: Region,
    buffer_bytes: usize,
    count: u16,
    shelf: Mutex<Shelf>,
    returned: Condvar,
}

impl Shared {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Nothing panics while it holds the lock, and the shelf is whole between statements.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The buffers of one agent. Clones share them.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

impl Pool {
    /// A pool of `count` buffers of `buffer_bytes` each, a multiple of the page.
    ///
    /// # Errors
    /// When the address space isn't to be had.
    pub fn new(buffer_bytes: usize, count: u16) -> io::Result<Self> {
        assert!(buffer_bytes.is_multiple_of(4096) && count > 0, "whole pages, at least one buffer");
        let bytes = buffer_bytes.checked_mul(count.into()).ok_or(io::ErrorKind::OutOfMemory)?;
        let region = Region::map(bytes)?;
        let shelf =
            Shelf { free: Vec::with_capacity(count.into()), fresh: 0, closed: false, out_max: 0 };
        Ok(Self(Arc::new(Shared {
            region,
            buffer_bytes,
            count,
            shelf: Mutex::new(shelf),
            returned: Condvar::new(),
        })))
    }

    /// A buffer, if one is free and the pool isn't closed.
    #[must_use]
    pub fn try_take(&self) -> Option<Buffer> {
        self.take_from(&mut self.0.shelf())
    }

    /// A buffer; waits for one. `None` when the pool is closed.
    #[must_use]
    pub fn take(&self) -> Option<Buffer> {
        let waits = |shelf: &mut Shelf| {
            !shelf.closed && shelf.free.is_empty() && shelf.fresh == self.0.count
        };
        let guard = self.0.returned.wait_while(self.0.shelf(), waits);
        self.take_from(&mut guard.unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the waiting: no buffer is given out any more.
    pub fn close(&self) {
        self.0.shelf().closed = true;
        self.0.returned.notify_all();
    }

    /// The most buffers that were out at once.
    #[must_use]
    pub fn out_max(&self) -> usize {
        self.0.shelf().out_max
    }

    /// How many buffers there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.0.count
    }

    /// The size of each.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.0.buffer_bytes
    }

    fn take_from(&self, shelf: &mut Shelf) -> Option<Buffer> {
        if shelf.closed {
            return None;
        }
        let number = match shelf.free.pop() {
            Some(number) => number,
            None if shelf.fresh < self.0.count => {
                shelf.fresh += 1;
                shelf.fresh - 1
            }
            None => return None,
        };
        shelf.out_max = shelf.out_max.max(usize::from(shelf.fresh) - shelf.free.len());
        Some(Buffer { shared: self.0.clone(), number })
    }
}

/// One buffer, for its holder alone.
pub struct Buffer {
    shared: Arc<Shared>,
    number: u16,
}

impl Buffer {
    /// Its number in the pool.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Where it lies, for the kernel to write to. Only who holds the buffer may let it be written.
    pub(super) fn address(&mut self) -> *mut u8 {
        self.start().as_ptr()
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: number < count, and the region has count times buffer_bytes bytes.
        unsafe { self.shared.region.start.add(usize::from(self.number) * self.shared.buffer_bytes) }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: this part of the mapping is this buffer's alone (the pool gives a number out
        // once until it is dropped), it was zeroed by the kernel at first, and it is written only
        // while the ring holds the buffer by value (see ring.rs), so not during this borrow.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.shared.buffer_bytes) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else has a borrow of it.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.shared.buffer_bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.shared.shelf().free.push(self.number);
        self.shared.returned.notify_one();
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({})", self.number)
    }
}

/// The bytes of one record, within a buffer that they hold until the last of its records is gone.
#[derive(Clone)]
pub struct Payload {
    buffer: Arc<Buffer>,
    start: usize,
    end: usize,
    checksum: Checksum,
}

impl Payload {
    /// The bytes `range` of `buffer`, with their checksum taken now.
    #[must_use]
    pub fn of(buffer: &Arc<Buffer>, range: Range<usize>) -> Self {
        let checksum = Checksum::of(&buffer[range.clone()]);
        Self { buffer: buffer.clone(), start: range.start, end: range.end, checksum }
    }

    /// The checksum taken when the bytes were read.
    #[must_use]
    pub const fn checksum(&self) -> Checksum {
        self.checksum
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_returns_with_its_last_payload_and_the_warmest_is_taken_first() {
        let pool = Pool::new(4096, 2).unwrap();
        let one = Arc::new(pool.take().unwrap());
        let payloads = [Payload::of(&one, 0..10), Payload::of(&one, 10..4096)];
        drop(one);
        let two = pool.try_take().unwrap();
        assert_eq!(two.number(), 1);
        assert!(pool.try_take().is_none());
        let [first, second] = payloads;
        drop(first);
        assert!(pool.try_take().is_none());
        drop(second);
        assert_eq!(pool.try_take().unwrap().number(), 0);
        assert_eq!(pool.out_max(), 2);
    }

    #[test]
    fn who_waits_is_woken_by_a_returned_buffer_and_by_closing() {
        let pool = Pool::new(4096, 1).unwrap();
        let only = pool.take().unwrap();
        let waiter = {
            let pool = pool.clone();
            std::thread::spawn(move || (pool.take().is_some(), pool.take().is_some()))
        };
        drop(only);
        pool.close();
        let (_, after_close) = waiter.join().unwrap();
        assert!(!after_close);
        assert!(pool.take().is_none());
    }
}
