//! Deleting, and the store's clock.
//!
//! Invariant: what is deleted was never to be read again, and its name is never used again; so doing it
//! twice, or by two at once, is doing it once. On a directory it is durable when it says so.

use object_store::ObjectStoreExt;
use tidegate_model::Micros;

use super::directory::Directory;
use super::{Put, Store, StoreError};

/// What the names of the objects begin with that ask for the time. They are no objects of a vault.
const CLOCK: &str = "gc/clock-";

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

    /// What time it is by the store's clock, by which its objects have their ages: that of an object
    /// which is made for it, and deleted again.
    ///
    /// # Errors
    /// By [`StoreError::remedy`].
    pub async fn clock(&self) -> Result<Micros, StoreError> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|error| StoreError::Failed {
            place: self.place().to_owned(),
            path: CLOCK.to_owned(),
            cause: error.to_string(),
        })?;
        let path = format!("{CLOCK}{:016x}", u64::from_le_bytes(name));
        // Of 64 random bits: not there, but for a first try whose answer was lost.
        let (Put::Created | Put::Exists) = self.create(&path, Vec::new().into()).await?;
        let modified = self.head(&path).await?.modified;
        self.delete(&path).await?;
        Ok(modified)
    }
}
