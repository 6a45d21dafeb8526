//! The vault's certificate authority: made with the vault, opened only to enrol.
//! docs/formats/keys.md, "Certificates".
//!
//! Owns what its own certificate and those that it issues look like. Doesn't own checking them
//! (`identity`), nor keeping its key (`keys`).

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tidegate_model::{Micros, Name, VaultId};
use zeroize::Zeroizing;

use crate::identity::{Identity, IdentityError, Role};

/// How long the authority is valid: longer than any vault's first machines.
const AUTHORITY_VALID: Duration = Duration::from_secs(20 * 365 * 86_400);
/// How long a machine's or server's certificate is valid unless it is said otherwise.
pub const VALIDITY_DEFAULT: Duration = Duration::from_secs(365 * 86_400);
/// Certificates are valid from this long before they are made, for peers whose clocks are late.
const BACKDATED: Duration = Duration::from_secs(3600);
/// Most further names of a certificate.
const NAMES_MAX: usize = 64;

/// A new authority's parts, on their way into the keys.
pub(crate) struct NewAuthority {
    /// DER.
    pub certificate: Vec<u8>,
    /// PKCS #8, DER.
    pub key: Zeroizing<Vec<u8>>,
}

/// The authority, opened: it can issue.
pub struct Authority {
    vault: VaultId,
    certificate: Vec<u8>,
    key: KeyPair,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority(vault {}, secret)", self.vault)
    }
}

/// What [`Authority::issue`] is to make.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Who.
    pub name: Name,
    /// As what.
    pub role: Role,
    /// For how long from now.
    pub validity: Duration,
    /// DNS names and IP addresses besides, for tools that check those (curl); may be empty.
    pub names: Vec<String>,
}

/// Makes the authority of a new vault.
pub(crate) fn make(vault: VaultId, now: Micros) -> Result<NewAuthority, IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(made)?;
    let mut params = authority_params(vault);
    set_validity(&mut params, now, AUTHORITY_VALID)?;
    let certificate = params.self_signed(&key).map_err(made)?;
    Ok(NewAuthority {
        certificate: certificate.der().to_vec(),
        key: Zeroizing::new(key.serialize_der()),
    })
}

impl Authority {
    /// The authority of these parts, DER both.
    pub(crate) fn open(
        vault: VaultId,
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(key),
            &PKCS_ECDSA_P256_SHA256,
        );
        Ok(Self { vault, certificate: certificate.to_vec(), key: key.map_err(made)? })
    }

    /// Its certificate, DER: what peers of this vault are checked against.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Makes a key and a certificate for it.
    ///
    /// # Errors
    /// [`IdentityError::Request`] for names that can't be in a certificate or times beyond all
    /// calendars.
    pub fn issue(&self, enrolment: &Enrolment, now: Micros) -> Result<Identity, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(made)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(enrolment.name.as_str());
        params.subject_alt_names = self.names(enrolment)?;
        set_validity(&mut params, now, enrolment.validity)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Everyone may open a connection; only servers are connected to.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if enrolment.role == Role::Server {
            params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let authority = authority_params(self.vault);
        let issuer = Issuer::from_params(&authority, &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(made)?;
        Ok(Identity {
            vault: self.vault,
            name: enrolment.name.clone(),
            role: enrolment.role,
            certificate: certificate.der().to_vec(),
            key: Zeroizing::new(key.serialize_der()),
            authority: self.certificate.clone(),
        })
    }

    fn names(&self, enrolment: &Enrolment) -> Result<Vec<SanType>, IdentityError> {
        if enrolment.names.len() > NAMES_MAX {
            let text = format!("at most {NAMES_MAX} further names fit a certificate");
            return Err(IdentityError::Request(text));
        }
        let refuse =
            |name: &str| IdentityError::Request(format!("'{name}' is no DNS name or IP address"));
        let uri = enrolment.role.uri(self.vault, &enrolment.name);
        let mut names = vec![SanType::URI(ia5(&uri).ok_or_else(|| refuse(&uri))?)];
        for name in &enrolment.names {
            names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) if is_dns_name(name) => {
                    SanType::DnsName(ia5(name).ok_or_else(|| refuse(name))?)
                }
                Err(_) => return Err(refuse(name)),
            });
        }
        Ok(names)
    }
}

/// What must be the same whenever the authority signs: its name, and how its key is named.
fn authority_params(vault: VaultId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("Tidegate vault {vault}"));
    // No certificate that it issues can issue further ones.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn ia5(text: &str) -> Option<Ia5String> {
    Ia5String::try_from(text).ok()
}

fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.strip_prefix("*.").unwrap_or(text).split('.').all(label)
}

/// The moment so long before or after `now`, as seconds since 1970 in the form that adds to
/// rcgen's times.
fn since_1970(
    now: Micros,
    shift: impl FnOnce(Duration) -> Option<Duration>,
) -> Result<Duration, IdentityError> {
    // Certificates end with the year 9999.
    const SECONDS_MAX: u64 = 253_402_300_799;
    let moment = shift(Duration::from_micros(now.0)).map(|moment| moment.as_secs());
    moment.filter(|seconds| *seconds <= SECONDS_MAX).map(Duration::from_secs).ok_or_else(|| {
        IdentityError::Request("the certificate would be valid beyond all calendars".into())
    })
}

fn set_validity(
    params: &mut CertificateParams,
    now: Micros,
    validity: Duration,
) -> Result<(), IdentityError> {
    let zero = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = zero + since_1970(now, |now| Some(now.saturating_sub(BACKDATED)))?;
    params.not_after = zero + since_1970(now, |now| now.checked_add(validity))?;
    Ok(())
}

fn made(error: rcgen::Error) -> IdentityError {
    IdentityError::Request(format!("the certificate can't be made: {error}"))
}
