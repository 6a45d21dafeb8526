//! Servers maintain their vault by themselves: they fold, let go of what isn't kept and delete what nothing
//! needs, beside each other and whatever ends them; what goes wrong is told, and stops nobody.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;
use support::images;
use support::live::{self, Machine};
use support::process::Server;
use support::refusals::wait_until;
use support::site::Site;
use support::tls;

const MIB: u64 = 1 << 20;
/// Where a server maintains all the time, and reads condemned lists as often.
const BUSY: [&str; 6] =
    ["--maintenance-interval", "1", "--lists-interval", "1", "--memory", "1GiB"];

fn serve(site: &Site, more: &[&str]) -> Server {
    site.server_at("127.0.0.1:0").args(BUSY).args(more).serve()
}

/// What a server says of its maintenance.
#[track_caller]
fn told(server: &Server) -> Value {
    let asked = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let text = tls::text(&mut tls::client(server.address, None), asked);
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let report: Value =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    report["maintenance"].clone()
}

/// How far each of a server's threads yields to others, by its name.
fn niceness(server: &Server) -> Vec<(String, i32)> {
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs");
    let nice = |thread: fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        // The 19th field, of which the third comes behind the name.
        Some((name.to_owned(), rest.split_whitespace().nth(16)?.parse().ok()?))
    };
    threads.flatten().filter_map(nice).collect()
}

fn rounds(server: &Server) -> u64 {
    told(server)["rounds"].as_u64().expect("a number")
}

/// Waits until a server has done so many rounds more.
#[track_caller]
fn wait_for_rounds(server: &Server, more: u64) {
    let wanted = rounds(server) + more;
    wait_until("rounds of maintenance", || rounds(server) >= wanted);
}

fn failures(server: &Server) -> Vec<Value> {
    told(server)["last"]["failures"].as_array().cloned().unwrap_or_default()
}

fn points(site: &Site) -> usize {
    let listed = site.call(&["points", "db"]).json();
    listed["points"].as_array().expect("a list").len()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("it is listed").path());
    let files = |path: std::path::PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    paths.flat_map(files).collect()
}

/// A log in which nothing was ever stored doesn't say that it has ended: it would be waited for.
const ONE_LOG: [&str; 2] = ["--cores", "1"];

/// A machine of three copies, of which the first two are old.
fn copied(site: &Site) -> std::path::PathBuf {
    let db = site.disk("db", 4 * MIB + 512);
    for round in 0..3_u64 {
        // Nothing of a round before is needed for it.
        images::random(&db, 4 * MIB + 512, 77 + round);
        site.replicate("db", &[&db]).args(["--pack-size", "1MiB"]).args(ONE_LOG).run().success();
        let then = SystemTime::now() - Duration::from_secs((100 - round) * 24 * 3600);
        for pack in files(&site.vault_path().join("log")) {
            let file = fs::File::options().write(true).open(pack).expect("it is a pack");
            file.set_modified(then).expect("its time can be set");
        }
    }
    db
}

#[test]
fn a_server_folds_lets_go_and_deletes_by_itself() {
    let site = Site::with_vault();
    let db = copied(&site);
    site.call(&["policy", "set", "--window", "1h", "--all", "2h", "--hourly", "1"]);
    site.call(&["policy", "set", "--daily", "0", "--weekly", "0"]);
    assert_eq!(points(&site), 3);
    site.enroll("ps-1", "server");
    let server = serve(&site, &[]);
    wait_until("that only the last copy is kept", || points(&site) == 1);
    assert!(!files(&site.vault_path().join("machines/db/manifest")).is_empty());
    // The manifest before the newest needs what was let go, until there is another.
    let packs = files(&site.vault_path().join("log"));
    site.replicate("db", &[&db]).args(ONE_LOG).run().success();
    wait_until("that what nothing needs is deleted", || packs.iter().any(|pack| !pack.exists()));
    assert_eq!(failures(&server), [Value::Null; 0]);
    site.assert_recovers("db", 0, &db);
    let (peak, bound) = (server.peak_memory_bytes(), server.memory_bound_bytes());
    assert!(peak.is_some_and(|peak| peak <= bound), "{peak:?} of {bound}");
    server.stop().success();
    site.verify();
}

#[test]
fn two_servers_maintain_one_vault_while_a_machine_writes() {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let servers = [serve(&site, &[]), serve(&site, &[])];
    let disks = [site.disk("db", 3 * MIB)];
    let machine = Machine::new(&site, "db", &disks, &[&servers[0].at(), &servers[1].at()], "");
    let agent = machine.start();
    machine.wait_for_copy();
    let mut marked = Vec::new();
    for mark in 0..4 {
        marked.push(machine.bookmark(&format!("mark {mark}")));
        machine.wait_until_committed();
        servers.iter().for_each(|server| wait_for_rounds(server, 1));
    }
    for server in &servers {
        assert_eq!(failures(server), [Value::Null; 0]);
    }
    live::stop(agent);
    servers.into_iter().for_each(|server| drop(server.stop().success()));
    assert!(!files(&site.vault_path().join("machines/db/manifest")).is_empty());
    for point in &marked {
        machine.assert_recovers_at(point, &machine.disks);
    }
    site.verify();
}

#[test]
fn a_server_that_is_stopped_or_killed_while_it_maintains_leaves_a_whole_vault() {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let db = site.disk("db", 24 * MIB);
    for round in 0..6 {
        // Something to fold each time.
        images::patch(&db, round * MIB, format!("round {round}").as_bytes());
        site.replicate("db", &[&db]).args(["--pack-size", "1MiB"]).run().success();
        let server = serve(&site, &[]);
        wait_until("the midst of a round", || told(&server)["state"] == "running");
        if round % 2 == 0 {
            server.stop().success();
        } else {
            server.signal(Signal::KILL);
            server.wait(Duration::from_secs(60));
        }
        site.assert_recovers("db", 0, &db);
    }
    let server = serve(&site, &[]);
    wait_for_rounds(&server, 2);
    assert_eq!(failures(&server), [Value::Null; 0]);
    server.stop().success();
    site.assert_recovers("db", 0, &db);
    site.verify();
}

#[test]
fn what_goes_wrong_is_told_and_the_server_goes_on() {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let (db, web) = (site.disk("db", 2 * MIB), site.disk("web", MIB));
    site.replicate("db", &[&db]).run().success();
    site.call(&["policy", "set", "--machine", "db", "--hourly", "9"]);
    let policies = files(&site.vault_path().join("machines/db/policy"));
    let [policy] = &policies[..] else { panic!("one policy expected, not {policies:?}") };
    let whole = fs::read(policy).expect("it can be read");
    fs::write(policy, b"nonsense").expect("it can be written");
    let server = serve(&site, &[]);
    wait_until("that it is told", || {
        let failures = failures(&server);
        failures
            .iter()
            .any(|text| text.as_str().is_some_and(|text| text.contains("machines/db/policy/")))
    });
    server.wait_for_line("the warning", Duration::from_secs(60), |line| {
        line.contains("maintenance of the vault: db:")
    });
    // Other machines are served, and maintained.
    site.enroll("web", "machine");
    site.agent(&server.at(), "web", &[&web]).run().success();
    wait_until("the other's fold", || {
        !files(&site.vault_path().join("machines/web/manifest")).is_empty()
    });
    fs::write(policy, whole).expect("it can be written");
    wait_until("that all is well", || failures(&server).is_empty() && rounds(&server) > 0);
    server.stop().success();
    site.assert_recovers("web", 0, &web);
    site.verify();
}

#[test]
fn who_shall_not_maintain_or_cant_says_so() {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let silent =
        site.server_at("127.0.0.1:0").args(["--memory", "1GiB", "--no-maintenance"]).serve();
    assert_eq!(told(&silent)["state"], "off");
    assert_eq!(silent.announced()["maintenance"]["seconds"], Value::Null);
    assert!(
        silent.announced()["memory"]
            .as_array()
            .is_some_and(|terms| { terms.iter().all(|term| term["name"] != "maintenance") })
    );
    silent.stop().success();
    let small = site.server_at("127.0.0.1:0").args(["--memory", "512MiB", "--cores", "1"]).serve();
    assert_eq!(told(&small)["state"], "no memory");
    let needs = small.announced()["maintenance"]["needs_bytes"].as_u64().expect("a number");
    small.stop().success();
    let config = site.path("server.toml");
    fs::write(&config, "maintenance = true\nmaintenance-interval = 7200\n").expect("it is written");
    let enough = site.server_at("127.0.0.1:0").args(["--cores", "1", "--memory"]);
    let enough = enough.args([needs.to_string()]).args(["--config".as_ref(), config.as_os_str()]);
    let enough = enough.serve();
    assert_eq!(told(&enough)["state"], "waiting");
    assert_eq!(enough.announced()["maintenance"]["seconds"], 7200);
    assert!(enough.memory_term_bytes("maintenance") >= 256 * MIB);
    let threads = niceness(&enough);
    let lowest = threads.iter().filter(|(_, nice)| *nice == 19);
    assert!(lowest.clone().count() > 0 && lowest.clone().all(|(name, _)| name == "maintenance"));
    assert!(threads.iter().all(|(name, nice)| name != "maintenance" || *nice == 19), "{threads:?}");
    enough.signal(Signal::TERM);
    enough.wait(Duration::from_secs(60)).success();
}
