//! `tidegate maintain` deletes what nothing needs, while a real server runs on a real vault, or sleeps:
//! then it is waited for or closed out, and nothing is lost either way.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::live::{self, Machine};
use support::process::Server;
use support::refusals::wait_until;
use support::site::Site;

const MIB: u64 = 1 << 20;
/// Bookmarks, each in a pack of its own that keeps no bytes.
const BOOKMARKS: usize = 5;

fn serve(site: &Site, listen: &str) -> Server {
    site.server_at(listen).args(["--memory", "256MiB", "--lists-interval", "1"]).serve()
}

/// A machine with packs of which nothing is needed once they are folded; the points it has.
fn marked(machine: &Machine) -> Vec<String> {
    machine.wait_for_copy();
    let mark = |number| {
        let point = machine.bookmark(&format!("mark {number}"));
        machine.wait_until_committed();
        point
    };
    (0..BOOKMARKS).map(mark).collect()
}

fn maintain(site: &Site, options: &[&str]) -> Value {
    let maintained = site.call(&[&["maintain"][..], options].concat()).json();
    for line in maintained["machines"].as_array().expect("a list") {
        assert_eq!(line["error"], Value::Null, "{line}");
    }
    maintained["garbage"].clone()
}

fn count(garbage: &Value, field: &str) -> u64 {
    garbage[field].as_u64().expect("a number")
}

fn assert_whole(site: &Site, machine: &Machine, points: &[String]) {
    for point in points {
        machine.assert_recovers_at(point, &machine.disks);
    }
    site.verify();
}

#[test]
fn what_nothing_needs_goes_while_a_server_runs_and_every_point_comes_back() {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let server = serve(&site, "127.0.0.1:0");
    let disks = [site.disk("db", 3 * MIB)];
    let machine = Machine::new(&site, "db-1", &disks, &[&server.at()], "");
    let agent = machine.start();
    let points = marked(&machine);
    site.call(&["maintain", "--keep-garbage"]);
    let would = site.call(&["maintain", "--dry-run"]).json()["garbage"].clone();
    let would = would["would"].as_array().expect("a list").len();
    assert!(would + 1 >= BOOKMARKS, "{would} packs");
    let condemned = maintain(&site, &[]);
    assert!(count(&condemned, "packs_condemned") >= would as u64, "{condemned}");
    let mut removed = count(&condemned, "packs_removed");
    // Idle logs state what they have read as well: nobody is closed out.
    wait_until("every log has read the list", || {
        let garbage = maintain(&site, &[]);
        assert_eq!(garbage["closed"], Value::Array(Vec::new()), "{garbage}");
        removed += count(&garbage, "packs_removed");
        removed >= would as u64
    });
    assert_whole(&site, &machine, &points);
    // And everything goes on.
    let last = machine.bookmark("after");
    machine.wait_until_committed();
    live::stop(agent);
    server.stop().success();
    assert_whole(&site, &machine, &[points, vec![last]].concat());
}

#[test]
fn a_server_that_slept_through_a_list_is_waited_for_or_closed_out() {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let server = serve(&site, "127.0.0.1:0");
    let (at, disks) = (server.at(), [site.disk("db", 3 * MIB)]);
    let machine = Machine::new(&site, "db-1", &disks, &[&at], "");
    let agent = machine.start();
    let mut points = marked(&machine);
    server.freeze();
    for _ in 0..3 {
        let garbage = maintain(&site, &[]);
        assert_eq!(count(&garbage, "packs_removed"), 0, "{garbage}");
        assert!(!garbage["waits_for"].as_array().expect("a list").is_empty(), "{garbage}");
    }
    let garbage = maintain(&site, &["--patience", "0"]);
    assert!(!garbage["closed"].as_array().expect("a list").is_empty(), "{garbage}");
    assert!(count(&garbage, "packs_removed") + 1 >= BOOKMARKS as u64, "{garbage}");
    // It wakes, and can't store anything any more: also what it owes to say of the list.
    server.thaw();
    let ended = server.wait(Duration::from_secs(60)).failure();
    ended.says(&["a tombstone stands in its place", "Nothing that was acknowledged is lost"]);
    let server = serve(&site, &at);
    points.push(machine.bookmark("after"));
    machine.wait_until_committed();
    live::stop(agent);
    server.stop().success();
    assert_whole(&site, &machine, &points);
}
