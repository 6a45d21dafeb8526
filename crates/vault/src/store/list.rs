//! Listing: objects in the order of their paths, streamed; folders, gathered.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use futures::stream::{self, BoxStream, StreamExt};
use object_store::ObjectMeta;
use tidegate_model::Micros;

use super::directory::PROBE;
use super::walk::{Unreadable, Walk, WalkedFile};
use super::{Store, StoreError};

/// How many files of a directory are looked at in one go on a thread that may block.
const BATCH: usize = 1024;

/// A listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path within the vault.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was created, by the store's clock.
    pub modified: Micros,
}

type Batch = std::vec::IntoIter<Result<Listed, StoreError>>;

impl Store {
    /// The objects below `folder` (empty for all), in the order of their paths; only those after
    /// the path `after`, if one is given. Objects created meanwhile may or may not appear.
    #[must_use]
    pub fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> BoxStream<'static, Result<Listed, StoreError>> {
        if let Some(root) = self.0.listed.clone() {
            return self.list_directory(root, folder, after);
        }
        let prefix = match self.object_path(folder) {
            Ok(path) => Some(path).filter(|path| !path.as_ref().is_empty()),
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let objects = match after.map(|after| self.object_path(after)) {
            None => self.0.reads.list(prefix.as_ref()),
            Some(Ok(after)) => self.0.reads.list_with_offset(prefix.as_ref(), &after),
            Some(Err(error)) => return stream::once(async { Err(error) }).boxed(),
        };
        let (store, folder, after) = (self.clone(), folder.to_owned(), after.map(str::to_owned));
        objects
            .map(move |object| match object {
                Ok(object) => Ok(store.listed(&object)),
                Err(error) => Err(store.error(&folder, &error)),
            })
            // Azurite doesn't know where to begin, and lists all.
            .filter(move |listed| {
                let after = after.as_deref().unwrap_or_default();
                let wanted = listed.as_ref().map_or(true, |listed| listed.path.as_str() > after);
                async move { wanted }
            })
            .boxed()
    }

    /// The names of the folders and of the objects right in `folder` (empty for the vault's own),
    /// each in order. What a writer left unfinished, staging files and probes, is no object.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn names(&self, folder: &str) -> Result<Names, StoreError> {
        let prefix = Some(self.object_path(folder)?).filter(|path| !path.as_ref().is_empty());
        let listed = self.0.reads.list_with_delimiter(prefix.as_ref()).await;
        let listed = listed.map_err(|error| self.error(folder, &error))?;
        let last = |path: &object_store::path::Path| path.filename().map(str::to_owned);
        let objects = listed.objects.iter().filter_map(|object| last(&object.location));
        let mut names = Names {
            folders: listed.common_prefixes.iter().filter_map(last).collect(),
            objects: objects.filter(|name| !name.starts_with(PROBE)).collect(),
        };
        names.folders.sort_unstable();
        names.objects.sort_unstable();
        Ok(names)
    }

    fn listed(&self, object: &ObjectMeta) -> Listed {
        let whole = object.location.as_ref();
        let path = whole.strip_prefix(self.0.prefix.as_ref()).unwrap_or(whole);
        Listed {
            path: path.trim_start_matches('/').to_owned(),
            bytes: object.size,
            modified: micros(object.last_modified.timestamp_micros()),
        }
    }

    fn list_directory(
        &self,
        root: PathBuf,
        folder: &str,
        after: Option<&str>,
    ) -> BoxStream<'static, Result<Listed, StoreError>> {
        let place = self.0.place.clone();
        let (folder, after) = (folder.to_owned(), after.map(str::to_owned));
        let start = (None::<Walk>, Batch::default());
        stream::unfold(start, move |(walk, mut batch)| {
            let (place, root) = (place.clone(), root.clone());
            let (folder, after) = (folder.clone(), after.clone());
            async move {
                if let Some(next) = batch.next() {
                    return Some((next, (walk, batch)));
                }
                let begin = move || Walk::new(root, &folder, after, Unreadable::Fail);
                let work = move || next_batch(walk.unwrap_or_else(begin), &place);
                // A join error means a panic over there or a runtime that shuts down.
                let (walk, mut batch) = tokio::task::spawn_blocking(work).await.ok()?;
                batch.next().map(|next| (next, (Some(walk), batch)))
            }
        })
        .boxed()
    }
}

/// What lies right in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Folders.
    pub folders: Vec<String>,
    /// Objects.
    pub objects: Vec<String>,
}

fn next_batch(mut walk: Walk, place: &str) -> (Walk, Batch) {
    let listed = |file: WalkedFile| Listed {
        bytes: file.metadata.len(),
        modified: modified(&file),
        path: file.path,
    };
    let batch: Vec<_> = walk
        .by_ref()
        .map(|file| file.map(listed).map_err(|e| StoreError::of_io(place, "the listing", &e)))
        // What the store client is about to publish is no object yet, and it can't read it.
        .filter(|file| !matches!(file, Ok(listed) if is_hidden(&listed.path)))
        .take(BATCH)
        .collect();
    (walk, batch.into_iter())
}

/// Staging files (`name#1`), the lock and the probes.
fn is_hidden(path: &str) -> bool {
    path.starts_with('.') || path.contains('#')
}

fn modified(file: &WalkedFile) -> Micros {
    let time = file.metadata.modified().ok();
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Micros(since.as_micros().try_into().unwrap_or(u64::MAX))
}

/// A store's time; 0 when it lies before 1970.
pub(super) fn micros(since_1970: i64) -> Micros {
    Micros(since_1970.try_into().unwrap_or(0))
}
