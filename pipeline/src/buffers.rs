//! Buffers of a fixed pool: the memory through which all payload passes.
//!
//! A pool has a fixed number of buffers of one size, made at start and never more. The one that
//! came back last goes out first, so that a server under little load touches little memory.
//! A buffer is a guard: dropping it returns it and wakes who waits.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A fixed number of buffers of one size.
#[derive(Clone)]
pub struct BufferPool(Arc<Inner>);

struct Inner {
    name: &'static str,
    bytes: usize,
    count: usize,
    state: Mutex<State>,
}

struct State {
    free: Vec<Box<[u8]>>,
    waiting: Vec<Waker>,
}

/// A buffer on loan from its pool.
pub struct Buffer {
    memory: Box<[u8]>,
    pool: BufferPool,
}

/// A buffer that holds a pack's frames on their way to the store.
pub type PackBuffer = Buffer;

impl BufferPool {
    /// A pool of `count` buffers of `bytes` bytes each. The memory is reserved here; the system
    /// gives its pages when they are first written.
    #[must_use]
    pub fn new(name: &'static str, bytes: usize, count: usize) -> Self {
        let free = (0..count).map(|_| vec![0; bytes].into_boxed_slice()).collect();
        let state = Mutex::new(State { free, waiting: Vec::new() });
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

    /// A buffer, if one is free.
    #[must_use]
    pub fn take(&self) -> Option<Buffer> {
        let memory = self.state().free.pop()?;
        Some(Buffer { memory, pool: self.clone() })
    }

    /// A buffer as soon as one is free. Who is woken must ask again: somebody else may have been
    /// faster.
    pub fn poll_take(&self, context: &mut Context<'_>) -> Poll<Buffer> {
        let mut state = self.state();
        if let Some(memory) = state.free.pop() {
            return Poll::Ready(Buffer { memory, pool: self.clone() });
        }
        let known = state.waiting.iter().any(|waker| waker.will_wake(context.waker()));
        if !known {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    fn give_back(&self, memory: Box<[u8]>) {
        let waiting = {
            let mut state = self.state();
            state.free.push(memory);
            std::mem::take(&mut state.waiting)
        };
        // All of them: one that no longer wants a buffer must not swallow another's wake-up.
        waiting.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere can't leave this state half changed: each change is one call.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn a_pool_lends_no_more_than_it_has_and_wakes_who_waits() {
        let pool = BufferPool::new("test", 16, 2);
        let (one, two) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(pool.take().is_none());
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(counter.clone());
        let mut context = Context::from_waker(&waker);
        assert!(pool.poll_take(&mut context).is_pending());
        assert!(pool.poll_take(&mut context).is_pending());
        drop(one);
        assert_eq!(counter.0.load(Ordering::SeqCst), 1);
        assert!(pool.poll_take(&mut context).is_ready());
        drop(two);
        assert_eq!((pool.free(), pool.count()), (2, 2));
        assert_eq!(counter.0.load(Ordering::SeqCst), 1, "nobody waited any more");
    }
}
