//! One numbered version of the wrapped keys: the object keys/<n>. docs/formats/keys.md.
//!
//! Owns its JSON, its limits, and finding the newest in a store. Doesn't own what is wrapped
//! (`unlocked`). Nothing in it is secret; nothing in it is believed before a slot has opened.

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use tidegate_model::limits::META_BYTES_MAX;
use tidegate_model::{Micros, VaultId};

use super::contents::CERTIFICATE_BYTES_MAX;
use super::slot::Slot;
use super::{KeyError, hex};
use crate::layout;
use crate::rfc3339;
use crate::store::{Put, Store};

const FORMAT: u32 = 1;
/// Most slots: each may cost who opens the vault a second or more.
pub const SLOTS_MAX: usize = 16;
/// Most bytes of a wrapped private key: ours have fewer than 256.
const AUTHORITY_KEY_BYTES_MAX: usize = 1024;

/// A version of the wrapped keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDocument {
    pub(super) format: u32,
    /// The vault whose keys they are.
    pub vault: VaultId,
    /// Its number; the highest counts.
    pub number: u64,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created: Micros,
    pub(super) authority: AuthorityEntry,
    /// The contents, wrapped under the data key.
    #[serde(with = "hex")]
    pub(super) contents: Vec<u8>,
    /// The slots, in the order in which they were made.
    pub slots: Vec<Slot>,
}

/// The authority: its certificate in clear, and its wrapped private key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuthorityEntry {
    /// PEM, for programs without a key. Believed only where the contents have the same.
    pub certificate: String,
    /// PKCS #8, wrapped under the authority key.
    #[serde(with = "hex")]
    pub key: Vec<u8>,
}

impl KeyDocument {
    /// Where it lies in the vault.
    #[must_use]
    pub fn path(&self) -> String {
        layout::keys(self.number)
    }

    pub(super) fn new(
        vault: VaultId,
        number: u64,
        created: Micros,
        authority: AuthorityEntry,
        contents: Vec<u8>,
        slots: Vec<Slot>,
    ) -> Self {
        Self { format: FORMAT, vault, number, created, authority, contents, slots }
    }

    /// The bytes of the object.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("numbers and texts are always JSON");
        json.push(b'\n');
        json
    }

    /// Reads version `number` from the bytes of its object.
    ///
    /// # Errors
    /// [`KeyError::Format`] and [`KeyError::Damaged`].
    pub fn decode(number: u64, bytes: &[u8]) -> Result<Self, KeyError> {
        /// Looked at first, because a later format may have other fields.
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let path = layout::keys(number);
        let damaged = |cause: String| KeyError::Damaged { path: path.clone(), cause };
        if bytes.len() as u64 > META_BYTES_MAX {
            return Err(damaged(format!("it has {} bytes", bytes.len())));
        }
        let Format { format } =
            serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        if format != u64::from(FORMAT) {
            return Err(KeyError::Format { path: path.clone(), format });
        }
        let document: Self = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        document.check(number).map_err(damaged)?;
        Ok(document)
    }

    fn check(&self, number: u64) -> Result<(), String> {
        if self.number != number {
            return Err(format!("it says that it is version {}", self.number));
        }
        if self.slots.is_empty() || self.slots.len() > SLOTS_MAX {
            return Err(format!("it has {} slots", self.slots.len()));
        }
        for (index, slot) in self.slots.iter().enumerate() {
            slot.check().map_err(|cause| format!("slot {}: {cause}", slot.id))?;
            if self.slots[..index].iter().any(|earlier| earlier.id == slot.id) {
                return Err(format!("it has two slots {}", slot.id));
            }
        }
        if self.authority.certificate.len() > CERTIFICATE_BYTES_MAX * 2
            || self.authority.key.len() > AUTHORITY_KEY_BYTES_MAX
        {
            return Err("the authority's certificate or key is too long".into());
        }
        Ok(())
    }

    /// The newest version in a store.
    ///
    /// # Errors
    /// [`KeyError::NoKeys`] when there is none.
    pub async fn newest(store: &Store) -> Result<Self, KeyError> {
        let number = newest_number(store).await?.ok_or(KeyError::NoKeys)?;
        let bytes = store.get(&layout::keys(number), META_BYTES_MAX).await?;
        Self::decode(number, &bytes)
    }

    /// Puts it into a store as the newest version.
    ///
    /// # Errors
    /// [`KeyError::Raced`] when there is another of its number.
    pub(super) async fn publish(&self, store: &Store) -> Result<(), KeyError> {
        match store.create(&self.path(), self.encode().into()).await? {
            Put::Created => Ok(()),
            Put::Exists => Err(KeyError::Raced),
        }
    }
}

/// The number of the newest version in a store.
pub(crate) async fn newest_number(store: &Store) -> Result<Option<u64>, KeyError> {
    let mut listed = store.list(layout::KEYS, None);
    let mut newest = None;
    while let Some(object) = listed.try_next().await? {
        newest = newest.max(layout::parse_keys(&object.path));
    }
    Ok(newest)
}
