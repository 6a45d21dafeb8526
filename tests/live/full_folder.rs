//! The file system under the agent's folder is full: who writes to the disks doesn't notice, and the
//! history goes on when there is room again.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::devices::{FileSystem, usable};
use crate::support::images;
use crate::support::live::{self, Machine};
use crate::support::refusals::LIMIT;
use crate::{MIB, serve, served};

/// What the file system itself needs to give all the rest to one file.
const LEFT_BYTES: u64 = 256 << 10;

#[test]
fn notes_wait_for_room_while_a_server_takes_all_there_is() {
    if !usable("a full file system under the agent's notes") {
        return;
    }
    let (site, server) = served();
    let disk = site.disk("one", 4 * MIB);
    let machine = Machine::new(&site, "db-1", std::slice::from_ref(&disk), &[&server.at()], "");
    let small = FileSystem::ext4(160 * MIB);
    symlink(small.path(), machine.folder()).expect("a link can be made");
    let agent = live::serving(machine.agent().env("TIDEGATE_LOG", "debug"));
    machine.wait_for_copy();
    machine.wait_until_committed();
    let ballast = [small.fill(LEFT_BYTES), small.path().join("rest")];
    let mut rest = File::create(&ballast[1]).expect("a file can be made");
    // What is committed is noted: there is always something to note.
    let waits = |line: &str| line.contains("it is noted when there is room");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0.. {
                while rest.write_all(&[1; 4096]).is_ok() {}
                machine.writes(0, &[format!("write -P {} 0 4k", 1 + round % 255)]);
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        agent.wait_for_line("that it waits", LIMIT, waits);
        done.store(true, Ordering::Relaxed);
        writer.join().expect("clients write");
    });
    ballast.iter().for_each(|file| std::fs::remove_file(file).expect("it can be removed"));
    machine.wait_until("the end of a gap", |status| status["disks"][0]["mode"] == "data");
    let after = machine.bookmark("after");
    assert!(after.starts_with("1:"), "the history went on: {after}");
    machine.wait_until_committed();
    live::stop(agent);
    machine.assert_recovers_at(&after, &[disk]);
    server.stop().success();
}

#[test]
fn a_full_file_system_under_the_agent_costs_moments_and_nothing_else() {
    if !usable("a full file system under the agent") {
        return;
    }
    let (site, server) = served();
    let (disk, address) = (site.disk("one", 32 * MIB), server.at());
    let journal = "journal-size = '64MiB'";
    let machine = Machine::new(&site, "db-1", std::slice::from_ref(&disk), &[&address], journal);
    let small = FileSystem::ext4(160 * MIB);
    symlink(small.path(), machine.folder()).expect("a link can be made");
    let agent = machine.start();
    machine.wait_for_copy();
    machine.writes(0, &["write -P 1 0 64k".to_owned()]);
    let (before, kept) = (machine.bookmark("before"), site.path("kept"));
    images::copy(&disk, &kept);
    machine.wait_until_committed();

    // Nothing is committed any more, so nothing of the journal goes.
    drop(server);
    let ballast = small.fill(LEFT_BYTES);
    // What it had set aside takes some of it, and then nothing does; none of it fails.
    for round in 2..6 {
        for place in 0..8 {
            machine.writes(0, &[format!("write -P {round} {}M 2M", 2 * place)]);
        }
    }
    let status = machine.status();
    assert_eq!(status["disks"][0]["mode"], "bitmap", "{status}");
    std::fs::remove_file(ballast).expect("it can be removed");
    let server = serve(&site, &address);
    machine.wait_until("the end of the gap", |status| status["disks"][0]["mode"] == "data");
    machine.writes(0, &["write -P 9 1M 64k".to_owned()]);
    let after = machine.bookmark("after");
    assert!(after.starts_with("1:"), "the history went on: {after}");
    machine.wait_until_committed();
    let ended = live::stop(agent);
    assert!(ended.stderr.contains("file system is full"), "it says why: {ended}");
    machine.assert_recovers_at(&before, &[kept]);
    machine.assert_recovers_at(&after, &[disk]);
    server.stop().success();
}
