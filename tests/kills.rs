//! Servers and agents are killed at twenty moments of a copy each, some between a put and its
//! acknowledgement: the copy ends whole, nothing that was acknowledged is lost, little is sent
//! twice and nothing is stored twice.
//!
//! The moments follow from a seed, which is printed; what was acknowledged is recorded here, from
//! what the agent logs while it runs.

mod support;

#[path = "kills/moment.rs"]
mod moment;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moment::{Moment, Trigger, choose};
use serde_json::Value;
use support::agent_log::{self, Event, wait_until};
use support::gate::Gate;
use support::process::{Server, Tidegate};
use support::random::{self, Rng};
use support::site::Site;

const MIB: u64 = 1 << 20;
/// A vault's block, and the agent's record: each block of these disks is one LSN.
const BLOCK: u64 = 64 << 10;
/// What may be sent again beyond what wasn't committed.
const RESENT_MAX: u64 = 64 * MIB;
/// Little memory makes small packs, so that there are many puts to hit.
const MEMORY: &str = "256MiB";
/// A copy with its interruptions: a limit against hanging.
const LIMIT: Duration = Duration::from_secs(240);

/// A site with a vault, identities, and a disk on which no block is twice.
struct Scene {
    site: Site,
    disk: PathBuf,
    bytes: u64,
    moments: Vec<Moment>,
}

impl Scene {
    fn new(bytes: u64) -> Self {
        let mut rng = Rng::new(random::seed());
        let site = Site::with_vault();
        site.enroll("ps-1", "server");
        site.enroll("victim", "machine");
        let disk = site.path("disk");
        unique_blocks(&disk, bytes, rng.next());
        Self { site, disk, bytes, moments: choose(&mut rng, last_lsn(bytes)) }
    }

    fn log(&self) -> PathBuf {
        self.site.vault_path().join("log")
    }

    fn serve_at(&self, listen: &str) -> Server {
        self.site.server_at(listen).args(["--memory", MEMORY]).serve()
    }

    fn agent(&self, server: &str) -> Tidegate {
        agent_log::telling(self.site.agent(server, "victim", &[&self.disk])).limit(LIMIT)
    }

    /// The disk comes back, every byte of the vault is right, and each block is there once.
    #[track_caller]
    fn assert_whole_and_stored_once(&self) {
        self.site.assert_recovers("victim", 0, &self.disk);
        let report = self.site.verify();
        assert_eq!(report["duplicate_blocks"], Value::from(0), "{report}");
        assert_eq!(report["bytes_kept"], Value::from(self.bytes), "{report}");
    }
}

/// The LSN of the bookmark that ends a copy: before it the disk's declaration and its blocks.
fn last_lsn(bytes: u64) -> u64 {
    bytes / BLOCK + 2
}

/// Writes a disk of blocks that are all different and compress to about a half.
fn unique_blocks(path: &Path, bytes: u64, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut file = File::create(path).expect("a disk can be made");
    let mut block = vec![0; usize::try_from(BLOCK).expect("a block fits memory")];
    for _ in 0..bytes / BLOCK {
        rng.fill(&mut block);
        // Four random bits a byte, and none of the bytes zero.
        block.iter_mut().for_each(|byte| *byte = *byte & 0x0f | 0x40);
        file.write_all(&block).expect("there is room for a disk");
    }
}

#[test]
fn twenty_kills_of_the_server_lose_nothing_acknowledged_and_resend_little() {
    let scene = Scene::new(320 * MIB);
    let mut server = scene.serve_at("127.0.0.1:0");
    let address = server.at();
    let gate = Gate::to(server.address, u64::MAX);
    let agent = scene.agent(&gate.at()).start();
    for (number, moment) in scene.moments.iter().enumerate() {
        let in_time = moment.wait(&agent, &scene.log(), &gate, number + 1);
        assert!(in_time, "the copy ended before kill {number}, {moment:?}");
        // kill -9, and waits until it is gone.
        drop(server);
        gate.end_silence();
        let committed = agent_log::committed(&agent_log::events(&agent));
        eprintln!("kill {number} of the server: {moment:?}, {committed} acknowledged");
        server = scene.serve_at(&address);
    }
    let copied = agent.wait(LIMIT).success();
    server.stop().success();

    assert_eq!(copied.number("lsn"), last_lsn(scene.bytes), "a block is one record");
    assert_eq!(copied.number("epoch"), 1, "it is one copy, whatever became of its servers");
    assert!(copied.number("reconnects") >= moment::KILLS, "{copied}");
    let unheard = assert_nothing_forgotten_and_little_resent(&agent_log::of_log(&copied.stderr));
    let puts = scene.moments.iter().filter(|moment| moment.trigger == Trigger::Put).count();
    assert!(unheard >= puts, "{unheard} kills between a put and its acknowledgement, not {puts}");
    scene.assert_whole_and_stored_once();
}

/// Goes through what the agent recorded, connection by connection. Gives how many kills came between
/// a put and its acknowledgement.
#[track_caller]
fn assert_nothing_forgotten_and_little_resent(events: &[Event]) -> usize {
    let (mut acknowledged, mut bytes_before, mut open) = (0, 0, None);
    let (mut resent_most, mut unheard) = (0, 0);
    for event in events {
        match *event {
            Event::Open { committed, sent } => {
                assert!(
                    committed >= acknowledged,
                    "LSN {acknowledged} was acknowledged, and then only {committed} was there"
                );
                open = Some((sent, (sent - acknowledged) * BLOCK));
                unheard += usize::from(committed > acknowledged);
                acknowledged = committed;
            }
            Event::Acknowledged { committed } => {
                assert!(committed >= acknowledged, "acknowledgements go on, never back");
                acknowledged = committed;
            }
            Event::Ended { sent, bytes_sent } => {
                let here = bytes_sent - std::mem::replace(&mut bytes_before, bytes_sent);
                let Some((sent_before, not_acknowledged)) = open.take() else { continue };
                let new = sent.saturating_sub(sent_before) * BLOCK;
                let resent = here.saturating_sub(new);
                assert!(
                    resent <= not_acknowledged + RESENT_MAX,
                    "{resent} bytes were sent again, and only {not_acknowledged} were owed"
                );
                resent_most = resent_most.max(resent);
            }
        }
    }
    eprintln!("most that was sent again after one kill: {} KiB", resent_most >> 10);
    eprintln!("kills between a put and its acknowledgement: {unheard}");
    unheard
}

#[test]
fn after_twenty_kills_of_the_agent_nothing_is_stored_twice() {
    let scene = Scene::new(128 * MIB);
    let server = scene.serve_at("127.0.0.1:0");
    for (number, moment) in scene.moments.iter().enumerate() {
        // What the vault has already passes in no time; held at this byte, the copy can't end.
        let gate = Gate::to(server.address, moment.lsn * BLOCK);
        let agent = scene.agent(&gate.at()).start();
        if moment.trigger == Trigger::Opening {
            wait_until(&agent, "a session", |events| agent_log::openings(events) > 0);
        } else {
            gate.wait_until_it_holds(LIMIT);
        }
        assert!(
            moment.trigger.wait(&agent, &scene.log(), &gate),
            "the agent ended: {}",
            agent.printed()
        );
        let events = agent_log::of_log(&agent.kill().stderr);
        let committed = agent_log::committed(&events);
        eprintln!("kill {number} of the agent: {moment:?}, {committed} acknowledged");
    }
    let copied = scene.agent(&server.at()).run().success();
    server.stop().success();

    assert_eq!(copied.number("lsn"), last_lsn(scene.bytes));
    assert!(copied.number("epoch") > moment::KILLS, "each agent began a new epoch: {copied}");
    scene.assert_whole_and_stored_once();
}
