//! What every byte that a process server takes must cost: the bare kernels, measured.
//!
//! Calls the libraries themselves on blocking sockets and buffers made beforehand, and nothing of
//! Tidegate. Costs are processor time of the thread that runs the kernel.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustix::time::{ClockId, clock_gettime};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use zstd::bulk::Compressor;

/// The DNS name that the certificate must have.
pub const NAME: &str = "floor";
const READ_BYTES: usize = 256 << 10;
const WRITE_BYTES: usize = 64 << 10;

/// What passes the kernels.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The bytes, in the order in which they are sent.
    pub bytes: &'a [u8],
    /// Bytes of a write: each has a checksum.
    pub record_bytes: usize,
    /// Bytes of a block: each is searched for zeros and hashed.
    pub block_bytes: usize,
    /// Bytes that are compressed and sealed as one.
    pub frame_bytes: usize,
    /// The zstd level.
    pub level: i32,
}

/// The kernels: TLS 1.3 from a socket into memory, XXH3-64 of each record, the zero test, BLAKE3 of
/// each block, zstd of each frame, AES-256-GCM of what that made, and from memory into a socket.
pub const KERNELS: [&str; 7] =
    ["receive", "checksum", "zero test", "hash", "compress", "seal", "send"];
/// For each of [`KERNELS`], nanoseconds a byte that passes it.
pub type Costs = [f64; KERNELS.len()];

/// Both ends of the connections over which receiving is measured.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>, Arc<ServerConfig>);

impl Tls {
    /// With a server's certificate for [`NAME`], its key, and the authority that issued it.
    ///
    /// # Errors
    /// What rustls says of them.
    pub fn new(
        authority: CertificateDer<'static>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self(Arc::new(client), Arc::new(server)))
    }
}

/// Runs each kernel over the input on this thread. To keep all cores busy, call it on as many.
///
/// # Errors
/// What sockets or libraries report.
pub fn pass(input: &Input<'_>, tls: &Tls) -> io::Result<Costs> {
    let mut unit = vec![1; input.frame_bytes];
    let mut output = vec![1; zstd::zstd_safe::compress_bound(input.frame_bytes)];
    let mut compressor = Compressor::new(input.level)?;
    let cipher = UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(io::Error::other)?;
    let cipher = LessSafeKey::new(cipher);
    let zeros = vec![0; input.block_bytes];
    let mut spent = [Duration::ZERO; KERNELS.len()];
    let mut passed = [input.bytes.len(); KERNELS.len()];
    (spent[0], spent[6], passed[5]) = (receive(input.bytes, tls)?, send(input.bytes)?, 0);
    for (number, frame) in (0_u64..).zip(input.bytes.chunks(input.frame_bytes)) {
        let unit = &mut unit[..frame.len()];
        unit.copy_from_slice(frame);
        let mut last = thread_time();
        let mut lap = |kernel: usize| {
            let now = thread_time();
            spent[kernel] += now - std::mem::replace(&mut last, now);
        };
        for record in unit.chunks(input.record_bytes) {
            std::hint::black_box(xxhash_rust::xxh3::xxh3_64(record));
        }
        lap(1);
        for block in unit.chunks(input.block_bytes) {
            std::hint::black_box(*block == zeros[..block.len()]);
        }
        lap(2);
        for block in unit.chunks(input.block_bytes) {
            std::hint::black_box(blake3::hash(block));
        }
        lap(3);
        let packed = compressor.compress_to_buffer(unit, output.as_mut_slice())?;
        lap(4);
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&number.to_le_bytes());
        let (nonce, content) = (Nonce::assume_unique_for_key(nonce), &mut output[..packed]);
        let tag = cipher.seal_in_place_separate_tag(nonce, Aad::empty(), content);
        std::hint::black_box(tag.is_ok());
        lap(5);
        passed[5] += packed;
    }
    #[allow(clippy::cast_precision_loss)] // figures for people
    Ok(std::array::from_fn(|k| spent[k].as_nanos() as f64 / passed[k].max(1) as f64))
}

/// Receives the bytes and decrypts them where they were read.
fn receive(bytes: &[u8], Tls(client, server): &Tls) -> io::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let (go, start) = mpsc::channel();
        scope.spawn(move || {
            let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
            let tls = ClientConnection::new(client.clone(), name).map_err(io::Error::other)?;
            let mut stream = StreamOwned::new(tls, TcpStream::connect(address)?);
            stream.flush()?;
            stream.conn.complete_io(&mut stream.sock)?;
            let _ = start.recv();
            bytes.chunks(WRITE_BYTES).try_for_each(|chunk| stream.write_all(chunk))
        });
        let (mut socket, _) = listener.accept()?;
        let mut tls = UnbufferedServerConnection::new(server.clone()).map_err(io::Error::other)?;
        let (mut buffer, mut room) = (vec![1; READ_BYTES], vec![1; WRITE_BYTES]);
        let (mut begun, mut filled, mut at, mut received) = (None, 0, 0, 0);
        while received < bytes.len() {
            let UnbufferedStatus { discard, state } =
                tls.process_tls_records(&mut buffer[at..filled]);
            at += discard;
            match state.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        at += record.discard;
                        received += std::hint::black_box(record.payload).len();
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let count = data.encode(&mut room).map_err(io::Error::other)?;
                    socket.write_all(&room[..count])?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => {
                    if begun.is_none() && !tls.is_handshaking() {
                        let _ = go.send(());
                        begun = Some(thread_time());
                    }
                    buffer.copy_within(at..filled, 0);
                    (filled, at) = (filled - at, 0);
                    let count = socket.read(&mut buffer[filled..])?;
                    filled += if count > 0 { count } else { Err(io::ErrorKind::UnexpectedEof)? };
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(thread_time().saturating_sub(begun.unwrap_or_default()))
    })
}

/// Sends the bytes to a thread that throws them away.
fn send(bytes: &[u8]) -> io::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut socket = TcpStream::connect(listener.local_addr()?)?;
    let (mut sink, _) = listener.accept()?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = vec![1; READ_BYTES];
            while sink.read(&mut buffer).is_ok_and(|count| count > 0) {}
        });
        let begun = thread_time();
        bytes.chunks(READ_BYTES).try_for_each(|chunk| socket.write_all(chunk))?;
        let spent = thread_time() - begun;
        socket.shutdown(Shutdown::Both)?;
        Ok(spent)
    })
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
