//! The object store under a vault.
//!
//! Owns: opening a place, the two ways to write (both create-if-absent), reading with limits,
//! listing in order, and what errors mean. Doesn't own what the objects are.
//!
//! Invariants: nothing is ever overwritten, and only deleted what nobody needs (`gc`), or what was
//! created to ask for the time; no more is read than the caller allows; a directory's objects are
//! durable when a put says so. Paths are relative to the vault.
//!
//! Its futures need a tokio context.

mod azure;
mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod delete;
mod directory;
mod discarding;
mod error;
mod fill;
mod list;
mod open;
mod walk;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use tidegate_model::{Micros, Remedy};

pub use clock::ClockError;
use directory::Directory;
pub use discarding::Slowness;
pub use error::StoreError;
pub use list::Listed;

/// How long [`Store::create`] goes on trying.
const CREATE_BUDGET: Duration = Duration::from_secs(60);
/// The first pause between two tries; each is twice the one before.
const CREATE_PAUSE: Duration = Duration::from_millis(100);

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is there now, and wasn't before.
    Created,
    /// An object of this name was there already. It may be one's own, of a put whose answer was
    /// lost; and a store may say this of another conflict: look before relying on it.
    Exists,
}

/// What one means to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only: nothing is changed, not even a lock taken.
    Read,
    /// Read and write what is there.
    Write,
    /// The same, and make the directory if there is none.
    Create,
}

/// Size and age of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its size.
    pub bytes: u64,
    /// When it was created, by the store's clock.
    pub modified: Micros,
}

/// An open store; cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    place: String,
    prefix: ObjectPath,
    puts: Arc<dyn ObjectStore>,
    reads: Arc<dyn ObjectStore>,
    /// The directory's path, if it is one: it is listed by us.
    listed: Option<PathBuf>,
    /// And what watches it while it is written to.
    directory: Option<Directory>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.0.place)
    }
}

impl Store {
    /// The vault's place, for people.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// Creates an object of these parts, once; they aren't copied together. Not tried again here:
    /// the caller knows what it sent, and so what [`Put::Exists`] means.
    ///
    /// # Errors
    /// By [`StoreError::remedy`]. After an error the object may be there all the same.
    pub async fn put_new(&self, path: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        self.on_directory(Directory::ready).await?;
        let payload: PutPayload = parts.into_iter().collect();
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.0.puts.put_opts(&self.object_path(path)?, payload, options).await {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. }) => {
                self.settle(path).await?;
                Ok(Put::Exists)
            }
            Err(object_store::Error::NotFound { .. }) => Err(StoreError::NoPlace {
                place: self.0.place.clone(),
                advice: "its container doesn't exist; create it first".into(),
            }),
            Err(error) => Err(self.error(path, &error)),
        }
    }

    /// Makes durable that an object is there that was found after a put whose end nobody heard. Other
    /// stores than a directory show only what is durable.
    ///
    /// # Errors
    /// By [`StoreError::remedy`]; the object doesn't count as stored then.
    pub async fn settle(&self, path: &str) -> Result<(), StoreError> {
        let entry = path.to_owned();
        self.on_directory(move |directory| directory.sync_entry(&entry)).await
    }

    /// Creates a small object, trying again for a minute. Doing it twice is safe: what is found
    /// there afterwards is compared, and [`Put::Exists`] means that other bytes are there.
    ///
    /// # Errors
    /// By [`StoreError::remedy`]; [`Remedy::Retry`] when the minute wasn't enough.
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<Put, StoreError> {
        let begin = Instant::now();
        let mut pause = CREATE_PAUSE;
        loop {
            match self.create_once(path, &bytes).await {
                Err(error) if error.remedy() == Remedy::Retry => {
                    if begin.elapsed() + pause > CREATE_BUDGET {
                        return Err(error);
                    }
                    tracing::debug!(%path, %error, "a small object wasn't created; trying again");
                }
                settled => return settled,
            }
            tokio::time::sleep(pause.mul_f64(jitter())).await;
            pause *= 2;
        }
    }

    async fn create_once(&self, path: &str, bytes: &Bytes) -> Result<Put, StoreError> {
        if self.put_new(path, vec![bytes.clone()]).await? == Put::Created {
            return Ok(Put::Created);
        }
        match self.get(path, bytes.len() as u64).await {
            Ok(found) if found == *bytes => Ok(Put::Created),
            Ok(_) | Err(StoreError::Long { .. }) => Ok(Put::Exists),
            // A conflict that wasn't about this object: put it again.
            Err(StoreError::NotFound { place, path }) => Err(StoreError::Unreachable {
                place,
                path,
                cause: "the store says that it exists, and that it doesn't".into(),
            }),
            Err(error) => Err(error),
        }
    }

    /// The whole object, if it has at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`StoreError::Long`] for a larger one, before it is read.
    pub async fn get(&self, path: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        let options = GetOptions::default();
        let result = self.0.reads.get_opts(&self.object_path(path)?, options).await;
        let result = result.map_err(|error| self.error(path, &error))?;
        let bytes = result.meta.size;
        if bytes > bytes_max {
            return Err(self.long(path, bytes, bytes_max));
        }
        self.collect(path, result, bytes_max).await
    }

    /// Exactly the bytes of `range`, which must not be empty.
    ///
    /// # Errors
    /// [`StoreError::Short`] when the object ends before it does.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let wanted = range.end.saturating_sub(range.start);
        let options =
            GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let result = match self.0.reads.get_opts(&self.object_path(path)?, options).await {
            Ok(result) => self.collect(path, result, wanted).await,
            Err(error) => Err(self.error(path, &error)),
        };
        match result {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(bytes) => {
                Err(self.short(path, range.start.saturating_add(bytes.len() as u64), range.end))
            }
            Err(error) => Err(self.explained(path, range.end, error).await),
        }
    }

    /// A range that begins after the end is an error of no particular kind in each store.
    async fn explained(&self, path: &str, end: u64, error: StoreError) -> StoreError {
        match error {
            StoreError::Failed { .. } => match self.head(path).await {
                Ok(head) if head.bytes < end => self.short(path, head.bytes, end),
                _ => error,
            },
            error => error,
        }
    }

    /// Fills `buffer`, which must not be empty, with the bytes from `start`: like
    /// [`Store::get_range`], for much that is read into memory which is used again.
    ///
    /// # Errors
    /// [`StoreError::Short`] when the object ends before the buffer does.
    pub async fn read_range<B: AsMut<[u8]> + Send + 'static>(
        &self,
        path: &str,
        start: u64,
        buffer: B,
    ) -> Result<B, StoreError> {
        fill::read_range(self, path, start, buffer).await
    }

    /// Size and age of an object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it isn't there.
    pub async fn head(&self, path: &str) -> Result<Head, StoreError> {
        let meta = self.0.reads.head(&self.object_path(path)?).await;
        let meta = meta.map_err(|error| self.error(path, &error))?;
        Ok(Head { bytes: meta.size, modified: list::micros(meta.last_modified.timestamp_micros()) })
    }

    async fn collect(
        &self,
        path: &str,
        result: GetResult,
        bytes_max: u64,
    ) -> Result<Bytes, StoreError> {
        if matches!(result.payload, object_store::GetResultPayload::File(..)) {
            // Read at once; its length was looked up from the open file.
            return result.bytes().await.map_err(|error| self.error(path, &error));
        }
        let mut stream = result.into_stream();
        let mut whole = BytesMut::new();
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| self.error(path, &error))?;
            let bytes = whole.len() as u64 + part.len() as u64;
            if bytes > bytes_max {
                return Err(self.long(path, bytes, bytes_max));
            }
            if whole.is_empty() && bytes == bytes_max {
                return Ok(part); // the usual small object, without a copy
            }
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    }

    /// Runs what blocks on the directory, if the store is one that is written to.
    async fn on_directory(
        &self,
        work: impl FnOnce(&Directory) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        if self.0.directory.is_none() {
            return Ok(());
        }
        let inner = self.0.clone();
        let work = move || inner.directory.as_ref().map_or(Ok(()), work);
        let joined = tokio::task::spawn_blocking(work).await;
        joined.unwrap_or_else(|error| {
            let (place, path) = (self.0.place.clone(), "the directory".into());
            Err(StoreError::Failed { place, path, cause: error.to_string() })
        })
    }

    fn object_path(&self, path: &str) -> Result<ObjectPath, StoreError> {
        let whole = if self.0.prefix.as_ref().is_empty() {
            ObjectPath::parse(path)
        } else {
            ObjectPath::parse(format!("{}/{path}", self.0.prefix))
        };
        whole.map_err(|error| StoreError::Failed {
            place: self.0.place.clone(),
            path: path.into(),
            cause: error.to_string(),
        })
    }

    fn error(&self, path: &str, error: &object_store::Error) -> StoreError {
        StoreError::of_object(&self.0.place, path, error)
    }

    fn long(&self, path: &str, bytes: u64, bytes_max: u64) -> StoreError {
        StoreError::Long { place: self.0.place.clone(), path: path.into(), bytes, bytes_max }
    }

    fn short(&self, path: &str, bytes: u64, end: u64) -> StoreError {
        StoreError::Short { place: self.0.place.clone(), path: path.into(), bytes, end }
    }
}

/// Between a half and one, so that many who wait don't come back at the same moment.
fn jitter() -> f64 {
    let mut byte = [0];
    // Without randomness they come back together: no harm beyond a little crowding.
    let _ = getrandom::fill(&mut byte);
    0.5 + f64::from(byte[0]) / 512.0
}

#[cfg(test)]
mod tests;
