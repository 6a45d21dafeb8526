//! A client that can misbehave: a bare socket, and the bytes of requests.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tidegate_nbd::serve::Address;
use tidegate_nbd::{CommandFlags, CommandKind, Cookie, Errno, OptionHeader, ReplyHeader, Request};

/// A reply that is waited for longer than this isn't coming.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Client(pub UnixStream);

impl Client {
    /// Connects, and says nothing yet.
    pub fn connect(address: &Address) -> Self {
        let Address::Unix(path) = address else { panic!("tests have sockets with paths") };
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// Chooses the only export, without structured replies.
    pub fn agree(address: &Address) -> Self {
        let mut client = Self::connect(address);
        let mut bytes = 3_u32.to_be_bytes().to_vec();
        OptionHeader { code: 1, length: 0 }.encode(&mut bytes);
        client.send(&bytes);
        let greeting_and_export = client.take(18 + 10);
        assert!(greeting_and_export.starts_with(b"NBDMAGICIHAVEOPT"));
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub fn ask(&mut self, kind: CommandKind, cookie: u64, offset: u64, length: u32) {
        self.send(&request(kind as u16, cookie, offset, length));
    }

    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut taken = vec![0; bytes];
        self.0.read_exact(&mut taken).unwrap();
        taken
    }

    /// The next reply: to what, and its error.
    pub fn reply(&mut self) -> (u64, Option<Errno>) {
        let bytes = self.take(16);
        match ReplyHeader::decode(&mut bytes.as_slice()).unwrap() {
            Some(ReplyHeader::Simple { cookie, error }) => (cookie.0, error),
            other => panic!("{other:?} is no simple reply"),
        }
    }

    /// Whether the server has ended the connection; what still comes before that is dropped.
    pub fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

pub fn request(code: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (flags, cookie) = (CommandFlags::NONE, Cookie(cookie));
    Request { flags, code, cookie, offset, length }.encode(&mut bytes);
    bytes
}
