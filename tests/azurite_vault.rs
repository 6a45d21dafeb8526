//! A vault in an Azure-compatible store: everything that one does with it, and a store that is
//! silent for a while, gone for good, or contradicts itself. The store is Azurite, started by each test with an empty
//! container.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use support::agent_log::{committed, events, telling, wait_until};
use support::azurite::Azurite;
use support::process::Running;
use support::site::Site;
use support::store_proxy::{Packs, StoreProxy};
use support::{images, random};
use tidegate_vault::store::{Access, Store, conformance};

const MIB: u64 = 1 << 20;
/// Azurite is one thread and keeps everything in memory: enough for a good number of packs.
const DISK_BYTES: u64 = 192 * MIB;
/// Little memory makes small packs, so that a copy is many puts.
const MEMORY: &str = "320MiB";
/// A copy with its interruptions: a limit against hanging.
const LIMIT: Duration = Duration::from_secs(240);
/// How long the store says nothing in the middle of a copy.
const SILENCE: Duration = Duration::from_secs(5);

/// A disk of random bytes: all of it must be put.
fn random_disk(site: &Site) -> PathBuf {
    let disk = site.path("disk");
    images::random(&disk, DISK_BYTES, random::seed());
    disk
}

/// Waits until a part of the copy is committed, and some isn't.
#[track_caller]
fn wait_for_the_middle(copying: &Running) {
    let begun = wait_until(copying, "a commit", |events| committed(events) > 1);
    assert!(begun && !copying.ended(), "too late:\n{}", copying.printed());
}

#[test]
fn a_machine_goes_into_an_empty_container_and_comes_back_and_its_copy_costs_nothing() {
    let store = Azurite::start("empty");
    let site = Site::in_azurite(&store, "branch/site-1");
    let disk = images::host_ext4(256 * MIB);
    let first = site.replicate("first", &[&disk]).run().success();
    assert!(first.json()["made"]["recovery_key"].is_string(), "the vault was made: {first}");
    site.assert_recovers("first", 0, &disk);

    let copy = site.replicate("copy", &[&disk]).run().success();
    let (one, two) = (first.number("bytes_stored"), copy.number("bytes_stored"));
    assert!(two * 100 < one, "the copy costs {two} bytes, the first cost {one}");
    site.assert_recovers("copy", 0, &disk);

    let machines = site.call(&["machines"]).json();
    let machines = machines.as_array().expect("a list");
    let names: Vec<_> = machines.iter().map(|line| line["machine"].as_str()).collect();
    assert_eq!(names, [Some("copy"), Some("first")]);
    for line in machines {
        assert_eq!(line["bytes_disks"], Value::from(256 * MIB), "{line}");
        assert_eq!(line["points"], Value::from(1), "{line}");
    }
    let points = site.call(&["points", "first"]).json();
    let (epoch, lsn) = (first.number("epoch"), first.number("lsn"));
    assert_eq!(points["points"][0]["point"], Value::from(format!("{epoch}:{lsn}")), "{points}");
    let report = site.verify();
    assert_eq!(report["strays"], Value::Array(Vec::new()), "{report}");
}

#[test]
fn a_server_and_an_agent_outlast_a_store_that_is_silent_in_the_middle_of_a_copy() {
    let store = Azurite::start("silent");
    let site = Site::in_azurite(&store, "site");
    site.init();
    let disk = random_disk(&site);
    let server = site.serve_with(&["--memory", MEMORY]);
    site.enroll("db-1", "machine");
    let agent = telling(site.agent(&server.at(), "db-1", &[&disk])).start();
    wait_for_the_middle(&agent);
    let before = committed(&events(&agent));
    store.freeze();
    std::thread::sleep(SILENCE);
    let during = committed(&events(&agent));
    store.thaw();
    let copied = agent.wait(LIMIT).success();
    server.stop().success();

    let last = copied.number("lsn");
    assert!(
        before <= during && during < last,
        "{before}, {during}, {last}: it wasn't in the middle"
    );
    assert_eq!(copied.number("reconnects"), 0, "a slow store is no reason to part: {copied}");
    site.assert_recovers("db-1", 0, &disk);
    site.verify();
}

#[test]
fn a_store_that_is_gone_for_good_ends_a_replication_with_words_that_help() {
    let store = Azurite::start("gone");
    let site = Site::in_azurite(&store, "site");
    let disk = random_disk(&site);
    let patience = ["--memory", MEMORY, "--store-patience", "2"];
    let copying = telling(site.replicate("lost", &[&disk]).args(patience)).start();
    wait_for_the_middle(&copying);
    drop(store);
    let ended = copying.wait(LIMIT).failure();
    assert_eq!(ended.status.code(), Some(75), "trying again may help: {ended}");
    ended.says(&[
        "tidegate: pack",
        "can't be stored",
        "az://gone/site can't be reached",
        "nothing that was acknowledged is lost",
        "run this again",
    ]);
    let later = site.command(&["points", "lost"]).run().failure();
    assert_eq!(later.status.code(), Some(75), "{later}");
    later.says(&["az://gone/site can't be reached"]);
}

#[test]
fn a_server_whose_store_is_gone_for_good_ends_and_its_agent_says_how_far_it_came() {
    let store = Azurite::start("gone");
    let site = Site::in_azurite(&store, "site");
    site.init();
    let disk = random_disk(&site);
    site.enroll("ps-1", "server");
    site.enroll("db-1", "machine");
    let server = site.server_at("127.0.0.1:0");
    let server = server.args(["--memory", MEMORY, "--store-patience", "2"]).serve();
    let agent = site.agent(&server.at(), "db-1", &[&disk]).args(["--patience", "20"]);
    let agent = telling(agent).start();
    wait_for_the_middle(&agent);
    drop(store);
    let server = server.wait(LIMIT).failure();
    assert_eq!(server.status.code(), Some(75), "trying again may help: {server}");
    server.says(&["can't be stored", "az://gone/site can't be reached", "run this again"]);
    let agent = agent.wait(LIMIT).failure();
    agent.says(&[
        "waiting for a server to commit",
        "the last committed LSN is",
        "nothing listens there",
    ]);
}

#[test]
fn a_store_that_says_a_pack_is_there_and_cannot_show_it_ends_a_replication_after_its_patience() {
    let store = Azurite::start("contradicts");
    let way = StoreProxy::before(&store);
    let site = Site::behind(&way, "site");
    site.init();
    let disk = tiny(&site.path("disk"));
    way.packs(Packs::Contradict);
    let patience = ["--memory", MEMORY, "--store-patience", "1"];
    let ended = site.replicate("lost", &[&disk]).args(patience).run().failure();
    assert_eq!(ended.status.code(), Some(1), "another try would find the same: {ended}");
    ended.says(&[
        "tidegate: pack",
        "can't be stored",
        "something that can't be found again stands in its place",
        "nothing that was acknowledged is lost",
        "start the server again",
    ]);

    // A store that comes to its senses is a good one.
    way.packs(Packs::Pass);
    site.replicate("lost", &[&disk]).run().success();
    site.assert_recovers("lost", 0, &disk);
    site.verify();
}

#[test]
fn azurite_does_what_a_store_must_do_for_a_vault() {
    let store = Azurite::start("conformance");
    let variables: Vec<_> =
        store.env().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be had").block_on(async {
        for place in ["az://conformance", "az://conformance/below/a-prefix"] {
            let location = place.parse().expect("it is a vault's place");
            let opened = Store::open_with(&location, Access::Create, &variables);
            conformance::run(&opened.expect("the variables name the store")).await;
        }
    });
}

#[test]
fn a_container_that_is_not_there_and_a_wrong_key_are_told_apart() {
    let store = Azurite::start("there");
    let site = Site::in_azurite(&store, "site");
    let missing = Site::in_azurite(&store, "site").elsewhere("az://not-there/site");
    let disk = tiny(&site.path("disk"));
    let absent = missing.replicate("m", &[&disk]).run().failure();
    absent.says(&["there is no vault at az://not-there/site", "container"]);

    let wrong = site.replicate("m", &[&disk]).env("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=");
    wrong.run().failure().says(&["az://there/site", "permission"]);
    site.replicate("m", &[&disk]).run().success();
}

fn tiny(path: &Path) -> PathBuf {
    fs::write(path, vec![1; 4096]).expect("a disk can be made");
    path.to_owned()
}
