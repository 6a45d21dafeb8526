//! A server that is asked to stop stops with data under way: its shards leave together, and no
//! wake-up among them is lost at the end.

mod support;

use std::io::Write;
use std::path::Path;

use rustix::process::Signal;
use support::process::Server;
use support::random::{self, Rng};
use support::refusals::LIMIT;
use support::site::Site;
use support::{peer, tls};
use tidegate_model::{Checksum, Disk, DiskNumber, Extent, Micros};
use tidegate_wire::{Record, RecordKind, RefusalCode};

/// A lost wake-up needs its moment: so many stops.
const STOPS: u64 = 30;
/// A session's first credit.
const DATA: usize = 64 << 10;

/// A machine that has begun a copy and sent what it may: nothing of it is stored yet.
#[track_caller]
fn begin_a_copy(server: &Server, machine: &str, identity: &Path, data: &[u8]) -> tls::Client {
    let (mut client, mut session) = peer::enter(server.address, identity, machine);
    let (number, length) = (DiskNumber::default(), data.len() as u64);
    let mut bytes = Vec::new();
    let disk = RecordKind::Disk(Disk { number, bytes: 2 * length, name: "disk".into() });
    let lsn = session.sent().next();
    session.record(&Record { lsn, time: Micros(1), kind: disk }, &mut bytes);
    let extent = Extent { disk: number, offset: 0, length };
    let header = session.write(lsn.next(), Micros(2), extent, Checksum::of(data));
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(data);
    client.write_all(&bytes).expect("the server reads");
    client
}

#[test]
fn thirty_servers_stop_in_time_with_a_session_under_way() {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let identity = site.enroll("db", "machine");
    let mut rng = Rng::new(random::seed());
    let mut data = vec![0; DATA];
    for _ in 0..STOPS {
        let server = site.server_at("127.0.0.1:0").args(["--memory", "256MiB"]).serve();
        rng.fill(&mut data);
        // One session: the other shards have nothing to do, and would leave before its own.
        let mut session = begin_a_copy(&server, "db", &identity, &data);
        server.signal(Signal::TERM);
        let said = tls::answer(&mut session, &[]);
        drop(session);
        // Fails if it doesn't end within its limit.
        server.wait(LIMIT).success();
        assert_eq!(peer::refusal_in(&said).code, RefusalCode::ShuttingDown);
    }
    site.verify();
}
