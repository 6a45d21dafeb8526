//! A store for benchmarks: it takes packs and throws them away, as fast as it is told to.
//!
//! What a server must read again (the vault's description, keys, runs, epochs, sessions) is kept in
//! memory; only packs are dropped. So nothing can be recovered from it, and a session that breaks
//! can't go on. A put that says so has waited for its turn on a link of the set rate, and then for
//! the set latency.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::time::{Instant, sleep_until};

use super::Store;
use crate::layout;

/// How slow a discarding store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slowness {
    /// How long each put takes, beside its bytes.
    pub latency: Duration,
    /// How many bytes a second pass, of all puts together; 0 is without a limit.
    pub bytes_per_second: u64,
}

impl Store {
    /// A store that drops packs, for benchmarks; gone with this process.
    #[must_use]
    pub fn discarding(slowness: Slowness) -> Self {
        let (kept, free_at) = (InMemory::new(), Mutex::new(None));
        Self::over(Arc::new(Discarding { kept, slowness, free_at }), "a store that discards")
    }
}

#[derive(Debug)]
struct Discarding {
    kept: InMemory,
    slowness: Slowness,
    /// When the link will have sent what it was given.
    free_at: Mutex<Option<Instant>>,
}

impl Discarding {
    /// Waits as long as a put of so many bytes takes.
    async fn wait(&self, bytes: usize) {
        let Slowness { latency, bytes_per_second } = self.slowness;
        if latency.is_zero() && bytes_per_second == 0 {
            return;
        }
        let micros = (bytes as u64).saturating_mul(1_000_000).checked_div(bytes_per_second);
        let sent_at = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let begins = free_at.map_or(now, |free_at| free_at.max(now));
            let sent_at = begins + Duration::from_micros(micros.unwrap_or(0));
            *free_at = Some(sent_at);
            sent_at
        };
        sleep_until(sent_at + latency).await;
    }
}

impl fmt::Display for Discarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that discards")
    }
}

#[async_trait]
impl ObjectStore for Discarding {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.wait(payload.content_length()).await;
        if layout::parse_pack(location.as_ref()).is_some() {
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        self.kept.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &ObjectPath,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.kept.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        self.kept.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        self.kept.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.kept.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        self.kept.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        options: CopyOptions,
    ) -> Result<()> {
        self.kept.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidegate_model::{LogId, LogName, PackNumber, RunId};

    use super::*;
    use crate::store::Put;

    fn pack() -> String {
        let id = LogId { run: RunId::from_bytes([1; 16]), shard: 0 };
        layout::pack(&LogName { node: "bench".parse().unwrap(), id }, PackNumber(0))
    }

    #[tokio::test]
    async fn packs_are_dropped_and_all_else_can_be_read_again() {
        let store = Store::discarding(Slowness::default());
        let bytes = Bytes::from_static(b"bytes");
        for path in [pack(), layout::keys(1)] {
            assert_eq!(store.put_new(&path, vec![bytes.clone()]).await.unwrap(), Put::Created);
        }
        assert!(store.get(&pack(), 10).await.unwrap_err().is_not_found());
        assert_eq!(store.get(&layout::keys(1), 10).await.unwrap(), bytes);
    }

    #[tokio::test(start_paused = true)]
    async fn puts_share_the_link_and_not_the_latency() {
        let (latency, bytes_per_second) = (Duration::from_millis(20), 1000);
        let store = Store::discarding(Slowness { latency, bytes_per_second });
        let begun = Instant::now();
        let path = pack();
        let put = || store.put_new(&path, vec![Bytes::from_static(&[1; 100])]);
        let (first, second) = tokio::join!(put(), put());
        assert_eq!((first.unwrap(), second.unwrap()), (Put::Created, Put::Created));
        // 100 bytes each, one behind the other, and then 20 ms at the same time.
        assert_eq!(begun.elapsed().as_millis(), 220);
    }
}
