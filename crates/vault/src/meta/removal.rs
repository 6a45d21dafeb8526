//! The removal of a machine: up to which epoch its history is none any more. docs/formats/epochs.md.

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use tidegate_model::{Epoch, Micros, Name};

use super::table::{create, read};
use super::{EpochRecord, MetaError, Records};
use crate::layout;
use crate::seal::KeyRing;
use crate::store::{Put, Store};

/// Says that all epochs of a machine up to one were removed. Later ones are a new history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The last that was removed.
    pub upto: Epoch,
    /// When, by the clock of who did it; for people.
    pub removed: Micros,
}

impl Removal {
    fn check(&self, upto: Epoch) -> Result<(), &'static str> {
        let is_this = self.upto == upto && upto != Epoch::NONE;
        if is_this { Ok(()) } else { Err("it is the removal of others") }
    }
}

/// The last epoch of a machine that was removed; [`Epoch::NONE`] when none was.
///
/// # Errors
/// What the store reports. A damaged record is an error: what was removed may be collected already.
pub async fn removed_upto(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
) -> Result<Epoch, MetaError> {
    let mut upto = Epoch::NONE;
    let mut listed = store.list(&layout::removals(machine), None);
    while let Some(object) = listed.try_next().await? {
        upto = layout::parse_removal(machine, &object.path).unwrap_or_default().max(upto);
    }
    if upto > Epoch::NONE {
        let path = layout::removal(machine, upto);
        let removal = read(store, ring, &path, |removal: &Removal| removal.check(upto)).await?;
        removal.ok_or(MetaError::Missing { path })?;
    }
    Ok(upto)
}

/// Removes all epochs of a machine that there are, the last of which is `upto`. Doing it twice does
/// no harm.
///
/// # Errors
/// What the store reports.
pub async fn remove_machine(
    store: &Store,
    ring: &KeyRing,
    machine: &Name,
    upto: Epoch,
    now: Micros,
) -> Result<Put, MetaError> {
    let removal = Removal { upto, removed: now };
    let path = layout::removal(machine, upto);
    removal.check(upto).map_err(|cause| MetaError::damaged(&path, cause))?;
    create(store, ring, &path, &removal).await
}

/// Whether of a machine with these epochs nothing is there after a removal up to one.
#[must_use]
pub fn is_removed(epochs: &Records<EpochRecord>, upto: Epoch) -> bool {
    let newest = epochs.whole.last().map(|record| record.epoch);
    upto > Epoch::NONE && newest.is_none_or(|newest| newest <= upto)
}

#[cfg(test)]
mod tests {
    use tidegate_model::{BookmarkKind, Incarnation, Lsn, Token};

    use super::*;
    use crate::chain::{MachineHistory, last_sent};
    use crate::fold::{Folding, fold, needed};
    use crate::grant::{GrantError, GrantRequest, grant};
    use crate::meta::Begins;
    use crate::testing::{BLOCK, Op, TestLog, TestMachine, TestVault, disk, extent, run};
    use crate::usage::usage;

    async fn copied(vault: &mut TestVault, epoch: u32, log: u8) -> TestMachine {
        let mut machine = TestMachine::new("db-1", epoch, TestLog::new(vault, log));
        machine.does(Op::Disk(disk(0, 4 * BLOCK)));
        machine.writes(extent(0, 0, BLOCK), log);
        machine.marks(BookmarkKind::CopyEnd, true);
        machine.store(vault).await;
        machine.publish(vault).await;
        machine
    }

    #[test]
    fn a_removed_machine_is_none_any_more_until_it_begins_anew() {
        run(async {
            let mut vault = TestVault::new();
            let machine = copied(&mut vault, 1, 1).await;
            let db = machine.of.0.clone();
            let (store, ring, reader) = (vault.store(), vault.ring.clone(), vault.reader());
            fold(&reader, &db, Folding::default(), &|_| ()).await.unwrap();
            assert!(!needed(&store, &ring, &db).await.unwrap().unwrap().layers.is_empty());
            let sent = last_sent(&reader, &db).await.unwrap().unwrap();
            assert!(sent <= vault.clock.now() && sent.0 + 60_000_000 > vault.clock.now().0);
            for expected in [Put::Created, Put::Exists] {
                let put = remove_machine(&store, &ring, &db, Epoch(1), Micros(7)).await.unwrap();
                assert_eq!(put, expected);
            }
            assert_eq!(removed_upto(&store, &ring, &db).await.unwrap(), Epoch(1));
            let error = MachineHistory::read(&reader, &db).await.unwrap_err();
            assert!(error.to_string().contains("it was removed"), "{error}");
            assert!(usage(&reader).await.unwrap().is_empty());
            let report = crate::verify::verify(&reader, false, &|_| ()).await.unwrap();
            assert_eq!((report.damage, report.machines.len()), (Vec::new(), 0));
            let left = needed(&store, &ring, &db).await.unwrap().unwrap();
            assert!(left.layers.is_empty() && left.packs.is_empty(), "{left:?}");
            // Its agent can't go on as if nothing were, but begin anew.
            let log = TestLog::new(&vault, 2);
            let request = GrantRequest {
                token: Token::NONE,
                machine: db.clone(),
                incarnation: Incarnation::from_bytes([5; 16]),
                claimed: Epoch(1),
                begins: Begins::Continue,
                acknowledged: Lsn(3),
                parent: None,
                log: log.name.clone(),
                pack: log.number(),
                known: None,
                now: Micros(7),
            };
            let error = grant(&reader, &request).await.unwrap_err();
            assert!(matches!(error, GrantError::NotKept { .. }), "{error}");
            let incarnation = Incarnation::from_bytes([6; 16]);
            let other = GrantRequest { claimed: Epoch::NONE, incarnation, ..request };
            let granted = grant(&reader, &other).await.unwrap();
            assert_eq!((granted.epoch, granted.begins), (Epoch(2), Begins::Copy));
        });
    }

    #[test]
    fn of_a_machine_that_begins_anew_only_that_is_told_and_folded() {
        run(async {
            let mut vault = TestVault::new();
            let first = copied(&mut vault, 1, 1).await;
            let db = first.of.0.clone();
            fold(&vault.reader(), &db, Folding::default(), &|_| ()).await.unwrap();
            let (store, ring) = (vault.store(), vault.ring.clone());
            remove_machine(&store, &ring, &db, Epoch(1), Micros(7)).await.unwrap();
            copied(&mut vault, 2, 2).await;
            for _ in 0..2 {
                let history = MachineHistory::read(&vault.reader(), &db).await.unwrap();
                let epochs: Vec<u32> = history.epochs.keys().map(|epoch| epoch.0).collect();
                assert_eq!((epochs, history.losses), (vec![2], Vec::new()));
                assert_eq!(usage(&vault.reader()).await.unwrap()[&db].points, 1);
                fold(&vault.reader(), &db, Folding::default(), &|_| ()).await.unwrap();
            }
            let left = needed(&store, &ring, &db).await.unwrap().unwrap();
            assert_eq!((left.manifests.len(), left.layers.len()), (2, 1), "{left:?}");
        });
    }

    #[test]
    fn a_machine_whose_agent_was_granted_a_session_was_sent_to_though_nothing_came_yet() {
        run(async {
            let mut vault = TestVault::new();
            let mut machine = copied(&mut vault, 1, 1).await;
            vault.clock.advance(3600);
            for comes in [false, true] {
                if comes {
                    machine.reconnect(None, 3);
                    machine.publish(&vault).await;
                }
                let sent = last_sent(&vault.reader(), &machine.of.0).await.unwrap().unwrap();
                assert_eq!(vault.clock.now().0 - sent.0 < 60_000_000, comes);
            }
        });
    }
}
