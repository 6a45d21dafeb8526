//! Who a peer is: certificates of the vault's authority, checked the same way by both ends.
//! docs/formats/keys.md, "Certificates".
//!
//! Owns the name in a certificate (`tidegate://<vault>/<role>/<name>`), what makes one count, and
//! the identity file (`own`). Doesn't own issuing (`authority`) nor TLS, which proves possession of
//! the key.
//!
//! Invariants: a peer's name, role and vault come from the certificate only after its signature
//! was checked; errors say what is wrong and what to do, to people at either end.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use tidegate_model::{Micros, Name, Remedy, VaultId};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::rfc3339;

mod own;

pub use own::Identity;

/// What the name in a certificate begins with.
const URI_SCHEME: &str = "tidegate://";

/// What a certificate lets its owner be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A machine that is protected: it sends its disks.
    Machine,
    /// A process server.
    Server,
    /// A person who commands.
    Operator,
}

/// A peer, as its certificate proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its vault: the one that was expected.
    pub vault: VaultId,
    /// Its role: the one that was expected.
    pub role: Role,
    /// Its name.
    pub name: Name,
}

/// Why a certificate doesn't count, or an identity can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The peer showed none.
    #[error(
        "no certificate was shown, and that of a {needed} is needed: run 'tidegate enroll NAME --role {needed}' and give the identity file it makes"
    )]
    None {
        /// What was expected.
        needed: Role,
    },
    /// Not a certificate, or not one for this use.
    #[error("the certificate can't be used ({cause}): make one with 'tidegate enroll'")]
    Unusable {
        /// What is wrong with it.
        cause: String,
    },
    /// Its time is over.
    #[error(
        "the certificate of {who} expired on {at}: enroll it again with 'tidegate enroll' (and check the clocks of both ends)"
    )]
    Expired {
        /// Whose.
        who: String,
        /// When.
        at: String,
    },
    /// Its time hasn't come.
    #[error("the certificate of {who} is valid only from {from}: check the clocks of both ends")]
    NotYetValid {
        /// Whose.
        who: String,
        /// When it will be.
        from: String,
    },
    /// Signed by someone else.
    #[error(
        "the certificate of {who} wasn't issued by this vault's authority: enroll it with 'tidegate enroll', on this vault"
    )]
    OtherAuthority {
        /// Whose, as it says.
        who: String,
    },
    /// Of another vault.
    #[error(
        "the certificate is of vault {theirs}, and {ours} is needed: use the identity that was enrolled for this vault, or enroll again with 'tidegate enroll'"
    )]
    OtherVault {
        /// As it says.
        theirs: VaultId,
        /// As was expected.
        ours: VaultId,
    },
    /// Of another role.
    #[error(
        "the certificate of {name} is that of a {is}, and a {needed} is needed: enroll it with 'tidegate enroll {name} --role {needed}'"
    )]
    WrongRole {
        /// Its name.
        name: Name,
        /// What it is.
        is: Role,
        /// What was expected.
        needed: Role,
    },
    /// The identity file can't be read or written.
    #[error("the identity file {path}: {cause}")]
    File {
        /// The file.
        path: String,
        /// What is wrong, and what to do.
        cause: String,
    },
    /// What was to be issued can't be.
    #[error("{0}")]
    Request(String),
}

impl IdentityError {
    /// What to do about it: always something that a person does.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        Remedy::Refuse
    }
}

impl Role {
    /// The name in a certificate.
    pub(crate) fn uri(self, vault: VaultId, name: &Name) -> String {
        format!("{URI_SCHEME}{vault}/{self}/{name}")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "machine",
            Self::Server => "server",
            Self::Operator => "operator",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "machine" => Self::Machine,
            "server" => Self::Server,
            "operator" => Self::Operator,
            other => return Err(format!("'{other}' is no role: machine, server, operator are")),
        })
    }
}

/// Checks the certificate that a peer showed (its chain, its own first): issued by the authority
/// with the certificate `authority` (DER), valid now, of this vault, in this role. That the peer
/// has its key is TLS's to prove.
///
/// # Errors
/// An [`IdentityError`] of its own for each way to fail.
pub fn check_peer(
    chain: &[CertificateDer<'_>],
    authority: &[u8],
    vault: VaultId,
    needed: Role,
    now: Micros,
) -> Result<PeerIdentity, IdentityError> {
    let (own, others) = chain.split_first().ok_or(IdentityError::None { needed })?;
    let certificate = EndEntityCert::try_from(own).map_err(unusable)?;
    // Not proven yet: it serves to say what is wrong.
    let claimed = claim(&certificate);
    if let Some(peer) = claimed.as_ref().filter(|peer| peer.vault != vault) {
        return Err(IdentityError::OtherVault { theirs: peer.vault, ours: vault });
    }
    let who = claimed
        .as_ref()
        .map_or("a peer without a name".into(), |peer| format!("{} {}", peer.role, peer.name));
    let authority = CertificateDer::from(authority);
    let anchor = anchor_from_trusted_cert(&authority).map_err(unusable)?;
    certificate
        .verify_for_usage(
            &[webpki::aws_lc_rs::ECDSA_P256_SHA256],
            &[anchor],
            others,
            UnixTime::since_unix_epoch(Duration::from_micros(now.0)),
            KeyUsage::client_auth(), // which every role has: roles are told apart below
            None,
            None,
        )
        .map_err(|error| not_verified(error, who))?;
    let Some(peer) = claimed else {
        return Err(IdentityError::Unusable { cause: "it has no name of Tidegate's".into() });
    };
    if peer.role != needed {
        return Err(IdentityError::WrongRole { name: peer.name, is: peer.role, needed });
    }
    Ok(peer)
}

fn unusable(error: webpki::Error) -> IdentityError {
    IdentityError::Unusable { cause: error.to_string() }
}

fn not_verified(error: webpki::Error, who: String) -> IdentityError {
    let date = |time: UnixTime| rfc3339::text(Micros(time.as_secs().saturating_mul(1_000_000)));
    match error {
        webpki::Error::CertExpired { not_after, .. } => {
            IdentityError::Expired { who, at: date(not_after) }
        }
        webpki::Error::CertNotValidYet { not_before, .. } => {
            IdentityError::NotYetValid { who, from: date(not_before) }
        }
        webpki::Error::UnknownIssuer
        | webpki::Error::InvalidSignatureForPublicKey
        | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | webpki::Error::UnsupportedSignatureAlgorithmContext(_) => {
            IdentityError::OtherAuthority { who }
        }
        other => unusable(other),
    }
}

/// What a certificate says of its owner: its one name of ours.
fn claim(certificate: &EndEntityCert<'_>) -> Option<PeerIdentity> {
    let mut names = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(URI_SCHEME));
    let mut parts = names.next()?.splitn(3, '/');
    let peer = PeerIdentity {
        vault: parts.next()?.parse().ok()?,
        role: parts.next()?.parse().ok()?,
        name: parts.next()?.parse().ok()?,
    };
    names.next().is_none().then_some(peer)
}

#[cfg(test)]
mod tests;
