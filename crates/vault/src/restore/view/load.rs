//! Brings frames: which runs of which packs to fetch for them, and who opens them.
//!
//! Every load is a task of its own: a reader that goes away leaves nobody waiting. Indexes, runs and
//! opening each have their rights; they are taken in this order, and who has the last waits for
//! nothing but the store and the processor.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::ViewMeans;
use super::frame::OpenFrame;
use super::frames::Promise;
use crate::log::buffers::Buffers;
use crate::log::frames::{FrameRun, runs};
use crate::log::{LogError, LogReader, PackRead};
use crate::pack::{Expander, PackError};
use crate::restore::error::Damage;
use crate::restore::state::PackTable;

/// Loads frames of a point.
pub struct Loader {
    reader: LogReader,
    pub packs: PackTable,
    /// Rights to have a pack's index in use.
    indexes: Semaphore,
    buffers: Buffers,
    openers: Semaphore,
    expanders: Mutex<Vec<Expander>>,
}

impl Loader {
    /// A loader with these means.
    pub fn new(reader: LogReader, packs: PackTable, means: ViewMeans) -> Arc<Self> {
        Arc::new(Self {
            reader,
            packs,
            indexes: Semaphore::new(means.runs),
            buffers: Buffers::new(means.runs),
            openers: Semaphore::new(means.openers),
            expanders: Mutex::default(),
        })
    }

    /// Begins to keep promises; what became of each is told to those who wait for it.
    pub fn begin(self: &Arc<Self>, promises: Vec<Promise>) {
        let mut by_pack: BTreeMap<u32, Vec<Promise>> = BTreeMap::new();
        for promise in promises {
            by_pack.entry(promise.key().pack).or_default().push(promise);
        }
        for (pack, promises) in by_pack {
            tokio::spawn(self.clone().load(pack, promises));
        }
    }

    /// Brings frames of one pack.
    async fn load(self: Arc<Self>, pack: u32, promises: Vec<Promise>) {
        // Nobody closes the semaphores.
        let Ok(_right) = self.indexes.acquire().await else { return };
        let place = self.packs.get(pack);
        let pack = match self.reader.pack(place).await {
            Ok(pack) => pack,
            Err(error) => return fail(promises, error),
        };
        let (mut found, mut lost) = (BTreeMap::new(), Vec::new());
        for promise in promises {
            match pack.index.frame_place(promise.key().frame) {
                Some(place) => _ = found.insert(place, promise),
                None => lost.push(promise),
            }
        }
        let cause = PackError::Field("a record names a frame that isn't there");
        fail(lost, LogError::Pack { place: place.clone(), cause });
        let runs = runs(&pack.index, found.keys().copied());
        let fetched = runs.into_iter().map(|run| {
            let taken = run.frames.iter().filter_map(|place| found.remove_entry(place)).collect();
            self.clone().fetch(&pack, run, taken)
        });
        futures::future::join_all(fetched.collect::<Vec<_>>()).await;
    }

    /// Fetches a run and opens its frames.
    async fn fetch(
        self: Arc<Self>,
        pack: &Arc<PackRead>,
        run: FrameRun,
        promises: HashMap<u32, Promise>,
    ) {
        let mut fetched = match self.reader.fetch(pack, &run, &self.buffers).await {
            Ok(fetched) => fetched,
            Err(error) => return fail(promises.into_values(), error),
        };
        let Ok(right) = self.openers.acquire().await else { return };
        let (pack, loader) = (pack.clone(), self.clone());
        let open = move || {
            let mut expander = loader.expanders().pop().unwrap_or_default();
            let mut promises = promises;
            for place in run.frames {
                let Some(promise) = promises.remove(&place) else { continue };
                let mut plain = Vec::new();
                match fetched.open(&pack, place, &mut expander, &mut plain) {
                    Ok(()) => promise.keep(OpenFrame::of(&pack, place, plain)),
                    Err(error) => promise.fail(Arc::new(error.into())),
                }
            }
            loader.expanders().push(expander);
        };
        // Who waits for a frame that a panic took away is told so by its promise.
        let _ = tokio::task::spawn_blocking(open).await;
        drop(right);
    }

    /// The most that was ever fetched into.
    #[cfg(test)]
    pub fn fetched_bytes_most(&self) -> usize {
        self.buffers.bytes_most()
    }

    fn expanders(&self) -> std::sync::MutexGuard<'_, Vec<Expander>> {
        self.expanders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells all who wait that what holds their frames can't be read.
fn fail(promises: impl IntoIterator<Item = Promise>, error: LogError) {
    let damage = Arc::new(Damage::Log(error));
    promises.into_iter().for_each(|promise| promise.fail(damage.clone()));
}
