//! Agents whose history broke: only what the vault lacks travels, whatever broke it and whoever is killed
//! meanwhile, and everything comes back.

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::images;
use support::live::{self, Machine};
use support::process::{Running, Server};
use support::random::{self, Rng};
use support::refusals::LIMIT;
use support::site::{Site, shown};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 64 << 10;
/// What a session says besides blocks and hashes, with room for bookmarks and times.
const TALK: u64 = 64 << 10;

/// A site with a server that has room for comparing disks.
fn served() -> (Site, Server) {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let server = serve(&site, "127.0.0.1:0");
    (site, server)
}

fn serve(site: &Site, listen: &str) -> Server {
    site.server_at(listen).args(["--memory", "512MiB"]).serve()
}

/// What packs take in the vault.
fn log_bytes(site: &Site) -> u64 {
    fn bytes(path: &Path) -> u64 {
        let listed = fs::read_dir(path).expect("it can be listed");
        let all = listed.map(|entry| entry.expect("it can be listed"));
        all.map(|entry| match entry.file_type().expect("it has a type").is_dir() {
            true => bytes(&entry.path()),
            false => entry.metadata().expect("it is there").len(),
        })
        .sum()
    }
    bytes(&site.vault_path().join("log"))
}

/// Starts a machine's agent as after another start of its host.
fn start_after_reboot(machine: &Machine, number: u32) -> Running {
    let script = machine.site.path(&format!("boot-{number}"));
    let id = machine.site.path(&format!("boot-{number}.id"));
    fs::write(&id, format!("00000000-0000-0000-0000-{number:012}\n")).expect("it can be written");
    let bind = format!("mount --bind {} /proc/sys/kernel/random/boot_id", shown(&id));
    let program = env!("CARGO_BIN_EXE_tidegate");
    let text = format!(
        "#!/bin/sh\nexec unshare -rm sh -c '{bind} && exec \"$0\" \"$@\"' {program} \"$@\"\n"
    );
    fs::write(&script, text).expect("it can be written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    live::serving(machine.agent_by(&script))
}

/// Writes other bytes into so many blocks of a disk, past any agent.
fn change_blocks(disk: &Path, places: impl IntoIterator<Item = u64>, seed: u64) -> u64 {
    let mut count = 0;
    for place in places {
        images::patch(disk, place * BLOCK + 77, &(seed + place).to_le_bytes());
        count += 1;
    }
    count
}

/// Waits until the vault has everything, and the agent has noted so: what outlives a crash of its host.
fn settle(machine: &Machine) {
    machine.wait_until_committed();
    let noted = || {
        let notes = fs::read(machine.folder().join("notes.json")).expect("there are notes");
        let notes: serde_json::Value = serde_json::from_slice(&notes).expect("they are JSON");
        notes["committed"] == machine.status()["committed"]
    };
    support::refusals::wait_until("that it is noted", noted);
}

fn sent(machine: &Machine) -> u64 {
    machine.status()["bytes_sent"].as_u64().expect("it is a number")
}

/// Waits until the disks are whole again; gives a point there.
fn resynced(machine: &Machine, epoch: u32) -> String {
    machine.wait_for_copy();
    assert_eq!(machine.status()["copy"]["resync"], true);
    let point = machine.bookmark("resynced");
    assert!(point.starts_with(&format!("{epoch}:")), "{point}");
    settle(machine);
    point
}

#[test]
fn after_a_crash_of_the_host_only_what_differs_travels() {
    let (site, server) = served();
    let bytes = 64 * MIB + 3 * 512;
    let disk = site.disk("one", bytes);
    images::patch(&disk, 10 * MIB, &vec![0; 20 << 20]);
    let machine = Machine::new(&site, "db-1", std::slice::from_ref(&disk), &[&server.at()], "");
    let agent = machine.start();
    machine.wait_for_copy();
    let (first, kept) = (machine.bookmark("before"), site.path("kept"));
    images::copy(&disk, &kept);
    settle(&machine);
    let copied = log_bytes(&site);
    agent.kill();

    // Nothing has changed but by the crash.
    let hashes = bytes / BLOCK * 32;
    let agent = start_after_reboot(&machine, 1);
    let point = resynced(&machine, 2);
    let (travelled, kept_bytes) = (sent(&machine), log_bytes(&site) - copied);
    eprintln!("unchanged: {travelled} bytes travelled, {kept_bytes} are kept");
    // Less than a block at the disk's end is always captured.
    assert!(travelled < hashes + TALK, "{travelled}");
    assert!(kept_bytes < TALK, "{kept_bytes}");
    machine.assert_recovers_at(&point, &[&disk]);
    agent.kill();

    // It is compared with what was folded, too.
    site.call(&["maintain", "db-1"]);
    let folded = log_bytes(&site);
    let changed = change_blocks(&disk, [0, 1, 2, 170, 171, 700, 1023], 5);
    let agent = start_after_reboot(&machine, 2);
    let point = resynced(&machine, 3);
    let (travelled, kept_bytes) = (sent(&machine), log_bytes(&site) - folded);
    eprintln!("{changed} blocks changed: {travelled} bytes travelled, {kept_bytes} are kept");
    let expected = changed * BLOCK;
    assert!((expected..expected + hashes + TALK).contains(&travelled), "{travelled}");
    assert!(kept_bytes < expected + TALK, "{kept_bytes}");
    live::stop(agent);
    machine.assert_recovers_at(&point, &[&disk]);
    // What was before is another branch of the same machine.
    machine.assert_recovers_at(&first, &[kept]);
    let peak = server.peak_memory_bytes().expect("it runs");
    assert!(peak <= server.memory_bound_bytes(), "{peak}");
    server.stop().success();
    site.verify();
}

#[test]
fn kills_of_agent_and_server_in_the_middle_of_a_resync_cost_nothing_but_time() {
    let (site, server) = served();
    let (bytes, address) = (96 * MIB, server.at());
    let disks = [site.disk("one", bytes), site.disk("two", 4 * MIB)];
    let machine = Machine::new(&site, "db-1", &disks, &[&address], "journal-size = '8MiB'");
    let agent = machine.start();
    machine.wait_for_copy();
    settle(&machine);
    agent.kill();
    // Every second block of the first half: much to send, and much to compare.
    change_blocks(&disks[0], (0..bytes / BLOCK / 2).step_by(2), 9);
    let mut rng = Rng::new(random::seed());
    let mut server = Some(server);
    let mut agent = Some(start_after_reboot(&machine, 1));
    let mut compared = 0;
    for round in 0..4 {
        let mut ended = false;
        machine.wait_until("that some more is compared", |status| {
            let now = status["copy"]["bytes_copied"].as_u64().expect("it is a number");
            ended = !status["copy"]["end"].is_null();
            ended || now > compared
        });
        compared = machine.status()["copy"]["bytes_copied"].as_u64().expect("it is a number");
        eprintln!("round {round}: {compared} bytes are compared, ended: {ended}");
        assert!(round > 0 || !ended, "it ended before anything could be killed");
        // Writes go on meanwhile, of half blocks and whole ones, where was compared and where not.
        for number in 0..2 {
            let place = rng.below(4 * MIB / BLOCK) * BLOCK;
            let length = [BLOCK, BLOCK / 2][number];
            machine.writes(number, &[format!("write -P {} {place} {length}", 1 + round)]);
        }
        if round % 2 == 0 {
            agent.take().expect("it runs").kill();
            agent = Some(start_after_reboot(&machine, 1));
            let now = machine.status()["copy"]["bytes_copied"].as_u64();
            assert!(now >= Some(compared), "it goes on where it was");
        } else {
            drop(server.take());
            server = Some(serve(&site, &address));
        }
    }
    let point = resynced(&machine, 2);
    live::stop(agent.expect("it runs"));
    machine.assert_recovers_at(&point, &disks);
    site.verify();
}

#[test]
fn disks_that_are_resized_added_and_removed_go_on_without_starting_over() {
    let (site, server) = served();
    let disks = [site.disk("one", 16 * MIB), site.disk("two", 4 * MIB), site.disk("three", MIB)];
    let address = server.at();
    let machine = Machine::new(&site, "db-1", &disks[..2], &[&address], "");
    let agent = machine.start();
    machine.wait_for_copy();
    let (before, kept) = (machine.bookmark("before"), site.path("kept"));
    images::copy(&disks[0], &kept);
    machine.wait_until_committed();
    live::stop(agent);
    // One grows, two goes, three comes.
    let grown = OpenOptions::new().write(true).open(&disks[0]).expect("it is there");
    grown.set_len(24 * MIB).expect("it can grow");
    images::patch(&disks[0], 20 * MIB, b"new");
    let two = fs::read(&disks[1]).expect("it is there");
    let machine = machine.with_disks(&[(0, &disks[0]), (2, &disks[2])], &[&address]);
    let agent = machine.start();
    let point = resynced(&machine, 2);
    let travelled = sent(&machine);
    let hashes = 25 * MIB / BLOCK * 32;
    assert!(travelled < BLOCK + MIB + hashes + TALK, "{travelled}");
    live::stop(agent);
    assert_eq!(
        recovered(&site, &point),
        [(0, fs::read(&disks[0]).unwrap()), (2, fs::read(&disks[2]).unwrap())]
    );
    assert_eq!(recovered(&site, &before), [(0, fs::read(&kept).unwrap()), (1, two)]);
    // It becomes shorter again, and two comes back.
    let one = OpenOptions::new().write(true).open(&disks[0]).expect("it is there");
    one.set_len(12 * MIB).expect("it can shrink");
    let machine = machine.with_disks(&[(0, &disks[0]), (1, &disks[1])], &[&address]);
    let agent = machine.start();
    let point = resynced(&machine, 3);
    live::stop(agent);
    assert_eq!(
        recovered(&site, &point),
        [(0, fs::read(&disks[0]).unwrap()), (1, fs::read(&disks[1]).unwrap())]
    );
    server.stop().success();
    site.verify();
}

/// All disks of the machine at a point: their numbers and bytes.
fn recovered(site: &Site, point: &str) -> Vec<(u64, Vec<u8>)> {
    let to = site.path(&format!("recovered-{}", point.replace(':', "-")));
    site.call(&["recover", "db-1", "--at", point, "--to", shown(&to)]);
    let disk = |number| Some((number, fs::read(to.join(format!("disk-{number}.img"))).ok()?));
    (0..4).filter_map(disk).collect()
}

#[test]
fn a_resync_that_is_asked_for_finds_what_was_written_past_the_agent() {
    let (site, server) = served();
    let (machine, disk, agent) = Machine::copied(&site, 8 * MIB, &server.at());
    machine.wait_until_committed();
    change_blocks(&disk, [3, 100], 1);
    let told = machine.call("resync").run().success().json();
    assert_eq!(told["resync"], true);
    agent.wait_for_line("that it begins", LIMIT, |line| line.contains("a resync was asked for"));
    machine.wait_until_served();
    machine.wait_until("the new epoch", |status| status["epoch"] == 2);
    let point = resynced(&machine, 2);
    let travelled = sent(&machine);
    assert!((2 * BLOCK..3 * BLOCK + TALK).contains(&travelled), "{travelled}");
    live::stop(agent);
    machine.assert_recovers_at(&point, &[disk]);
    server.stop().success();
}

#[test]
fn a_machine_that_was_restored_with_its_agent_goes_on_as_a_branch() {
    let (site, server) = served();
    let (machine, disk, agent) = Machine::copied(&site, 8 * MIB, &server.at());
    machine.writes(0, &["write -P 1 0 64k".to_owned()]);
    machine.wait_until_committed();
    live::stop(agent);
    let (before, folder) = (site.path("before.img"), site.path("before.agent"));
    for (from, to) in [(&disk, &before), (&machine.folder(), &folder)] {
        support::tool(std::process::Command::new("cp").arg("-a").arg(from).arg(to));
    }
    let agent = machine.start();
    machine.writes(0, &["write -P 2 64k 192k".to_owned()]);
    let (first, kept) = (machine.bookmark("lost with the machine"), site.path("kept"));
    images::copy(&disk, &kept);
    machine.wait_until_committed();
    live::stop(agent);
    // The machine comes back as it was, its agent's state with it.
    fs::remove_dir_all(machine.folder()).expect("it is there");
    for (from, to) in [(&before, &disk), (&folder, &machine.folder())] {
        support::tool(std::process::Command::new("cp").arg("-a").arg(from).arg(to));
    }
    let agent = machine.start();
    // Its disk has another file's times: that is seen before a server is asked.
    agent.wait_for_line("the branch", LIMIT, |line| line.contains("are compared with the vault"));
    machine.wait_until_served();
    machine.wait_until("its epoch", |status| status["epoch"] == 2);
    machine.writes(0, &["write -P 3 1M 64k".to_owned()]);
    let point = resynced(&machine, 2);
    live::stop(agent);
    machine.assert_recovers_at(&point, &[&disk]);
    machine.assert_recovers_at(&first, &[kept]);
    server.stop().success();
    site.verify();
}

#[test]
fn what_the_vault_lost_is_copied_anew_by_itself() {
    let (site, server) = served();
    let (machine, disk, agent) = Machine::copied(&site, 24 * MIB, &server.at());
    settle(&machine);
    agent.kill();
    let log = site.vault_path().join("log/ps-1");
    let shard = fs::read_dir(log).expect("a log").map(|entry| entry.expect("a log").path());
    let packs = shard.map(|shard| {
        let mut packs: Vec<_> = fs::read_dir(shard)
            .expect("packs")
            .map(|entry| entry.expect("a pack").path())
            .collect();
        packs.sort();
        packs
    });
    let packs = packs.max_by_key(Vec::len).expect("there are logs");
    assert!(packs.len() > 2, "{packs:?}");
    // A server that runs knows the blocks that were there, and would refer to them.
    let address = server.at();
    server.stop().success();
    fs::remove_file(&packs[1]).expect("it is there");
    let server = serve(&site, &address);
    let agent = start_after_reboot(&machine, 1);
    agent.wait_for_line("that it is copied", LIMIT, |line| line.contains("copied anew"));
    machine.wait_until_served();
    machine.wait_for_copy();
    assert_eq!(machine.status()["copy"]["resync"], false);
    let point = machine.bookmark("anew");
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at(&point, &[disk]);
    server.stop().success();
}
