//! A server around the state machines: blocking sockets, and a `Vec` as disk.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tidegate_nbd::{
    BlockSizes, Command, CommandKind, Errno, Event, Export, GREETING, Handshake, Heard, Replies,
    Span, StatusFlags, Transmission, TransmissionFlags,
};

/// All that the disk can.
pub const ALL: TransmissionFlags = TransmissionFlags::FLUSH
    .with(TransmissionFlags::FUA)
    .with(TransmissionFlags::TRIM)
    .with(TransmissionFlags::WRITE_ZEROES)
    .with(TransmissionFlags::MULTI_CONN)
    .with(TransmissionFlags::CACHE)
    .with(TransmissionFlags::FAST_ZERO);

/// What is told as one: holes are whole blocks of zeros.
const BLOCK: usize = 4096;

/// A disk that is served. Its threads end with their connections, the listener's with the test.
pub struct Served {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    disk: Mutex<Vec<u8>>,
    exports: Arc<[Export]>,
    connections: AtomicU64,
    flushes: AtomicU64,
    durable_writes: AtomicU64,
    reads_in_chunks: AtomicU64,
    /// The offset of a byte that can be neither read nor written.
    bad: AtomicU64,
}

impl Served {
    pub fn new(disk: Vec<u8>, flags: TransmissionFlags) -> Self {
        let export = Export::new("disk", disk.len() as u64, flags, BlockSizes::default());
        let export = export.unwrap().described("a disk of the tests").unwrap();
        let state = Arc::new(State {
            disk: Mutex::new(disk),
            exports: Arc::new([export]),
            connections: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            durable_writes: AtomicU64::new(0),
            reads_in_chunks: AtomicU64::new(0),
            bad: AtomicU64::new(u64::MAX),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let theirs = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = theirs.clone();
                std::thread::spawn(move || state.serve(client));
            }
        });
        Self { address, state }
    }

    pub fn address(&self) -> String {
        format!("nbd://{}", self.address)
    }

    pub fn uri(&self) -> String {
        format!("{}/disk", self.address())
    }

    pub fn disk(&self) -> Vec<u8> {
        self.state.disk.lock().unwrap().clone()
    }

    pub fn fail_at(&self, offset: u64) {
        self.state.bad.store(offset, Ordering::SeqCst);
    }

    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub fn flushes(&self) -> u64 {
        self.state.flushes.load(Ordering::SeqCst)
    }

    pub fn durable_writes(&self) -> u64 {
        self.state.durable_writes.load(Ordering::SeqCst)
    }

    pub fn reads_in_chunks(&self) -> u64 {
        self.state.reads_in_chunks.load(Ordering::SeqCst)
    }
}

impl State {
    /// Serves one connection. A client that goes in its own way is none of the tests' business.
    fn serve(&self, mut client: TcpStream) {
        let _ = client.set_nodelay(true);
        let mut handshake = Handshake::new(self.exports.clone());
        let (mut buffer, mut out) = (vec![0; 64 << 10], Vec::new());
        let mut transmission = None;
        let mut writing = None;
        if client.write_all(&GREETING).is_err() {
            return;
        }
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            let mut input = &buffer[..count];
            if transmission.is_none() {
                while let Some(heard) = handshake.next(&mut input, &mut out).expect("no mistakes") {
                    if let Heard::Agreed(agreement) = heard {
                        self.connections.fetch_add(1, Ordering::SeqCst);
                        transmission = Some(Transmission::new(agreement));
                    }
                }
            }
            if let Some(transmission) = &mut transmission
                && !self.transmit(transmission, &mut input, &mut writing, &mut out)
            {
                return;
            }
            if client.write_all(&out).is_err() {
                return;
            }
            out.clear();
        }
    }

    /// Carries out what came in; whether the client stays.
    fn transmit(
        &self,
        transmission: &mut Transmission,
        input: &mut &[u8],
        writing: &mut Option<(Command, Vec<u8>)>,
        out: &mut Vec<u8>,
    ) -> bool {
        let replies = transmission.replies();
        while let Some(event) = transmission.next(input, out).expect("no mistakes") {
            match event {
                Event::Command(command) if command.kind == CommandKind::Write => {
                    *writing = Some((command, Vec::new()));
                }
                Event::Command(command) => self.command(&command, &[], replies, out),
                Event::Payload(part) => {
                    writing.as_mut().expect("a write began").1.extend_from_slice(part);
                }
                Event::PayloadEnd => {
                    let (command, data) = writing.take().expect("a write began");
                    self.command(&command, &data, replies, out);
                }
                Event::Answered => {}
                Event::Disconnect => return false,
            }
        }
        true
    }

    fn command(&self, command: &Command, data: &[u8], replies: Replies, out: &mut Vec<u8>) {
        let bad = self.bad.load(Ordering::SeqCst);
        if command.kind != CommandKind::BlockStatus
            && (command.offset..command.end()).contains(&bad)
        {
            return replies.error(command, Errno::Io, "the disk is bad there", out);
        }
        if command.is_durable() {
            self.durable_writes.fetch_add(1, Ordering::SeqCst);
        }
        let mut disk = self.disk.lock().unwrap();
        let place =
            usize::try_from(command.offset).unwrap()..usize::try_from(command.end()).unwrap();
        match command.kind {
            CommandKind::Read => return self.read(command, &disk[place], replies, out),
            CommandKind::BlockStatus => {
                let spans = spans(&disk[place.start..]).map(|(bytes, is_zero)| {
                    let zero = StatusFlags::HOLE.with(StatusFlags::ZERO);
                    let flags = if is_zero { zero } else { StatusFlags::NONE };
                    Span { length: bytes as u64, flags }
                });
                return replies.block_status(command, spans, out);
            }
            CommandKind::Write => disk[place].copy_from_slice(data),
            CommandKind::Trim | CommandKind::WriteZeroes => disk[place].fill(0),
            CommandKind::Flush => _ = self.flushes.fetch_add(1, Ordering::SeqCst),
            CommandKind::Cache => {}
            CommandKind::Disconnect => unreachable!("it is an event of its own"),
        }
        replies.done(command, out);
    }

    fn read(&self, command: &Command, data: &[u8], replies: Replies, out: &mut Vec<u8>) {
        if !replies.takes_chunks(command) {
            replies.read_whole(command, out);
            out.extend_from_slice(data);
            return;
        }
        self.reads_in_chunks.fetch_add(1, Ordering::SeqCst);
        let mut at = 0;
        for (bytes, is_zero) in spans(data) {
            let (offset, length) = (command.offset + at as u64, u32::try_from(bytes).unwrap());
            let is_last = at + bytes == data.len();
            if is_zero {
                replies.read_hole(command, offset, length, is_last, out);
            } else {
                replies.read_data(command, offset, length, is_last, out);
                out.extend_from_slice(&data[at..at + bytes]);
            }
            at += bytes;
        }
    }
}

/// The blocks of some bytes: how long, and whether zero.
fn spans(bytes: &[u8]) -> impl Iterator<Item = (usize, bool)> {
    bytes.chunks(BLOCK).map(|block| (block.len(), block.iter().all(|byte| *byte == 0)))
}
