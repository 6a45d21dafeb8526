//! Key slots: each wraps the vault's master keys under one credential.
//!
//! Owns one slot's fields, their checks, and wrapping and opening it. Doesn't own which slots a
//! vault has (`document`).

use std::fmt;

use serde::{Deserialize, Serialize};
use tidegate_model::{Micros, VaultId, Writer};

use super::credential::Credential;
use super::kdf::{self, PassphraseCost, SALT_BYTES};
use super::recovery::RecoveryKey;
use super::wrap::{WRAPPED_KEY_BYTES, unwrap_key, wrap};
use super::{KeyError, hex, random};
use crate::rfc3339;
use crate::seal::{OpenError, Secret};

/// Longest label, in bytes.
pub(super) const LABEL_BYTES_MAX: usize = 128;

/// What kind of credential opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum SlotKind {
    /// A passphrase.
    Passphrase = 1,
    /// A key file.
    KeyFile = 2,
    /// The recovery key.
    Recovery = 3,
}

impl SlotKind {
    /// For sentences.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::KeyFile => "key file",
            Self::Recovery => "recovery key",
        }
    }
}

impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.noun())
    }
}

/// How far a slot leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Scope {
    /// To the data and to the authority: it can enrol.
    All = 1,
    /// To the data only: for servers.
    Data = 2,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Data => "data",
        })
    }
}

/// A slot as it is stored; nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its number in the vault, never given twice.
    pub id: u32,
    /// What opens it.
    pub kind: SlotKind,
    /// How far it leads.
    pub scope: Scope,
    /// What a person called it.
    pub label: String,
    /// When it was made or changed.
    #[serde(with = "rfc3339")]
    pub created: Micros,
    /// What a guess costs; of passphrases only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argon2id: Option<PassphraseCost>,
    #[serde(with = "hex")]
    pub(super) salt: [u8; SALT_BYTES],
    #[serde(with = "hex")]
    pub(super) data_key: [u8; WRAPPED_KEY_BYTES],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) authority_key: Option<WrappedKey>,
}

/// A wrapped key that may be absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct WrappedKey(#[serde(with = "hex")] pub [u8; WRAPPED_KEY_BYTES]);

/// The two keys that a slot wraps.
pub(super) struct MasterKeys {
    pub data: Secret,
    /// Absent behind a slot of scope `data`, or why it can't be had.
    pub authority: Result<Secret, KeyError>,
}

/// What a new slot is to be.
pub(super) struct SlotPlan {
    pub id: u32,
    pub scope: Scope,
    pub label: String,
    pub created: Micros,
    pub cost: PassphraseCost,
}

/// What a slot is wrapped under.
pub(super) enum SlotSecret<'a> {
    Credential(&'a Credential),
    Recovery(&'a RecoveryKey),
}

impl SlotSecret<'_> {
    pub fn kind(&self) -> SlotKind {
        match self {
            Self::Credential(Credential::Passphrase(_)) => SlotKind::Passphrase,
            Self::Credential(Credential::KeyFile(_)) => SlotKind::KeyFile,
            Self::Recovery(_) => SlotKind::Recovery,
        }
    }

    /// The wrapping key; `None` when the slot lacks what its kind needs.
    fn wrapping_key(&self, slot: &Slot) -> Option<Secret> {
        Some(match self {
            Self::Credential(Credential::Passphrase(text)) => {
                kdf::of_passphrase(text, &slot.salt, slot.argon2id?)
            }
            Self::Credential(Credential::KeyFile(content)) => {
                kdf::of_random(content, &slot.salt, b"tidegate/1 slot key-file")
            }
            Self::Recovery(key) => {
                kdf::of_random(key.bytes(), &slot.salt, b"tidegate/1 slot recovery")
            }
        })
    }
}

impl Slot {
    /// Wraps `keys` under `secret`.
    pub(super) fn make(
        vault: VaultId,
        plan: SlotPlan,
        secret: &SlotSecret<'_>,
        keys: &MasterKeys,
    ) -> Result<Self, KeyError> {
        let kind = secret.kind();
        let slot = Self {
            id: plan.id,
            kind,
            scope: plan.scope,
            label: plan.label,
            created: plan.created,
            argon2id: (kind == SlotKind::Passphrase).then_some(plan.cost),
            salt: random()?,
            data_key: [0; WRAPPED_KEY_BYTES],
            authority_key: None,
        };
        slot.check().map_err(|cause| KeyError::Parameters(format!("the key slot: {cause}")))?;
        let under = secret.wrapping_key(&slot).ok_or_else(|| {
            KeyError::Parameters("a passphrase slot needs its Argon2id parameters".into())
        })?;
        let key = |what, key: &Secret| -> Result<[u8; WRAPPED_KEY_BYTES], KeyError> {
            let wrapped = wrap(&under, &slot.aad(vault, what), key.as_slice())?;
            Ok(wrapped.try_into().expect("a wrapped key has WRAPPED_KEY_BYTES"))
        };
        let data_key = key(What::Data, &keys.data)?;
        let authority_key = match plan.scope {
            Scope::All => {
                let authority = keys.authority.as_ref().map_err(Clone::clone)?;
                Some(WrappedKey(key(What::Authority, authority)?))
            }
            Scope::Data => None,
        };
        Ok(Self { data_key, authority_key, ..slot })
    }

    /// Opens the slot; for a person's mistake and a changed slot alike the answer is no.
    pub(super) fn open(
        &self,
        vault: VaultId,
        path: &str,
        secret: &SlotSecret<'_>,
    ) -> Result<MasterKeys, OpenError> {
        let under = secret.wrapping_key(self).ok_or(OpenError)?;
        let data = unwrap_key(&under, &self.aad(vault, What::Data), &self.data_key)?;
        let authority = match &self.authority_key {
            None => Err(KeyError::NoAuthority),
            Some(WrappedKey(wrapped)) => {
                // Damage here must not keep anyone from the data.
                unwrap_key(&under, &self.aad(vault, What::Authority), wrapped).map_err(|_| {
                    let what = "its way to the authority";
                    KeyError::Contents { path: path.into(), slot: self.id, what }
                })
            }
        };
        Ok(MasterKeys { data, authority })
    }

    /// What every slot of ours fulfils.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.argon2id.is_some() != (self.kind == SlotKind::Passphrase) {
            return Err("Argon2id parameters belong to passphrase slots, and to no others");
        }
        if self.label.len() > LABEL_BYTES_MAX || self.label.chars().any(char::is_control) {
            return Err("its label is longer than 128 bytes or has control characters");
        }
        Ok(())
    }

    /// What is authenticated with a wrapped key: all of the slot that decides about it.
    fn aad(&self, vault: VaultId, what: What) -> Vec<u8> {
        let [memory_kib, passes, lanes] = self.argon2id.map_or([0; 3], |cost| cost.fields());
        let mut aad = Vec::new();
        Writer::new(&mut aad)
            .bytes(what.label())
            .bytes(vault.as_bytes())
            .u32(self.id)
            .u8(self.kind as u8)
            .u8(self.scope as u8)
            .u32(memory_kib)
            .u32(passes)
            .u32(lanes)
            .bytes(&self.salt);
        aad
    }
}

#[derive(Clone, Copy)]
enum What {
    Data,
    Authority,
}

impl What {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Data => b"tidegate/1 slot data",
            Self::Authority => b"tidegate/1 slot authority",
        }
    }
}
