//! A server holds no more memory than it printed at its start: not with a store that takes nothing
//! and more streams than its buffers can hold, not with peers that say nothing, don't read, or
//! send nothing but records without data, and not with machines that all come again at once.
//!
//! What counts is what the kernel counted: the most that was ever resident, from the first
//! instruction on.

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::azurite::Azurite;
use support::process::{Running, Server};
use support::random::Rng;
use support::refusals::{LIMIT, vault_of};
use support::site::Site;
use support::store_proxy::{Packs, StoreProxy};
use support::{peer, tls};
use tidegate_model::{Disk, DiskNumber, Epoch, Extent, Lsn};
use tidegate_wire::{Hello, RecordKind};

const MIB: u64 = 1 << 20;
/// The least that a server of two cores accepts, about.
const MEMORY: &str = "256MiB";
/// With more cores the minimum is higher.
const CORES: &str = "2";
/// A copy with its interruptions: a limit against hanging.
const COPY_LIMIT: Duration = Duration::from_secs(400);

fn serve(site: &Site) -> Server {
    site.serve_with(&["--memory", MEMORY, "--cores", CORES])
}

/// Fails if more was ever resident than was printed; says how much it was, and of what.
#[track_caller]
fn assert_within_its_bound(server: &Server, when: &str) {
    let peak = server.peak_memory_bytes().expect("the server runs");
    let bound = server.memory_bound_bytes();
    let of = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", server.pid()));
    let of = of.unwrap_or_default();
    eprintln!("{when}: at most {} MiB, {} MiB were promised", peak / MIB, bound / MIB);
    assert!(peak <= bound, "{when}: {peak} bytes were held, {bound} promised:\n{of}");
}

/// The bytes that have passed a stage, by the server's own count.
#[track_caller]
fn bytes_through(server: &Server, stage: &str) -> u64 {
    let asked = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let text = tls::text(&mut tls::client(server.address, None), asked);
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let report: Value =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let stages = report["stages"].as_array().expect("it has stages");
    let found = stages.iter().find(|line| line["stage"] == stage);
    found.and_then(|line| line["bytes"].as_u64()).unwrap_or_else(|| panic!("{stage}: {report}"))
}

/// Waits until a server takes nothing more; gives how much it has taken in all.
#[track_caller]
fn wait_until_it_is_full(server: &Server) -> u64 {
    // Nobody tells that nothing more will come: so long nothing did, with every agent ready.
    const QUIET: Duration = Duration::from_secs(3);
    let end = Instant::now() + LIMIT;
    let (mut taken, mut since) = (0, Instant::now());
    while taken == 0 || since.elapsed() < QUIET {
        assert!(Instant::now() < end, "it still takes more: {taken}");
        std::thread::sleep(Duration::from_millis(100));
        let now = bytes_through(server, "checksum");
        if now > taken {
            (taken, since) = (now, Instant::now());
        }
    }
    taken
}

#[test]
fn a_server_whose_store_takes_nothing_holds_no_more_than_it_printed_and_then_goes_on() {
    /// More than twice the server's memory together, all of which the agents may have on the way.
    const STREAMS: u64 = 24;
    const DISK: u64 = 24 * MIB;
    const WINDOW: u64 = DISK;
    let store = Azurite::start("memory");
    let way = StoreProxy::before(&store);
    let site = Site::behind(&way, "site");
    site.init();
    let machines: Vec<(String, PathBuf)> = (0..STREAMS)
        .map(|number| {
            let name = format!("m-{number}");
            site.enroll(&name, "machine");
            let disk = site.disk(&name, DISK);
            (name, disk)
        })
        .collect();
    let server = serve(&site);
    way.packs(Packs::Hold);
    let agents: Vec<Running> = machines
        .iter()
        .map(|(name, disk)| {
            site.agent(&server.at(), name, &[disk])
                .args(["--window".to_owned(), WINDOW.to_string()])
        })
        .map(|agent| agent.start())
        .collect();

    way.wait_until_it_holds(LIMIT);
    let taken = wait_until_it_is_full(&server);
    let packs = server.memory_term_bytes("packs");
    eprintln!("{} MiB were taken, packs have {} MiB", taken / MIB, packs / MIB);
    // Packs that close by their age aren't full, and what waits for them lies in other buffers.
    assert!(taken >= packs / 2, "{taken} bytes don't fill packs of {packs}");
    assert!(taken < STREAMS * WINDOW, "the agents' windows ended before the server's memory");
    assert!(agents.iter().all(|agent| !agent.ended()), "nothing was stored, and a copy ended");
    assert_within_its_bound(&server, "with a store that takes nothing");

    way.packs(Packs::Pass);
    for agent in agents {
        agent.wait(COPY_LIMIT).success();
    }
    assert_within_its_bound(&server, "when all of it was stored");
    server.stop().success();
    for (name, disk) in [&machines[0], &machines[machines.len() - 1]] {
        site.assert_recovers(name, 0, disk);
    }
    site.verify();
}

#[test]
fn forty_peers_that_say_nothing_or_do_not_read_cost_no_more_than_was_printed() {
    /// Of each kind: silent after the handshake, silent after the welcome, and a flood.
    const SILENT: u64 = 14;
    const IDLE: u64 = 13;
    const FLOODS: u64 = 13;
    const HONEST: u64 = 4;
    let site = Site::with_vault();
    let server = serve(&site);
    let identities: Vec<(String, PathBuf)> = (0..IDLE + FLOODS)
        .map(|number| format!("hostile-{number}"))
        .map(|name| (name.clone(), site.enroll(&name, "machine")))
        .collect();
    let honest: Vec<(String, PathBuf)> = (0..HONEST)
        .map(|number| {
            let name = format!("honest-{number}");
            site.enroll(&name, "machine");
            let disk = site.disk(&name, 48 * MIB);
            (name, disk)
        })
        .collect();

    let handshaken: Vec<tls::Client> = (0..SILENT)
        .map(|number| {
            let (_, identity) = &identities[usize::try_from(number).expect("it is small")];
            let mut client = tls::client(server.address, Some(identity));
            client.conn.complete_io(&mut client.sock).expect("the server shakes hands");
            client
        })
        .collect();
    let (idle, floods) = identities.split_at(usize::try_from(IDLE).expect("it is small"));
    let idle: Vec<_> =
        idle.iter().map(|(name, identity)| peer::enter(server.address, identity, name)).collect();
    let floods: Vec<_> =
        floods.iter().map(|(name, identity)| flood(server.address, identity, name)).collect();

    let copies: Vec<Running> =
        honest.iter().map(|(name, disk)| site.agent(&server.at(), name, &[disk]).start()).collect();
    for copy in copies {
        copy.wait(COPY_LIMIT).success();
    }
    let floods: Vec<tls::Client> =
        floods.into_iter().map(|flood| flood.join().expect("a flood doesn't panic")).collect();
    assert_within_its_bound(&server, "with forty hostile peers");
    assert_eq!(handshaken.len() + idle.len() + floods.len(), 40);
    drop((handshaken, idle, floods));
    server.stop().success();
    for (name, disk) in &honest {
        site.assert_recovers(name, 0, disk);
    }
    site.verify();
}

#[test]
fn machines_that_all_come_again_cost_no_more_than_was_printed_whatever_lies_behind_them() {
    /// More than may search at once.
    const MACHINES: u64 = 8;
    /// More than all that search read ahead.
    const PACKS: u64 = 96;
    /// At so many records a pack closes.
    const PACK_RECORDS: u64 = 8 << 10;
    let site = Site::with_vault();
    let server = serve(&site);
    let machines: Vec<(PathBuf, Hello)> = (0..MACHINES)
        .map(|number| format!("m-{number}"))
        .map(|name| {
            let identity = site.enroll(&name, "machine");
            let hello = peer::hello(&vault_of(&identity), &name);
            let entered = peer::enter_as(server.address, &identity, hello.clone(), Lsn::NONE);
            let (mut client, mut session) = entered;
            let mut bytes = Vec::new();
            peer::say(&mut session, a_disk(), &mut bytes);
            client.write_all(&bytes).expect("the server reads");
            peer::wait_until_committed(&mut client, &mut session);
            (identity, Hello { epoch: Epoch(1), committed: session.committed(), ..hello })
        })
        .collect();
    let other = site.enroll("other", "machine");
    let (mut client, mut session) = peer::enter(server.address, &other, "other");
    let (mut bytes, mut rng) = (Vec::new(), Rng::new(1));
    peer::say(&mut session, a_disk(), &mut bytes);
    for _ in 0..PACKS * PACK_RECORDS {
        // Here and there, so that indexes stay long.
        let offset = rng.below(1 << 27) << 12;
        let extent = Extent { disk: DiskNumber::default(), offset, length: 64 << 10 };
        peer::say(&mut session, RecordKind::Zero(extent), &mut bytes);
        if bytes.len() >= 64 << 10 {
            client.write_all(&bytes).expect("the server reads");
            bytes.clear();
        }
    }
    client.write_all(&bytes).expect("the server reads");
    peer::wait_until_committed(&mut client, &mut session);
    drop(client);
    server.stop().success();

    let server = site.server_at("127.0.0.1:0").args(["--memory", MEMORY, "--cores", CORES]).serve();
    let before = server.peak_memory_bytes().expect("the server runs");
    let address = server.address;
    let again: Vec<_> = machines
        .into_iter()
        .map(|(identity, hello)| {
            std::thread::spawn(move || {
                let told = hello.committed;
                let (client, session) = peer::enter_as(address, &identity, hello, told);
                assert_eq!(session.committed(), told);
                client
            })
        })
        .collect();
    let again: Vec<tls::Client> =
        again.into_iter().map(|enters| enters.join().expect("it gets its epoch again")).collect();
    let rise = server.peak_memory_bytes().expect("the server runs") - before;
    let searches = server.memory_term_bytes("grants") + server.memory_term_bytes("store client");
    eprintln!("{} KiB more than before, of {} KiB", rise >> 10, searches >> 10);
    // The whole has room for what nobody uses now: it must come out of what is there for it.
    assert!(rise <= searches, "{rise} bytes more than before, and {searches} are there for them");
    assert_within_its_bound(&server, "when all machines came again");
    drop(again);
    server.stop().success();
}

/// Sends records without data, which need no credit, as fast as they are taken, and reads nothing.
/// The connection is left open.
#[track_caller]
fn flood(
    server: std::net::SocketAddr,
    identity: &Path,
    name: &str,
) -> std::thread::JoinHandle<tls::Client> {
    const RECORDS: u64 = 40_000;
    const STALLED: Duration = Duration::from_secs(2);
    let (mut client, mut session) = peer::enter(server, identity, name);
    client.sock.set_write_timeout(Some(STALLED)).expect("a limit can be set");
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        peer::say(&mut session, a_disk(), &mut bytes);
        for number in 0..RECORDS {
            let extent =
                Extent { disk: DiskNumber::default(), offset: number << 17, length: 64 << 10 };
            peer::say(&mut session, RecordKind::Zero(extent), &mut bytes);
            if bytes.len() < 64 << 10 {
                continue;
            }
            // A server that takes no more, or has had enough, is no failure.
            if client.write_all(&bytes).is_err() {
                break;
            }
            bytes.clear();
        }
        client
    })
}

fn a_disk() -> RecordKind {
    RecordKind::Disk(Disk { number: DiskNumber::default(), bytes: 1 << 40, name: "disk".into() })
}
