//! A store that lets something happen right before an object is put: so that two who work at once meet at
//! the worst moment.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Puts of one object wait for something, the first time.
pub struct Before {
    objects: Arc<dyn ObjectStore>,
    path: String,
    work: Mutex<Option<Work>>,
}

type Work = Box<dyn FnOnce() + Send>;

impl Before {
    /// Before `path` is put in `objects`, `work` is done, on a thread of its own.
    pub fn put(
        objects: Arc<dyn ObjectStore>,
        path: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Arc<Self> {
        let work: Work = Box::new(work);
        Arc::new(Self { objects, path: path.to_owned(), work: Mutex::new(Some(work)) })
    }
}

impl fmt::Debug for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Before({})", self.path)
    }
}

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Before({})", self.path)
    }
}

#[async_trait]
impl ObjectStore for Before {
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
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
        if path.as_ref() == self.path {
            let work = self.work.lock().unwrap().take();
            if let Some(work) = work {
                tokio::task::spawn_blocking(work).await.unwrap();
            }
        }
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
