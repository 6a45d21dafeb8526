//! A vault's keys once a credential has opened a slot, and making the next version of them.
//!
//! Owns the order in which wraps are opened and made. Doesn't own the object (`document`) nor a
//! single slot (`slot`). What it holds in memory is wiped when it is dropped.

use std::collections::BTreeMap;
use std::fmt;

use tidegate_model::{Micros, VaultId};
use zeroize::Zeroizing;

use super::contents::Contents;
use super::credential::Credential;
use super::document::{AuthorityEntry, KeyDocument, SLOTS_MAX};
use super::kdf::PassphraseCost;
use super::recovery::RecoveryKey;
use super::slot::{MasterKeys, Scope, Slot, SlotKind, SlotPlan, SlotSecret};
use super::wrap::{authority_aad, contents_aad, unwrap, wrap};
use super::{KeyError, random_secret};
use crate::authority::{Authority, NewAuthority};
use crate::description::Description;
use crate::pem;
use crate::seal::KeyRing;
use crate::store::Store;

/// What a new slot is to be.
#[derive(Debug, Clone)]
pub struct NewSlot {
    /// What opens it; not a recovery key.
    pub credential: Credential,
    /// How far it leads.
    pub scope: Scope,
    /// What a person calls it, at most 128 bytes; may be empty.
    pub label: String,
    /// What a guess at the passphrase costs.
    pub cost: PassphraseCost,
    /// Now.
    pub created: Micros,
}

/// Opened keys.
pub struct Unlocked {
    document: KeyDocument,
    slot: u32,
    keys: MasterKeys,
    contents: Contents,
}

impl fmt::Debug for Unlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unlocked({} by slot {})", self.document.path(), self.slot)
    }
}

/// Makes the first version of a new vault's keys.
pub(crate) fn make(
    description: &Description,
    authority: &NewAuthority,
    first: &NewSlot,
) -> Result<(Unlocked, RecoveryKey), KeyError> {
    let recovery = RecoveryKey::new(random_secret()?);
    let keys = MasterKeys { data: random_secret()?, authority: Ok(random_secret()?) };
    let contents = Contents {
        vault: description.vault,
        format: description.format,
        block_bytes: description.block_bytes,
        roots: BTreeMap::from([(1, random_secret()?)]),
        certificate: authority.certificate.clone(),
    };
    let entry = AuthorityEntry {
        certificate: pem::encode(pem::CERTIFICATE, &authority.certificate).to_string(),
        key: wrap(
            keys.authority.as_ref().map_err(Clone::clone)?,
            &authority_aad(description.vault, &authority.certificate),
            &authority.key,
        )?,
    };
    let vault = description.vault;
    let chosen =
        Slot::make(vault, first.plan(1)?, &SlotSecret::Credential(&first.credential), &keys)?;
    let plan = SlotPlan { id: 2, scope: Scope::All, label: String::new(), ..first.plan(2)? };
    let printed = Slot::make(vault, plan, &SlotSecret::Recovery(&recovery), &keys)?;
    let sealed = wrap(&keys.data, &contents_aad(vault, 1), &contents.encode())?;
    let document = KeyDocument::new(vault, 1, first.created, entry, sealed, vec![chosen, printed]);
    Ok((Unlocked { document, slot: 1, keys, contents }, recovery))
}

impl KeyDocument {
    /// Opens the keys with a credential, trying each slot of its kind. A passphrase takes part of
    /// a second a slot.
    ///
    /// # Errors
    /// [`KeyError::Wrong`] when no slot opens; [`KeyError::Contents`] when one does, but what it
    /// leads to is damaged.
    pub fn unlock(self, credential: &Credential) -> Result<Unlocked, KeyError> {
        let recovery = credential.as_recovery().transpose()?;
        let secret = match &recovery {
            Some(key) => SlotSecret::Recovery(key),
            None => SlotSecret::Credential(credential),
        };
        let path = self.path();
        let mut tried = 0;
        for slot in self.slots.iter().filter(|slot| slot.kind == secret.kind()) {
            tried += 1;
            if let Ok(keys) = slot.open(self.vault, &path, &secret) {
                let id = slot.id;
                return self.open_contents(id, keys);
            }
        }
        let kind = secret.kind().noun();
        Err(match tried {
            0 => KeyError::NoneOfKind { path, kind },
            tried => KeyError::Wrong { path, kind, tried },
        })
    }

    fn open_contents(self, slot: u32, keys: MasterKeys) -> Result<Unlocked, KeyError> {
        let path = self.path();
        let aad = contents_aad(self.vault, self.number);
        let plain = unwrap(&keys.data, &aad, &self.contents).map_err(|_| {
            let what = "what the slots lead to";
            KeyError::Contents { path: path.clone(), slot, what }
        })?;
        let contents = Contents::decode(&plain)
            .map_err(|error| KeyError::Damaged { path: path.clone(), cause: error.to_string() })?;
        if contents.vault != self.vault {
            let cause = format!("its contents are those of vault {}", contents.vault);
            return Err(KeyError::Damaged { path, cause });
        }
        Ok(Unlocked { document: self, slot, keys, contents })
    }
}

impl Unlocked {
    /// The root keys.
    #[must_use]
    pub fn ring(&self) -> KeyRing {
        self.contents.ring()
    }

    /// The vault.
    #[must_use]
    pub const fn vault(&self) -> VaultId {
        self.contents.vault
    }

    /// The slot that opened.
    #[must_use]
    pub const fn slot(&self) -> u32 {
        self.slot
    }

    /// All slots.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.document.slots
    }

    /// The authority's certificate, DER, as it was authenticated.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.contents.certificate
    }

    /// The number of the version.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.document.number
    }

    /// Whether vault.json still says what it said when the vault was made.
    #[must_use]
    pub fn agrees_with(&self, description: &Description) -> bool {
        self.contents.agrees_with(description)
    }

    /// Format, vault and block size as they were authenticated: what vault.json must say.
    #[must_use]
    pub const fn described(&self) -> (u32, VaultId, u32) {
        (self.contents.format, self.contents.vault, self.contents.block_bytes)
    }

    /// Opens the authority.
    ///
    /// # Errors
    /// [`KeyError::NoAuthority`] behind a slot of scope `data`; [`KeyError::Contents`] when its
    /// key is damaged.
    pub fn authority(&self) -> Result<Authority, KeyError> {
        let key = self.keys.authority.as_ref().map_err(Clone::clone)?;
        let damaged = || KeyError::Contents {
            path: self.document.path(),
            slot: self.slot,
            what: "the authority's key",
        };
        let aad = authority_aad(self.contents.vault, &self.contents.certificate);
        let key: Zeroizing<Vec<u8>> =
            unwrap(key, &aad, &self.document.authority.key).map_err(|_| damaged())?;
        Authority::open(self.contents.vault, &self.contents.certificate, &key)
            .map_err(|_| damaged())
    }

    /// Puts a new version with one more slot into the store, and gives it opened.
    ///
    /// # Errors
    /// [`KeyError::NoAuthority`] when a slot of scope `all` is wanted and this one isn't;
    /// [`KeyError::Full`]; [`KeyError::Raced`]; what the store reports.
    pub async fn add_slot(&self, store: &Store, new: &NewSlot) -> Result<(Self, u32), KeyError> {
        let mut slots = self.document.slots.clone();
        if slots.len() >= SLOTS_MAX {
            return Err(KeyError::Full(SLOTS_MAX));
        }
        // Slots don't go, so the highest number was given last.
        let id = slots.iter().map(|slot| slot.id).max().unwrap_or(0).saturating_add(1);
        let secret = SlotSecret::Credential(&new.credential);
        slots.push(Slot::make(self.contents.vault, new.plan(id)?, &secret, &self.keys)?);
        Ok((self.next(store, slots, new.created).await?, id))
    }

    /// Puts a new version into the store in which slot `id` opens by another credential. Who has
    /// the old credential and a copy of the old version can still open that.
    ///
    /// # Errors
    /// [`KeyError::NoSlot`], [`KeyError::RecoverySlot`], and those of [`Self::add_slot`].
    pub async fn change_slot(
        &self,
        store: &Store,
        id: u32,
        credential: &Credential,
        cost: PassphraseCost,
        now: Micros,
    ) -> Result<Self, KeyError> {
        let mut slots = self.document.slots.clone();
        let slot = slots.iter_mut().find(|slot| slot.id == id).ok_or(KeyError::NoSlot(id))?;
        if slot.kind == SlotKind::Recovery {
            return Err(KeyError::RecoverySlot(id));
        }
        let new = NewSlot {
            credential: credential.clone(),
            scope: slot.scope,
            label: slot.label.clone(),
            cost,
            created: now,
        };
        let secret = SlotSecret::Credential(&new.credential);
        *slot = Slot::make(self.contents.vault, new.plan(id)?, &secret, &self.keys)?;
        self.next(store, slots, now).await
    }

    /// Puts this version into the store: for the first one.
    pub(crate) async fn publish(&self, store: &Store) -> Result<(), KeyError> {
        self.document.publish(store).await
    }

    #[cfg(test)]
    pub(super) const fn document_for_tests(&self) -> &KeyDocument {
        &self.document
    }

    async fn next(&self, store: &Store, slots: Vec<Slot>, now: Micros) -> Result<Self, KeyError> {
        let (vault, number) = (self.contents.vault, self.document.number.saturating_add(1));
        let encoded = self.contents.encode();
        let sealed = wrap(&self.keys.data, &contents_aad(vault, number), &encoded)?;
        let entry = self.document.authority.clone();
        let document = KeyDocument::new(vault, number, now, entry, sealed, slots);
        document.publish(store).await?;
        let keys =
            MasterKeys { data: self.keys.data.clone(), authority: self.keys.authority.clone() };
        // Encoded a moment ago.
        let contents = Contents::decode(&encoded)
            .map_err(|e| KeyError::Damaged { path: document.path(), cause: e.to_string() })?;
        Ok(Self { document, slot: self.slot, keys, contents })
    }
}

impl NewSlot {
    fn plan(&self, id: u32) -> Result<SlotPlan, KeyError> {
        if self.credential.as_recovery().is_some() {
            let text = "a recovery key can't be a passphrase or key file: choose another";
            return Err(KeyError::Credential(text.into()));
        }
        Ok(SlotPlan {
            id,
            scope: self.scope,
            label: self.label.clone(),
            created: self.created,
            cost: self.cost,
        })
    }
}
