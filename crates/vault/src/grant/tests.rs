//! Grants of a vault in memory: reconnects, new incarnations, clones, races.

mod older;

use std::sync::atomic::Ordering;

use tidegate_model::{BookmarkKind, Remedy, Token};

use super::*;
use crate::log::{CACHE_BYTES_DEFAULT, LogError, STRETCH_PACKS};
use crate::store::Store;
use crate::testing::{BLOCK, LateStore, Op, TestLog, TestMachine, TestVault, disk, extent, run};

fn request(log: &TestLog, incarnation: u8, claimed: u32) -> GrantRequest {
    GrantRequest {
        machine: "db-1".parse().unwrap(),
        incarnation: Incarnation::from_bytes([incarnation; 16]),
        token: Token::NONE,
        claimed: Epoch(claimed),
        begins: Begins::Copy,
        acknowledged: Lsn::NONE,
        parent: None,
        log: log.name.clone(),
        pack: log.number(),
        known: None,
        now: Micros(7),
    }
}

/// The epoch, and what the vault has of it.
fn told(grant: Grant) -> (u32, u64) {
    (grant.epoch.0, grant.committed.0)
}

/// A machine whose epoch 1 is in the vault up to LSN 3, in two packs.
async fn machine(vault: &mut TestVault) -> TestMachine {
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(vault, 1));
    machine.publish(vault).await;
    machine.does(Op::Disk(disk(0, 8 * BLOCK)));
    machine.writes(extent(0, 0, 2 * BLOCK), 1);
    machine.store(vault).await;
    machine.marks(BookmarkKind::CopyEnd, true);
    machine.store(vault).await;
    machine
}

async fn sessions(vault: &TestVault) -> Vec<SessionRecord> {
    let machine = "db-1".parse().unwrap();
    meta::list_sessions(&vault.store(), &vault.ring, &machine).await.unwrap().whole
}

#[test]
fn the_first_epoch_of_a_machine_stands_on_nothing() {
    run(async {
        let vault = TestVault::new();
        let log = TestLog::new(&vault, 1);
        let granted = grant(&vault.reader(), &request(&log, 5, 0)).await.unwrap();
        assert_eq!((told(granted), granted.session), ((1, 0), 0));
        let name = "db-1".parse().unwrap();
        let epochs = meta::list_epochs(&vault.store(), &vault.ring, &name).await.unwrap();
        assert_eq!((epochs.whole.len(), epochs.whole[0].parent), (1, None));
        // The answer was lost, and the agent asks again: it gets the same epoch.
        let again = grant(&vault.reader(), &request(&log, 5, 0)).await.unwrap();
        assert_eq!((told(again), again.session), ((1, 0), 1));
        assert_eq!(sessions(&vault).await.len(), 1);
        let mut continuing = request(&log, 6, 0);
        continuing.machine = "db-2".parse().unwrap();
        continuing.begins = Begins::Continue;
        let granted = grant(&vault.reader(), &continuing).await.unwrap();
        assert_eq!((told(granted), granted.begins), ((1, 0), Begins::Copy));
    });
}

#[test]
fn a_reconnect_goes_on_where_the_vault_ends() {
    run(async {
        let mut vault = TestVault::new();
        let machine = machine(&mut vault).await;
        let log = TestLog::new(&vault, 2);
        for number in 1..3 {
            let granted = grant(&vault.reader(), &request(&log, 5, 1)).await.unwrap();
            assert_eq!((told(granted), granted.session), ((1, 3), number));
            let sessions = sessions(&vault).await;
            let last = sessions.last().unwrap();
            assert_eq!((last.number, last.committed, &last.log), (number, Lsn(3), &log.name));
        }
        let name = machine.of.0.clone();
        assert_eq!(chain_end(&vault.reader(), &name, &machine.record).await.unwrap(), Lsn(3));
    });
}

#[test]
fn the_chain_ends_before_a_gap_and_before_a_record_without_its_last_piece() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = machine(&mut vault).await;
        // LSN 4 has two pieces, of which one is stored.
        let op = Op::Write(extent(0, 0, 2 * BLOCK), vec![7; usize::try_from(2 * BLOCK).unwrap()]);
        machine.log.add(&vault, &machine.of.clone(), 4, &op, Some(1));
        machine.log.store(&mut vault, false).await;
        let end = async |vault: &TestVault| {
            let name = machine.of.0.clone();
            chain_end(&vault.reader(), &name, &machine.record).await
        };
        assert_eq!(end(&vault).await.unwrap(), Lsn(3));
        // The rest of it comes in a pack beyond one that isn't stored yet.
        machine.log.add(&vault, &machine.of.clone(), 4, &op, None);
        machine.log.close(&mut vault, false);
        machine.log.add(&vault, &machine.of.clone(), 4, &op, None);
        let (path, bytes) = machine.log.close(&mut vault, false);
        vault.put(&path, bytes).await;
        assert_eq!(end(&vault).await.unwrap(), Lsn(3));
    });
}

/// Grants by a store that counts; gives besides how many packs were read.
async fn counted(vault: &TestVault, request: &GrantRequest) -> (Grant, u32) {
    let objects = LateStore::new(vault.objects.clone(), 0);
    let store = Store::over(objects.clone(), "memory://test");
    let reader = LogReader::new(store, vault.ring.clone(), CACHE_BYTES_DEFAULT);
    let granted = grant(&reader, request).await.unwrap();
    (granted, objects.heads.load(Ordering::SeqCst))
}

/// Packs of another machine behind those of one whose epoch is in the vault up to LSN 3, more than a
/// stretch.
async fn buried(vault: &mut TestVault) -> TestMachine {
    let mut machine = machine(vault).await;
    bury(vault, &mut machine, STRETCH_PACKS + 100).await;
    machine
}

#[test]
fn packs_of_other_machines_arent_read_where_the_end_is_known() {
    run(async {
        let mut vault = TestVault::new();
        let machine = buried(&mut vault).await;
        let end = (1, 3);
        let mut request = GrantRequest { acknowledged: Lsn(3), ..request(&machine.log, 5, 1) };
        let (granted, heads) = counted(&vault, &request).await;
        println!("{heads} packs are read without knowing the end");
        assert_eq!(told(granted), end);
        assert!(u64::from(heads) > STRETCH_PACKS);
        let known = KnownEnd { epoch: Epoch(1), committed: Lsn(3), stored: machine.log.number() };
        let asked = GrantRequest { known: Some(known), ..request.clone() };
        vault.delete(&layout::session(&machine.of.0, Epoch(1), 1)).await;
        let (granted, heads) = counted(&vault, &asked).await;
        println!("{heads} packs are read where it is known");
        assert_eq!((told(granted), heads), (end, 0));
        // Nor for a new incarnation, whose copy stands on nothing, and says where it came from.
        request.acknowledged = Lsn::NONE;
        (request.incarnation, request.claimed) = (Incarnation::from_bytes([6; 16]), Epoch::NONE);
        request.known = Some(known);
        let (granted, heads) = counted(&vault, &request).await;
        assert_eq!((granted.epoch, heads), (Epoch(2), 0));
        let name = machine.of.0.clone();
        let record = meta::read_epoch(&vault.store(), &vault.ring, &name, Epoch(2)).await;
        let parent = Some(Point { epoch: Epoch(1), lsn: Lsn(3) });
        assert_eq!(record.unwrap().unwrap().parent, parent);
    });
}

#[test]
fn a_new_incarnation_waits_for_no_search_however_much_lies_behind_the_old_one() {
    run(async {
        let mut vault = TestVault::new();
        let machine = buried(&mut vault).await;
        let elsewhere = TestLog::new(&vault, 2);
        let (granted, heads) = counted(&vault, &request(&elsewhere, 6, 0)).await;
        assert_eq!((told(granted), heads), ((2, 0), 0));
        // Nor where something there is damaged, which nothing of it stands on.
        let newest = machine.log.place(STRETCH_PACKS + 101).path();
        vault.put(&newest, b"nonsense".to_vec()).await;
        let (granted, heads) = counted(&vault, &request(&elsewhere, 7, 0)).await;
        assert_eq!((granted.epoch, heads), (Epoch(3), 0));
    });
}

#[test]
fn what_the_agent_knows_to_be_there_bounds_the_search_only_where_the_vault_knows_it_too() {
    run(async {
        let mut vault = TestVault::new();
        let machine = buried(&mut vault).await;
        let elsewhere = TestLog::new(&vault, 2);
        // It was told of LSN 3, and nothing but the log says that it is there.
        let asked = GrantRequest { acknowledged: Lsn(3), ..request(&elsewhere, 5, 1) };
        let (granted, heads) = counted(&vault, &asked).await;
        assert_eq!(told(granted), (1, 3));
        assert!(u64::from(heads) > STRETCH_PACKS, "{heads}");
        // So it is with what the vault has lost: the agent isn't told that it is there.
        let beyond = GrantRequest { acknowledged: Lsn(9), ..request(&elsewhere, 5, 1) };
        assert_eq!(counted(&vault, &beyond).await.0.committed, Lsn(3));
        // It wasn't told of anything: all that it has sent it still has, and sends again.
        for session in 1..=2 {
            vault.delete(&layout::session(&machine.of.0, Epoch(1), session)).await;
        }
        let (granted, heads) = counted(&vault, &request(&elsewhere, 5, 1)).await;
        assert_eq!(told(granted), (1, 0));
        assert!((1..=STRETCH_PACKS + 16).contains(&u64::from(heads)), "{heads}");
    });
}

#[test]
fn who_asks_for_a_session_is_told_whose_the_one_before_was() {
    run(async {
        let vault = TestVault::new();
        let log = TestLog::new(&vault, 1);
        let token = |byte| Token::from_bytes([byte; 16]);
        let before = async |claimed, byte| {
            let request = GrantRequest { token: token(byte), ..request(&log, 5, claimed) };
            grant(&vault.reader(), &request).await.unwrap().before
        };
        assert_eq!(before(0, 1).await, Token::NONE);
        // One that didn't hear of its epoch, or says that it didn't.
        assert_eq!(before(0, 2).await, token(1));
        assert_eq!(before(1, 3).await, token(2));
        let machine = TestMachine::new("db-1", 1, log);
        let told = QuietEnd { token: token(3), ..quiet(&machine, 2, 0) };
        assert_eq!(record_end(&vault.store(), &vault.ring, &told).await.unwrap(), Put::Created);
        let request = GrantRequest { token: token(4), ..request(&machine.log, 5, 1) };
        let granted = grant(&vault.reader(), &request).await.unwrap();
        assert_eq!(
            (granted.session, granted.before),
            (4, token(3)),
            "the server's own is nobody's"
        );
    });
}

/// Packs of another machine behind those of one.
async fn bury(vault: &mut TestVault, machine: &mut TestMachine, packs: u64) {
    let other = ("db-2".parse().unwrap(), Epoch(1));
    for lsn in 1..=packs {
        machine.log.add(vault, &other, lsn, &Op::Time, None);
        machine.log.store(vault, false).await;
    }
}

/// What the writer of the machine's log would record of it now, its newest session being this.
fn quiet(machine: &TestMachine, session: u64, committed: u64) -> QuietEnd {
    let stored = machine.log.number();
    QuietEnd {
        machine: machine.of.0.clone(),
        incarnation: Incarnation::from_bytes([5; 16]),
        token: machine.record.token,
        session,
        end: KnownEnd { epoch: Epoch(1), committed: Lsn(committed), stored },
        log: machine.log.name.clone(),
        now: Micros(8),
    }
}

#[test]
fn an_end_that_was_recorded_bounds_the_search_however_deep_it_is_buried() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = machine(&mut vault).await;
        bury(&mut vault, &mut machine, 100).await;
        let end = quiet(&machine, 0, 3);
        let put = record_end(&vault.store(), &vault.ring, &end).await;
        assert_eq!(put.unwrap(), Put::Created);
        bury(&mut vault, &mut machine, STRETCH_PACKS + 200).await;
        let (mut elsewhere, mut first) = (TestLog::new(&vault, 2), 2);
        let told_of =
            |lsn, log: &TestLog| GrantRequest { acknowledged: Lsn(lsn), ..request(log, 5, 1) };
        let (granted, heads) = counted(&vault, &told_of(3, &elsewhere)).await;
        assert_eq!((told(granted), granted.session), ((1, 3), first));
        // Its tail is looked at all the same: a session that ended may have left something there.
        assert!(u64::from(heads) <= STRETCH_PACKS + 16, "{heads}");
        // Another server has the machine now, and the old one's word comes too late.
        let late = QuietEnd { session: 1, ..end };
        assert_eq!(record_end(&vault.store(), &vault.ring, &late).await.unwrap(), Put::Exists);
        elsewhere.store(&mut vault, true).await;
        (elsewhere, first) = (TestLog::new(&vault, 3), first + 1);
        let (granted, heads) = counted(&vault, &told_of(3, &elsewhere)).await;
        assert_eq!((told(granted), granted.session), ((1, 3), first));
        assert!(heads < 16, "{heads}");
    });
}

#[test]
fn what_came_behind_an_end_that_was_recorded_is_found() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = machine(&mut vault).await;
        bury(&mut vault, &mut machine, 10).await;
        record_end(&vault.store(), &vault.ring, &quiet(&machine, 0, 3)).await.unwrap();
        machine.writes(extent(0, 0, BLOCK), 2);
        machine.store(&mut vault).await;
        bury(&mut vault, &mut machine, 200).await;
        let told_of =
            GrantRequest { acknowledged: Lsn(4), ..request(&TestLog::new(&vault, 2), 5, 1) };
        let (granted, heads) = counted(&vault, &told_of).await;
        assert_eq!(told(granted), (1, 4));
        assert!(heads <= 201 + 16, "{heads}");
    });
}

#[test]
fn an_end_that_was_recorded_doesnt_hide_that_something_behind_it_was_lost() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = machine(&mut vault).await;
        record_end(&vault.store(), &vault.ring, &quiet(&machine, 0, 3)).await.unwrap();
        machine.writes(extent(0, 0, BLOCK), 2);
        let lost = machine.log.number();
        machine.store(&mut vault).await;
        bury(&mut vault, &mut machine, 20).await;
        vault.delete(&machine.log.place(lost.0).path()).await;
        let told_of =
            GrantRequest { acknowledged: Lsn(4), ..request(&TestLog::new(&vault, 2), 5, 1) };
        let error = grant(&vault.reader(), &told_of).await.unwrap_err();
        assert!(matches!(error, GrantError::Log(LogError::Missing(_))), "{error}");
    });
}

#[test]
fn a_reconnect_goes_on_over_no_pack_that_is_missing() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = machine(&mut vault).await;
        for byte in 2..5 {
            machine.writes(extent(0, 0, BLOCK), byte);
            machine.store(&mut vault).await;
        }
        let elsewhere = TestLog::new(&vault, 2);
        let told_of = GrantRequest { acknowledged: Lsn(6), ..request(&elsewhere, 5, 1) };
        let lost = machine.log.place(3);
        vault.delete(&lost.path()).await;
        let error = grant(&vault.reader(), &told_of).await.unwrap_err();
        assert!(
            matches!(&error, GrantError::Log(LogError::Missing(place)) if *place == lost),
            "{error}"
        );
        assert_eq!((error.remedy(), sessions(&vault).await.len()), (Remedy::Repair, 0));
        // Who was told of nothing beyond what is recorded sends it all again.
        let anew = GrantRequest { acknowledged: Lsn::NONE, ..told_of.clone() };
        assert_eq!(told(grant(&vault.reader(), &anew).await.unwrap()), (1, 0));
        vault.delete(&layout::session(&machine.of.0, Epoch(1), 1)).await;
        // What was lost before the session began is nothing that it stands on in this log.
        machine.reconnect(None, 6);
        machine.publish(&vault).await;
        machine.writes(extent(0, 0, BLOCK), 6);
        machine.store(&mut vault).await;
        let told_of = GrantRequest { acknowledged: Lsn(7), ..told_of };
        assert_eq!(told(grant(&vault.reader(), &told_of).await.unwrap()), (1, 7));
    });
}

#[test]
fn what_was_under_way_when_the_end_was_known_is_looked_at() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = machine(&mut vault).await;
        let known = KnownEnd { epoch: Epoch(1), committed: Lsn(3), stored: machine.log.number() };
        // Stored since then, the first and another one; and one beyond a gap.
        machine.writes(extent(0, 0, BLOCK), 2);
        machine.store(&mut vault).await;
        machine.writes(extent(0, 0, BLOCK), 3);
        machine.store(&mut vault).await;
        machine.does(Op::Time);
        machine.send(&vault);
        machine.log.close(&mut vault, false);
        machine.log.add(&vault, &machine.of.clone(), 6, &Op::Time, None);
        let (path, bytes) = machine.log.close(&mut vault, false);
        vault.put(&path, bytes).await;
        let asked = GrantRequest { known: Some(known), ..request(&machine.log, 5, 1) };
        let (granted, _) = counted(&vault, &asked).await;
        assert_eq!(told(granted), (1, 5));
    });
}

#[test]
fn what_is_known_of_another_log_or_epoch_counts_for_nothing() {
    run(async {
        let mut vault = TestVault::new();
        let machine = machine(&mut vault).await;
        let known = KnownEnd { epoch: Epoch(1), committed: Lsn(9), stored: PackNumber(2) };
        let other = TestLog::new(&vault, 2);
        let asked = GrantRequest { known: Some(known), ..request(&other, 5, 1) };
        assert_eq!(counted(&vault, &asked).await.0.committed, Lsn(3));
        let known = Some(KnownEnd { epoch: Epoch(2), ..known });
        let asked = GrantRequest { known, ..request(&machine.log, 5, 1) };
        assert_eq!(counted(&vault, &asked).await.0.committed, Lsn(3));
    });
}

#[test]
fn only_the_newest_session_must_be_readable() {
    run(async {
        let mut vault = TestVault::new();
        machine(&mut vault).await;
        let log = TestLog::new(&vault, 2);
        let again = async || grant(&vault.reader(), &request(&log, 5, 1)).await;
        again().await.unwrap();
        again().await.unwrap();
        let path = |number| layout::session(&"db-1".parse().unwrap(), Epoch(1), number);
        vault.put(&path(1), b"nonsense".to_vec()).await;
        assert_eq!(told(again().await.unwrap()), (1, 3));
        vault.put(&path(3), b"nonsense".to_vec()).await;
        let error = again().await.unwrap_err();
        assert!(error.to_string().contains(&path(3)), "{error}");
        assert_eq!(error.remedy(), Remedy::Repair);
    });
}

#[test]
fn a_session_in_which_nothing_came_ends_where_it_began() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = machine(&mut vault).await;
        machine.reconnect(Some(TestLog::new(&vault, 2)), 3);
        machine.publish(&vault).await;
        let name = machine.of.0.clone();
        assert_eq!(chain_end(&vault.reader(), &name, &machine.record).await.unwrap(), Lsn(3));
    });
}

#[test]
fn a_new_incarnation_gets_an_epoch_that_says_where_it_came_from() {
    run(async {
        let mut vault = TestVault::new();
        let machine = machine(&mut vault).await;
        let log = TestLog::new(&vault, 2);
        // What the newest session found is known without a search.
        grant(&vault.reader(), &request(&log, 5, 1)).await.unwrap();
        let granted = grant(&vault.reader(), &request(&log, 6, 0)).await.unwrap();
        assert_eq!(told(granted), (2, 0));
        let name = machine.of.0;
        let record = meta::read_epoch(&vault.store(), &vault.ring, &name, Epoch(2)).await;
        let record = record.unwrap().unwrap();
        assert_eq!(record.parent, Some(Point { epoch: Epoch(1), lsn: Lsn(3) }));
        // One that names its parent gets that.
        let parent = Some(Point { epoch: Epoch(1), lsn: Lsn(2) });
        let named = GrantRequest { parent, begins: Begins::Continue, ..request(&log, 7, 0) };
        assert_eq!(grant(&vault.reader(), &named).await.unwrap().epoch, Epoch(3));
        let record = meta::read_epoch(&vault.store(), &vault.ring, &name, Epoch(3)).await;
        assert_eq!(record.unwrap().unwrap().parent, parent);
        // Without one it goes on from the newest; a reconnect is told the same of it.
        let newest = GrantRequest { begins: Begins::Continue, ..request(&log, 8, 0) };
        for session in 0..2 {
            let granted = grant(&vault.reader(), &newest).await.unwrap();
            assert_eq!((told(granted), granted.session), ((4, 0), session));
            assert_eq!(granted.begins, Begins::Continue);
        }
        let record = meta::read_epoch(&vault.store(), &vault.ring, &name, Epoch(4)).await;
        let parent = Some(Point { epoch: Epoch(3), lsn: Lsn::NONE });
        assert_eq!(record.unwrap().unwrap().parent, parent);
    });
}

#[test]
fn what_the_vault_lacks_is_refused_with_the_cause() {
    run(async {
        let mut vault = TestVault::new();
        machine(&mut vault).await;
        let log = TestLog::new(&vault, 2);
        let reader = vault.reader();
        let refused = async |request| grant(&reader, &request).await.unwrap_err();
        let error = refused(request(&log, 6, 1)).await;
        assert!(matches!(error, GrantError::OtherIncarnation { .. }), "{error}");
        assert!(error.to_string().contains("cloned"), "{error}");
        let error = refused(request(&log, 5, 9)).await;
        assert!(matches!(error, GrantError::NoEpoch { epoch: Epoch(9), .. }), "{error}");
        let continuing = |epoch, lsn| GrantRequest {
            parent: Some(Point { epoch: Epoch(epoch), lsn: Lsn(lsn) }),
            begins: Begins::Continue,
            ..request(&log, 6, 0)
        };
        let error = refused(continuing(1, 4)).await;
        assert!(matches!(error, GrantError::ParentBeyond { end: Lsn(3), .. }), "{error}");
        let error = refused(continuing(4, 1)).await;
        assert!(matches!(error, GrantError::NoEpoch { .. }), "{error}");
        assert_eq!(error.remedy(), Remedy::Refuse);
    });
}

#[test]
fn of_servers_that_grant_at_once_each_gets_an_epoch_of_its_own() {
    run(async {
        let vault = TestVault::new();
        let log = TestLog::new(&vault, 1);
        let (reader, asked) = (vault.reader(), 1..=8_u8);
        let grants = asked.map(|incarnation| {
            let (reader, request) = (reader.clone(), request(&log, incarnation, 0));
            async move { grant(&reader, &request).await.unwrap().epoch }
        });
        let mut epochs = futures::future::join_all(grants).await;
        epochs.sort_unstable();
        assert_eq!(epochs, (1..=8).map(Epoch).collect::<Vec<_>>());
    });
}
