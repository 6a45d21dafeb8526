//! The memory into which frames are fetched: a fixed number of buffers, used again and again.
//!
//! A buffer is the right to have one run of frames in memory: whoever wants to fetch waits for one,
//! and it comes back when the run was opened or dropped, wherever that happens. Memory: so many
//! times [`BUFFER_BYTES_MAX`] at most, taken as it is needed.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::frames::BUFFER_BYTES_MAX;

/// Buffers grow in such steps, so that runs of about the same length take the same ones.
const STEP_BYTES: usize = 256 << 10;

/// So many buffers. Cheap to clone.
#[derive(Clone)]
pub struct Buffers(Arc<Inner>);

struct Inner {
    rights: Arc<Semaphore>,
    count_max: usize,
    state: Mutex<State>,
}

/// What is free, and how much memory there is in all.
#[derive(Default)]
struct State {
    /// Buffers that may be had now.
    count: usize,
    free: Vec<Vec<u8>>,
    bytes: usize,
    bytes_most: usize,
}

impl Buffers {
    /// `count` buffers, of which none takes memory yet.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self::growing(count, count)
    }

    /// `count` buffers at first, and one more each time that somebody wants it: the less memory is
    /// touched, the faster it is.
    #[must_use]
    pub fn growing(count: usize, count_max: usize) -> Self {
        let state = Mutex::new(State { count, ..State::default() });
        let rights = Arc::new(Semaphore::new(count));
        Self(Arc::new(Inner { rights, count_max, state }))
    }

    /// Allows one more, if that isn't too many.
    pub fn one_more(&self) {
        let mut state = self.state();
        if state.count < self.0.count_max {
            state.count += 1;
            self.0.rights.add_permits(1);
        }
    }

    /// A buffer of this length, when one is free; what is in it is of no meaning. `None` for more
    /// than [`BUFFER_BYTES_MAX`].
    pub async fn take(&self, length: u64) -> Option<Buffer> {
        let length = usize::try_from(length).ok().filter(|_| length <= BUFFER_BYTES_MAX)?;
        // Nobody closes the semaphore.
        let right = self.0.rights.clone().acquire_owned().await.ok()?;
        let mut state = self.state();
        let mut bytes = state.free.pop().unwrap_or_default();
        if bytes.len() < length {
            let most = usize::try_from(BUFFER_BYTES_MAX).unwrap_or(usize::MAX);
            let longer = length.next_multiple_of(STEP_BYTES).min(most);
            state.bytes = state.bytes - bytes.len() + longer;
            state.bytes_most = state.bytes_most.max(state.bytes);
            // Freed first: the two must not be there at once.
            drop(bytes);
            bytes = vec![0; longer];
        }
        drop(state);
        Some(Buffer { bytes, length, home: self.0.clone(), _right: right })
    }

    /// The most memory that all of them together ever took.
    #[must_use]
    pub fn bytes_most(&self) -> usize {
        self.state().bytes_most
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One buffer; goes back when it is dropped.
pub struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    home: Arc<Inner>,
    _right: OwnedSemaphorePermit,
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Its memory first, the right to it afterwards, as fields are dropped after this.
        let bytes = std::mem::take(&mut self.bytes);
        self.home.state.lock().unwrap_or_else(PoisonError::into_inner).free.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::testing::run;

    #[test]
    fn who_finds_none_free_waits_until_one_comes_back_and_gets_its_memory() {
        run(async {
            let buffers = Buffers::new(2);
            let first = buffers.take(10).await.unwrap();
            let second = buffers.take(BUFFER_BYTES_MAX).await.unwrap();
            assert!(buffers.take(10).now_or_never().is_none());
            drop(first);
            let mut third = buffers.take(300 << 10).await.unwrap();
            assert_eq!(third.as_mut().len(), 300 << 10);
            drop((second, third));
            let most = buffers.bytes_most();
            for _ in 0..9 {
                let pair = (buffers.take(9).await.unwrap(), buffers.take(1).await.unwrap());
                assert!(buffers.take(1).now_or_never().is_none());
                drop(pair);
            }
            assert_eq!(buffers.bytes_most(), most);
            assert!(most as u64 <= 2 * BUFFER_BYTES_MAX);
        });
    }

    #[test]
    fn none_is_longer_than_a_run() {
        run(async {
            let buffers = Buffers::new(1);
            assert!(buffers.take(BUFFER_BYTES_MAX + 1).await.is_none());
            assert!(buffers.take(BUFFER_BYTES_MAX).await.is_some());
        });
    }
}
