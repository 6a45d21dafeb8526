//! Keeps what a recovery or a mount reads from being collected meanwhile.
//!
//! A vault that can't be written to can't be told: then it is read all the same, and told as soon as it
//! can be. If a collection removes what is needed meanwhile, that is an error that says so.

use std::convert::Infallible;
use std::time::Duration;

use tidegate_model::Name;
use tidegate_vault::gc::{PIN_RENEWAL, Pin};
use tidegate_vault::log::LogReader;
use tidegate_vault::meta::MetaError;
use tokio::sync::Mutex;
use tracing::{debug, warn};

use super::chosen::{Chosen, Wanted};
use crate::failure::Failure;
use crate::output::Output;

/// How often is tried to pin what couldn't be.
const PIN_RETRY: Duration = Duration::from_secs(60);

/// What one command has pinned.
#[derive(Default)]
pub(super) struct Pinned(Mutex<Held>);

/// What is pinned, or isn't yet.
#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    Pin(Pin),
    /// This manifest of a machine, from which is read; 0 for its logs.
    Unpinned(LogReader, Name, u64),
}

impl Pinned {
    /// Finds the point that is `wanted` in what it has pinned.
    pub(super) async fn read(
        &self,
        reader: &LogReader,
        machine: &Name,
        wanted: &Wanted,
        output: &Output,
    ) -> Result<Chosen, Failure> {
        let mut pinned = Pin::newest(reader, machine).await;
        loop {
            let manifest = self.hold(pinned).await;
            let found = Chosen::read(reader, machine, wanted, output).await?;
            let folded = found.history.folded_by();
            if manifest == Some(folded) {
                return Ok(found);
            }
            if manifest.is_none() {
                *self.0.lock().await = Held::Unpinned(reader.clone(), machine.clone(), folded);
                return Ok(found);
            }
            // Another was folded meanwhile; or it is damaged, and the one before or the logs are read.
            self.release().await;
            pinned = pin(reader, machine, folded).await;
        }
    }

    /// Gives the manifest that is pinned, if one is.
    async fn hold(&self, pinned: Result<Option<Pin>, MetaError>) -> Option<u64> {
        match pinned {
            Ok(pin) => {
                let manifest = pin.as_ref().map(Pin::manifest);
                *self.0.lock().await = pin.map_or(Held::Nothing, Held::Pin);
                manifest
            }
            Err(error) => {
                warn!(%error, "nothing is pinned yet: a collection of garbage may end this");
                None
            }
        }
    }

    /// Renews what is pinned, or pins what wasn't, for ever.
    pub(super) async fn keep(&self) -> Infallible {
        loop {
            let is_pinned = matches!(*self.0.lock().await, Held::Pin(_));
            tokio::time::sleep(if is_pinned { PIN_RENEWAL } else { PIN_RETRY }).await;
            self.0.lock().await.keep().await;
        }
    }

    /// Lets go of it.
    pub(super) async fn release(&self) {
        if let Held::Pin(pin) = std::mem::take(&mut *self.0.lock().await) {
            let_go(pin).await;
        }
    }
}

impl Held {
    async fn keep(&mut self) {
        match self {
            Self::Nothing => {}
            Self::Pin(pin) => {
                if let Err(error) = pin.renew().await {
                    warn!(%error, "what is read can't be pinned anew yet");
                }
            }
            Self::Unpinned(reader, machine, manifest) => {
                match pin(reader, machine, *manifest).await {
                    Ok(Some(pin)) if pin.manifest() == *manifest => *self = Self::Pin(pin),
                    Ok(newer) => {
                        warn!(%machine, "what is read has been folded twice since: it may be gone");
                        *self = Self::Nothing;
                        if let Some(pin) = newer {
                            let_go(pin).await;
                        }
                    }
                    Err(error) => debug!(%error, "nothing is pinned yet"),
                }
            }
        }
    }
}

async fn pin(reader: &LogReader, machine: &Name, manifest: u64) -> Result<Option<Pin>, MetaError> {
    match manifest {
        0 => Pin::logs(reader, machine).await.map(Some),
        number => Pin::manifest_of(reader, machine, number).await,
    }
}

async fn let_go(pin: Pin) {
    if let Err(error) = pin.release().await {
        warn!(%error, "a pin stays until it is an hour old");
    }
}
