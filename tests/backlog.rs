//! What waits its turn in a server that is behind isn't lost: all that is acknowledged is there. Nor
//! does it come into the log behind what its machine sends on another connection.

mod support;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use support::azurite::Azurite;
use support::process::Server;
use support::refusals::{LIMIT, vault_of};
use support::site::Site;
use support::store_proxy::{Packs, StoreProxy};
use support::{peer, tls};
use tidegate_model::{Bookmark, BookmarkKind, Disk, DiskNumber, Epoch, Extent, Lsn};
use tidegate_wire::{Decoder, Hello, Message, RecordKind, RefusalCode, Side, agent};

/// The server's settings: one core, and little memory.
const SERVER: [&str; 4] = ["--cores", "1", "--memory", "256MiB"];
/// Ten times what a server takes to notice that it may close its log.
const ENOUGH: Duration = Duration::from_millis(200);
const BLOCK: u64 = 64 << 10;
/// Records without bytes that fill a unit.
const UNIT_RECORDS: u64 = 96;
/// Two units each, the full one and the bookmark's: more than a server of one core has on their way
/// at once, in packs that wait for the store too.
const GROUPS: u64 = 100;

/// So many groups of a machine, as it sends them.
fn groups(session: &mut agent::Session, count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let bytes_of_disk = count * UNIT_RECORDS * BLOCK;
    let disk = Disk { number: DiskNumber::default(), bytes: bytes_of_disk, name: "disk".into() };
    peer::say(session, RecordKind::Disk(disk), &mut bytes);
    for group in 0..count {
        // The disk's record is one of the first unit's.
        for number in u64::from(group == 0)..UNIT_RECORDS {
            let offset = (group * UNIT_RECORDS + number) * BLOCK;
            let extent = Extent { disk: DiskNumber::default(), offset, length: BLOCK };
            peer::say(session, RecordKind::Zero(extent), &mut bytes);
        }
        let kind = if group == 0 { BookmarkKind::CopyEnd } else { BookmarkKind::CrashConsistent };
        let bookmark = Bookmark { kind, clean: true, name: String::new() };
        peer::say(session, RecordKind::Bookmark(bookmark), &mut bytes);
    }
    bytes
}

/// A server, and its store, which answers no put of a pack.
struct Behind {
    _store: Azurite,
    way: StoreProxy,
    site: Site,
    identity: PathBuf,
    server: Server,
}

impl Behind {
    #[track_caller]
    fn start(name: &str) -> Self {
        let store = Azurite::start(name);
        let way = StoreProxy::before(&store);
        let site = Site::behind(&way, "site");
        site.init();
        let identity = site.enroll("db", "machine");
        let server = site.serve_with(&SERVER);
        way.packs(Packs::Hold);
        Self { _store: store, way, site, identity, server }
    }

    /// The hello of a new agent.
    fn hello(&self) -> Hello {
        peer::hello(&vault_of(&self.identity), "db")
    }

    /// A machine that says `hello`.
    #[track_caller]
    fn enter(&self, hello: &Hello) -> (tls::Client, agent::Session) {
        let (client, session) =
            peer::enter_as(self.server.address, &self.identity, hello.clone(), Lsn::NONE);
        client.sock.set_read_timeout(Some(LIMIT)).expect("a limit can be set");
        client.sock.set_write_timeout(Some(LIMIT)).expect("a limit can be set");
        (client, session)
    }

    /// The same; sends all its groups, until it is told that it must wait.
    #[track_caller]
    fn fill(&self, hello: &Hello) -> (tls::Client, agent::Session, Decoder) {
        let (mut client, mut session) = self.enter(hello);
        let bytes = groups(&mut session, GROUPS);
        client.write_all(&bytes).expect("the server, or the kernel between, takes them");
        let mut decoder = Decoder::new(Side::Agent);
        let is_slow = |message: &Message| matches!(message, Message::Slow(_));
        peer::await_message(&mut client, &mut decoder, is_slow);
        (client, session, decoder)
    }
}

#[test]
fn a_full_unit_and_the_bookmark_behind_it_that_both_find_no_place_are_both_kept() {
    let behind = Behind::start("backlog");
    let (mut client, session, mut decoder) = behind.fill(&behind.hello());
    behind.way.packs(Packs::Pass);
    let last = session.sent();
    peer::await_message(
        &mut client,
        &mut decoder,
        |message| matches!(message, Message::Ack(ack) if ack.committed == last),
    );
    drop(client);
    behind.server.stop().success();

    // Every LSN up to the last one, or the machine's chain has a hole.
    behind.site.verify();
    let points = behind.site.call(&["points", "db"]).json();
    let newest = format!("1:{last}");
    let points = points["points"].as_array().expect("it has points");
    assert!(points.iter().any(|point| point["point"] == newest.as_str()), "{newest}: {points:?}");
}

#[test]
fn what_had_no_place_yet_when_its_agent_came_on_another_connection_never_gets_one() {
    let behind = Behind::start("takeover");
    let hello = behind.hello();
    let (mut client, session, _decoder) = behind.fill(&hello);

    // Nothing was committed: it would send all of it again.
    let again = Hello { epoch: Epoch(1), ..hello };
    let (address, identity) = (behind.server.address, &behind.identity);
    let other = peer::enter_as(address, identity, again.clone(), session.sent());
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert_eq!(peer::refusal_in(&rest).code, RefusalCode::TakenOver);
    behind.way.packs(Packs::Pass);
    drop(other);
    let ended = behind.server.stop().success();

    // What had its place is in the log, and what waited behind it isn't.
    let received = ended.stderr.split_once("received=").expect("it says how the session ended").1;
    let received = received.split_whitespace().next().and_then(|lsn| lsn.parse().ok());
    let server = behind.site.server_at("127.0.0.1:0").args(SERVER).serve();
    let (_client, back) = peer::enter_as(server.address, identity, again, session.sent());
    let (received, end) = (Lsn(received.expect("it is an LSN")), back.committed());
    assert!(Lsn::NONE < end && end < received, "{end} of {received} are in the vault");
}

#[test]
fn a_server_that_is_stopped_while_its_store_answers_nothing_leaves_a_whole_log() {
    let behind = Behind::start("stopped");
    let (mut client, mut session) = behind.enter(&behind.hello());
    client.write_all(&groups(&mut session, 1)).expect("the server reads");
    // All of it is in packs, and the log's last one may not overtake them.
    behind.way.wait_until_it_holds(LIMIT);
    behind.server.signal(Signal::TERM);
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert_eq!(peer::refusal_in(&rest).code, RefusalCode::ShuttingDown);
    drop(client);
    behind.way.holds_no_more_than(1, ENOUGH);
    behind.way.packs(Packs::Pass);
    behind.server.wait(LIMIT).success();
    behind.site.verify();
}
