//! Tests of certificates and identity files.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::authority::{self, Authority, Enrolment, VALIDITY_DEFAULT};

const NOW: Micros = Micros(1_767_225_600_000_000);
const DAY: u64 = 86_400_000_000;

fn vault(byte: u8) -> VaultId {
    VaultId::from_bytes([byte; 16])
}

fn authority_of(vault: VaultId) -> Authority {
    let made = authority::make(vault, NOW).unwrap();
    Authority::open(vault, &made.certificate, &made.key).unwrap()
}

fn issue(authority: &Authority, name: &str, role: Role) -> Identity {
    let names = vec!["ps.example".into(), "127.0.0.1".into(), "::1".into()];
    let enrolment =
        Enrolment { name: name.parse().unwrap(), role, validity: VALIDITY_DEFAULT, names };
    authority.issue(&enrolment, NOW).unwrap()
}

fn check(
    identity: &Identity,
    authority: &Authority,
    needed: Role,
    now: Micros,
) -> Result<PeerIdentity, IdentityError> {
    check_peer(&identity.chain(), authority.certificate(), vault(1), needed, now)
}

#[test]
fn each_role_is_accepted_as_itself_and_refused_as_another() {
    let authority = authority_of(vault(1));
    for role in [Role::Machine, Role::Server, Role::Operator] {
        let identity = issue(&authority, "db-1", role);
        let peer = check(&identity, &authority, role, NOW).unwrap();
        assert_eq!(peer, PeerIdentity { vault: vault(1), role, name: "db-1".parse().unwrap() });
        for needed in [Role::Machine, Role::Server, Role::Operator] {
            if needed != role {
                let refused = check(&identity, &authority, needed, NOW).unwrap_err();
                let expected =
                    IdentityError::WrongRole { name: "db-1".parse().unwrap(), is: role, needed };
                assert_eq!(refused, expected);
                assert!(refused.to_string().contains(&format!("enroll db-1 --role {needed}")));
            }
        }
    }
}

#[test]
fn each_way_to_be_wrong_has_its_error() {
    let ours = authority_of(vault(1));
    let same_name_other_key = authority_of(vault(1));
    let identity = issue(&ours, "m", Role::Machine);
    let none = check_peer(&[], ours.certificate(), vault(1), Role::Machine, NOW);
    assert_eq!(none, Err(IdentityError::None { needed: Role::Machine }));
    let garbage = [CertificateDer::from(b"garbage".to_vec())];
    let garbage = check_peer(&garbage, ours.certificate(), vault(1), Role::Machine, NOW);
    assert!(matches!(garbage, Err(IdentityError::Unusable { .. })), "{garbage:?}");

    let later = Micros(NOW.0 + 366 * DAY);
    let expired = check(&identity, &ours, Role::Machine, later).unwrap_err();
    assert!(expired.to_string().contains("machine m expired on 2027-01-01"), "{expired}");
    let early = check(&identity, &ours, Role::Machine, Micros(NOW.0 - DAY)).unwrap_err();
    assert!(matches!(early, IdentityError::NotYetValid { .. }), "{early}");
    assert!(check(&identity, &ours, Role::Machine, Micros(NOW.0 - DAY / 48)).is_ok());

    let foreign = issue(&same_name_other_key, "m", Role::Machine);
    let foreign = check(&foreign, &ours, Role::Machine, NOW).unwrap_err();
    assert_eq!(foreign, IdentityError::OtherAuthority { who: "machine m".into() });
    let other = issue(&authority_of(vault(2)), "m", Role::Machine);
    let other = check(&other, &ours, Role::Machine, NOW).unwrap_err();
    assert_eq!(other, IdentityError::OtherVault { theirs: vault(2), ours: vault(1) });
    // The authority's own certificate is nobody's.
    let itself = [CertificateDer::from(ours.certificate().to_vec())];
    let itself = check_peer(&itself, ours.certificate(), vault(1), Role::Server, NOW);
    assert!(matches!(itself, Err(IdentityError::Unusable { .. })), "{itself:?}");
}

#[test]
fn a_machine_cant_issue() {
    let ours = authority_of(vault(1));
    let machine = issue(&ours, "m", Role::Machine);
    let poser = Authority::open(vault(1), &machine.certificate, &machine.key).unwrap();
    let forged = issue(&poser, "evil", Role::Server);
    let chain = [forged.chain(), machine.chain()].concat();
    let refused = check_peer(&chain, ours.certificate(), vault(1), Role::Server, NOW);
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn no_changed_byte_of_a_certificate_passes() {
    let ours = authority_of(vault(1));
    let certificate = issue(&ours, "m", Role::Machine).certificate;
    for index in 0..certificate.len() {
        let mut flipped = certificate.clone();
        flipped[index] ^= 1;
        let chain = [CertificateDer::from(flipped)];
        let checked = check_peer(&chain, ours.certificate(), vault(1), Role::Machine, NOW);
        assert!(checked.is_err(), "byte {index}");
    }
}

#[test]
fn what_cant_be_in_a_certificate_is_refused() {
    let ours = authority_of(vault(1));
    let enrolment = |names: Vec<String>, validity| Enrolment {
        name: "m".parse().unwrap(),
        role: Role::Server,
        validity,
        names,
    };
    for name in ["", "a b", "-a", "a..b", "é", "a/b", &"a".repeat(64)] {
        let refused = ours.issue(&enrolment(vec![name.into()], VALIDITY_DEFAULT), NOW);
        assert!(matches!(refused, Err(IdentityError::Request(_))), "{name}");
    }
    assert!(ours.issue(&enrolment(vec!["a.b".into(); 65], VALIDITY_DEFAULT), NOW).is_err());
    assert!(ours.issue(&enrolment(vec![], Duration::MAX), NOW).is_err());
    assert!(ours.issue(&enrolment(vec![], VALIDITY_DEFAULT), Micros(u64::MAX)).is_err());
}

#[test]
fn an_identity_file_reads_back_and_is_its_owners_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity.json");
    let ours = authority_of(vault(1));
    let identity = issue(&ours, "m", Role::Server);
    identity.write(&path, false).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let read = Identity::read(&path).unwrap();
    assert_eq!((read.vault(), read.name().as_str(), read.role()), (vault(1), "m", Role::Server));
    assert_eq!(read.key, identity.key);
    assert_eq!(read.authority(), ours.certificate());
    read.check(NOW).unwrap();
    assert!(read.check(Micros(NOW.0 + 400 * DAY)).is_err());
    assert!(identity.write(&path, false).unwrap_err().to_string().contains("--force"));
    identity.write(&path, true).unwrap();

    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in [("\"m\"", "\"n\""), ("server", "machine"), ("PRIVATE", "PUBLIC"), ("{", "")]
    {
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = Identity::read(&path).unwrap_err().to_string();
        assert!(error.contains("identity.json") && error.contains("enroll"), "{error}");
    }
}

#[test]
fn debug_shows_no_key() {
    let identity = issue(&authority_of(vault(1)), "m", Role::Machine);
    let shown = format!("{identity:?}");
    assert_eq!(shown, format!("Identity(tidegate://{}/machine/m)", vault(1)));
}

proptest! {
    #[test]
    fn garbage_is_neither_an_identity_nor_a_peer(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Identity::decode(&bytes).is_err());
        let chain = [CertificateDer::from(bytes)];
        prop_assert!(check_peer(&chain, b"x", vault(1), Role::Machine, NOW).is_err());
    }
}
