//! Ends of TLS connections as other programs would be, honest or not: they show any identity, ask
//! for nothing in return, and say what a test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned,
};
use serde_json::Value;

/// How long an answer may take: more than a server gives to a peer that says nothing.
const LIMIT: Duration = Duration::from_secs(30);
/// What no answer is longer than.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What is read of a request: all of it, for what is left unread breaks a connection that closes.
const HEARD_BYTES: usize = 16 << 10;

/// A connection to a server.
pub type Client = StreamOwned<ClientConnection, TcpStream>;

/// A plain connection whose reads and writes have a limit of time.
#[track_caller]
pub fn plain(server: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(server).expect("the server listens");
    socket.set_read_timeout(Some(LIMIT)).expect("a limit can be set");
    socket.set_write_timeout(Some(LIMIT)).expect("a limit can be set");
    socket
}

/// Connects, with the identity in a file or with none.
#[track_caller]
pub fn client(server: SocketAddr, identity: Option<&Path>) -> Client {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is there")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let config = match identity.map(read) {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).expect("the key fits"),
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from("tidegate").expect("it is a name");
    let tls = ClientConnection::new(Arc::new(config), name).expect("a connection can be made");
    StreamOwned::new(tls, plain(server))
}

/// Sends bytes and gives everything that comes back until the other end closes. A peer that closes
/// before it has read everything is heard all the same.
#[track_caller]
pub fn answer(stream: &mut (impl Read + Write), bytes: &[u8]) -> Vec<u8> {
    let sent = stream.write_all(bytes).and_then(|()| stream.flush());
    let mut heard = Vec::new();
    if let Err(error) = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut heard) {
        let limit =
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        assert!(!limit, "no end within {LIMIT:?} (sending: {sent:?}): {heard:?}");
    }
    heard
}

/// The same as text.
#[track_caller]
pub fn text(stream: &mut (impl Read + Write), bytes: &[u8]) -> String {
    String::from_utf8_lossy(&answer(stream, bytes)).into_owned()
}

/// A server that shows the identity in a file, shakes hands and then says `words` to everyone. Its
/// thread lives as long as the test.
#[track_caller]
pub fn server(identity: &Path, words: &'static [u8]) -> SocketAddr {
    let (chain, key) = read(identity);
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is there")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the key fits");
    let config = Arc::new(config);
    everyone_hears(move |socket| {
        let tls = ServerConnection::new(config.clone()).expect("a connection can be made");
        let mut stream = StreamOwned::new(tls, socket);
        // The request comes first, as with any server; a peer that turns away is no failure here.
        let _ = stream.read(&mut [0; HEARD_BYTES]).and_then(|_| stream.write_all(words));
        stream.conn.send_close_notify();
        let _ = stream.flush();
    })
}

/// A server that says `words` to everyone, without TLS.
#[track_caller]
pub fn plain_server(words: &'static [u8]) -> SocketAddr {
    everyone_hears(move |mut socket| {
        let _ = socket.read(&mut [0; HEARD_BYTES]).and_then(|_| socket.write_all(words));
    })
}

fn everyone_hears(say: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
    let address = listener.local_addr().expect("it has an address");
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let _ = socket.set_read_timeout(Some(LIMIT));
            say(socket);
        }
    });
    address
}

/// The chain and the key in an identity file.
fn read(identity: &Path) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let file = std::fs::read(identity).expect("the identity file can be read");
    let file: Value = serde_json::from_slice(&file).expect("it is JSON");
    let pem = |field: &str| file[field].as_str().expect("it has the field").as_bytes();
    let certificate = CertificateDer::from_pem_slice(pem("certificate")).expect("a certificate");
    (vec![certificate], PrivateKeyDer::from_pem_slice(pem("key")).expect("a key"))
}

/// Takes any server for the right one.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
