//! Tests of the store: every kind that needs nothing but this host.

use super::open::memory;
use super::*;
use crate::location::Location;

fn directory_of(dir: &tempfile::TempDir) -> Location {
    Location::directory(dir.path())
}

#[tokio::test]
async fn memory_conforms() {
    let location: Location = "memory://conforms".parse().unwrap();
    conformance::run(&Store::open(&location, Access::Create).unwrap()).await;
}

#[tokio::test]
async fn a_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::directory(&dir.path().join("made/with its parents"));
    conformance::run(&Store::open(&location, Access::Create).unwrap()).await;
}

#[tokio::test]
async fn a_prefix_is_invisible_and_keeps_stores_apart() {
    let objects = memory("prefixed");
    let under = |prefix: &str| {
        let prefix = ObjectPath::from(prefix);
        Store::assemble("memory://".into(), prefix, objects.clone(), objects.clone(), None, None)
    };
    conformance::run(&under("a/b")).await;
    conformance::run(&under("a/bc")).await;
}

#[tokio::test]
async fn two_opens_of_a_name_in_memory_see_the_same_objects() {
    let open = |text: &str| Store::open(&text.parse().unwrap(), Access::Write).unwrap();
    open("memory://shared").put_new("x", vec![Bytes::from_static(b"1")]).await.unwrap();
    assert_eq!(open("memory://shared").get("x", 1).await.unwrap(), "1");
    assert!(open("memory://other").get("x", 1).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_reader_leaves_no_trace_and_needs_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&directory_of(&dir), Access::Read).unwrap();
    assert!(store.get("vault.json", 1).await.unwrap_err().is_not_found());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let absent = Location::directory(&dir.path().join("absent"));
    for access in [Access::Read, Access::Write] {
        let error = Store::open(&absent, access).unwrap_err();
        assert!(error.to_string().starts_with("there is no vault at"), "{error}");
    }
}

#[tokio::test]
async fn a_directory_that_went_away_isnt_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vault");
    let store = Store::open(&Location::directory(&path), Access::Create).unwrap();
    std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    let error = store.put_new("log/x", vec![Bytes::from_static(b"1")]).await.unwrap_err();
    assert!(matches!(error, StoreError::Gone { .. }), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn unfinished_files_are_no_objects() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&directory_of(&dir), Access::Write).unwrap();
    store.put_new("log/n/1", vec![Bytes::from_static(b"1")]).await.unwrap();
    std::fs::write(dir.path().join("log/n/2#1"), b"half").unwrap();
    let listed: Vec<_> = store.list("", None).collect().await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0].as_ref().unwrap().path, "log/n/1");
}
