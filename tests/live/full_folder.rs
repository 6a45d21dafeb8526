//! The file system under the agent's folder is full: who writes to the disks doesn't notice, and the
//! history goes on when there is room again.

use std::os::unix::fs::symlink;

use crate::support::devices::{FileSystem, usable};
use crate::support::images;
use crate::support::live::{self, Machine};
use crate::{MIB, serve, served};

/// What the file system itself needs to give all the rest to one file.
const LEFT_BYTES: u64 = 256 << 10;

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
