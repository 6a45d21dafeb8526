//! The store's clock: when it says that something was created just now.
//!
//! What is created for that goes again at once. Where nothing may be deleted it stays: an object
//! without content in a folder of its own.

use tidegate_model::{Micros, PackId, Remedy};

use super::{Put, Store, StoreError};
use crate::layout;
use crate::points::readable_time;

/// How far a clock may be away from the store's before nothing is let go by it.
const SKEW_MAX: Micros = Micros(5 * 60 * 1_000_000);

/// Why there is no time to go by.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The store doesn't tell.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The two clocks differ.
    #[error(
        "the clock of this host says {}, and the store's says {}: nothing is maintained while they are more than 5 minutes apart; set the one that is wrong",
        readable_time(*.local), readable_time(*.store)
    )]
    Apart {
        /// By this host's clock.
        local: Micros,
        /// By the store's.
        store: Micros,
    },
}

impl ClockError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Store(error) => error.remedy(),
            Self::Apart { .. } => Remedy::Refuse,
        }
    }
}

impl Store {
    /// Now, by the store's clock.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn clock(&self) -> Result<Micros, StoreError> {
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(|error| StoreError::Failed {
            place: self.place().to_owned(),
            path: layout::CLOCK.to_owned(),
            cause: error.to_string(),
        })?;
        let path = format!("{}/{}", layout::CLOCK, PackId::from_bytes(name));
        // Of 128 random bits: not there, but for a first try whose answer was lost.
        let (Put::Created | Put::Exists) = self.create(&path, Vec::new().into()).await?;
        let head = self.head(&path).await;
        if let Err(error) = self.delete(&path).await {
            tracing::debug!(%path, %error, "what was created to learn the store's time stays");
        }
        Ok(head?.modified)
    }

    /// Now, by the store's clock, if that of this host, which `local` tells, agrees with it.
    ///
    /// # Errors
    /// [`ClockError::Apart`] when it doesn't; what the store reports.
    pub async fn agreed_clock(&self, local: impl Fn() -> Micros) -> Result<Micros, ClockError> {
        let before = local();
        let store = self.clock().await?;
        let after = local();
        if store.0.saturating_add(SKEW_MAX.0) < before.0 {
            return Err(ClockError::Apart { local: before, store });
        }
        if store.0 > after.0.saturating_add(SKEW_MAX.0) {
            return Err(ClockError::Apart { local: after, store });
        }
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestVault, run};

    #[test]
    fn a_clock_that_is_far_from_the_stores_is_refused_and_nothing_is_left_of_asking() {
        run(async {
            let vault = TestVault::new();
            vault.clock.advance(1000);
            let (store, minute) = (vault.store(), 60_000_000);
            let now = vault.clock.now().0;
            let told = store.clock().await.unwrap().0;
            assert!(told + minute > now && told < now + minute, "{told} {now}");
            for (ahead, agrees) in [(0, true), (4, true), (6, false)] {
                for local in [now + ahead * minute, now - ahead * minute] {
                    let agreed = store.agreed_clock(|| Micros(local)).await;
                    assert_eq!(agreed.is_ok(), agrees, "{ahead} minutes: {agreed:?}");
                }
            }
            assert_eq!(store.names(layout::CLOCK).await.unwrap().objects, [""; 0]);
        });
    }
}
