//! Sessions whose records are gone: what they brought lies where no record names it.

use tidegate_model::PackNumber;

use super::*;
use crate::meta;

/// A machine whose copy began in log 1 and ended in log 2, where a session took it to LSN 4 and
/// another one to 5.
async fn moved(vault: &mut TestVault) -> TestMachine {
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(vault, 1));
    machine.does(Op::Disk(disk(0, 8 * BLOCK)));
    machine.writes(extent(0, 0, BLOCK), 1);
    machine.store(vault).await;
    machine.reconnect(Some(TestLog::new(vault, 2)), 2);
    machine.writes(extent(0, BLOCK, BLOCK), 2);
    machine.marks(BookmarkKind::CopyEnd, true);
    machine.store(vault).await;
    machine.reconnect(None, 4);
    machine.marks(BookmarkKind::CrashConsistent, true);
    machine.store(vault).await;
    machine
}

fn touched(finding: &Finding) -> Vec<u64> {
    finding.touches.iter().flat_map(|touch| &touch.points).map(|point| point.lsn.0).collect()
}

#[test]
fn what_a_session_without_a_record_brought_is_told() {
    run(async {
        let mut vault = TestVault::new();
        let machine = moved(&mut vault).await;
        machine.publish(&vault).await;
        assert_eq!(report(&vault, true).await.damage, []);
        for session in [2, 1] {
            vault.delete(&layout::session(&machine.of.0, Epoch(1), session)).await;
        }
        let found = report(&vault, false).await.damage;
        assert_eq!(found.len(), 1, "{found:?}");
        let (place, folder) = (machine.log.place(0).path(), layout::sessions(&machine.of.0));
        assert!(found[0].what.contains(&place) && found[0].what.contains(&folder), "{found:?}");
        assert_eq!(touched(&found[0]), [4, 5]);
    });
}

#[test]
fn packs_before_those_that_a_record_names_are_told() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = moved(&mut vault).await;
        // The first session's record is lost, and its number was given again.
        machine.sessions.remove(0);
        (machine.sessions[0].number, machine.sessions[0].committed) = (1, Lsn(2));
        assert_eq!(machine.sessions[0].pack, PackNumber(1));
        machine.publish(&vault).await;
        let found = report(&vault, false).await.damage;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].what.contains(&machine.log.place(0).path()), "{found:?}");
        assert_eq!(touched(&found[0]), [4, 5]);
    });
}

#[test]
fn a_session_that_was_granted_after_the_records_were_read_is_no_loss() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = moved(&mut vault).await;
        let sessions = std::mem::take(&mut machine.sessions);
        machine.publish(&vault).await;
        let (reader, mut findings) = (vault.reader(), Vec::new());
        let mut histories = machines::records(&reader, &mut findings).await.unwrap();
        for session in &sessions {
            meta::create_session(&vault.store(), &vault.ring, &machine.of.0, session)
                .await
                .unwrap();
        }
        let mut indexes = Indexes::new(reader.surveys().await.unwrap().0);
        let mut steps = Steps { done: Done::default(), tell: &|_| () };
        indexes.read(&reader, &Folds::default(), &mut steps).await.unwrap();
        let traces = indexes.traces;
        machines::compare(&reader, &mut histories, traces, &mut findings).await.unwrap();
        assert_eq!(findings, []);
    });
}
