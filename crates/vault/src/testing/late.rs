//! A store whose answers come late and out of order, and that remembers what it was asked for.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Reads of these objects, late. Not by a clock: each gives way to others a number of times that
/// its place and the seed decide.
#[derive(Debug)]
pub struct LateStore {
    objects: Arc<InMemory>,
    seed: u64,
    /// How many heads of packs were read: ranges that begin with the object.
    pub heads: AtomicU32,
    /// Ranges that don't begin with the object: frames, and rests of long indexes.
    pub ranges: Mutex<Vec<(String, Range<u64>)>>,
    /// How many more of those are answered at all.
    pub answers: AtomicU32,
}

impl LateStore {
    pub fn new(objects: Arc<InMemory>, seed: u64) -> Arc<Self> {
        let (ranges, answers) = (Mutex::default(), AtomicU32::new(u32::MAX));
        Arc::new(Self { objects, seed, heads: AtomicU32::new(0), ranges, answers })
    }

    async fn wait(&self, path: &Path, range: &Range<u64>) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(path.as_ref().as_bytes());
        hasher.update(&self.seed.to_le_bytes()).update(&range.start.to_le_bytes());
        for _ in 0..hasher.finalize().as_bytes()[0] {
            tokio::task::yield_now().await;
        }
    }
}

impl fmt::Display for LateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LateStore")
    }
}

#[async_trait]
impl ObjectStore for LateStore {
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(GetRange::Bounded(range)) = options.range.clone().filter(|_| !options.head) {
            self.wait(path, &range).await;
            if range.start == 0 {
                self.heads.fetch_add(1, Ordering::SeqCst);
            } else {
                self.ranges.lock().unwrap().push((path.to_string(), range));
                let less = |left: u32| left.checked_sub(1);
                if self.answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
        self.objects.get_opts(path, options).await
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.objects.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
