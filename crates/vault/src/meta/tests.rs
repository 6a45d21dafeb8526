//! Tests of records in a store.

use std::collections::BTreeMap;

use tidegate_model::{
    Epoch, Incarnation, LogId, LogName, Lsn, Micros, Name, PackNumber, Point, RunId, Token, VaultId,
};

use super::*;
use crate::layout;
use crate::seal::{KeyRing, Secret};
use crate::store::{Access, Put, Store};

fn store(name: &str) -> Store {
    Store::open(&format!("memory://meta-{name}").parse().unwrap(), Access::Write).unwrap()
}

fn ring() -> KeyRing {
    let roots = BTreeMap::from([(1, Secret::new([5; 32]))]);
    KeyRing::new(VaultId::from_bytes([3; 16]), roots)
}

fn machine() -> Name {
    "db-1".parse().unwrap()
}

fn log(byte: u8) -> LogName {
    let id = LogId { run: RunId::from_bytes([byte; 16]), shard: 1 };
    LogName { node: "ps".parse().unwrap(), id }
}

fn epoch(number: u32, parent: Option<(u32, u64)>) -> EpochRecord {
    EpochRecord {
        epoch: Epoch(number),
        incarnation: Incarnation::from_bytes([7; 16]),
        token: Token::from_bytes([8; 16]),
        parent: parent.map(|(epoch, lsn)| Point { epoch: Epoch(epoch), lsn: Lsn(lsn) }),
        begins: if parent.is_some() { Begins::Continue } else { Begins::Copy },
        log: log(1),
        pack: PackNumber(4),
        granted: Micros(1_767_225_600_000_000),
    }
}

fn session(epoch: u32, number: u64) -> SessionRecord {
    SessionRecord {
        epoch: Epoch(epoch),
        number,
        incarnation: Incarnation::from_bytes([7; 16]),
        token: Token::from_bytes([8; 16]),
        committed: Lsn(u64::MAX),
        log: log(2),
        pack: PackNumber(0),
        granted: Micros(1_767_225_600_000_001),
    }
}

#[tokio::test]
async fn epochs_come_back_in_order_and_a_number_is_given_once() {
    let (store, ring, machine) = (store("epochs"), ring(), machine());
    assert_eq!(list_machines(&store).await.unwrap(), []);
    assert_eq!(list_epochs(&store, &ring, &machine).await.unwrap(), Records::default());
    let epochs: Vec<_> =
        (1..=11).map(|n| epoch(n, (n > 1).then(|| (n - 1, u64::from(n))))).collect();
    for record in epochs.iter().rev() {
        assert_eq!(create_epoch(&store, &ring, &machine, record).await.unwrap(), Put::Created);
    }
    let listed = list_epochs(&store, &ring, &machine).await.unwrap();
    assert_eq!((&listed.whole, listed.damaged.len()), (&epochs, 0));
    assert_eq!(list_machines(&store).await.unwrap(), std::slice::from_ref(&machine));
    let again = create_epoch(&store, &ring, &machine, &epoch(11, None)).await.unwrap();
    assert_eq!(again, Put::Exists);
    let read = read_epoch(&store, &ring, &machine, Epoch(11)).await.unwrap();
    assert_eq!(read, Some(epochs[10].clone()));
    assert_eq!(read_epoch(&store, &ring, &machine, Epoch(12)).await.unwrap(), None);
}

#[tokio::test]
async fn sessions_come_back_in_order_and_the_newest_of_an_epoch_by_itself() {
    let (store, ring, machine) = (store("sessions"), ring(), machine());
    assert_eq!(newest_session(&store, &ring, &machine, Epoch(2)).await.unwrap(), None);
    let mut all: Vec<_> = (1..=10).map(|number| session(2, number)).collect();
    all.extend([session(1, 1), session(1, 2), session(3, 1), session(20, 1)]);
    for record in &all {
        let put = create_session(&store, &ring, &machine, record).await.unwrap();
        assert_eq!(put, Put::Created);
    }
    all.sort_by_key(|record| (record.epoch, record.number));
    let listed = list_sessions(&store, &ring, &machine).await.unwrap();
    assert_eq!((listed.whole, listed.damaged), (all, Vec::new()));
    for (epoch, newest) in [(1, Some(2)), (2, Some(10)), (4, None)] {
        let found = newest_session(&store, &ring, &machine, Epoch(epoch)).await.unwrap();
        assert_eq!(found, newest.map(|number| session(epoch, number)));
    }
    let again = create_session(&store, &ring, &machine, &session(2, 1)).await.unwrap();
    assert_eq!(again, Put::Exists);
}

#[tokio::test]
async fn what_is_damaged_or_missing_is_told_and_the_rest_comes() {
    let (store, ring, machine) = (store("damaged"), ring(), machine());
    for n in [1, 4] {
        create_epoch(&store, &ring, &machine, &epoch(n, None)).await.unwrap();
        create_session(&store, &ring, &machine, &session(1, u64::from(n))).await.unwrap();
    }
    let (epoch_2, session_2) =
        (layout::epoch(&machine, Epoch(2)), layout::session(&machine, Epoch(1), 2));
    for path in [&epoch_2, &session_2] {
        store.put_new(path, vec![bytes::Bytes::from_static(b"nonsense")]).await.unwrap();
    }
    let epochs = list_epochs(&store, &ring, &machine).await.unwrap();
    assert_eq!(epochs.whole, [epoch(1, None), epoch(4, None)]);
    let paths: Vec<_> = epochs.damaged.iter().filter_map(MetaError::damaged_path).collect();
    assert_eq!(paths, [epoch_2, layout::epoch(&machine, Epoch(3))]);
    let sessions = list_sessions(&store, &ring, &machine).await.unwrap();
    assert_eq!(sessions.whole, [session(1, 1), session(1, 4)]);
    let paths: Vec<_> = sessions.damaged.iter().filter_map(MetaError::damaged_path).collect();
    assert_eq!(paths, [session_2, layout::session(&machine, Epoch(1), 3)]);
    // What a session stands on is in the newest; an older one may be what it likes.
    let newest = newest_session(&store, &ring, &machine, Epoch(1)).await.unwrap();
    assert_eq!(newest, Some(session(1, 4)));
}

#[tokio::test]
async fn runs_are_claimed_once_and_name_their_logs() {
    let (store, ring) = (store("runs"), ring());
    let run = |byte, started| Run {
        run: RunId::from_bytes([byte; 16]),
        node: "ps".parse().unwrap(),
        started: Micros(started),
        key_version: 1,
        shards: 2,
        program: "tidegate 0.1.0".into(),
    };
    for record in [run(1, 9), run(2, 5)] {
        assert_eq!(create_run(&store, &ring, &record).await.unwrap(), Put::Created);
    }
    assert_eq!(create_run(&store, &ring, &run(1, 10)).await.unwrap(), Put::Exists);
    assert_eq!(list_runs(&store, &ring).await.unwrap().whole, [run(2, 5), run(1, 9)]);
    let damaged = layout::run(RunId::from_bytes([3; 16]));
    store.put_new(&damaged, vec![bytes::Bytes::from_static(b"nonsense")]).await.unwrap();
    let listed = list_runs(&store, &ring).await.unwrap();
    assert_eq!((listed.whole.len(), listed.damaged[0].damaged_path()), (2, Some(&*damaged)));
    let read = read_run(&store, &ring, RunId::from_bytes([1; 16])).await.unwrap().unwrap();
    assert_eq!(read.logs().last(), Some(log(1)));
}

#[tokio::test]
async fn a_record_at_another_place_or_with_an_impossible_parent_is_refused() {
    let (store, ring, machine) = (store("places"), ring(), machine());
    for impossible in
        [epoch(0, None), epoch(2, Some((2, 1))), epoch(2, Some((3, 1))), epoch(2, Some((0, 1)))]
    {
        let refused = create_epoch(&store, &ring, &machine, &impossible).await;
        assert!(matches!(refused, Err(MetaError::Damaged { .. })), "{impossible:?}");
    }
    assert!(create_session(&store, &ring, &machine, &session(1, 0)).await.is_err());

    create_epoch(&store, &ring, &machine, &epoch(1, None)).await.unwrap();
    let object = store.get(&layout::epoch(&machine, Epoch(1)), 10_000).await.unwrap();
    let moved = layout::epoch(&machine, Epoch(2));
    store.put_new(&moved, vec![object]).await.unwrap();
    let listed = list_epochs(&store, &ring, &machine).await.unwrap();
    assert_eq!(listed.damaged[0].damaged_path(), Some(&*moved));
    let newest = read_epoch(&store, &ring, &machine, Epoch(2)).await.unwrap_err();
    assert!(newest.to_string().contains(&moved), "{newest}");
}

#[tokio::test]
async fn a_body_that_lies_about_its_place_is_refused_though_it_is_sealed_right() {
    let (store, ring, machine) = (store("liar"), ring(), machine());
    let path = layout::epoch(&machine, Epoch(2));
    for body in [serde_json::to_vec(&epoch(1, None)).unwrap(), b"{}".to_vec(), b"".to_vec()] {
        let sealed = container::seal(&ring, &path, &body).unwrap();
        let fresh = Store::over(std::sync::Arc::new(object_store::memory::InMemory::new()), "m");
        fresh.put_new(&path, vec![sealed]).await.unwrap();
        let refused = read_epoch(&fresh, &ring, &machine, Epoch(2)).await;
        assert!(matches!(refused, Err(MetaError::Damaged { .. })), "{refused:?}");
    }
    assert_eq!(read_epoch(&store, &ring, &machine, Epoch(2)).await.unwrap(), None);
}

#[test]
fn the_bodies_are_as_documented() {
    let json = serde_json::to_string(&epoch(2, Some((1, 7)))).unwrap();
    assert_eq!(
        json,
        "{\"epoch\":2,\"incarnation\":\"07070707070707070707070707070707\",\
         \"token\":\"08080808080808080808080808080808\",\"parent\":{\"epoch\":1,\"lsn\":7},\"begins\":\"continue\",\
         \"log\":{\"node\":\"ps\",\"id\":{\"run\":\"01010101010101010101010101010101\",\"shard\":1}},\
         \"pack\":4,\"granted\":1767225600000000}"
    );
    let json = serde_json::to_string(&session(2, 3)).unwrap();
    assert!(json.starts_with("{\"epoch\":2,\"number\":3,"), "{json}");
    assert!(json.contains("\"committed\":18446744073709551615,"), "{json}");
}
