//! Which moments of a machine can be brought back: every LSN and time behind the copy's end, but for those
//! in a gap, which is told with its cause.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::compare::assert_same;
use crate::support::devices::{self, Loop};
use crate::support::live::{self, Machine};
use crate::support::site::shown;
use crate::support::{images, tool};
use crate::{MIB, served};

/// Now, as `--at` takes it.
pub fn now() -> String {
    tool(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"])).trim().to_owned()
}

/// The gaps that are told of a machine.
pub fn stretches(machine: &Machine) -> Vec<Value> {
    let listed = machine.site.call(&["points", &machine.name]).json();
    listed["stretches"].as_array().expect("they are a list").clone()
}

/// Recovers disk 0 to a moment; gives what was said, and the file.
#[track_caller]
pub fn recover(machine: &Machine, at: &str) -> (String, PathBuf) {
    let to = machine.site.path("a moment");
    let _ = std::fs::remove_file(&to);
    let args = ["recover", &machine.name, "--disk", "0", "--at", at, "--to", shown(&to)];
    let output = machine.site.call(&args);
    (output.stderr, to)
}

/// Fails unless a gap is told as it is: its LSNs are refused, and a time in it gives what was before.
#[track_caller]
pub fn assert_is_gap(machine: &Machine, told: &Value, why: &str, within: &str) {
    let number = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("{name} of {told}"));
    let (epoch, first, end) = (number("epoch"), number("first"), number("end"));
    assert!(first + 1 < end, "something was read again: {told}");
    let (before, behind) = (format!("{epoch}:{}", first - 1), format!("{epoch}:{end}"));
    for lsn in [first, first + 1, end - 1] {
        let at = format!("{epoch}:{lsn}");
        let to = machine.site.path("refused");
        let args = ["recover", &machine.name, "--at", &at, "--to", shown(&to)];
        let refused = machine.site.command(&args).run().failure();
        refused.says(&["no moments of its disks", why, &before, &behind]);
    }
    let (said, last) = recover(machine, within);
    assert!(said.contains("lies in a gap") && said.contains(why), "{said}");
    let kept = machine.site.path("the last before the gap");
    std::fs::rename(last, &kept).expect("it was recovered");
    assert_same(&kept, &recover(machine, &before).1);
}

#[test]
fn moments_around_a_kill_are_exact_by_lsn_and_time_and_none_in_between_is_given() {
    let (site, server) = served();
    let disk = site.disk("one", 2 * MIB);
    let machine = Machine::new(&site, "db-1", std::slice::from_ref(&disk), &[&server.at()], "");
    // The last of eight changes is applied, and never recorded.
    let agent = live::serving(machine.agent().env("TIDEGATE_TEST_KILL_UNRECORDED", "8"));
    machine.wait_for_copy();
    let mut kept: Vec<(u64, String, PathBuf)> = Vec::new();
    for round in 0..7_u64 {
        let (byte, place) = (round + 1, 12_288 * (round % 3));
        machine.writes(0, &[format!("write -P {byte} {place} 16384")]);
        let lsn = machine.status()["captured"].as_u64().expect("it is a number");
        let image = site.path(&format!("kept-{round}"));
        images::copy(&disk, &image);
        kept.push((lsn, now(), image));
    }
    machine.wait_until_committed();
    machine.qemu_io(0, &["write -P 99 0 16384".to_owned()]);
    agent.kill();
    let within = now();
    let agent = machine.start();
    machine.wait_until("a bookmark behind it", |status| !status["bookmark"].is_null());
    machine.wait_until_committed();
    live::stop(agent);

    let told = stretches(&machine);
    let [gap] = &told[..] else { panic!("{told:?}") };
    assert_eq!(gap["cause"], "gap-killed", "{gap}");
    assert_is_gap(&machine, gap, "the agent was killed", &within);
    for (lsn, time, image) in &kept {
        assert_same(image, &recover(&machine, &format!("1:{lsn}")).1);
        let (said, file) = recover(&machine, time);
        assert_same(image, &file);
        // When it was killed isn't known: perhaps right after the last of them.
        let may_be_within =
            (lsn, time) == kept.last().map(|(lsn, time, _)| (lsn, time)).expect("some");
        assert!(!said.contains("UNCLEAN"), "{said}");
        assert_eq!(said.contains("lies in a gap"), may_be_within, "{said}");
    }
    let (before, end) = (gap["first"].as_u64().expect("a number") - 1, &gap["end"]);
    let (_, _, last) = kept.last().expect("there are some");
    assert_same(last, &recover(&machine, &format!("1:{before}")).1);
    assert_same(&disk, &recover(&machine, &format!("1:{end}")).1);
    server.stop().success();
    site.verify();
}

#[test]
fn a_kill_while_nothing_is_written_leaves_no_gap() {
    let (site, server) = served();
    let (machine, disk, agent) = Machine::copied(&site, 2 * MIB, &server.at());
    machine.writes(0, &["write -P 5 0 64k".to_owned()]);
    machine.wait_until_committed();
    // What is durable is taken out of them when the keeper looks.
    crate::wait_until("empty marks", || {
        let marks = std::fs::read(machine.folder().join("disk-0.marks")).expect("they are there");
        let mut slots = marks[4096..4096 + 32 * 8192].chunks_exact(32);
        slots.all(|slot| slot[16..24] == [0; 8])
    });
    agent.kill();
    let agent = machine.start();
    let point = machine.bookmark("end");
    machine.wait_until_committed();
    live::stop(agent);
    assert!(point.starts_with("1:"), "{point}");
    assert_eq!(stretches(&machine), Vec::<Value>::new());
    machine.assert_recovers_at(&point, &[disk]);
    server.stop().success();
}

/// The epoch of the bookmark that an agent places once its copy has ended.
fn epoch_now(machine: &Machine) -> String {
    let agent = machine.start();
    machine.wait_for_copy();
    let point = machine.bookmark("now");
    machine.wait_until_committed();
    live::stop(agent);
    let (epoch, _) = point.split_once(':').expect("a point has two parts");
    epoch.to_owned()
}

fn write_past(device: &Path) {
    images::patch(device, 8192, b"past the agent");
}

#[test]
fn what_is_written_to_a_device_while_no_agent_runs_is_noticed() {
    if !devices::usable("what_is_written_to_a_device_while_no_agent_runs_is_noticed") {
        return;
    }
    let (site, server) = served();
    let file = site.disk("one", 2 * MIB);
    let device = Loop::attach(&file);
    let disks = [device.device().to_owned()];
    let machine = Machine::new(&site, "db-1", &disks, &[&server.at()], "");
    let agent = machine.start();
    machine.wait_for_copy();
    machine.writes(0, &["write -P 5 0 64k".to_owned()]);
    live::stop(agent);
    assert_eq!(epoch_now(&machine), "1", "nobody else wrote");
    write_past(device.device());
    assert_eq!(epoch_now(&machine), "2");
    machine.assert_recovers_at("latest", &disks);
    server.stop().success();
}
