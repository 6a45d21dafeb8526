//! Disks that others write to, captured in passes by a live agent: only what changed travels, the end of
//! a pass comes back as it was, and one that mixes moments is never called clean.

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::images;
use support::live::{self, Machine};
use support::process::{Running, Server};
use support::site::{Site, shown};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 64 << 10;

/// A site with a server.
fn served() -> (Site, Server) {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let server = site.server_at("127.0.0.1:0").args(["--memory", "256MiB"]).serve();
    (site, server)
}

/// Waits for the pass with this number; gives what came of it.
#[track_caller]
fn wait_for_pass(machine: &Machine, number: u64) -> Value {
    let mut last = Value::Null;
    machine.wait_until("the end of a pass", |status| {
        last = status["passes"]["last"].clone();
        last["number"].as_u64() >= Some(number)
    });
    last
}

/// The point at the end of a pass.
#[track_caller]
fn point(machine: &Machine, pass: &Value) -> String {
    machine.wait_until("an epoch", |status| status["epoch"] != 0);
    format!("{}:{}", machine.status()["epoch"], pass["marked"]["lsn"])
}

/// How `points` shows a point.
#[track_caller]
fn shown_point(site: &Site, point: &str) -> Value {
    let listed = site.call(&["points", "db-1"]).json();
    let points = listed["points"].as_array().expect("points are a list");
    let there = points.iter().find(|listed| listed["point"] == point);
    there.unwrap_or_else(|| panic!("no {point} in {listed}")).clone()
}

/// `agent pass`, waited for.
#[track_caller]
fn pass(machine: &Machine, name: &str) -> Value {
    machine.pass_call(name).run().success().json()
}

fn start(machine: &Machine) -> Running {
    machine.start()
}

#[test]
fn a_scanned_disk_comes_back_as_it_was_at_each_pass_and_only_changes_travel() {
    let (site, server) = served();
    let disks = [site.disk("one", 16 * MIB), site.disk("two", 3 * MIB + 512)];
    images::patch(&disks[0], 4 * MIB, &vec![0; 4 << 20]);
    let machine = Machine::scanned(&site, "db-1", &disks, &[&server.at()], "");
    let agent = start(&machine);
    let first = wait_for_pass(&machine, 1);
    assert_eq!((&first["clean"], &first["failed"]), (&true.into(), &Value::Null), "{first}");
    assert_eq!(first["changed_bytes"], 19 * MIB + 512);
    assert_eq!(first["data_bytes"], 15 * MIB + 512);
    assert_eq!(first["marked"]["kind"], "copy-end");
    machine.wait_until_committed();
    let mut points = Vec::new();
    for round in 0..3_u8 {
        let before = machine.status()["captured"].as_u64().expect("a number");
        images::patch(&disks[0], u64::from(round) * MIB + 700, b"a few bytes");
        images::patch(&disks[1], 3 * MIB - 100, &[round + 1; 300]);
        let done = pass(&machine, &format!("round {round}"));
        // One block of the one, and the last two of the other.
        assert_eq!(done["changed_bytes"], 2 * BLOCK + 512, "{done}");
        let after = machine.status()["captured"].as_u64().expect("a number");
        assert_eq!(after - before, 5, "a gap, three records, and the bookmark that ends it");
        let kept = [site.path(&format!("kept-{round}-0")), site.path(&format!("kept-{round}-1"))];
        disks.iter().zip(&kept).for_each(|(disk, kept)| images::copy(disk, kept));
        points.push((point(&machine, &done), kept));
    }
    // What becomes zeros does so without data.
    images::patch(&disks[0], 8 * MIB, &vec![0; 2 << 20]);
    let done = pass(&machine, "");
    assert_eq!((&done["changed_bytes"], &done["data_bytes"]), (&(2 * MIB).into(), &0.into()));
    machine.wait_until_committed();
    machine.bookmark_call("now").run().failure().says(&["captured in passes", "agent pass"]);
    live::stop(agent);
    for (number, (point, kept)) in points.iter().enumerate() {
        machine.assert_recovers_at(point, kept);
        let shown = shown_point(&site, point);
        assert_eq!(shown["name"], format!("round {number}"));
        assert_eq!((&shown["clean"], &shown["kind"]), (&true.into(), &"crash-consistent".into()));
    }
    machine.assert_recovers_at("latest", &disks);
    no_point_between(&machine, done["marked"]["lsn"].as_u64().expect("a number") - 1);
    server.stop().success();
    site.verify();
}

/// Fails unless this LSN within a pass is refused.
#[track_caller]
fn no_point_between(machine: &Machine, lsn: u64) {
    let site = machine.site;
    let listed = site.call(&["points", "db-1"]).json();
    assert_eq!(listed["gaps"], serde_json::json!([]), "nothing is wrong");
    let (at, to) = (format!("1:{lsn}"), site.path("between"));
    let refused = site.command(&["recover", "db-1", "--at", &at, "--to", shown(&to)]).run();
    refused.failure().says(&["captured in passes, of which the ends are"]);
}

#[test]
fn an_agent_that_is_killed_within_a_pass_captures_the_rest_in_the_next() {
    let (site, server) = served();
    let disk = site.disk("one", 64 * MIB);
    // What is captured waits for room, so that there is something to be killed in.
    let machine = Machine::scanned(
        &site,
        "db-1",
        std::slice::from_ref(&disk),
        &["127.0.0.1:9", &server.at()],
        "journal-size = '8MiB'",
    );
    for _ in 0..3 {
        let agent = start(&machine);
        machine.wait_until("that some of it is looked at", |status| {
            status["disks"][0]["looked"].as_u64() > Some(4 * MIB)
        });
        agent.kill();
        // It holds again what it held, or something else.
        images::patch(&disk, 2 * MIB, b"something else");
        images::patch(&disk, 9 * MIB, &vec![7; 1 << 20]);
    }
    let agent = start(&machine);
    let done = wait_for_pass(&machine, 1);
    let changed = done["changed_bytes"].as_u64().expect("a number");
    assert!(changed < 62 * MIB, "what was captured before is captured again: {done}");
    machine.wait_until_committed();
    let done = pass(&machine, "");
    assert_eq!(done["changed_bytes"], 0);
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at("latest", &[&disk]);
    // Its hashes are lost: everything is captured again, and nothing missed.
    std::fs::remove_file(machine.folder().join("disk-0.hashes")).expect("they are there");
    images::patch(&disk, 30 * MIB, b"meanwhile");
    let agent = start(&machine);
    let done = pass(&machine, "");
    assert_eq!(done["changed_bytes"], 64 * MIB);
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at("latest", &[&disk]);
}

/// The configuration of programs around passes: a copy of the disk is its snapshot.
fn around(disk: &Path, snapshot: &Path, told: &Path, more: &str) -> String {
    let (disk, snapshot, told) = (shown(disk), shown(snapshot), shown(told));
    format!(
        "[passes]\nbefore = ['sh', '-c', 'cp {disk} {snapshot}; echo before >> {told}']\n\
         after = ['sh', '-c', 'rm -f {snapshot}; echo $TIDEGATE_PASS >> {told}']\n{more}"
    )
}

fn said(told: &Path) -> String {
    std::fs::read_to_string(told).expect("programs ran")
}

#[test]
fn a_snapshot_that_a_program_makes_is_read_and_its_applications_are_frozen_only_meanwhile() {
    let (site, server) = served();
    let disk = site.disk("one", 4 * MIB);
    let (snapshot, told) = (site.path("snapshot"), site.path("told"));
    let machine = Machine::scanned(&site, "db-1", std::slice::from_ref(&disk), &[&server.at()], "");
    machine.configure_also(&format!("snapshot = '{}'", shown(&snapshot)));
    machine.configure_also(&around(&disk, &snapshot, &told, "application = true"));
    let hook = |what: &str| format!("['sh', '-c', 'echo {what} >> {}']", shown(&told));
    machine.configure_also(&format!(
        "[hooks]\nfreeze = {}\nthaw = {}",
        hook("freeze"),
        hook("thaw")
    ));
    let agent = start(&machine);
    wait_for_pass(&machine, 1);
    images::patch(&disk, 100, b"changed");
    let done = pass(&machine, "second");
    assert_eq!((&done["clean"], &done["changed_bytes"]), (&true.into(), &BLOCK.into()), "{done}");
    assert_eq!(done["marked"]["kind"], "application-consistent");
    assert_eq!(said(&told), "freeze\nbefore\nthaw\ncaptured\n".repeat(2));
    assert!(!snapshot.exists() && !machine.folder().join("passing").exists());
    // The disk itself may be written to while its snapshot is read.
    let point = point(&machine, &done);
    machine.wait_until_committed();
    let kept = site.path("kept");
    images::copy(&disk, &kept);
    // A program that fails: no pass, and what it made is cleared up.
    std::fs::rename(&disk, site.path("away")).expect("it is there");
    std::fs::create_dir(&snapshot).expect("nothing is there");
    machine.pass_call("").run().failure().says(&["the pass came to nothing"]);
    assert!(said(&told).ends_with("failed\n"), "{}", said(&told));
    agent.kill();
    machine.assert_recovers_at(&point, &[kept]);
}

#[test]
fn what_an_agent_that_was_killed_within_a_pass_began_is_cleared_up_by_the_next() {
    let (site, server) = served();
    let disk = site.disk("one", 4 * MIB);
    let (snapshot, told, hang) = (site.path("snapshot"), site.path("told"), site.path("hang"));
    let machine = Machine::scanned(&site, "db-1", std::slice::from_ref(&disk), &[&server.at()], "");
    machine.configure_also(&format!("snapshot = '{}'", shown(&snapshot)));
    std::fs::write(&hang, "").expect("it can be made");
    let script = format!(
        "cp {} {}; echo before >> {}; test -e {} && exec sleep 1000 >/dev/null 2>&1; true",
        shown(&disk),
        shown(&snapshot),
        shown(&told),
        shown(&hang)
    );
    machine.configure_also(&format!(
        "[passes]\nbefore = ['sh', '-c', '{script}']\nafter = ['sh', '-c', 'rm -f {}; echo $TIDEGATE_PASS >> {}']",
        shown(&snapshot), shown(&told)
    ));
    let agent = start(&machine);
    support::refusals::wait_until("the program", || told.exists());
    agent.kill();
    std::fs::remove_file(&hang).expect("it is there");
    let agent = start(&machine);
    wait_for_pass(&machine, 1);
    assert_eq!(said(&told), "before\nfailed\nbefore\ncaptured\n");
    live::stop(agent);
}

#[test]
fn a_pass_over_a_disk_that_is_written_to_is_fuzzy_and_its_end_is_never_chosen() {
    let (site, server) = served();
    let disk = site.disk("one", 4 * MIB);
    let machine = Machine::scanned(&site, "db-1", std::slice::from_ref(&disk), &[&server.at()], "");
    // No snapshot is made: it is written to within the pass.
    let script = format!(
        "test -e {} || exit 0; printf x >> {}; truncate -s 4M {}",
        shown(&site.path("write")),
        shown(&disk),
        shown(&disk)
    );
    machine.configure_also(&format!("[passes]\nbefore = ['sh', '-c', '{script}']"));
    let agent = start(&machine);
    let first = wait_for_pass(&machine, 1);
    assert_eq!(first["clean"], true, "{first}");
    std::fs::write(site.path("write"), "").expect("it can be made");
    images::patch(&disk, MIB, b"later");
    let done = pass(&machine, "fuzzy");
    assert_eq!(done["clean"], false, "{done}");
    assert!(done["fuzzy"].to_string().contains("was written to while it was read"), "{done}");
    assert_eq!(done["changed_bytes"], BLOCK, "it is captured all the same: {done}");
    let fuzzy = point(&machine, &done);
    machine.wait_until_committed();
    live::stop(agent);
    assert_eq!(shown_point(&site, &fuzzy)["clean"], false);
    let to = site.path("latest");
    let told = site.call(&["recover", "db-1", "--disk", "0", "--to", shown(&to)]).json();
    assert_ne!(told["point"], fuzzy.as_str(), "{told}");
}

#[test]
fn in_a_machine_that_mixes_sources_a_pass_is_clean_where_nothing_moved() {
    let (site, server) = served();
    let (tapped, scanned) = (site.disk("one", 4 * MIB), site.disk("two", 4 * MIB));
    let snapshot = site.path("snapshot");
    let machine = Machine::new(&site, "db-1", std::slice::from_ref(&tapped), &[&server.at()], "");
    machine.configure_also(&format!(
        "[[disk]]\nnumber = 1\npath = '{}'\nsource = 'scan'\nsnapshot = '{}'",
        shown(&scanned),
        shown(&snapshot)
    ));
    // It is written to through the tap after the snapshot was made.
    let script = format!(
        "cp {} {}; test -e {} && qemu-io -f raw -c \"write -P 5 0 4k\" \"{}\" || true",
        shown(&scanned),
        shown(&snapshot),
        shown(&site.path("write")),
        machine.uri(0)
    );
    machine.configure_also(&format!("[passes]\nbefore = [\"sh\", \"-c\", '''{script}''']"));
    let agent = start(&machine);
    let first = wait_for_pass(&machine, 1);
    assert_eq!(first["clean"], true, "{first}");
    machine.writes(0, &["write -P 3 64k 64k".to_owned()]);
    images::patch(&scanned, MIB, b"later");
    let done = pass(&machine, "still");
    assert_eq!((&done["clean"], &done["changed_bytes"]), (&true.into(), &BLOCK.into()), "{done}");
    let still = point(&machine, &done);
    let kept = [site.path("kept-0"), site.path("kept-1")];
    images::copy(&tapped, &kept[0]);
    images::copy(&scanned, &kept[1]);
    std::fs::write(site.path("write"), "").expect("it can be made");
    let done = pass(&machine, "moved");
    assert_eq!(done["clean"], false, "{done}");
    assert!(done["fuzzy"].to_string().contains("disk 0 was written to while"), "{done}");
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at(&still, &kept);
}

#[test]
fn a_disk_on_a_tap_is_served_until_the_programs_of_a_pass_have_ended() {
    let (site, server) = served();
    let (tapped, scanned) = (site.disk("one", 2 * MIB), site.disk("two", 2 * MIB));
    let machine = Machine::new(&site, "db-1", std::slice::from_ref(&tapped), &[&server.at()], "");
    let scan = format!("[[disk]]\nnumber = 1\npath = '{}'\nsource = 'scan'", shown(&scanned));
    machine.configure_also(&scan);
    let [hold, held] = ["hold", "held"].map(|name| site.path(name));
    let script =
        format!("touch {}; while test -e {}; do sleep 0.05; done", shown(&held), shown(&hold));
    machine.configure_also(&format!("[passes]\nbefore = ['sh', '-c', '{script}']"));
    let agent = start(&machine);
    wait_for_pass(&machine, 1);
    machine.wait_until_committed();
    std::fs::write(&hold, "").expect("it can be made");
    std::fs::remove_file(&held).expect("it is there");
    let passing = machine.pass_call("held");
    std::thread::scope(|scope| {
        let passing = scope.spawn(|| passing.run());
        support::refusals::wait_until("the program", || held.exists());
        machine.call("resync").run().success();
        // A new incarnation follows, and there is nothing by which to see that it doesn't begin.
        for place in 0..20 {
            machine.writes(0, &[format!("write -P 5 {place}k 1k")]);
        }
        std::fs::remove_file(&hold).expect("it is there");
        passing.join().expect("it is answered, or not");
    });
    machine.wait_until_served();
    machine.wait_until("its epoch", |status| status["epoch"] == 2);
    machine.wait_for_copy();
    machine.wait_until_committed();
    live::stop(agent);
    server.stop().success();
}

#[test]
fn passes_are_made_by_their_interval_and_at_each_start() {
    let (site, server) = served();
    let disk = site.disk("one", MIB);
    let machine = Machine::scanned(&site, "db-1", std::slice::from_ref(&disk), &[&server.at()], "");
    machine.configure_also("[passes]\nevery = 1");
    let agent = start(&machine);
    wait_for_pass(&machine, 3);
    live::stop(agent);
    images::patch(&disk, 0, b"while it was away");
    let agent = start(&machine);
    assert_eq!(wait_for_pass(&machine, 1)["changed_bytes"], BLOCK);
    let text = machine.text_status();
    assert!(text.contains("scan, in passes") && text.contains("passes every 1 s"), "{text}");
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at("latest", &[disk]);
}

#[test]
fn a_device_is_read_past_what_was_cached_of_it() {
    if !support::devices::usable("a_device_is_read_past_what_was_cached_of_it") {
        return;
    }
    let (site, server) = served();
    let disk = site.path("one.img");
    support::tool(Command::new("truncate").args(["-s", "32M"]).arg(&disk));
    support::tool(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk));
    let device = support::devices::Loop::attach(&disk);
    let at = site.path("mounted");
    std::fs::create_dir(&at).expect("a folder can be made");
    let paths = [device.device().to_owned()];
    let machine = Machine::scanned(&site, "db-1", &paths, &[&server.at()], "");
    machine.configure_also(&format!(
        "[passes]\napplication = true\n[hooks]\nfile-systems = ['{}']",
        shown(&at)
    ));
    let mounted = support::devices::Mount::new(device.device(), &at, "rw");
    let agent = start(&machine);
    let first = wait_for_pass(&machine, 1);
    // It is mounted and frozen: nothing is written meanwhile.
    assert_eq!(first["clean"], true, "{first}");
    // What a file system writes to a file doesn't go through the device's own pages.
    let file = mounted.path().join("file");
    std::fs::write(&file, vec![3; 1 << 20]).expect("it can be written");
    let done = pass(&machine, "");
    assert!(done["changed_bytes"].as_u64() >= Some(MIB), "{done}");
    std::fs::write(&file, vec![4; 1 << 20]).expect("it can be written");
    let done = pass(&machine, "");
    assert_eq!(done["clean"], true, "{done}");
    machine.wait_until_committed();
    live::stop(agent);
    drop(mounted);
    let to = site.path("recovered");
    site.call(&["recover", "db-1", "--disk", "0", "--at", "latest", "--to", shown(&to)]);
    support::tool(Command::new("e2fsck").args(["-f", "-p"]).arg(&to));
    let back = support::devices::Loop::attach(&to);
    let mounted = support::devices::Mount::new(back.device(), &at, "ro");
    let read = std::fs::read(mounted.path().join("file")).expect("it is there");
    assert!(read == vec![4; 1 << 20], "the file came back as it was");
    drop(mounted);
    server.stop().success();
}
