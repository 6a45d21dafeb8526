//! Opening a place as a store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;

use super::directory::{self, Directory};
use super::{Access, Inner, Store, StoreError, azure};
use crate::MadeFolders;
use crate::location::Location;

impl Store {
    /// Opens the store at `location`; blocks on a directory's file system for a moment. Azure's
    /// settings come from the environment.
    ///
    /// # Errors
    /// A directory that isn't there or can't hold a vault, settings that can't be used. Whether
    /// there is a vault isn't looked at, nor whether a container exists.
    pub fn open(location: &Location, access: Access) -> Result<Self, StoreError> {
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        Self::open_with(location, access, &variables)
    }

    /// The same with Azure's settings from `variables`, names and values, instead of the
    /// environment.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(
        location: &Location,
        access: Access,
        variables: &[(String, String)],
    ) -> Result<Self, StoreError> {
        let place = location.to_string();
        match location {
            Location::Directory(path) => open_directory(path, place, access),
            Location::Azure { container, prefix } => {
                let clients = azure::clients(container, &place, variables)?;
                // Parsed before, when the location was.
                let prefix = ObjectPath::from(prefix.as_str());
                Ok(Self::assemble(place, prefix, clients.puts, clients.reads, None, None))
            }
            Location::Memory(name) => Ok(Self::over(memory(name), &place)),
        }
    }

    /// A store over any object store, for simulations and tests.
    #[must_use]
    pub fn over(objects: Arc<dyn ObjectStore>, place: &str) -> Self {
        Self::assemble(place.into(), ObjectPath::default(), objects.clone(), objects, None, None)
    }

    pub(super) fn assemble(
        place: String,
        prefix: ObjectPath,
        puts: Arc<dyn ObjectStore>,
        reads: Arc<dyn ObjectStore>,
        listed: Option<PathBuf>,
        directory: Option<Directory>,
    ) -> Self {
        Self(Arc::new(Inner { place, prefix, puts, reads, listed, directory }))
    }
}

fn open_directory(path: &Path, place: String, access: Access) -> Result<Store, StoreError> {
    let made = match access {
        Access::Create => directory::create(path, &place)?,
        Access::Read | Access::Write => MadeFolders::default(),
    };
    directory::check(path, &place)?;
    let watched = match access {
        Access::Read => None,
        Access::Write | Access::Create => Some(Directory::open(path, &place, made)?),
    };
    let files = LocalFileSystem::new_with_prefix(path)
        .map_err(|error| StoreError::of_object(&place, "the directory", &error))?
        .with_fsync(true);
    let files: Arc<dyn ObjectStore> = Arc::new(files);
    let listed = Some(path.to_path_buf());
    Ok(Store::assemble(place, ObjectPath::default(), files.clone(), files, listed, watched))
}

/// The store of this name in this process: two opens see the same objects.
pub(super) fn memory(name: &str) -> Arc<dyn ObjectStore> {
    static STORES: Mutex<Option<HashMap<String, Arc<InMemory>>>> = Mutex::new(None);
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    stores.get_or_insert_default().entry(name.to_owned()).or_default().clone()
}
