//! Keeps what a recovery or a mount reads from being collected meanwhile.
//!
//! A vault that can't be written to can't be told: then it is read all the same, and if a collection
//! removes what is needed, that is an error that says so.

use std::convert::Infallible;

use tidegate_model::Name;
use tidegate_vault::gc::{PIN_RENEWAL, Pin};
use tidegate_vault::log::LogReader;
use tidegate_vault::meta::MetaError;
use tokio::sync::Mutex;
use tracing::warn;

use super::chosen::{Chosen, Wanted};
use crate::failure::Failure;
use crate::output::Output;

/// What one command has pinned.
#[derive(Default)]
pub(super) struct Pinned(Mutex<Option<Pin>>);

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
            if manifest.is_none_or(|manifest| manifest == folded) {
                return Ok(found);
            }
            // Another was folded meanwhile; or it is damaged, and the one before or the logs are read.
            self.release().await;
            pinned = match folded {
                0 => Pin::logs(reader, machine).await.map(Some),
                number => Pin::manifest_of(reader, machine, number).await,
            };
        }
    }

    /// Gives the manifest that is pinned, if one is.
    async fn hold(&self, pinned: Result<Option<Pin>, MetaError>) -> Option<u64> {
        match pinned {
            Ok(pin) => {
                let manifest = pin.as_ref().map(Pin::manifest);
                *self.0.lock().await = pin;
                manifest
            }
            Err(error) => {
                warn!(%error, "nothing is pinned: a collection of garbage may end this");
                None
            }
        }
    }

    /// Renews what is pinned, for ever.
    pub(super) async fn keep(&self) -> Infallible {
        loop {
            tokio::time::sleep(PIN_RENEWAL).await;
            if let Some(pin) = &mut *self.0.lock().await
                && let Err(error) = pin.renew().await
            {
                warn!(%error, "what is read can't be pinned anew yet");
            }
        }
    }

    /// Lets go of it.
    pub(super) async fn release(&self) {
        if let Some(pin) = self.0.lock().await.take()
            && let Err(error) = pin.release().await
        {
            warn!(%error, "a pin stays until it is an hour old");
        }
    }
}
