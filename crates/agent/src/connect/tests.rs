//! Connecting to real sockets: a TLS server of this process, and things that are none.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tidegate_model::Remedy;
use tidegate_wire::http::SWITCHING;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A certificate of its own making, for either end.
fn identity() -> TlsIdentity {
    let made = rcgen::generate_simple_self_signed(vec!["tidegate".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    TlsIdentity { certificates: vec![made.cert.der().clone()], key: PrivateKeyDer::Pkcs8(key) }
}

/// A server that does what `serve` does with its first connection.
async fn listen<F>(serve: impl FnOnce(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { serve(listener.accept().await.unwrap().0).await });
    address
}

/// A TLS server with this identity that answers the request with these bytes, then echoes.
async fn tls_server(identity: TlsIdentity, answer: &'static [u8]) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.certificates, identity.key)
        .unwrap();
    listen(move |tcp| async move {
        let Ok(mut tls) = TlsAcceptor::from(Arc::new(config)).accept(tcp).await else { return };
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(tls.read_u8().await.unwrap());
        }
        assert!(asked.starts_with(b"GET /replicate HTTP/1.1\r\n"));
        tls.write_all(answer).await.unwrap();
        let mut byte = [0];
        while answer == SWITCHING && tls.read_exact(&mut byte).await.is_ok() {
            tls.write_all(&byte).await.unwrap();
        }
        let _ = tls.shutdown().await;
    })
    .await
}

async fn connect(address: &str, verify: VerifyServer) -> Result<Connection, ConnectError> {
    let connector = TlsConnector::new(address.parse()?, identity(), verify)?;
    connector.connect().await
}

fn accept_all() -> VerifyServer {
    Arc::new(|_| Ok(()))
}

#[tokio::test]
async fn an_accepted_server_gives_a_stream_for_frames() {
    let theirs = identity();
    let expected = theirs.certificates[0].clone();
    let address = tls_server(theirs, SWITCHING).await;
    let verify: VerifyServer =
        Arc::new(
            move |chain| {
                if chain == [expected.clone()] { Ok(()) } else { Err("another".to_owned()) }
            },
        );
    let mut stream = connect(&address.to_string(), verify).await.unwrap();
    stream.write_all(b"frames").await.unwrap();
    stream.flush().await.unwrap();
    let mut echo = [0; 6];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"frames");
}

#[tokio::test]
async fn a_server_that_the_program_rejects_is_refused_with_the_programs_words() {
    let address = tls_server(identity(), SWITCHING).await;
    let verify: VerifyServer = Arc::new(|_| Err("it is of vault X, not Y".to_owned()));
    let error = connect(&address.to_string(), verify).await.err().unwrap();
    assert!(matches!(error, ConnectError::Identity { .. }), "{error}");
    assert!(error.to_string().ends_with("it is of vault X, not Y"), "{error}");
    assert_eq!(error.remedy(), Remedy::Refuse);
}

#[tokio::test]
async fn a_refusal_by_http_comes_with_its_status_and_text() {
    for (answer, remedy) in [
        (&b"HTTP/1.1 403 Forbidden\r\n\r\nthe certificate is of a server"[..], Remedy::Refuse),
        (&b"HTTP/1.1 503 Service Unavailable\r\n\r\nstarting"[..], Remedy::Retry),
    ] {
        let address = tls_server(identity(), answer).await;
        let error = connect(&address.to_string(), accept_all()).await.err().unwrap();
        assert!(matches!(error, ConnectError::Status { .. }), "{error}");
        assert_eq!(error.remedy(), remedy);
    }
    let address = tls_server(identity(), b"220 mail ready\r\n").await;
    let error = connect(&address.to_string(), accept_all()).await.err().unwrap();
    assert!(matches!(error, ConnectError::NotTidegate { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_tls_server_or_nothing_at_all_has_words_of_its_own() {
    let plain = listen(|mut tcp| async move {
        let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        // Until the agent goes away.
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let error = connect(&plain.to_string(), accept_all()).await.err().unwrap();
    assert!(matches!(error, ConnectError::NotTls { .. }), "{error}");

    let closing = listen(|tcp| async move { drop(tcp) }).await;
    let error = connect(&closing.to_string(), accept_all()).await.err().unwrap();
    assert!(matches!(error, ConnectError::Broken { .. }), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    let error = connect(&free.to_string(), accept_all()).await.err().unwrap();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    assert_eq!(error.remedy(), Remedy::Retry);

    let error = connect("a..b", accept_all()).await.err().unwrap();
    assert!(matches!(error, ConnectError::Name { .. }), "{error}");
}

#[tokio::test]
async fn a_server_without_the_key_of_its_certificate_is_refused() {
    let (honest, thief) = (identity(), identity());
    let stolen = TlsIdentity { certificates: honest.certificates, key: thief.key };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(stolen.key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(stolen.certificates, key);
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let address = listen(move |tcp| async move {
        let _ = TlsAcceptor::from(Arc::new(config)).accept(tcp).await;
    })
    .await;
    let error = connect(&address.to_string(), accept_all()).await.err().unwrap();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
}

#[test]
fn an_address_reads_back_from_its_own_text() {
    for (text, host, port) in [
        ("db-1.example", "db-1.example", 9443),
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("[::1]:9000", "::1", 9000),
        ("[::1]", "::1", 9443),
        ("fe80::1", "fe80::1", 9443),
    ] {
        let address: ServerAddress = text.parse().unwrap();
        assert_eq!((address.host.as_str(), address.port), (host, port));
        assert_eq!(address.to_string().parse::<ServerAddress>().unwrap(), address);
    }
    for text in ["", ":9443", "a:", "a:0", "a:b", "a:70000", "[::1", "[::1]9", "a b", "https://a"] {
        let error = text.parse::<ServerAddress>().unwrap_err();
        assert!(matches!(error, ConnectError::Address { .. }), "{text}");
    }
}
