//! A live agent with everything real around it: a server, NBD clients that write, and what goes wrong.
//! What comes back of a machine is compared with its disks.

mod support;

#[path = "live/full_folder.rs"]
mod full_folder;
#[path = "live/gaps.rs"]
mod gaps;
#[path = "live/kills.rs"]
mod kills;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::Value;
use support::images;
use support::live::{self, Machine};
use support::process::Server;
use support::random::{self, Rng};
use support::refusals::wait_until;
use support::site::Site;
use support::tool;

const MIB: u64 = 1 << 20;
/// A journal of which kills leave much, and which the copy fills several times over.
const SMALL_JOURNAL: &str = "journal-size = '8MiB'";

/// A site with a server.
fn served() -> (Site, Server) {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let server = serve(&site, "127.0.0.1:0");
    (site, server)
}

fn serve(site: &Site, listen: &str) -> Server {
    site.server_at(listen).args(["--memory", "256MiB"]).serve()
}

/// Some commands for qemu-io at random places of a disk: writes, zeroes, trims, flushes.
fn changes(rng: &mut Rng, disk_bytes: u64, count: usize) -> Vec<String> {
    let change = |_| {
        let longest = if rng.below(16) == 0 { 300 } else { 16 };
        let length = 512 * (1 + rng.below(longest));
        let offset = 512 * rng.below((disk_bytes - length) / 512);
        match rng.below(12) {
            0 => format!("write -z {offset} {length}"),
            1 => format!("write -z -u {offset} {length}"),
            2 => format!("discard {offset} {length}"),
            3 => "flush".to_owned(),
            4 => format!("write -f -P {} {offset} {length}", 1 + rng.below(255)),
            _ => format!("write -P {} {offset} {length}", 1 + rng.below(255)),
        }
    };
    (0..count).map(change).collect()
}

/// Writes to every disk of a machine until `done`, through connections of its own.
fn write_until(machine: &Machine, bytes: u64, seed: u64, done: &AtomicBool) -> u64 {
    let (mut rng, mut rounds) = (Rng::new(seed), 0);
    while !done.load(Ordering::Relaxed) {
        for number in 0..machine.disks.len() {
            machine.writes(number, &changes(&mut rng, bytes, 20));
        }
        rounds += 1;
    }
    rounds
}

#[test]
fn what_is_written_while_the_initial_copy_runs_comes_back() {
    let (site, server) = served();
    let bytes = 48 * MIB;
    let disks = [site.disk("one", bytes), site.disk("two", bytes), site.disk("three", 8 * MIB)];
    images::patch(&disks[1], 0, &vec![0; 20 << 20]);
    // Several times over the copy would fill it, were it not paced.
    let journal = "journal-size = '32MiB'";
    let machine = Machine::new(&site, "db-1", &disks, &[&server.at()], journal);
    let agent = machine.start();
    let (done, seed) = (AtomicBool::new(false), random::seed());
    let rounds = std::thread::scope(|scope| {
        let writers = [seed, !seed].map(|seed| {
            let (machine, done) = (&machine, &done);
            scope.spawn(move || write_until(machine, 8 * MIB, seed, done))
        });
        machine.wait_for_copy();
        done.store(true, Ordering::Relaxed);
        writers.map(|writer| writer.join().expect("clients write")).into_iter().sum::<u64>()
    });
    assert!(rounds > 0, "nothing was written meanwhile");
    // The data of whole disks comes over NBD as it lies there.
    let read = site.path("read");
    tool(Command::new("nbdcopy").arg(machine.uri(0)).arg(&read));
    support::compare::assert_same(&disks[0], &read);
    // And to them.
    let whole = site.disk("whole", 8 * MIB);
    tool(Command::new("nbdcopy").arg(&whole).arg(machine.uri(2)));
    let status = machine.status();
    assert_eq!(status["disks"][0]["mode"], "data", "the copy left the journal to the writes");
    let point = machine.bookmark("end");
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at(&point, &disks);
    support::compare::assert_same(&whole, &disks[2]);
    server.stop().success();
    site.verify();
}

#[test]
fn the_copy_leaves_half_of_the_journal_to_writes() {
    let (site, server) = served();
    let disk = site.disk("one", 512 * MIB);
    let journal = "journal-size = '32MiB'";
    let machine = Machine::new(&site, "db-1", &[disk], &[&server.at()], journal);
    let agent = machine.start();
    machine.wait_until("an epoch", |status| status["epoch"] != 0);
    // From now on nobody takes anything out of it.
    drop(server);
    let (mut before, mut same) = (0, 0);
    machine.wait_until("that the copy waits", |status| {
        let now = status["backlog_bytes"].as_u64().expect("it is a number");
        same = if now == before && now > 8 * MIB { same + 1 } else { 0 };
        before = now;
        same > 20
    });
    assert!(before < 20 * MIB, "the copy filled {before} bytes");
    for place in 0..8 {
        machine.writes(0, &[format!("write -P 3 {place}M 1M")]);
    }
    let status = machine.status();
    assert_eq!(status["disks"][0]["mode"], "data", "{status}");
    assert!(status["copy"]["end"].is_null(), "{status}");
    live::stop(agent);
}

#[test]
fn a_bookmark_holds_exactly_what_had_been_written() {
    let (site, server) = served();
    let disks = [site.disk("one", 4 * MIB), site.disk("two", 4 * MIB + 512)];
    let machine = Machine::new(&site, "db-1", &disks, &[&server.at()], "");
    let agent = machine.start();
    machine.wait_for_copy();
    let mut rng = Rng::new(random::seed());
    let mut marked = Vec::new();
    for round in 0..5 {
        let mut kept = Vec::new();
        for (number, disk) in disks.iter().enumerate() {
            machine.writes(number, &changes(&mut rng, 4 * MIB, 10));
            kept.push(site.path(&format!("kept-{round}-{number}")));
            images::copy(disk, &kept[number]);
        }
        marked.push((machine.bookmark(&format!("round {round}")), kept));
    }
    machine.writes(0, &changes(&mut rng, 4 * MIB, 10));
    machine.wait_until_committed();
    let newest = machine.status()["bookmark"].clone();
    assert_eq!((&newest["name"], &newest["kind"]), (&"round 4".into(), &"crash-consistent".into()));
    live::stop(agent);
    let listed = site.call(&["points", "db-1"]).json();
    for (round, (point, kept)) in marked.iter().enumerate() {
        machine.assert_recovers_at(point, kept);
        let name = Value::from(format!("round {round}"));
        let points = listed["points"].as_array().expect("points are a list");
        let there = points.iter().find(|listed| listed["point"] == point.as_str());
        let there = there.unwrap_or_else(|| panic!("no {point} in {listed}"));
        assert_eq!((&there["name"], &there["clean"]), (&name, &true.into()));
    }
}

#[test]
fn a_server_that_is_away_is_caught_up_with_and_nothing_waits_for_it() {
    let (site, server) = served();
    let disk = site.disk("one", 8 * MIB);
    let address = server.at();
    // The first of its servers was never there.
    let servers = ["127.0.0.1:9", &address];
    let machine = Machine::new(&site, "db-1", std::slice::from_ref(&disk), &servers, "");
    let agent = machine.start();
    machine.wait_for_copy();
    machine.wait_until_committed();
    // kill -9, and waits until it is gone.
    drop(server);
    machine.wait_until("that it notices", |status| status["connected"] == false);
    let mut rng = Rng::new(random::seed());
    for _ in 0..5 {
        machine.writes(0, &changes(&mut rng, 8 * MIB, 40));
    }
    let status = machine.status();
    assert!(status["backlog_records"].as_u64() > Some(100), "{status}");
    machine.wait_until("that it tells why it lags", |status| {
        status["trouble"].is_string() && status["lag_ms"].as_u64() > Some(0)
    });
    let point = machine.bookmark("while it was away");
    let kept = site.path("kept");
    images::copy(&disk, &kept);
    machine.writes(0, &changes(&mut rng, 8 * MIB, 10));
    let server = serve(&site, &address);
    machine.wait_until_committed();
    assert_eq!(machine.status()["lag_ms"], 0);
    machine.assert_recovers_at(&point, &[kept]);
    let end = machine.bookmark("end");
    live::stop(agent);
    machine.assert_recovers_at(&end, &[disk]);
    server.stop().success();
}

#[test]
fn a_full_journal_leaves_a_gap_that_is_told_and_closed() {
    let (site, server) = served();
    let (disk, address) = (site.disk("one", 32 * MIB), server.at());
    let machine =
        Machine::new(&site, "db-1", std::slice::from_ref(&disk), &[&address], SMALL_JOURNAL);
    let agent = machine.start();
    machine.wait_for_copy();
    machine.writes(0, &["write -P 1 0 64k".to_owned()]);
    let (before, kept) = (machine.bookmark("before the gap"), site.path("kept"));
    images::copy(&disk, &kept);
    machine.wait_until_committed();
    drop(server);
    let source = site.disk("source", 32 * MIB);
    // Nothing of this fails, though there is no server and no room.
    tool(Command::new("nbdcopy").arg(&source).arg(machine.uri(0)));
    let status = machine.status();
    assert_eq!(status["disks"][0]["mode"], "bitmap", "{status}");
    assert!(status["disks"][0]["dirty_bytes"].as_u64() > Some(MIB), "{status}");
    machine.bookmark_call("within").run().failure().says(&["catching up"]);
    let within = gaps::now();
    // What isn't recorded is known by the next life of the agent, too.
    agent.kill();
    let agent = machine.start();
    assert_eq!(machine.status()["disks"][0]["mode"], "bitmap");
    let server = serve(&site, &address);
    machine.wait_until("the end of the gap", |status| status["disks"][0]["mode"] == "data");
    let told = |status: &Value| status["bookmark"]["name"].to_string().contains("after a gap");
    machine.wait_until("a bookmark behind it", told);
    let marked = machine.status()["bookmark"].clone();
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at(&format!("{}:{}", marked["epoch"], marked["lsn"]), &[&disk]);
    machine.assert_recovers_at(&before, &[kept]);
    support::compare::assert_same(&source, &disk);
    let told = gaps::stretches(&machine);
    let [gap] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&gap["cause"], &gap["end"]), (&"gap-journal-full".into(), &marked["lsn"]));
    gaps::assert_is_gap(&machine, gap, "the journal was full", &within);
    server.stop().success();
}

#[test]
fn a_history_that_cant_go_on_begins_anew_by_itself() {
    let (site, server) = served();
    let (machine, disk, agent) = Machine::copied(&site, 2 * MIB, &server.at());
    machine.wait_until_committed();
    live::stop(agent);
    // Somebody wrote past the agent.
    images::patch(&disk, 12_345, b"past the agent");
    let agent = machine.start();
    machine.wait_for_copy();
    let point = machine.bookmark("after that");
    assert!(point.starts_with("2:"), "{point}");
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at(&point, &[&disk]);
    // Its notes are gone.
    std::fs::remove_file(machine.folder().join("notes.json")).expect("notes are there");
    let agent = machine.start();
    machine.wait_for_copy();
    let point = machine.bookmark("after that, too");
    assert!(point.starts_with("3:"), "{point}");
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at(&point, &[&disk]);
}

#[test]
fn a_vault_that_lost_what_it_had_is_copied_into_anew_while_the_agent_runs() {
    let (site, server) = served();
    let address = server.at();
    let (machine, disk, agent) = Machine::copied(&site, 2 * MIB, &address);
    machine.wait_until_committed();
    // The vault as it was before is put back later: what comes now is lost.
    drop(server);
    let (vault, before) = (site.vault_path(), site.path("before"));
    copy_folder(&vault, &before);
    let server = serve(&site, &address);
    let mut rng = Rng::new(random::seed());
    machine.writes(0, &changes(&mut rng, 2 * MIB, 20));
    machine.bookmark("lost");
    machine.wait_until_committed();
    drop(server);
    std::fs::remove_dir_all(&vault).expect("it can be removed");
    std::fs::rename(&before, &vault).expect("it can be put back");
    let server = serve(&site, &address);
    agent.wait_for_line("that it begins anew", support::refusals::LIMIT, |line| {
        line.contains("the vault can't go on from here")
    });
    wait_until("its disks", || machine.qemu_io(0, &["read 0 512".to_owned()]).status.success());
    machine.wait_for_copy();
    let point = machine.bookmark("anew");
    assert!(point.starts_with("2:"), "{point}");
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at(&point, &[&disk]);
    server.stop().success();
}

fn copy_folder(from: &Path, to: &Path) {
    tool(Command::new("cp").arg("-a").arg(from).arg(to));
}

#[test]
fn a_stop_leaves_a_journal_that_goes_on_and_a_second_signal_ends_at_once() {
    let (site, server) = served();
    let disk = site.disk("one", 2 * MIB);
    let address = server.at();
    let machine = Machine::new(&site, "db-1", std::slice::from_ref(&disk), &[&address], "");
    let agent = machine.start();
    machine.wait_for_copy();
    drop(server);
    machine.writes(0, &["write -P 7 0 64k".to_owned()]);
    // It waits for a server that doesn't come.
    agent.signal(Signal::TERM);
    agent
        .wait_for_line("that it stops", support::refusals::LIMIT, |line| line.contains("stopping"));
    agent.signal(Signal::TERM);
    let ended = agent.wait(support::refusals::LIMIT);
    assert_eq!(ended.status.code(), Some(128 + 15), "{ended}");

    let agent = machine.start();
    machine.writes(0, &["write -P 9 64k 64k".to_owned()]);
    let ended = live::stop(agent);
    assert!(!ended.stderr.contains("ERROR"), "{ended}");
    machine.bookmark_call("nobody").run().failure().says(&["no agent runs here"]);
    let server = serve(&site, &address);
    let agent = machine.start();
    let point = machine.bookmark("end");
    machine.wait_until_committed();
    assert!(point.starts_with("1:"), "{point}");
    let ended = live::stop(agent);
    assert!(!ended.stderr.contains("can't go on"), "{ended}");
    machine.assert_recovers_at(&point, &[disk]);
    server.stop().success();
}

#[test]
fn an_application_is_frozen_around_its_bookmark() {
    let (site, server) = served();
    let disk = site.disk("one", 2 * MIB);
    let machine = Machine::new(&site, "db-1", &[disk], &[&server.at()], "");
    let told = site.path("told");
    let hook = |what: &str| format!("['sh', '-c', 'echo {what} >> {}']", told.display());
    let (freeze, thaw) = (hook("freeze"), hook("thaw"));
    machine.configure_also(&format!("[hooks]\nfreeze = {freeze}\nthaw = {thaw}"));
    let agent = machine.start();
    machine.wait_for_copy();
    let marked = machine.bookmark_call("quiet").args(["--application"]).run().success().json();
    assert_eq!(marked["kind"], "application-consistent", "{marked}");
    assert_eq!(std::fs::read_to_string(&told).expect("hooks ran"), "freeze\nthaw\n");
    machine.bookmark_call("two\nlines").run().failure().says(&["one line"]);
    machine.wait_until_committed();
    live::stop(agent);
    let listed = site.call(&["points", "db-1"]).json().to_string();
    assert!(listed.contains("application-consistent") && listed.contains("quiet"), "{listed}");
}

#[test]
fn what_an_agent_cant_work_with_is_refused_with_what_to_change() {
    let site = Site::with_vault();
    let disk = site.disk("one", 2 * MIB);
    let machine = Machine::new(&site, "db-1", std::slice::from_ref(&disk), &["127.0.0.1:9"], "");
    let (identity, kept) = (site.path("db-1.json"), site.path("kept"));
    std::fs::rename(&identity, &kept).expect("it is there");
    site.enroll("db-1", "server");
    machine.agent().run().refused(&["'enroll --role machine'"]);
    std::fs::rename(&kept, &identity).expect("it is there");
    std::fs::remove_file(&disk).expect("it is there");
    machine.agent().run().refused(&["one.img"]);
    machine.configure_also("[bookmarks]\nevery-second = 1");
    machine.agent().run().refused(&["unknown field `every-second`"]);
}

#[test]
fn only_one_agent_has_a_folder_and_a_disk() {
    let (site, server) = served();
    let disk = site.disk("one", 2 * MIB);
    let machine = Machine::new(&site, "db-1", &[disk], &[&server.at()], "");
    let agent = machine.start();
    machine.agent().run().refused(&["is in use by another process"]);
    machine.wait_for_copy();
    live::stop(agent);
}
