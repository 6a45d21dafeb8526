//! Deleting.
//!
//! Invariant: what is deleted was never to be read again, and its name is never used again; so doing it
//! twice, or by two at once, is doing it once. On a directory it is durable when it says so.

use object_store::ObjectStoreExt;

use super::directory::Directory;
use super::{Store, StoreError};

impl Store {
    /// Deletes an object. One that isn't there is as good as deleted.
    ///
    /// # Errors
    /// By [`StoreError::remedy`]; the object may be there or not then.
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.on_directory(Directory::ready).await?;
        // Tried again by the store client, as reads are.
        let deleted = self.0.reads.delete(&self.object_path(path)?).await;
        match deleted.map_err(|error| self.error(path, &error)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => match self.settle(path).await {
                // Nor is its folder.
                Err(error) if error.is_not_found() => Ok(()),
                settled => settled,
            },
        }
    }
}
