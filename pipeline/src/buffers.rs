//! Buffers of a fixed pool: the memory through which all payload passes.
//!
//! A pool has a fixed number of buffers of one size, made at start and never more. The one that
//! came back last goes out first, so that a server under little load touches little memory.
//! A buffer is a guard: dropping it returns it. Who waits gets the next buffer that comes back, in
//! the order of asking: nobody overtakes, and each buffer wakes one task.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use tidegate_memory::prefer_large_pages;

/// Buffers begin at multiples of this, so that no two cores write into one line.
const CACHE_LINE_BYTES: usize = 64;

/// A fixed number of buffers of one size.
#[derive(Clone)]
pub struct BufferPool(Arc<Inner>);

struct Inner {
    name: &'static str,
    bytes: usize,
    count: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: Vec<BytesMut>,
    /// Who waits, by ticket: the lowest has waited longest.
    waiting: BTreeMap<u64, Waker>,
    /// Buffers that were given to a ticket and not fetched yet.
    given: HashMap<u64, BytesMut>,
    next_ticket: u64,
}

/// A buffer on loan from its pool.
pub struct Buffer {
    memory: BytesMut,
    pool: BufferPool,
}

/// A buffer that holds a pack's frames on their way to the store.
pub type PackBuffer = Buffer;

/// A place among those who wait for a buffer; dropping it gives the place up, and a buffer that was
/// meant for it goes on to the next.
pub struct BufferWait {
    pool: BufferPool,
    ticket: Option<u64>,
}

impl BufferPool {
    /// A pool of `count` buffers of `bytes` bytes each. The memory is reserved here; the system
    /// gives its pages when they are first written.
    #[must_use]
    pub fn new(name: &'static str, bytes: usize, count: usize) -> Self {
        let stride = bytes.next_multiple_of(CACHE_LINE_BYTES);
        let mut all = BytesMut::zeroed(stride * count + CACHE_LINE_BYTES);
        prefer_large_pages(&mut all);
        all.advance(all.as_ptr().align_offset(CACHE_LINE_BYTES));
        let cut = |_| {
            let mut memory = all.split_to(stride);
            memory.truncate(bytes);
            memory
        };
        let free = (0..count).map(cut).collect();
        let state = Mutex::new(State { free, ..State::default() });
        Self(Arc::new(Inner { name, bytes, count, state }))
    }

    /// What the pool is for.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// The size of each buffer.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.0.bytes
    }

    /// How many buffers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count
    }

    /// How many are free now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.state().free.len()
    }

    /// A buffer, if one is free. Nobody waits then: a buffer that comes back goes to who waits.
    #[must_use]
    pub fn take(&self) -> Option<Buffer> {
        let memory = self.state().free.pop()?;
        Some(self.lend(memory))
    }

    /// A place among those who wait for a buffer; it counts from its first [`BufferWait::poll`].
    #[must_use]
    pub fn wait(&self) -> BufferWait {
        BufferWait { pool: self.clone(), ticket: None }
    }

    fn lend(&self, memory: BytesMut) -> Buffer {
        Buffer { memory, pool: self.clone() }
    }

    fn give_back(&self, memory: BytesMut) {
        let waker = {
            let mut state = self.state();
            match state.waiting.pop_first() {
                Some((ticket, waker)) => {
                    state.given.insert(ticket, memory);
                    Some(waker)
                }
                None => {
                    state.free.push(memory);
                    None
                }
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere can't leave this state half changed: nothing in between can panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BufferWait {
    /// A buffer as soon as it is this one's turn. Once it is ready, the next call waits anew.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Buffer> {
        let mut state = self.pool.state();
        let memory = match self.ticket {
            Some(ticket) => state.given.remove(&ticket),
            None => state.free.pop(),
        };
        if let Some(memory) = memory {
            drop(state);
            self.ticket = None;
            return Poll::Ready(self.pool.lend(memory));
        }
        let ticket = self.ticket.unwrap_or_else(|| {
            state.next_ticket += 1;
            state.next_ticket
        });
        state.waiting.insert(ticket, context.waker().clone());
        drop(state);
        self.ticket = Some(ticket);
        Poll::Pending
    }
}

impl Drop for BufferWait {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let given = {
            let mut state = self.pool.state();
            state.waiting.remove(&ticket);
            state.given.remove(&ticket)
        };
        if let Some(memory) = given {
            self.pool.give_back(memory);
        }
    }
}

impl Buffer {
    /// Whether both are on loan from the same pool: then one can stand in for the other.
    pub(crate) fn is_of_the_pool_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pool.0, &other.pool.0)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Somebody who waits, and how often he was woken.
    struct Waiter {
        wait: BufferWait,
        counter: Arc<Counter>,
    }

    impl Waiter {
        fn new(pool: &BufferPool) -> Self {
            Self { wait: pool.wait(), counter: Arc::default() }
        }

        fn poll(&mut self) -> Poll<Buffer> {
            let waker = Waker::from(self.counter.clone());
            self.wait.poll(&mut Context::from_waker(&waker))
        }

        fn woken(&self) -> usize {
            self.counter.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn a_pool_lends_no_more_than_it_has_and_wakes_who_waits() {
        let pool = BufferPool::new("test", 16, 2);
        let (one, two) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(pool.take().is_none());
        let mut waiter = Waiter::new(&pool);
        assert!(waiter.poll().is_pending());
        assert!(waiter.poll().is_pending());
        drop(one);
        assert_eq!(waiter.woken(), 1);
        assert!(waiter.poll().is_ready());
        drop(two);
        assert_eq!((pool.free(), pool.count()), (2, 2));
        assert_eq!(waiter.woken(), 1, "nobody waited any more");
    }

    #[test]
    fn buffers_go_to_who_has_waited_longest_and_nobody_overtakes() {
        let pool = BufferPool::new("test", 16, 1);
        let held = pool.take().unwrap();
        let (mut first, mut second) = (Waiter::new(&pool), Waiter::new(&pool));
        assert!(first.poll().is_pending() && second.poll().is_pending());
        drop(held);
        assert!(pool.take().is_none(), "it is given already");
        assert!(second.poll().is_pending());
        assert_eq!((first.woken(), second.woken()), (1, 0), "one buffer wakes one");
        let Poll::Ready(held) = first.poll() else { panic!("it was given") };
        drop(held);
        assert!(second.poll().is_ready());
    }

    #[test]
    fn a_buffer_for_somebody_who_left_goes_to_the_next() {
        let pool = BufferPool::new("test", 16, 1);
        let held = pool.take().unwrap();
        let (mut leaves, mut gives_up, mut stays) =
            (Waiter::new(&pool), Waiter::new(&pool), Waiter::new(&pool));
        assert!(leaves.poll().is_pending() && gives_up.poll().is_pending());
        assert!(stays.poll().is_pending());
        drop(gives_up);
        drop(held);
        drop(leaves);
        assert_eq!(stays.woken(), 1);
        assert!(stays.poll().is_ready());
    }
}
