//! Tests of the keys as a whole: golden bytes, unlocking, changing, tampering, garbage.

use proptest::prelude::*;
use tidegate_model::{Micros, VaultId};
use zeroize::Zeroizing;

use super::*;
use crate::authority;
use crate::description::Description;
use crate::store::{Access, Store};

const NOW: Micros = Micros(1_767_225_600_000_000);
const GOLDEN: &[u8] = include_bytes!("../golden/keys-1.json");
const GOLDEN_RECOVERY: &str = include_str!("../golden/recovery.txt");
const PASSPHRASE: &str = "correct horse battery staple";

fn passphrase(text: &str) -> Credential {
    Credential::passphrase(Zeroizing::new(text.into())).unwrap()
}

fn key_file(byte: u8) -> Credential {
    Credential::key_file(Zeroizing::new(vec![byte; 40])).unwrap()
}

fn new_slot(credential: Credential, scope: Scope) -> NewSlot {
    let cost = PassphraseCost::for_tests();
    NewSlot { credential, scope, label: "test".into(), cost, created: NOW }
}

fn description() -> Description {
    Description::decode(include_bytes!("../golden/vault.json")).unwrap()
}

fn made() -> (Unlocked, RecoveryKey) {
    let authority = authority::make(description().vault, NOW).unwrap();
    make(&description(), &authority, &new_slot(passphrase(PASSPHRASE), Scope::All)).unwrap()
}

/// A store of its own for each test, with the first version in it.
async fn stored(name: &str) -> (Store, Unlocked, RecoveryKey) {
    let location = format!("memory://keys-{name}").parse().unwrap();
    let store = Store::open(&location, Access::Write).unwrap();
    let (unlocked, recovery) = made();
    unlocked.publish(&store).await.unwrap();
    (store, unlocked, recovery)
}

async fn unlock(store: &Store, credential: &Credential) -> Result<Unlocked, KeyError> {
    KeyDocument::newest(store).await?.unlock(credential)
}

/// What an opened vault seals under, told without telling it.
fn root(unlocked: &Unlocked) -> Vec<u8> {
    let cipher = unlocked.ring().meta_cipher(unlocked.ring().current(), "test").unwrap();
    let mut bytes = [0; 16];
    cipher.seal([0; 12], b"", &mut bytes);
    bytes.to_vec()
}

/// Writes the golden files anew: after a wanted change of the format only.
#[test]
#[ignore = "writes the golden files; run it by name"]
fn make_the_golden_keys() {
    let (unlocked, recovery) = made();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden");
    std::fs::write(format!("{folder}/keys-1.json"), unlocked.document_for_tests().encode())
        .unwrap();
    std::fs::write(format!("{folder}/recovery.txt"), format!("{}\n", *recovery.text())).unwrap();
}

#[test]
fn the_golden_keys_open_and_are_written_the_same() {
    let document = KeyDocument::decode(1, GOLDEN).unwrap();
    assert_eq!(document.encode(), GOLDEN);
    let by_passphrase = document.clone().unlock(&passphrase(PASSPHRASE)).unwrap();
    assert_eq!((by_passphrase.slot(), by_passphrase.ring().current()), (1, 1));
    assert!(by_passphrase.agrees_with(&description()));
    let authority = by_passphrase.authority().unwrap();
    assert_eq!(authority.certificate(), by_passphrase.certificate());
    let recovery = Credential::KeyFile(Zeroizing::new(GOLDEN_RECOVERY.into()));
    let by_recovery = document.unlock(&recovery).unwrap();
    assert_eq!(by_recovery.slot(), 2);
    assert_eq!(root(&by_recovery), root(&by_passphrase));
    assert!(by_recovery.authority().is_ok());
}

#[test]
fn a_wrong_credential_is_told_with_what_was_tried() {
    let document = KeyDocument::decode(1, GOLDEN).unwrap();
    let wrong = document.clone().unlock(&passphrase("wrong")).unwrap_err().to_string();
    assert!(wrong.contains("wrong passphrase") && wrong.contains("1 slot of"), "{wrong}");
    let wrong = document.clone().unlock(&key_file(1)).unwrap_err();
    assert!(matches!(wrong, KeyError::NoneOfKind { kind: "key file", .. }), "{wrong}");
    let mistyped = GOLDEN_RECOVERY.trim_end().to_owned() + "0";
    let wrong = document.clone().unlock(&passphrase(&mistyped)).unwrap_err();
    assert!(matches!(wrong, KeyError::RecoveryText(_)), "{wrong}");
    let other = RecoveryKey::new(random_secret().unwrap());
    let wrong = document.unlock(&passphrase(&other.text())).unwrap_err();
    assert!(matches!(wrong, KeyError::Wrong { tried: 1, kind: "recovery key", .. }), "{wrong}");
}

#[tokio::test]
async fn a_slot_more_opens_the_same_keys_and_the_old_one_still_does() {
    let (store, first, _) = stored("add").await;
    let (second, id) = first.add_slot(&store, &new_slot(key_file(7), Scope::All)).await.unwrap();
    assert_eq!((second.number(), id), (2, 3));
    for credential in [key_file(7), passphrase(PASSPHRASE)] {
        let opened = unlock(&store, &credential).await.unwrap();
        assert_eq!(root(&opened), root(&first));
        assert!(opened.authority().is_ok());
    }
    let raced = first.add_slot(&store, &new_slot(key_file(8), Scope::All)).await.unwrap_err();
    assert_eq!(raced, KeyError::Raced);
    assert!(unlock(&store, &key_file(8)).await.is_err());
}

#[tokio::test]
async fn a_slot_for_data_opens_no_authority_and_makes_no_way_to_it() {
    let (store, first, _) = stored("data").await;
    first.add_slot(&store, &new_slot(key_file(7), Scope::Data)).await.unwrap();
    let server = unlock(&store, &key_file(7)).await.unwrap();
    assert_eq!(root(&server), root(&first));
    assert_eq!(server.authority().unwrap_err(), KeyError::NoAuthority);
    let refused = server.add_slot(&store, &new_slot(key_file(8), Scope::All)).await.unwrap_err();
    assert_eq!(refused, KeyError::NoAuthority);
    server.add_slot(&store, &new_slot(key_file(8), Scope::Data)).await.unwrap();
    // What it couldn't open it handed on whole.
    assert!(unlock(&store, &passphrase(PASSPHRASE)).await.unwrap().authority().is_ok());
}

#[tokio::test]
async fn a_changed_slot_opens_by_the_new_credential_only() {
    let (store, first, recovery) = stored("change").await;
    let cost = PassphraseCost::for_tests();
    let other = key_file(9);
    let change = |id| first.change_slot(&store, id, &other, cost, NOW);
    assert_eq!(change(5).await.unwrap_err(), KeyError::NoSlot(5));
    assert_eq!(change(2).await.unwrap_err(), KeyError::RecoverySlot(2));
    change(1).await.unwrap();
    assert!(unlock(&store, &passphrase(PASSPHRASE)).await.is_err());
    let opened = unlock(&store, &key_file(9)).await.unwrap();
    assert_eq!(root(&opened), root(&first));
    assert_eq!(opened.slots()[0].kind, SlotKind::KeyFile);
    assert_eq!(opened.slots()[0].argon2id, None);
    assert!(unlock(&store, &passphrase(&recovery.text())).await.is_ok());
}

#[tokio::test]
async fn there_are_so_many_slots_and_no_more() {
    let (store, mut unlocked, _) = stored("full").await;
    for byte in 2..16 {
        unlocked =
            unlocked.add_slot(&store, &new_slot(key_file(byte), Scope::Data)).await.unwrap().0;
    }
    let full = unlocked.add_slot(&store, &new_slot(key_file(99), Scope::Data)).await.unwrap_err();
    assert_eq!(full, KeyError::Full(SLOTS_MAX));
    assert_eq!(unlock(&store, &key_file(15)).await.unwrap().slots().len(), SLOTS_MAX);
}

#[test]
fn a_recovery_key_cant_be_made_a_passphrase() {
    let (_, recovery) = made();
    let authority = authority::make(description().vault, NOW).unwrap();
    let slot = new_slot(passphrase(&recovery.text()), Scope::All);
    assert!(matches!(make(&description(), &authority, &slot), Err(KeyError::Credential(_))));
}

#[tokio::test]
async fn a_vault_without_keys_is_an_interrupted_one() {
    let store = Store::open(&"memory://keys-none".parse().unwrap(), Access::Write).unwrap();
    assert_eq!(KeyDocument::newest(&store).await.unwrap_err(), KeyError::NoKeys);
}

/// Each hexadecimal text of the document with one bit of one byte changed, at the given path.
fn flips(path: &[&str]) -> Vec<Vec<u8>> {
    let json: serde_json::Value = serde_json::from_slice(GOLDEN).unwrap();
    let pointer: String = path.iter().map(|part| format!("/{part}")).collect();
    let bytes = hex::decode(json.pointer(&pointer).unwrap().as_str().unwrap()).unwrap();
    (0..bytes.len())
        .map(|index| {
            let (mut bytes, mut json) = (bytes.clone(), json.clone());
            bytes[index] ^= 1;
            *json.pointer_mut(&pointer).unwrap() = hex::encode(&bytes).into();
            serde_json::to_vec(&json).unwrap()
        })
        .collect()
}

#[test]
fn no_changed_byte_of_what_is_wrapped_passes() {
    let open = |bytes: &[u8]| KeyDocument::decode(1, bytes)?.unlock(&passphrase(PASSPHRASE));
    for path in [&["slots", "0", "salt"][..], &["slots", "0", "data_key"]] {
        for flipped in flips(path) {
            assert!(matches!(open(&flipped), Err(KeyError::Wrong { .. })), "{path:?}");
        }
    }
    for flipped in flips(&["contents"]) {
        assert!(matches!(open(&flipped), Err(KeyError::Contents { .. })));
    }
    for path in [&["slots", "0", "authority_key"][..], &["authority", "key"]] {
        for flipped in flips(path) {
            // The data must be reachable all the same.
            let opened = open(&flipped).unwrap();
            let refused = opened.authority().unwrap_err();
            assert!(matches!(refused, KeyError::Contents { .. }), "{path:?}: {refused}");
        }
    }
}

#[test]
fn no_changed_field_of_the_document_passes() {
    let golden = std::str::from_utf8(GOLDEN).unwrap();
    for (from, to) in [
        ("\"format\": 1", "\"format\": 2"),
        ("\"number\": 1", "\"number\": 2"),
        ("\"memory_kib\": 8", "\"memory_kib\": 16"),
        ("\"memory_kib\": 8", "\"memory_kib\": 2000000000"),
        ("\"passes\": 1", "\"passes\": 2"),
        ("\"scope\": \"all\"", "\"scope\": \"data\""),
        ("\"id\": 1", "\"id\": 3"),
        ("\"id\": 1", "\"id\": 2"),
        ("\"kind\": \"passphrase\"", "\"kind\": \"key-file\""),
        ("\"label\": \"test\"", "\"label\": \"\\u001b[2J\""),
        (&description().vault.to_string(), &VaultId::from_bytes([1; 16]).to_string()),
    ] {
        let changed = golden.replacen(from, to, 1);
        assert_ne!(changed, golden, "{from}");
        let opened = KeyDocument::decode(1, changed.as_bytes())
            .and_then(|document| document.unlock(&passphrase(PASSPHRASE)));
        assert!(opened.is_err(), "{from} -> {to}");
    }
}

proptest! {
    #![proptest_config(crate::testing::cases(200))]

    #[test]
    fn garbage_is_refused_without_a_panic(
        garbage in proptest::collection::vec(any::<u8>(), 0..100),
        cut in 0_usize..1000,
    ) {
        prop_assert!(KeyDocument::decode(1, &garbage).is_err());
        let mut mixed = GOLDEN[..cut.min(GOLDEN.len())].to_vec();
        mixed.extend(&garbage);
        prop_assert!(KeyDocument::decode(1, &mixed).is_err());
    }
}

#[test]
fn debug_shows_no_secret() {
    let (unlocked, recovery) = made();
    assert!(format!("{unlocked:?} {recovery:?}").len() < 100);
}
