//! The agent's side of TLS: version 1.3 only, its own certificate, and the question to the program
//! whether the server is the right one.
//!
//! A server is known by vault and role, which its certificate carries, not by a host's name; so
//! the name of the handshake is a constant, and isn't sent.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};

use super::ConnectError;

/// Decides whether a server's certificates (its own first) are acceptable: chain, expiry, vault and
/// role. `Err` says why not and what to do.
pub type VerifyServer = Arc<dyn Fn(&[CertificateDer<'_>]) -> Result<(), String> + Send + Sync>;

/// What a machine shows of itself.
pub struct TlsIdentity {
    /// Its certificate, then what leads to the authority.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsIdentity({} certificates)", self.certificates.len())
    }
}

/// Why the program doesn't accept a server; travels through rustls as an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotAccepted(pub String);

struct Verifier {
    verify: VerifyServer,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut chain = Vec::with_capacity(1 + intermediates.len());
        chain.push(end_entity.clone());
        chain.extend_from_slice(intermediates);
        match (self.verify)(&chain) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(cause) => Err(rustls::Error::Other(OtherError(Arc::new(NotAccepted(cause))))),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The configuration of every connection of one agent.
pub(super) fn config(
    identity: TlsIdentity,
    verify: VerifyServer,
) -> Result<ClientConfig, ConnectError> {
    let failed = |error: rustls::Error| ConnectError::OwnIdentity { error: error.to_string() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier { verify, provider: provider.clone() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(identity.certificates, identity.key)
        .map_err(failed)?;
    config.enable_sni = false;
    Ok(config)
}

/// The name that rustls wants to know.
pub(super) fn server_name() -> ServerName<'static> {
    ServerName::try_from("tidegate").expect("a constant that is a DNS name")
}
