//! A vault as a whole: making one, opening one, and what an open one gives.
//!
//! Owns the order of the steps, so that an interruption leaves either no vault or a whole one, and
//! the comparison of vault.json with what the keys authenticate. Doesn't own the steps (`store`,
//! `description`, `keys`).

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tidegate_model::limits::BLOCK_BYTES_DEFAULT;
use tidegate_model::{Micros, VaultId};

use crate::authority::{self, Authority};
use crate::description::{DESCRIPTION_BYTES_MAX, Description, FORMAT};
use crate::error::VaultError;
use crate::keys::{
    self, Credential, KeyDocument, KeyError, NewSlot, PassphraseCost, RecoveryKey, Scope, Slot,
    Unlocked, newest_number, random,
};
use crate::layout;
use crate::seal::KeyRing;
use crate::store::{Put, Store, StoreError};

/// What may stand where a vault is made: the parts of an interrupted one, and what file systems
/// put at their root.
const HARMLESS: [&str; 3] = [layout::DESCRIPTION, ".lock", "lost+found"];

/// How a vault is made.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The size of its blocks.
    pub block_bytes: u32,
    /// What a guess at the passphrase costs.
    pub cost: PassphraseCost,
    /// What a person calls the first credential; may be empty.
    pub label: String,
    /// Now.
    pub now: Micros,
}

impl InitOptions {
    /// The usual vault, made now.
    #[must_use]
    pub fn new(now: Micros) -> Self {
        let (block_bytes, cost) = (BLOCK_BYTES_DEFAULT, PassphraseCost::default());
        Self { block_bytes, cost, label: String::new(), now }
    }
}

/// An open vault; cheap to clone.
#[derive(Debug, Clone)]
pub struct Vault {
    store: Store,
    description: Description,
    ring: KeyRing,
    keys: Arc<Unlocked>,
}

impl Vault {
    /// Makes a vault. Its first credential opens all of it; so does the recovery key, which is
    /// nowhere but in what this returns: print it.
    ///
    /// Run again after an interruption it completes what was begun.
    ///
    /// # Errors
    /// [`VaultError::Exists`], [`VaultError::NotEmpty`], [`VaultError::Interrupted`], a block size
    /// that can't be had, what the store reports.
    pub async fn init(
        store: Store,
        options: &InitOptions,
        credential: &Credential,
    ) -> Result<(Self, RecoveryKey), VaultError> {
        Self::begin(store, options, credential).await?.finish().await
    }

    /// The first part of [`Self::init`]: all but the step that makes it a vault. Dropped here, or
    /// before [`Begun::finish`], it leaves what making it again goes on from.
    ///
    /// # Errors
    /// Those of [`Self::init`].
    pub async fn begin(
        store: Store,
        options: &InitOptions,
        credential: &Credential,
    ) -> Result<Begun, VaultError> {
        let place = store.place().to_owned();
        let key = |cause| key_error(&place, cause);
        Self::check_free(&store).await?;
        let description = describe(&store, options).await?;
        let authority = authority::make(description.vault, options.now)?;
        let first = NewSlot {
            credential: credential.clone(),
            scope: Scope::All,
            label: options.label.clone(),
            cost: options.cost,
            created: options.now,
        };
        let (keys, recovery) = keys::make(&description, &authority, &first).map_err(key)?;
        Ok(Begun { store, description, keys, recovery })
    }

    /// Opens a vault. A passphrase takes part of a second of work.
    ///
    /// # Errors
    /// [`VaultError::NotThere`]; [`VaultError::Description`] when something else is there or a
    /// newer format; [`VaultError::Key`] when no slot opens or keys are damaged;
    /// [`VaultError::Changed`] when the keys authenticate something else than vault.json says; what
    /// the store reports.
    pub async fn open(store: Store, credential: &Credential) -> Result<Self, VaultError> {
        let place = store.place().to_owned();
        let (description, document) = match read_parts(&store).await {
            Err(error @ VaultError::Description { .. }) => {
                return Err(told_by_keys(&store, credential).await.unwrap_or(error));
            }
            read => read?,
        };
        let keys = document.unlock(credential).map_err(|cause| key_error(&place, cause))?;
        if !keys.agrees_with(&description) {
            return Err(changed(place, &keys));
        }
        Ok(Self::assemble(store, description, keys))
    }

    /// What opens a vault; that can be seen without opening it.
    ///
    /// # Errors
    /// Those of [`Self::open`], but for what a credential has to do with.
    pub async fn keys_at(store: &Store) -> Result<KeyDocument, VaultError> {
        read_parts(store).await.map(|(_, document)| document)
    }

    /// Whether a vault can be made there.
    ///
    /// # Errors
    /// [`VaultError::Exists`], [`VaultError::NotEmpty`], what the store reports.
    pub async fn check_free(store: &Store) -> Result<(), VaultError> {
        let place = store.place();
        let key = |cause| key_error(place, cause);
        if newest_number(store).await.map_err(key)?.is_some() {
            return Err(VaultError::Exists { place: place.to_owned() });
        }
        check_empty(store).await
    }

    fn assemble(store: Store, description: Description, keys: Unlocked) -> Self {
        Self { store, description, ring: keys.ring(), keys: Arc::new(keys) }
    }

    /// Which vault it is.
    #[must_use]
    pub const fn id(&self) -> VaultId {
        self.description.vault
    }

    /// What it is.
    #[must_use]
    pub const fn description(&self) -> &Description {
        &self.description
    }

    /// Where it lies.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Its root keys.
    #[must_use]
    pub const fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// The certificate of its authority, which peers are checked against.
    #[must_use]
    pub fn authority_certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.keys.certificate().to_vec())
    }

    /// Opens its authority, to enrol.
    ///
    /// # Errors
    /// [`VaultError::Key`] with [`KeyError::NoAuthority`] when the credential opens only the data.
    pub fn authority(&self) -> Result<Authority, VaultError> {
        self.keys.authority().map_err(|cause| key_error(self.store.place(), cause))
    }

    /// The slot that the credential opened.
    #[must_use]
    pub fn opened_slot(&self) -> u32 {
        self.keys.slot()
    }

    /// Its key slots.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        self.keys.slots()
    }

    /// Adds a key slot; gives its number.
    ///
    /// # Errors
    /// [`VaultError::Key`]; see [`Unlocked::add_slot`].
    pub async fn add_slot(&mut self, new: &NewSlot) -> Result<u32, VaultError> {
        let added = self.keys.add_slot(&self.store, new).await;
        let (keys, id) = added.map_err(|cause| key_error(self.store.place(), cause))?;
        self.keys = Arc::new(keys);
        Ok(id)
    }

    /// Lets slot `id` open by another credential from now on.
    ///
    /// # Errors
    /// [`VaultError::Key`]; see [`Unlocked::change_slot`].
    pub async fn change_slot(
        &mut self,
        id: u32,
        credential: &Credential,
        cost: PassphraseCost,
        now: Micros,
    ) -> Result<(), VaultError> {
        let changed = self.keys.change_slot(&self.store, id, credential, cost, now).await;
        let keys = changed.map_err(|cause| key_error(self.store.place(), cause))?;
        self.keys = Arc::new(keys);
        Ok(())
    }
}

/// A vault that lacks only its keys in the store: nothing opens it yet.
pub struct Begun {
    store: Store,
    description: Description,
    keys: Unlocked,
    recovery: RecoveryKey,
}

impl Begun {
    /// The step that makes it a vault. Whoever drops this on its way may have made a vault whose
    /// recovery key nobody knows: wait for its end, and show the key.
    ///
    /// # Errors
    /// [`VaultError::Exists`] when another was first; what the store reports.
    pub async fn finish(self) -> Result<(Vault, RecoveryKey), VaultError> {
        let Self { store, description, keys, recovery } = self;
        match keys.publish(&store).await {
            // Another made the same vault at the same time, and was first.
            Err(KeyError::Raced) => {
                return Err(VaultError::Exists { place: store.place().to_owned() });
            }
            published => published.map_err(|cause| key_error(store.place(), cause))?,
        }
        Ok((Vault::assemble(store, description, keys), recovery))
    }
}

fn key_error(place: &str, cause: KeyError) -> VaultError {
    match cause {
        KeyError::Store(error) => VaultError::Store(error), // which names the place itself
        cause => VaultError::Key { place: place.into(), cause },
    }
}

fn changed(place: String, keys: &Unlocked) -> VaultError {
    let (format, vault, block_bytes) = keys.described();
    let expected =
        format!("\"format\": {format}, \"vault\": \"{vault}\", \"block_bytes\": {block_bytes}");
    VaultError::Changed { place, expected }
}

/// A vault.json that can't be used is of a later program, of another one, or damaged. Keys that open
/// and authenticate our format tell: then it is damaged, and this is what it must say.
async fn told_by_keys(store: &Store, credential: &Credential) -> Option<VaultError> {
    let keys = KeyDocument::newest(store).await.ok()?.unlock(credential).ok()?;
    let (format, ..) = keys.described();
    (format == FORMAT).then(|| changed(store.place().to_owned(), &keys))
}

/// What is read of a vault before it is opened.
async fn read_parts(store: &Store) -> Result<(Description, KeyDocument), VaultError> {
    let place = store.place();
    let description = read_description(store).await?;
    let description =
        description.ok_or_else(|| VaultError::NotThere { place: place.to_owned() })?;
    let document = KeyDocument::newest(store).await.map_err(|cause| key_error(place, cause))?;
    Ok((description, document))
}

/// The vault's description; `None` when there is none.
async fn read_description(store: &Store) -> Result<Option<Description>, VaultError> {
    let place = || store.place().to_owned();
    let bytes = match store.get(layout::DESCRIPTION, DESCRIPTION_BYTES_MAX).await {
        Err(StoreError::NotFound { .. }) => return Ok(None),
        got => got?,
    };
    let description = Description::decode(&bytes);
    description.map(Some).map_err(|cause| VaultError::Description { place: place(), cause })
}

/// Creates vault.json, or takes that of an interrupted making.
async fn describe(store: &Store, options: &InitOptions) -> Result<Description, VaultError> {
    let place = || store.place().to_owned();
    let vault = VaultId::from_bytes(random().map_err(|cause| key_error(store.place(), cause))?);
    let description = Description::new(vault, options.block_bytes, options.now)
        .map_err(|cause| VaultError::Description { place: place(), cause })?;
    if store.create(layout::DESCRIPTION, description.encode()).await? == Put::Created {
        return Ok(description);
    }
    let begun = read_description(store).await?;
    // It was there a moment ago, and nothing of ours deletes it.
    let begun = begun.ok_or_else(|| VaultError::NotThere { place: place() })?;
    if begun.block_bytes != options.block_bytes {
        let block_bytes = begun.block_bytes;
        return Err(VaultError::Interrupted { place: place(), block_bytes });
    }
    Ok(begun)
}

async fn check_empty(store: &Store) -> Result<(), VaultError> {
    let names = store.names("").await?;
    let mut all = names.folders.into_iter().chain(names.objects);
    match all.find(|name| !HARMLESS.contains(&name.as_str())) {
        None => Ok(()),
        Some(found) => Err(VaultError::NotEmpty { place: store.place().into(), found }),
    }
}

#[cfg(test)]
mod tests;
