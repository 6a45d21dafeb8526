//! Makes vaults in memory for tests: a small pipeline without sockets, cores or patience.
//!
//! It cuts writes at block borders, finds zeros and known blocks, and packs what is left, as the
//! real one does, but only when it is told to. What it stores can then be broken on purpose.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use proptest::prelude::ProptestConfig;
use tidegate_model::{BlockName, Bookmark, Disk, Extent, LogName, VaultId};

use crate::log::{CACHE_BYTES_DEFAULT, LogReader};
use crate::pack::Target;
use crate::seal::{KeyRing, Secret};
use crate::store::Store;

mod before;
mod clock;
mod late;
mod life;
mod log;
mod machine;

pub use before::Before;
pub use clock::{ClockedStore, TestClock};
pub use late::LateStore;
pub use life::{Event, apply, event, live};
pub use log::TestLog;
pub use machine::{Disks, MemorySink, TestMachine, change, disk, extent};

/// The block size of test vaults: small, so that little data makes many blocks.
pub const BLOCK: u64 = 4096;

/// A vault in memory.
pub struct TestVault {
    pub objects: Arc<InMemory>,
    pub ring: KeyRing,
    pub known: HashMap<BlockName, (LogName, Target)>,
    pub clock: Arc<TestClock>,
}

/// What a record of a test says.
#[derive(Debug, Clone)]
pub enum Op {
    Disk(Disk),
    Write(Extent, Vec<u8>),
    Zero(Extent),
    Bookmark(Bookmark),
    Time,
}

impl TestVault {
    pub fn new() -> Self {
        let ring =
            KeyRing::new(VaultId::from_bytes([1; 16]), BTreeMap::from([(1, Secret::new([7; 32]))]));
        let (objects, known, clock) = (Arc::new(InMemory::new()), HashMap::new(), Arc::default());
        Self { objects, ring, known, clock }
    }

    pub fn store(&self) -> Store {
        let clocked = ClockedStore(self.objects.clone(), self.clock.clone());
        Store::over(Arc::new(clocked), "memory://test")
    }

    /// A reader of a store in which `work` is done right before `path` is put.
    pub fn reader_before(&self, path: &str, work: impl FnOnce() + Send + 'static) -> LogReader {
        let clocked = Arc::new(ClockedStore(self.objects.clone(), self.clock.clone()));
        let store = Store::over(Before::put(clocked, path, work), "memory://test");
        LogReader::new(store, self.ring.clone(), CACHE_BYTES_DEFAULT)
    }

    pub fn reader(&self) -> LogReader {
        LogReader::new(self.store(), self.ring.clone(), CACHE_BYTES_DEFAULT)
    }

    pub async fn get(&self, path: &str) -> Vec<u8> {
        self.objects.get(&Path::from(path)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    pub async fn put(&self, path: &str, bytes: Vec<u8>) {
        self.objects.put(&Path::from(path), PutPayload::from(bytes)).await.unwrap();
        self.clock.stamp(path);
    }

    pub async fn delete(&self, path: &str) {
        self.objects.delete(&Path::from(path)).await.unwrap();
    }
}

/// Cases of a property whose every case costs much: `few`, or more if PROPTEST_CASES asks for more.
pub fn cases(few: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig::with_cases(asked.unwrap_or(0).max(few))
}

/// Runs async work to its end on this thread.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
