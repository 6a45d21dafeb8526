//! What every store must do for a vault. Run over each kind: here in memory and in a directory,
//! against Azure's protocol from the tests of the whole.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::{Put, Store, StoreError};

/// Runs the whole suite in the folder `conformance` of an empty store.
///
/// # Panics
/// When the store doesn't conform.
pub async fn run(store: &Store) {
    creates_once(store).await;
    of_many_writers_one_creates(store).await;
    reads_within_limits(store).await;
    lists_in_order(store).await;
    deletes_for_good(store).await;
    has_a_clock(store).await;
}

async fn creates_once(store: &Store) {
    let path = "conformance/once";
    let parts = || vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"cd")];
    let put = store.put_new(path, parts()).await.expect("a new object");
    assert_eq!(put, Put::Created);
    let put = store.put_new(path, vec![Bytes::from_static(b"other")]).await.expect("a conflict");
    assert_eq!(put, Put::Exists);
    assert_eq!(store.get(path, 4).await.expect("the object"), "abcd");

    let again = store.create(path, Bytes::from_static(b"abcd")).await;
    assert_eq!(again, Ok(Put::Created), "the same bytes are as good as created");
    for other in ["abcx", "abc", "abcde"] {
        let again = store.create(path, Bytes::from(other)).await;
        assert_eq!(again, Ok(Put::Exists), "{other}");
    }
}

async fn of_many_writers_one_creates(store: &Store) {
    let path = "conformance/race";
    let puts = (0..16_u8).map(|i| store.put_new(path, vec![Bytes::from(vec![i; 1000])]));
    let puts = futures::future::join_all(puts).await;
    let created = puts.iter().filter(|put| **put == Ok(Put::Created)).count();
    assert_eq!(created, 1, "{puts:?}");
    assert!(puts.iter().all(Result::is_ok), "{puts:?}");
    let bytes = store.get(path, 1000).await.expect("the winner's");
    assert!(bytes.len() == 1000 && bytes.iter().all(|b| *b == bytes[0]));
}

async fn reads_within_limits(store: &Store) {
    let path = "conformance/read";
    store.put_new(path, vec![Bytes::from_static(b"0123456789")]).await.expect("a new object");
    let head = store.head(path).await.expect("its head");
    assert_eq!(head.bytes, 10);
    assert!(head.modified.0 > 1_600_000_000_000_000, "a store has a clock: {head:?}");
    assert_eq!(store.get(path, 10).await.expect("all of it"), "0123456789");
    let long = store.get(path, 9).await;
    assert!(matches!(long, Err(StoreError::Long { bytes: 10, bytes_max: 9, .. })), "{long:?}");
    assert_eq!(store.get_range(path, 2..5).await.expect("a part"), "234");
    assert_eq!(store.get_range(path, 0..10).await.expect("all of it"), "0123456789");
    for range in [5..11, 10..11, 50..60] {
        let end = range.end;
        let short = store.get_range(path, range).await;
        assert!(matches!(short, Err(StoreError::Short { .. })), "up to {end}: {short:?}");
    }
    let absent = "conformance/absent";
    assert!(store.get(absent, 1).await.expect_err("absent").is_not_found());
    assert!(store.get_range(absent, 0..1).await.expect_err("absent").is_not_found());
    assert!(store.head(absent).await.expect_err("absent").is_not_found());
}

async fn lists_in_order(store: &Store) {
    let folder = "conformance/list";
    let mut paths: Vec<String> =
        ["a/2", "a/10", "a-b/1", "c", "b/x/y"].map(|p| format!("{folder}/{p}")).into();
    for path in &paths {
        store.put_new(path, vec![Bytes::from(path.clone())]).await.expect("a new object");
    }
    paths.sort_unstable();
    let listed = |after: Option<String>| {
        let stream = store.list(folder, after.as_deref());
        async move { stream.try_collect::<Vec<_>>().await.expect("a listing") }
    };
    let all = listed(None).await;
    assert_eq!(all.iter().map(|l| l.path.clone()).collect::<Vec<_>>(), paths);
    assert!(all.iter().all(|l| l.bytes == l.path.len() as u64 && l.modified.0 > 0));
    for after in ["a", "a/10", "a/2", "b/x", "z"] {
        let after = format!("{folder}/{after}");
        let rest: Vec<_> = paths.iter().filter(|path| **path > after).cloned().collect();
        let found: Vec<_> = listed(Some(after.clone())).await.into_iter().map(|l| l.path).collect();
        assert_eq!(found, rest, "{after}");
    }
    let names = store.names(folder).await.expect("names");
    assert_eq!(names.folders, ["a", "a-b", "b"]);
    assert_eq!(names.objects, ["c"]);
    assert!(store.list("conformance/none", None).next().await.is_none());
    assert_eq!(
        store.names("conformance/none").await.expect("names"),
        super::list::Names::default()
    );
}

async fn deletes_for_good(store: &Store) {
    let folder = "conformance/delete";
    for name in ["a", "b/1", "b/2"] {
        let path = format!("{folder}/{name}");
        store.put_new(&path, vec![Bytes::from_static(b"x")]).await.expect("a new object");
    }
    let gone = format!("{folder}/b/1");
    let both = futures::join!(store.delete(&gone), store.delete(&gone));
    assert_eq!(both, (Ok(()), Ok(())), "of two at once");
    assert_eq!(store.delete(&gone).await, Ok(()), "once more");
    assert_eq!(store.delete("conformance/never/was").await, Ok(()));
    assert!(store.get(&gone, 1).await.expect_err("deleted").is_not_found());
    let listed: Vec<_> = store.list(folder, None).try_collect().await.expect("a listing");
    let listed: Vec<_> = listed.into_iter().map(|listed| listed.path).collect();
    assert_eq!(listed, [format!("{folder}/a"), format!("{folder}/b/2")]);
}

async fn has_a_clock(store: &Store) {
    let path = "conformance/clock";
    let before = store.clock().await.expect("the time");
    store.put_new(path, vec![Bytes::from_static(b"x")]).await.expect("a new object");
    let made = store.head(path).await.expect("its head").modified;
    let after = store.clock().await.expect("the time");
    assert!(before <= made && made <= after, "{before:?} {made:?} {after:?}");
    assert!(store.list("gc", None).next().await.is_none(), "it leaves nothing");
}
