//! Policies in the store: numbered sealed records, of the vault and of machines.

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use tidegate_model::{Micros, Name};

use super::Policy;
use crate::layout;
use crate::meta::{self, MetaError};
use crate::seal::KeyRing;
use crate::store::{Put, Store};

/// How often another may be first: each time somebody set a policy.
const TRIES_MAX: u32 = 16;

/// A policy as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// Its number, from 1.
    pub number: u64,
    /// What it says; `None` of a machine that follows the vault again.
    pub policy: Option<Policy>,
    /// When it was set, by the clock of who did it; for people.
    pub set: Micros,
}

impl PolicyRecord {
    fn check(&self, number: u64) -> Result<(), &'static str> {
        if self.number != number || number == 0 {
            return Err("it is another policy");
        }
        match self.policy.map(|policy| policy.check()) {
            Some(Err(_)) => Err("it keeps more than can be kept"),
            _ => Ok(()),
        }
    }
}

/// The newest policy that was set for a machine, or for the vault where none is named; `None` where
/// none ever was.
///
/// # Errors
/// What the store reports. One that is damaged is an error, too: by an older one, or none, too much
/// might be let go.
pub async fn read_policy(
    store: &Store,
    ring: &KeyRing,
    machine: Option<&Name>,
) -> Result<Option<PolicyRecord>, MetaError> {
    let mut newest = 0;
    let mut listed = store.list(&layout::policies(machine), None);
    while let Some(object) = listed.try_next().await? {
        newest = layout::parse_policy(machine, &object.path).unwrap_or_default().max(newest);
    }
    if newest == 0 {
        return Ok(None);
    }
    let path = layout::policy(machine, newest);
    let read = meta::read(store, ring, &path, |record: &PolicyRecord| record.check(newest)).await?;
    read.map(Some).ok_or(MetaError::Missing { path })
}

/// The policy that a machine is kept by: its own, else the vault's, else the default.
///
/// # Errors
/// As [`read_policy`].
pub async fn policy_of(store: &Store, ring: &KeyRing, machine: &Name) -> Result<Policy, MetaError> {
    let own = read_policy(store, ring, Some(machine)).await?;
    if let Some(policy) = own.and_then(|record| record.policy) {
        return Ok(policy);
    }
    let vault = read_policy(store, ring, None).await?;
    Ok(vault.and_then(|record| record.policy).unwrap_or_default())
}

/// Sets the policy of a machine, or of the vault; gives its number. The one before needn't be
/// readable: this is how a damaged one is replaced.
///
/// # Errors
/// What the store reports; [`MetaError::Damaged`] for one that no reader would accept.
pub async fn set_policy(
    store: &Store,
    ring: &KeyRing,
    machine: Option<&Name>,
    policy: Option<Policy>,
    now: Micros,
) -> Result<PolicyRecord, MetaError> {
    let mut number = 0;
    let mut listed = store.list(&layout::policies(machine), None);
    while let Some(object) = listed.try_next().await? {
        number = layout::parse_policy(machine, &object.path).unwrap_or_default().max(number);
    }
    let mut path = String::new();
    for _ in 0..TRIES_MAX {
        number = number.saturating_add(1);
        let record = PolicyRecord { number, policy, set: now };
        path = layout::policy(machine, number);
        record.check(number).map_err(|cause| MetaError::damaged(&path, cause))?;
        if meta::create(store, ring, &path, &record).await? == Put::Created {
            return Ok(record);
        }
    }
    Err(MetaError::damaged(&path, "others set policies all the time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestVault, run};

    fn policy(hourly: u32) -> Policy {
        Policy { hourly, ..Policy::default() }
    }

    #[test]
    fn a_machines_own_policy_wins_over_the_vaults_until_it_follows_it_again() {
        run(async {
            let vault = TestVault::new();
            let (store, ring, db) = (vault.store(), &vault.ring, "db-1".parse().unwrap());
            let of = async || policy_of(&store, ring, &db).await.unwrap();
            let set = async |machine, policy| {
                set_policy(&store, ring, machine, policy, Micros(7)).await.unwrap().number
            };
            assert_eq!(of().await, Policy::default());
            assert_eq!(set(None, Some(policy(3))).await, 1);
            assert_eq!(of().await, policy(3));
            assert_eq!(set(Some(&db), Some(policy(4))).await, 1);
            assert_eq!(set(None, Some(policy(5))).await, 2);
            assert_eq!(of().await, policy(4));
            assert_eq!(set(Some(&db), None).await, 2);
            assert_eq!(of().await, policy(5));
        });
    }

    #[test]
    fn a_damaged_policy_is_an_error_until_another_is_set() {
        run(async {
            let vault = TestVault::new();
            let (store, ring, db) = (vault.store(), &vault.ring, "db-1".parse().unwrap());
            set_policy(&store, ring, None, Some(policy(3)), Micros(7)).await.unwrap();
            vault.put(&layout::policy(None, 2), b"nonsense".to_vec()).await;
            let error = policy_of(&store, ring, &db).await.unwrap_err();
            assert!(error.is_damage() && error.to_string().contains("policy/"), "{error}");
            assert_eq!(set_policy(&store, ring, None, None, Micros(7)).await.unwrap().number, 3);
            assert_eq!(policy_of(&store, ring, &db).await.unwrap(), Policy::default());
        });
    }

    #[test]
    fn what_cant_be_kept_isnt_set() {
        run(async {
            let vault = TestVault::new();
            let long = Policy { all_seconds: u64::MAX, ..Policy::default() };
            let set = set_policy(&vault.store(), &vault.ring, None, Some(long), Micros(7)).await;
            assert!(set.is_err());
        });
    }
}
