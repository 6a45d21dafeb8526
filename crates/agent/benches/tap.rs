//! What a tap costs a write: 4 KiB writes at random places, through the tap and through qemu-nbd, on
//! the same image, in turns. Prints for each way of writing the 50th and 99th percentile of both and
//! the median of the turns' ratios.
//!
//! `cargo bench -p tidegate-agent --bench tap -- [--folder DIRECTORY] [--rounds N] [--writes N]`
//!
//! The image and the journal are in the same folder, so the journal's own writing weighs on the tap as
//! much as it can.

#![allow(clippy::unwrap_used)] // it is a bench: what fails is shown and ends it

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tidegate_agent::tap::{Tap, TapSettings};
use tidegate_hrl::Journal;
use tidegate_hrl::journal::{Birth, JournalSettings};
use tidegate_hrl::uring::UringStorage;
use tidegate_model::{DiskNumber, Incarnation, Micros};
use tidegate_nbd::serve::{Address, Offer, ServeSettings, Server};
use tidegate_nbd::{CommandFlags, CommandKind, Cookie, OptionHeader, Request};

const DISK_BYTES: u64 = 512 << 20;
const WRITE_BYTES: u32 = 4096;

/// How a round writes: connections, each with one write under way, and after how many writes each
/// flushes.
const WAYS: [(&str, usize, Option<usize>); 3] =
    [("one at a time", 1, None), ("four at a time", 4, None), ("a flush after 64", 1, Some(64))];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    if let Some(folder) = value("--serve") {
        return serve(Path::new(&folder));
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = value("--folder").map_or(temporary.path().to_owned(), PathBuf::from);
    let number = |name, or| value(name).map_or(or, |text| text.parse().unwrap());
    let (rounds, writes) = (number("--rounds", 5), number("--writes", 20_000));
    std::fs::write(folder.join("disk"), vec![1; usize::try_from(DISK_BYTES).unwrap()]).unwrap();
    for (name, connections, flush) in WAYS {
        let mut turns = Vec::new();
        for round in 0..rounds {
            let run = |server: Child| {
                measure(&folder, server, connections, writes / connections, flush, round as u64)
            };
            turns.push((run(qemu(&folder)), run(tap(&folder))));
        }
        let of = |pick: fn(&([f64; 2], [f64; 2])) -> f64| {
            let mut figures: Vec<f64> = turns.iter().map(pick).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        println!(
            "{name:>18}: qemu-nbd p50 {:.1} us, p99 {:.1} us; tap p50 {:.1} us, p99 {:.1} us; \
             tap/qemu-nbd p50 {:.2}, p99 {:.2} (medians of {rounds} turns)",
            of(|turn| turn.0[0]),
            of(|turn| turn.0[1]),
            of(|turn| turn.1[0]),
            of(|turn| turn.1[1]),
            of(|turn| turn.1[0] / turn.0[0]),
            of(|turn| turn.1[1] / turn.0[1]),
        );
    }
}

fn qemu(folder: &Path) -> Child {
    let socket = folder.join("socket");
    let child = Command::new("qemu-nbd")
        .args(["-f", "raw", "-t", "-e", "16", "-x", "disk", "-k"])
        .arg(&socket)
        .arg(folder.join("disk"))
        // It complains of each look whether it listens.
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < end, "qemu-nbd doesn't listen");
        thread::sleep(Duration::from_millis(10));
    }
    child
}

fn tap(folder: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("--serve")
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "serving\n");
    child
}

/// The tap as a process; the vault takes everything at once.
fn serve(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder.join("journal"));
    let storage = UringStorage::open(&folder.join("journal")).unwrap();
    let birth = Birth { incarnation: Incarnation::from_bytes([1; 16]), boot: [1; 16] };
    let settings = JournalSettings::of(1 << 30).unwrap();
    let (journal, opening) = Journal::open(storage, settings, &birth, Box::new(|_| {})).unwrap();
    let journal = Arc::new(journal);
    let (disk, path, marks) = (DiskNumber::default(), folder.join("disk"), folder.join("marks"));
    let settings = TapSettings { disk, path, marks, boot: [1; 16] };
    let clock = Arc::new(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Micros(u64::try_from(since.as_micros()).unwrap())
    });
    let tap = Arc::new(Tap::create(&settings, journal.clone(), &opening, clock).unwrap());
    let offers = vec![Offer { export: tap.export("disk").unwrap(), disk: tap }];
    let address = Address::Unix(folder.join("socket"));
    let _server = Server::start(&address, offers, ServeSettings::default()).unwrap();
    println!("serving");
    loop {
        thread::sleep(Duration::from_millis(100));
        journal.committed(journal.durable()).unwrap();
    }
}

/// The 50th and 99th percentile of the writes' latencies, in microseconds.
fn measure(
    folder: &Path,
    mut server: Child,
    connections: usize,
    writes: usize,
    flush: Option<usize>,
    seed: u64,
) -> [f64; 2] {
    let socket = folder.join("socket");
    let mut latencies: Vec<u64> = thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|number| {
                let (socket, seed) = (&socket, seed * 100 + number as u64);
                scope.spawn(move || Client::new(socket).play(writes, flush, seed))
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    server.kill().unwrap();
    server.wait().unwrap();
    let _ = std::fs::remove_file(socket);
    latencies.sort_unstable();
    [50, 99].map(|percentile| latencies[latencies.len() * percentile / 100] as f64 / 1000.0)
}

struct Client(UnixStream);

impl Client {
    fn new(socket: &Path) -> Self {
        let mut socket = UnixStream::connect(socket).unwrap();
        let mut bytes = 3_u32.to_be_bytes().to_vec();
        OptionHeader { code: 1, length: 4 }.encode(&mut bytes);
        bytes.extend_from_slice(b"disk");
        socket.write_all(&bytes).unwrap();
        socket.read_exact(&mut [0; 18 + 10]).unwrap();
        Self(socket)
    }

    fn play(&mut self, writes: usize, flush: Option<usize>, mut seed: u64) -> Vec<u64> {
        let mut latencies = Vec::with_capacity(writes);
        for number in 0..writes {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let block = (seed >> 20) % (DISK_BYTES / u64::from(WRITE_BYTES));
            let data = [seed.to_le_bytes()[5] | 1; WRITE_BYTES as usize];
            latencies.push(self.ask(CommandKind::Write, block * u64::from(WRITE_BYTES), &data));
            if flush.is_some_and(|after| number % after == after - 1) {
                self.ask(CommandKind::Flush, 0, &[]);
            }
        }
        latencies
    }

    /// How long a command takes, in nanoseconds.
    fn ask(&mut self, kind: CommandKind, offset: u64, data: &[u8]) -> u64 {
        let (flags, code, cookie) = (CommandFlags::NONE, kind as u16, Cookie(0));
        let length = u32::try_from(data.len()).unwrap();
        let mut bytes = Vec::with_capacity(28 + data.len());
        Request { flags, code, cookie, offset, length }.encode(&mut bytes);
        bytes.extend_from_slice(data);
        let start = Instant::now();
        self.0.write_all(&bytes).unwrap();
        let mut reply = [0; 16];
        self.0.read_exact(&mut reply).unwrap();
        let elapsed = start.elapsed();
        assert_eq!(reply[4..8], [0; 4], "it failed");
        u64::try_from(elapsed.as_nanos()).unwrap()
    }
}
