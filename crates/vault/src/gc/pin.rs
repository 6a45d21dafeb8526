//! Pins: what a recovery or a mount reads isn't collected as long as it is pinned.
//! docs/formats/gc.md, "Pin".
//!
//! A pin names a manifest: all that a reader needs who goes on from that stays. It is created before the
//! manifest is used, and then the manifest must still be one that counts: or else what it needs may have been
//! condemned before the pin was there. A manifest of 0 stands for the logs from their beginnings.
//!
//! There is no clock between readers and collectors but the store's: a pin is renewed (a new object; then
//! the old one goes) much more often than [`PIN_LIMIT`], and one that is older is a killed reader's. A
//! reader that was stopped for longer, or didn't reach the store, may find packs gone: that is an error
//! that says so, for no name is used twice.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use serde::{Deserialize, Serialize};
use tidegate_model::limits::META_BYTES_MAX;
use tidegate_model::{Epoch, Name, PinId};

use crate::fold::{MANIFESTS_KEPT, manifest_numbers, newest_number};
use crate::keys::random;
use crate::layout;
use crate::log::LogReader;
use crate::meta::{MetaError, container};
use crate::seal::KeyRing;
use crate::store::{Put, Store};

/// How old a pin gets, by the store's clock.
pub const PIN_LIMIT: Duration = Duration::from_secs(3600);
/// How often its owner renews it: five of these may fail.
pub const PIN_RENEWAL: Duration = Duration::from_secs(600);

/// What a pin says.
#[derive(Debug, Serialize, Deserialize)]
struct Pinned {
    manifest: u64,
}

/// A pin. Whoever drops it without [`Pin::release`] leaves it to its age.
pub struct Pin {
    reader: LogReader,
    machine: Name,
    manifest: u64,
    path: String,
}

impl Pin {
    /// Pins the newest manifest of a machine; nothing of one that the vault doesn't know.
    ///
    /// # Errors
    /// What the store reports; it may be one that can't be written to.
    pub async fn newest(reader: &LogReader, machine: &Name) -> Result<Option<Self>, MetaError> {
        match reader.store().head(&layout::epoch(machine, Epoch(1))).await {
            Err(error) if error.is_not_found() => return Ok(None),
            head => head?,
        };
        loop {
            let manifest = newest_number(reader.store(), machine).await?;
            let pin = Self::of(reader, machine, manifest).await?;
            if newest_number(reader.store(), machine).await? == manifest {
                return Ok(Some(pin));
            }
            pin.release().await?;
        }
    }

    /// Pins the manifest with this number, from which was read; the newest where it doesn't count any
    /// more.
    ///
    /// # Errors
    /// As [`Pin::newest`].
    pub async fn manifest_of(
        reader: &LogReader,
        machine: &Name,
        manifest: u64,
    ) -> Result<Option<Self>, MetaError> {
        let pin = Self::of(reader, machine, manifest).await?;
        let numbers = manifest_numbers(reader.store(), machine).await?;
        if numbers.into_iter().rev().take(MANIFESTS_KEPT).any(|number| number == manifest) {
            return Ok(Some(pin));
        }
        pin.release().await?;
        Self::newest(reader, machine).await
    }

    /// Pins what the logs of a machine have, whatever is folded.
    ///
    /// # Errors
    /// As [`Pin::newest`].
    pub async fn logs(reader: &LogReader, machine: &Name) -> Result<Self, MetaError> {
        Self::of(reader, machine, 0).await
    }

    pub(super) async fn of(
        reader: &LogReader,
        machine: &Name,
        manifest: u64,
    ) -> Result<Self, MetaError> {
        let path = create(reader, machine, manifest).await?;
        Ok(Self { reader: reader.clone(), machine: machine.clone(), manifest, path })
    }

    /// The manifest; 0 for none.
    #[must_use]
    pub const fn manifest(&self) -> u64 {
        self.manifest
    }

    /// Renews it.
    ///
    /// # Errors
    /// What the store reports; the old one is there then, or the new one.
    pub async fn renew(&mut self) -> Result<(), MetaError> {
        let path = create(&self.reader, &self.machine, self.manifest).await?;
        let old = std::mem::replace(&mut self.path, path);
        if self.reader.store().head(&old).await.is_err_and(|error| error.is_not_found()) {
            tracing::warn!(
                machine = %self.machine,
                "its pin wasn't renewed in time, and was taken for that of a killed reader: what is read may be gone, which is told where it is missed"
            );
        }
        Ok(self.reader.store().delete(&old).await?)
    }

    /// Does some work, and renews it all the while.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let keep = async {
            loop {
                tokio::time::sleep(PIN_RENEWAL).await;
                if let Err(error) = self.renew().await {
                    tracing::warn!(%error, "what is read can't be pinned anew yet");
                }
            }
        };
        match select(pin!(work), pin!(keep)).await {
            Either::Left((done, _)) => done,
            Either::Right((never, _)) => never,
        }
    }

    /// Takes it away.
    ///
    /// # Errors
    /// What the store reports; its age takes it away then.
    pub async fn release(self) -> Result<(), MetaError> {
        Ok(self.reader.store().delete(&self.path).await?)
    }
}

async fn create(reader: &LogReader, machine: &Name, manifest: u64) -> Result<String, MetaError> {
    let path = layout::pin(machine, PinId::from_bytes(random()?));
    let body = serde_json::to_vec(&Pinned { manifest });
    let body = body.map_err(|error| MetaError::damaged(&path, &error.to_string()))?;
    let object = container::seal(reader.ring(), &path, &body)?;
    match reader.store().create(&path, object).await? {
        Put::Created => Ok(path),
        Put::Exists => Err(MetaError::damaged(&path, "another pin has this random name")),
    }
}

/// The manifest that a pin names.
pub(super) async fn read_pin(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    id: PinId,
) -> Result<u64, MetaError> {
    let path = layout::pin(machine, id);
    let object = match store.get(&path, META_BYTES_MAX).await {
        Err(error) if error.is_not_found() => return Err(MetaError::Missing { path }),
        got => got?,
    };
    let body = container::open(ring, &path, &object)?;
    let pinned: Result<Pinned, _> = serde_json::from_slice(&body);
    let pinned = pinned.map_err(|error| MetaError::damaged(&path, &error.to_string()))?;
    Ok(pinned.manifest)
}
