//! The frames that are kept, and those that are on their way: each is loaded once, however many
//! want it.
//!
//! Whoever finds a frame neither here nor on its way gets a [`Promise`] to bring it. A promise that
//! is dropped unkept tells those who wait that nobody brings the frame any more; the next who wants
//! it tries again. Damage isn't remembered: an object that was put back is found at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_model::FrameNumber;
use tokio::sync::watch;

use super::frame::OpenFrame;
use crate::log::cache::ByteCache;
use crate::restore::error::Damage;

/// A frame of a point: its pack's place in the point's table, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameKey {
    /// The pack.
    pub pack: u32,
    /// The frame.
    pub frame: FrameNumber,
}

/// What became of a frame.
pub type Loaded = Result<Arc<OpenFrame>, Arc<Damage>>;

/// The frames in memory, within a bound.
pub struct Frames(Mutex<State>);

struct State {
    kept: ByteCache<FrameKey, Arc<OpenFrame>>,
    on_way: HashMap<FrameKey, watch::Receiver<Option<Loaded>>>,
}

/// Where a frame is.
pub enum Whereabouts {
    /// In memory.
    Here(Arc<OpenFrame>),
    /// Somebody brings it.
    OnItsWay(Coming),
}

impl Frames {
    /// None yet; at most so many bytes are kept.
    pub fn new(kept_bytes: usize) -> Arc<Self> {
        let (kept, on_way) = (ByteCache::new(kept_bytes), HashMap::new());
        Arc::new(Self(Mutex::new(State { kept, on_way })))
    }

    /// Where a frame is; where it isn't, the promise to bring it is the caller's.
    pub fn find(self: &Arc<Self>, key: FrameKey) -> (Whereabouts, Option<Promise>) {
        let mut state = self.state();
        if let Some(frame) = state.kept.get(key) {
            return (Whereabouts::Here(frame), None);
        }
        if let Some(coming) = state.on_way.get(&key) {
            return (Whereabouts::OnItsWay(Coming(coming.clone())), None);
        }
        let (sender, coming) = watch::channel(None);
        state.on_way.insert(key, coming.clone());
        let promise = Promise { key, sender, frames: self.clone() };
        (Whereabouts::OnItsWay(Coming(coming)), Some(promise))
    }

    /// Promises for those frames that are neither here nor on their way.
    pub fn missing(self: &Arc<Self>, keys: impl Iterator<Item = FrameKey>) -> Vec<Promise> {
        keys.filter_map(|key| self.find(key).1).collect()
    }

    /// What is kept takes so much.
    #[cfg(test)]
    pub fn kept_bytes(&self) -> usize {
        self.state().kept.bytes()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A frame that somebody brings.
pub struct Coming(watch::Receiver<Option<Loaded>>);

impl Coming {
    /// Waits for it; `None` when nobody brings it any more.
    pub async fn wait(mut self) -> Option<Loaded> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// The duty to bring a frame.
pub struct Promise {
    key: FrameKey,
    sender: watch::Sender<Option<Loaded>>,
    frames: Arc<Frames>,
}

impl Promise {
    /// Which.
    pub const fn key(&self) -> FrameKey {
        self.key
    }

    /// Here it is.
    pub fn keep(self, frame: OpenFrame) {
        let bytes = frame.memory_bytes();
        let frame = Arc::new(frame);
        self.frames.state().kept.put(self.key, frame.clone(), bytes);
        self.sender.send_replace(Some(Ok(frame)));
    }

    /// It can't be had.
    pub fn fail(self, damage: Arc<Damage>) {
        self.sender.send_replace(Some(Err(damage)));
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.frames.state().on_way.remove(&self.key);
    }
}
