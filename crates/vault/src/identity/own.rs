//! One's own identity: certificate and key, and the file that they are kept in.
//! docs/formats/keys.md, "Identity file".
//!
//! Invariants: the key is in no error, log or `Debug`; a file that is read names the one whom its
//! certificate names.

use std::fmt;
use std::io;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tidegate_model::{Micros, Name, VaultId};
use webpki::EndEntityCert;
use zeroize::{Zeroize, Zeroizing};

use super::{IdentityError, PeerIdentity, Role, check_peer, claim};
use crate::{pem, private_file};

/// Longest identity file: four times what ours have.
const IDENTITY_BYTES_MAX: usize = 16 << 10;

/// A machine's, server's or operator's own identity: its certificate and key.
#[derive(Clone)]
pub struct Identity {
    pub(crate) vault: VaultId,
    pub(crate) name: Name,
    pub(crate) role: Role,
    pub(crate) certificate: Vec<u8>,
    /// PKCS #8, DER.
    pub(crate) key: Zeroizing<Vec<u8>>,
    pub(crate) authority: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.role.uri(self.vault, &self.name))
    }
}

/// The identity file. docs/formats/keys.md, "Identity file".
#[derive(Serialize, Deserialize)]
struct IdentityFile {
    vault: VaultId,
    name: Name,
    role: Role,
    certificate: String,
    key: String,
    authority: String,
}

impl Drop for IdentityFile {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Identity {
    /// The vault.
    #[must_use]
    pub const fn vault(&self) -> VaultId {
        self.vault
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// What to show in TLS.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from(self.certificate.clone())]
    }

    /// Its private key, for TLS.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.to_vec()))
    }

    /// The certificate, DER, of the authority that its peers' are checked against.
    #[must_use]
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// Whether it would be accepted now by a peer of its own vault.
    ///
    /// # Errors
    /// What the peer would say, before it is asked.
    pub fn check(&self, now: Micros) -> Result<(), IdentityError> {
        check_peer(&self.chain(), &self.authority, self.vault, self.role, now).map(|_| ())
    }

    /// Writes the identity file, for its owner's eyes only; with `overwrite` one that exists is
    /// replaced, else refused.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn write(&self, path: &Path, overwrite: bool) -> Result<(), IdentityError> {
        let file = IdentityFile {
            vault: self.vault,
            name: self.name.clone(),
            role: self.role,
            certificate: pem::encode(pem::CERTIFICATE, &self.certificate).to_string(),
            key: pem::encode(pem::PRIVATE_KEY, &self.key).to_string(),
            authority: pem::encode(pem::CERTIFICATE, &self.authority).to_string(),
        };
        let mut json = Zeroizing::new(Vec::with_capacity(IDENTITY_BYTES_MAX));
        serde_json::to_writer_pretty(&mut *json, &file).map_err(|error| file_error(path, error))?;
        json.push(b'\n');
        private_file::create(path, &json, overwrite).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                file_error(path, "it is there already: --force overwrites it")
            }
            _ => file_error(path, format!("{error}; name a place that can be written to")),
        })
    }

    /// Reads an identity file; its times aren't looked at.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn read(path: &Path) -> Result<Self, IdentityError> {
        let json = private_file::read(path, IDENTITY_BYTES_MAX);
        let json = json.map_err(|error| {
            file_error(
                path,
                format!("{error}; check its path and mode, or make it with 'tidegate enroll'"),
            )
        })?;
        let identity = Self::decode(&json).map_err(|cause| {
            let advice = "make another with 'tidegate enroll'";
            file_error(path, format!("is not an identity file, or damaged ({cause}); {advice}"))
        })?;
        Ok(identity)
    }

    pub(super) fn decode(json: &[u8]) -> Result<Self, String> {
        let file: IdentityFile = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let certificate = |what: &str, text: &str| {
            let der = CertificateDer::from_pem_slice(text.as_bytes());
            der.map_err(|error| format!("its {what}: {error}"))
        };
        let own = certificate("certificate", &file.certificate)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(file.key.as_bytes());
        // What the key's text is must not be told.
        let key = key.map_err(|_| "its key is no PKCS #8 key".to_owned())?;
        let parsed = EndEntityCert::try_from(&own).map_err(|error| error.to_string())?;
        let claimed = claim(&parsed).ok_or("its certificate has no name of Tidegate's")?;
        let said = PeerIdentity { vault: file.vault, role: file.role, name: file.name.clone() };
        if claimed != said {
            return Err("its certificate is another's".into());
        }
        Ok(Self {
            vault: said.vault,
            name: said.name,
            role: said.role,
            certificate: own.to_vec(),
            key: Zeroizing::new(key.secret_pkcs8_der().to_vec()),
            authority: certificate("authority", &file.authority)?.to_vec(),
        })
    }
}

fn file_error(path: &Path, cause: impl fmt::Display) -> IdentityError {
    IdentityError::File { path: path.display().to_string(), cause: cause.to_string() }
}
