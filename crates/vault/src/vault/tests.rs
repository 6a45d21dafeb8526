//! Tests of making and opening vaults, in memory and in a directory.

use tidegate_model::Remedy;
use zeroize::Zeroizing;

use super::*;
use crate::identity::{Role, check_peer};
use crate::location::Location;
use crate::store::Access;

const NOW: Micros = Micros(1_767_225_600_000_000);

fn passphrase(text: &str) -> Credential {
    Credential::passphrase(Zeroizing::new(text.into())).unwrap()
}

fn options() -> InitOptions {
    InitOptions { cost: PassphraseCost::for_tests(), ..InitOptions::new(NOW) }
}

fn memory(name: &str) -> Store {
    Store::open(&format!("memory://vault-{name}").parse().unwrap(), Access::Create).unwrap()
}

async fn init(store: &Store) -> Result<(Vault, RecoveryKey), VaultError> {
    Vault::init(store.clone(), &options(), &passphrase("secret")).await
}

async fn open(store: &Store, text: &str) -> Result<Vault, VaultError> {
    Vault::open(store.clone(), &passphrase(text)).await
}

#[tokio::test]
async fn a_vault_opens_by_its_passphrase_and_by_its_recovery_key() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Location::directory(&dir.path().join("vault"));
    for store in [memory("both"), Store::open(&directory, Access::Create).unwrap()] {
        let (made, recovery) = init(&store).await.unwrap();
        for text in ["secret", &*recovery.text()] {
            let opened = open(&store, text).await.unwrap();
            assert_eq!(opened.description(), made.description());
            assert_eq!(opened.authority_certificate(), made.authority_certificate());
            let block_name = |vault: &Vault| vault.ring().block_namer().name_block(b"x");
            assert_eq!(block_name(&opened), block_name(&made));
        }
    }
    let store = Store::open(&directory, Access::Read).unwrap();
    open(&store, "secret").await.unwrap();
}

#[tokio::test]
async fn what_is_enrolled_in_a_vault_is_accepted_by_it() {
    let (vault, _) = init(&memory("enrol")).await.unwrap();
    let enrolment = authority::Enrolment {
        name: "ps".parse().unwrap(),
        role: Role::Server,
        validity: authority::VALIDITY_DEFAULT,
        names: vec![],
    };
    let identity = vault.authority().unwrap().issue(&enrolment, NOW).unwrap();
    let certificate = vault.authority_certificate();
    check_peer(&identity.chain(), &certificate, vault.id(), Role::Server, NOW).unwrap();
}

#[tokio::test]
async fn a_vault_that_is_there_is_left_as_it_is() {
    let store = memory("twice");
    init(&store).await.unwrap();
    let again = init(&store).await.unwrap_err();
    assert!(matches!(again, VaultError::Exists { .. }), "{again}");
    open(&store, "secret").await.unwrap();
}

#[tokio::test]
async fn of_two_who_make_it_at_once_one_does() {
    let store = memory("race");
    let (one, two) = futures::join!(init(&store), init(&store));
    assert_eq!([&one, &two].iter().filter(|made| made.is_ok()).count(), 1);
    open(&store, "secret").await.unwrap();
}

#[tokio::test]
async fn an_interrupted_making_is_completed_by_another() {
    let store = memory("interrupted");
    let begun = describe(&store, &options()).await.unwrap();
    let not_yet = open(&store, "secret").await.unwrap_err();
    assert!(not_yet.to_string().contains("vault init"), "{not_yet}");
    let other = InitOptions { block_bytes: 4096, ..options() };
    let other = Vault::init(store.clone(), &other, &passphrase("secret")).await.unwrap_err();
    assert!(matches!(other, VaultError::Interrupted { block_bytes: 65536, .. }), "{other}");
    let (vault, _) = init(&store).await.unwrap();
    assert_eq!(vault.id(), begun.vault);
    open(&store, "secret").await.unwrap();
}

#[tokio::test]
async fn what_a_killed_maker_left_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    for left in [".lock", ".probe-77", ".probe-77.link", "vault.json#1"] {
        std::fs::write(dir.path().join(left), b"").unwrap();
    }
    let store = Store::open(&Location::directory(dir.path()), Access::Create).unwrap();
    init(&store).await.unwrap();
    open(&store, "secret").await.unwrap();
    let names = store.names("").await.unwrap();
    assert_eq!(names.objects, [".lock", "vault.json"]);
}

#[tokio::test]
async fn each_way_not_to_open_has_its_error() {
    let store = memory("errors");
    let absent = open(&store, "secret").await.unwrap_err();
    assert!(absent.is_not_there(), "{absent}");
    init(&store).await.unwrap();
    let wrong = open(&store, "other").await.unwrap_err().to_string();
    assert!(wrong.contains("wrong passphrase"), "{wrong}");

    for (index, (json, expected)) in [
        (&b"not json"[..], "not one of Tidegate's"),
        (b"{\"format\": 9}", "use a newer Tidegate"),
        (b"", "not one of Tidegate's"),
    ]
    .into_iter()
    .enumerate()
    {
        let store = memory(&format!("errors-{index}"));
        store.put_new(layout::DESCRIPTION, vec![json.into()]).await.unwrap();
        let refused = open(&store, "secret").await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    let store = memory("errors-long");
    store.put_new(layout::DESCRIPTION, vec![vec![b' '; 5000].into()]).await.unwrap();
    assert!(open(&store, "secret").await.is_err());
}

#[tokio::test]
async fn a_changed_vault_json_is_noticed() {
    let (from, to) = (memory("changed-from"), memory("changed-to"));
    let (vault, _) = init(&from).await.unwrap();
    let mut changed = vault.description().clone();
    changed.block_bytes = 4096;
    to.put_new(layout::DESCRIPTION, vec![changed.encode()]).await.unwrap();
    let keys = from.get(&layout::keys(1), 100_000).await.unwrap();
    to.put_new(&layout::keys(1), vec![keys]).await.unwrap();
    let noticed = open(&to, "secret").await.unwrap_err();
    assert!(noticed.to_string().contains("\"block_bytes\": 65536"), "{noticed}");
}

/// A store with this vault.json and the keys of a vault whose format is said to be `format`.
async fn with_keys_of(name: &str, json: &[u8], format: u32) -> Store {
    let store = memory(name);
    let description = Description {
        format,
        ..Description::new(VaultId::from_bytes([7; 16]), 65536, NOW).unwrap()
    };
    let authority = authority::make(description.vault, NOW).unwrap();
    let first = NewSlot {
        credential: passphrase("secret"),
        scope: Scope::All,
        label: String::new(),
        cost: PassphraseCost::for_tests(),
        created: NOW,
    };
    let (keys, _) = keys::make(&description, &authority, &first).unwrap();
    keys.publish(&store).await.unwrap();
    store.put_new(layout::DESCRIPTION, vec![json.to_vec().into()]).await.unwrap();
    store
}

#[tokio::test]
async fn keys_tell_a_damaged_vault_json_from_one_of_a_later_format() {
    let newer = b"{\"format\": 3}";
    for (index, json) in [&newer[..], b"{\"format\": 1, \"vault\"", b""].into_iter().enumerate() {
        let store = with_keys_of(&format!("damaged-{index}"), json, 1).await;
        let damaged = open(&store, "secret").await.unwrap_err();
        assert_eq!(damaged.remedy(), Remedy::Repair);
        assert!(damaged.to_string().contains("must say \"format\": 1"), "{damaged}");
        // Who has no key that opens can't tell.
        let unknown = open(&store, "other").await.unwrap_err();
        assert!(matches!(unknown, VaultError::Description { .. }), "{unknown}");
    }
    let store = with_keys_of("later", newer, 3).await;
    let later = open(&store, "secret").await.unwrap_err();
    assert!(later.to_string().contains("has format 3"), "{later}");
    assert_eq!(later.remedy(), Remedy::Refuse);
}

#[tokio::test]
async fn a_place_with_other_things_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    let store = Store::open(&Location::directory(dir.path()), Access::Create).unwrap();
    std::fs::write(dir.path().join("letter.txt"), b"dear").unwrap();
    let refused = init(&store).await.unwrap_err();
    assert!(refused.to_string().contains("letter.txt"), "{refused}");
    assert!(!dir.path().join("vault.json").exists());
    std::fs::remove_file(dir.path().join("letter.txt")).unwrap();
    init(&store).await.unwrap();
}

#[tokio::test]
async fn slots_are_added_and_changed_one_after_another() {
    let store = memory("slots");
    let (mut vault, _) = init(&store).await.unwrap();
    let cost = PassphraseCost::for_tests();
    let new = NewSlot {
        credential: passphrase("server"),
        scope: Scope::Data,
        label: "for servers".into(),
        cost,
        created: NOW,
    };
    assert_eq!(vault.add_slot(&new).await.unwrap(), 3);
    vault.change_slot(1, &passphrase("changed"), cost, NOW).await.unwrap();
    assert!(open(&store, "secret").await.is_err());
    assert_eq!(open(&store, "changed").await.unwrap().slots().len(), 3);
    let server = open(&store, "server").await.unwrap();
    let refused = server.authority().unwrap_err().to_string();
    assert!(refused.contains("scope 'all'"), "{refused}");
}
