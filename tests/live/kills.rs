//! Agents and servers that are killed at any moment: what was answered is there, and the history goes on.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::Signal;

use crate::support::live::{self, Machine};
use crate::support::random::{self, Rng};
use crate::support::refusals::{LIMIT, wait_until};
use crate::{MIB, SMALL_JOURNAL, serve, served};

/// A write of 4 KiB: where, and of which byte.
type Write = (u64, u8);

/// Writes until the agent is gone, and counts what is answered. Gives that, and what wasn't any more.
fn write_until_killed(
    machine: &Machine,
    bytes: u64,
    seed: u64,
    count: &AtomicU64,
) -> (Vec<Write>, Write) {
    let (mut rng, mut answered) = (Rng::new(seed), Vec::new());
    loop {
        let place = 4096 * rng.below(bytes / 4096);
        let byte = u8::try_from(1 + rng.below(255)).expect("it is a byte");
        let output = machine.qemu_io(0, &[format!("write -P {byte} {place} 4096")]);
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !said.contains("wrote 4096/4096") {
            return (answered, (place, byte));
        }
        answered.push((place, byte));
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What was answered stands on the disk, unless something came over it.
#[track_caller]
fn assert_written(disk: &Path, answered: &[Write], unanswered: Write) {
    let disk = std::fs::read(disk).expect("the disk can be read");
    let last: BTreeMap<u64, u8> = answered.iter().copied().collect();
    for (place, byte) in last {
        let start = usize::try_from(place).expect("it fits memory");
        let there = &disk[start..start + 4096];
        let expected = |byte: u8| there.iter().all(|there| *there == byte);
        let over = unanswered.0 == place && expected(unanswered.1);
        assert!(expected(byte) || over, "{place} doesn't hold {byte}");
    }
}

#[test]
fn kills_of_agent_and_server_lose_nothing_that_was_answered() {
    let (site, server) = served();
    let (bytes, address) = (24 * MIB, server.at());
    let disks = [site.disk("one", bytes), site.disk("two", 3 * MIB)];
    let machine = Machine::new(&site, "db-1", &disks, &[&address], SMALL_JOURNAL);
    let mut rng = Rng::new(random::seed());
    let mut server = Some(server);
    for round in 0..8_u64 {
        let (moment, seed) = (1 + rng.below(12), rng.next());
        // Every second time exactly between applying a write and recording it.
        let agent = match round % 2 {
            0 => machine.agent(),
            _ => machine.agent().env("TIDEGATE_TEST_KILL_UNRECORDED", moment.to_string()),
        };
        let agent = live::serving(agent);
        if round % 3 == 2 {
            drop(server.take());
        }
        let count = AtomicU64::new(0);
        let (answered, unanswered) = std::thread::scope(|scope| {
            let writing = scope.spawn(|| write_until_killed(&machine, bytes, seed, &count));
            if round % 2 == 0 {
                while count.load(Ordering::Relaxed) < moment && !writing.is_finished() {
                    std::thread::yield_now();
                }
                agent.signal(Signal::KILL);
            }
            writing.join().expect("clients write")
        });
        let ended = agent.kill();
        assert_eq!(ended.status.signal(), Some(9), "{ended}");
        server.get_or_insert_with(|| serve(&site, &address));
        assert_written(&disks[0], &answered, unanswered);
        eprintln!("round {round}: {} writes were answered", answered.len());
    }
    let agent = machine.start();
    machine.wait_for_copy();
    let point = machine.bookmark("end");
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at(&point, &disks);
    assert!(point.starts_with("1:"), "the history went on through all kills: {point}");
    site.verify();
}

#[test]
fn a_freeze_that_outlives_a_killed_agent_is_ended_by_the_next() {
    let (site, server) = served();
    let disk = site.disk("one", 2 * MIB);
    let machine = Machine::new(&site, "db-1", &[disk], &[&server.at()], "");
    let (told, thawed) = (site.path("told"), site.path("thawed"));
    // It leaves the agent's output alone, whose end is waited for.
    let script = format!("exec >> {} 2>&1; echo $$; sleep 1000", told.display());
    let freeze = format!("['sh', '-c', '{script}']");
    let thaw = format!("['touch', '{}']", thawed.display());
    machine.configure_also(&format!("[hooks]\nfreeze = {freeze}\nthaw = {thaw}\ntimeout = 600"));
    let agent = machine.start();
    machine.wait_for_copy();
    let asking = machine.bookmark_call("never").args(["--application"]).start();
    let said = || std::fs::read_to_string(&told).unwrap_or_default();
    wait_until("the freeze", || said().ends_with('\n'));
    agent.kill();
    let stat = Path::new("/proc").join(said().trim()).join("stat");
    // One that nobody has asked for its status yet is gone, too.
    let freezes = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z"));
    assert!(freezes(), "it went with the agent");
    let agent = machine.start();
    assert!(thawed.exists() && !freezes());
    asking.wait(LIMIT).failure();
    live::stop(agent);
    server.stop().success();
}

#[test]
fn a_copy_that_was_killed_goes_on_where_it_was() {
    let (site, server) = served();
    let disk = site.disk("one", 64 * MIB);
    let machine =
        Machine::new(&site, "db-1", std::slice::from_ref(&disk), &[&server.at()], SMALL_JOURNAL);
    let agent = machine.start();
    let mut copied = 0;
    machine.wait_until("that some is copied", |status| {
        copied = status["copy"]["bytes_copied"].as_u64().expect("it is a number");
        assert!(status["copy"]["end"].is_null(), "it ended before it could be killed: {status}");
        copied > 0
    });
    agent.kill();
    let agent = machine.start();
    let status = machine.status();
    assert!(status["copy"]["bytes_copied"].as_u64() >= Some(copied), "{status}");
    machine.wait_for_copy();
    let point = machine.bookmark("end");
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at(&point, &[disk]);
    server.stop().success();
}
