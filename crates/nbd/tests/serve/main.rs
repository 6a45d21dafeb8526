//! The server against clients that are slow, hang, go, or break the protocol.

#![allow(clippy::unwrap_used)] // also in functions that tests share

mod client;
mod gate;
mod paths;

use std::sync::Arc;
use std::time::Duration;

use tidegate_nbd::serve::{Address, Offer, ServeError, ServeSettings, Server};
use tidegate_nbd::{BlockSizes, CommandKind, Errno, Export, TransmissionFlags};

use client::{Client, request};
use gate::Gate;

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u32 = 1 << 20;

struct Served {
    server: Server,
    gate: Arc<Gate>,
    _folder: tempfile::TempDir,
}

fn offer(gate: &Arc<Gate>) -> Offer {
    let flags = TransmissionFlags::FLUSH
        .with(TransmissionFlags::TRIM)
        .with(TransmissionFlags::WRITE_ZEROES);
    let export = Export::new("disk", 1 << 30, flags, BlockSizes::default()).unwrap();
    Offer { export, disk: gate.clone() }
}

fn serve(settings: ServeSettings) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let address = Address::Unix(folder.path().join("socket"));
    let gate = Arc::new(Gate::default());
    let server = Server::start(&address, vec![offer(&gate)], settings).unwrap();
    Served { server, gate, _folder: folder }
}

impl Served {
    fn client(&self) -> Client {
        Client::agree(self.server.address())
    }

    /// Waits until so many clients are connected.
    fn wait_connections(&self, count: usize) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.server.connections() != count {
            assert!(std::time::Instant::now() < end, "{} clients", self.server.connections());
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_slow_command_holds_up_no_other_until_the_crew_is_busy() {
    let served = serve(ServeSettings { requests_max: 3, ..ServeSettings::default() });
    let mut client = served.client();
    for offset in [1000, 2000, 3000, 4000] {
        served.gate.shut(offset);
    }
    client.ask(CommandKind::Read, 1, 1000, 8);
    client.ask(CommandKind::Write, 2, 2000, 8);
    client.send(&[0; 8]);
    client.ask(CommandKind::Flush, 3, 0, 0);
    assert_eq!(client.reply(), (3, None));
    client.ask(CommandKind::Read, 4, 3000, 8);
    client.ask(CommandKind::Read, 5, 4000, 8);
    client.ask(CommandKind::Read, 6, 5000, 8);
    served.gate.wait_inside(3);
    // The fourth isn't even received; another client is served.
    let mut other = served.client();
    other.ask(CommandKind::Read, 7, 5000, 8);
    assert_eq!((other.reply(), other.take(8)[0]), ((7, None), 5000_u64.to_le_bytes()[0]));
    served.gate.open(2000);
    assert_eq!(client.reply(), (2, None));
    served.gate.open(3000);
    assert_eq!((client.reply(), client.take(8).len()), ((4, None), 8));
    assert_eq!((client.reply(), client.take(8).len()), ((6, None), 8));
    served.gate.open(1000);
    served.gate.open(4000);
    let mut rest = [(); 2].map(|()| (client.reply().0, client.take(8)).0);
    rest.sort_unstable();
    assert_eq!(rest, [1, 5]);
    // This client's three and the other's one.
    assert!(served.gate.most_inside() <= 4, "{}", served.gate.most_inside());
}

#[test]
fn the_bytes_under_way_of_a_client_are_bounded() {
    let bytes_max = 32 * MIB;
    let served = serve(ServeSettings { bytes_max, ..ServeSettings::default() });
    let mut client = served.client();
    for at in 0..8 {
        served.gate.shut(at * 512);
        client.ask(CommandKind::Read, at, at * 512, 12 * MIB);
    }
    served.gate.wait_inside(2);
    // A third would need more than is left: a client that is served meanwhile shows that it waits.
    let mut other = served.client();
    other.ask(CommandKind::Flush, 1, 0, 0);
    assert_eq!(other.reply(), (1, None));
    for at in 0..8 {
        served.gate.open(at * 512);
    }
    for _ in 0..8 {
        let (cookie, error) = client.reply();
        assert_eq!((error, u64::from(client.take(12 << 20)[0])), (None, cookie * 512 % 256));
    }
    assert!(served.gate.most_inside() <= 2, "{} at once", served.gate.most_inside());
}

#[test]
fn a_client_that_does_not_take_its_replies_holds_up_itself_alone() {
    let served = serve(ServeSettings::default());
    let mut client = served.client();
    for at in 0..64 {
        client.ask(CommandKind::Read, at, 0, 8 * MIB);
    }
    let mut other = served.client();
    for cookie in 0..100 {
        other.ask(CommandKind::Read, cookie, 0, 4096);
        assert_eq!((other.reply().0, other.take(4096).len()), (cookie, 4096));
    }
    // It can be stopped, too.
    served.server.stop(Duration::from_millis(1));
    assert!(other.is_ended());
}

#[test]
fn who_breaks_the_protocol_is_given_up_and_nobody_else() {
    let served = serve(ServeSettings::default());
    let mut other = served.client();
    let mut garbage = served.client();
    garbage.send(&[0xff; 28]);
    assert!(garbage.is_ended());
    let mut stranger = Client::connect(served.server.address());
    stranger.send(b"GET / HTTP/1.1\r\n\r\n");
    assert!(stranger.is_ended());
    let mut gone = served.client();
    gone.ask(CommandKind::Write, 1, 0, 4096);
    gone.send(&[0; 100]);
    drop(gone);
    let mut odd = served.client();
    odd.send(&request(99, 5, 0, 0));
    assert_eq!(odd.reply(), (5, Some(Errno::Invalid)));
    odd.ask(CommandKind::Trim, 6, 0, 512);
    assert_eq!(odd.reply(), (6, Some(Errno::Io)));
    odd.ask(CommandKind::Disconnect, 7, 0, 0);
    assert!(odd.is_ended());
    served.wait_connections(1);
    other.ask(CommandKind::Flush, 1, 0, 0);
    assert_eq!((other.reply(), served.gate.done()), ((1, None), 0));
}

#[test]
fn a_defect_of_the_disk_ends_its_client_alone() {
    let served = serve(ServeSettings::default());
    let (mut client, mut other) = (served.client(), served.client());
    client.ask(CommandKind::WriteZeroes, 1, 666, 1);
    assert!(client.is_ended());
    other.ask(CommandKind::WriteZeroes, 2, 667, 1);
    assert_eq!(other.reply(), (2, None));
    served.wait_connections(1);
}

#[test]
fn who_does_not_choose_an_export_in_time_is_turned_away() {
    let handshake_max = Duration::from_secs(3);
    let served = serve(ServeSettings { handshake_max, ..ServeSettings::default() });
    let mut client = served.client();
    let mut silent = Client::connect(served.server.address());
    let greeting = silent.take(18);
    assert!(greeting.ends_with(b"IHAVEOPT\x00\x03") && silent.is_ended());
    served.wait_connections(1);
    // Who has chosen may take its time.
    client.ask(CommandKind::Flush, 1, 0, 0);
    assert_eq!(client.reply(), (1, None));
}

#[test]
fn clients_beyond_the_limit_are_turned_away_until_one_leaves() {
    let served = serve(ServeSettings { connections_max: 2, ..ServeSettings::default() });
    let (first, _second) = (served.client(), served.client());
    let mut third = Client::connect(served.server.address());
    assert!(third.is_ended());
    drop(first);
    served.wait_connections(1);
    served.client();
}

#[test]
fn what_is_under_way_is_answered_when_the_server_stops() {
    let served = serve(ServeSettings::default());
    let (mut client, mut idle) = (served.client(), served.client());
    let mut silent = Client::connect(served.server.address());
    for at in 0..4 {
        served.gate.shut(at * 512);
        client.ask(CommandKind::Read, at, at * 512, 4096);
    }
    served.gate.wait_inside(4);
    let Served { server, gate, _folder } = served;
    let stopping = std::thread::spawn(move || server.stop(PATIENCE));
    // They have nothing under way, and go first: the stop has begun.
    assert!(idle.is_ended() && silent.is_ended());
    for at in 0..4 {
        gate.open(at * 512);
    }
    let mut cookies: Vec<u64> = (0..4).map(|_| (client.reply().0, client.take(4096)).0).collect();
    cookies.sort_unstable();
    assert_eq!(cookies, [0, 1, 2, 3]);
    assert!(client.is_ended());
    stopping.join().unwrap();
    assert_eq!(gate.done(), 4);
}

#[test]
fn a_command_that_could_never_be_taken_is_not_offered() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), Arc::new(Gate::default()));
    let address = Address::Unix(folder.path().join("socket"));
    let settings = ServeSettings { bytes_max: 32 * MIB - 1, ..ServeSettings::default() };
    let error = Server::start(&address, vec![offer(&gate)], settings).unwrap_err();
    assert!(matches!(error, ServeError::Narrow { .. }), "{error}");
}
