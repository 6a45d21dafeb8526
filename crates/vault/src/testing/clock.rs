//! A store whose clock a test moves on: it stamps what is put through it, and counts what is read.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tidegate_model::Micros;

/// How far a store's clock goes ahead, now and when each object was put.
#[derive(Debug, Default)]
pub struct TestClock {
    ahead: Mutex<Duration>,
    put: Mutex<HashMap<String, Duration>>,
    /// Bytes that were read of objects.
    pub read_bytes: AtomicU64,
}

impl TestClock {
    pub fn advance(&self, seconds: u64) {
        *self.ahead.lock().unwrap() += Duration::from_secs(seconds);
    }

    pub fn now(&self) -> Micros {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + self.ahead();
        Micros(u64::try_from(now.as_micros()).unwrap())
    }

    pub fn stamp(&self, path: &str) {
        self.put.lock().unwrap().insert(path.to_owned(), self.ahead());
    }

    fn ahead(&self) -> Duration {
        *self.ahead.lock().unwrap()
    }

    fn stamped(&self, mut object: ObjectMeta) -> ObjectMeta {
        let ahead = self.put.lock().unwrap().get(object.location.as_ref()).copied();
        object.last_modified += ahead.unwrap_or_default();
        object
    }
}

/// The objects of a test with the times of its clock.
#[derive(Debug)]
pub struct ClockedStore(pub Arc<InMemory>, pub Arc<TestClock>);

impl fmt::Display for ClockedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClockedStore")
    }
}

#[async_trait]
impl ObjectStore for ClockedStore {
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let is_head = options.head;
        let mut result = self.0.get_opts(path, options).await?;
        if !is_head {
            let bytes = result.range.end - result.range.start;
            self.1.read_bytes.fetch_add(bytes, Ordering::SeqCst);
        }
        result.meta = self.1.stamped(result.meta);
        Ok(result)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let clock = self.1.clone();
        self.0.list(prefix).map(move |object| Ok(clock.stamped(object?))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let put = self.0.put_opts(path, payload, options).await?;
        self.1.stamp(path.as_ref());
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}
