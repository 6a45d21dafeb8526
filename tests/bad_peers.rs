//! Peers that aren't there, or aren't who they should be: a server that is away, and certificates
//! of another vault, of the wrong role, expired or none, on either side. Each is told to both ends
//! in words, nobody without the right certificate gets anything, and a copy outlives its server.

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::gate::Gate;
use support::refusals::{LIMIT, shown, vault_of, wait_until};
use support::site::Site;
use support::tls;
use tidegate_model::Micros;
use tidegate_vault::Vault;
use tidegate_vault::authority::Enrolment;
use tidegate_vault::identity::Role;
use tidegate_vault::keys::Credential;
use tidegate_vault::store::{Access, Store};

const MIB: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(86_400);

/// An identity that was issued a month ago for a day, in `NAME.json`.
#[track_caller]
fn expired(site: &Site, name: &str, role: Role) -> PathBuf {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let identity = runtime.expect("a runtime can be had").block_on(async {
        let location = site.vault().parse().expect("it is a vault's place");
        let store = Store::open(&location, Access::Read).expect("the vault is there");
        let key = Credential::read_key_file(&site.key()).expect("the key file can be read");
        let vault = Vault::open(store, &key).await.expect("the vault opens");
        let name = name.parse().expect("it is a name");
        let enrolment = Enrolment { name, role, validity: DAY, names: Vec::new() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
        let then = u64::try_from((now - 30 * DAY).as_micros()).expect("it fits");
        vault.authority().and_then(|authority| Ok(authority.issue(&enrolment, Micros(then))?))
    });
    let file = site.path(&format!("{name}.json"));
    identity.expect("it is issued").write(&file, false).expect("it can be written");
    file
}

/// An identity of the same kind from another vault.
#[track_caller]
fn of_another_vault(site: &Site, name: &str, role: &str) -> PathBuf {
    let other = Site::with_vault();
    let file = site.path(&format!("{name}.json"));
    fs::copy(other.enroll(name, role), &file).expect("an identity can be copied");
    file
}

#[test]
fn a_server_that_is_not_there_is_named_and_waited_for_no_longer_than_asked() {
    let site = Site::with_vault();
    let disk = site.disk("db", MIB);
    site.enroll("db", "machine");
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = site.agent(&free, "db", &[&disk]).args(["--patience", "1"]).run().failure();
    assert_eq!(output.status.code(), Some(75), "trying again may help:\n{output}");
    let waited = "gave up after 1 s of waiting for a server to accept this machine";
    output.says(&[&free, waited, "nothing listens there", "tidegate server"]);
    site.agent("db:port", "db", &[&disk]).run().refused(&["'db:port'", "HOST:PORT"]);
    let name = "no-such-host.invalid:9443";
    let output = site.agent(name, "db", &[&disk]).args(["--patience", "1"]).run().failure();
    output.says(&[name]);
}

#[test]
fn a_second_agent_with_an_identity_is_told_of_the_first_and_not_to_mend_the_network() {
    let site = Site::with_vault();
    let disk = site.disk("db", 4 * MIB);
    site.enroll("db", "machine");
    let server = site.serve();
    let gate = Gate::to(server.address, MIB);
    let first = site.agent(&gate.at(), "db", &[&disk]).start();
    gate.wait_until_it_holds(LIMIT);
    let second = site.agent(&server.at(), "db", &[&disk]).args(["--patience", "1"]).run().failure();
    assert_eq!(second.status.code(), Some(75), "trying again may help:\n{second}");
    assert_eq!(second.stdout, "", "errors go elsewhere, with --json too");
    assert!(!second.stderr.contains("network"), "nothing is wrong with it:\n{second}");
    second.says(&["db is connected already", "must end first", "tidegate enroll", "copy again"]);
    gate.open();
    first.wait(LIMIT).success();
    server.stop().success();
}

#[test]
fn a_copy_goes_on_when_its_server_goes_away_and_comes_back() {
    const WINDOW: u64 = 4 * MIB;
    let site = Site::with_vault();
    // So little is on its way at once that every 4 MiB wait for their commit.
    let disk = site.disk("db", 48 * MIB);
    site.enroll("db", "machine");
    let server = site.serve();
    let address = server.at();
    let window = ["--window".to_owned(), WINDOW.to_string()];
    let agent = site.agent(&address, "db", &[&disk]).args(window).start();
    let log = site.vault_path().join("log");
    wait_until("a first pack", || log.exists());
    // kill -9, and waits until it is gone.
    drop(server);
    agent.wait_for_line("that it tries again", LIMIT, |line| line.contains("trying again"));
    assert!(!agent.ended(), "{}", agent.printed());

    let server = site.server_at(&address).serve();
    let copied = agent.wait(LIMIT).success();
    server.stop().success();
    assert!(copied.number("reconnects") > 0, "{copied}");
    assert!(copied.number("bytes_resent") <= WINDOW, "only what wasn't committed: {copied}");
    assert_eq!(copied.number("epoch"), 1, "it is the same copy");
    site.assert_recovers("db", 0, &disk);
    site.verify();
}

#[test]
fn an_agent_with_no_good_identity_is_refused_before_and_by_the_server() {
    let site = Site::with_vault();
    let disk = site.disk("db", MIB);
    let server = site.serve();
    let good = site.enroll("good", "machine");
    site.enroll("wrong-role", "server");
    expired(&site, "late", Role::Machine);
    let stranger = of_another_vault(&site, "stranger", "machine");
    let (ours, theirs) = (vault_of(&good), vault_of(&stranger));
    fs::write(site.path("damaged.json"), "{\"vault\": 1}").unwrap();

    let cases: [(&str, &[&str]); 5] = [
        ("wrong-role", &["is that of a server", "enroll --role machine"]),
        ("late", &["machine late", "expired on", "enroll it again", "clocks"]),
        ("stranger", &["identity isn't accepted", &ours, &theirs, "enroll"]),
        ("damaged", &["damaged.json", "is not an identity file", "tidegate enroll"]),
        ("none", &["none.json", "No such file"]),
    ];
    for (identity, words) in cases {
        site.agent(&server.at(), identity, &[&disk]).run().refused(words);
    }

    // An agent that doesn't look at itself first hears the same from the server.
    let asked = tidegate_wire::http::request("test");
    let file = |name: &str| site.path(&format!("{name}.json"));
    let cases: [(Option<PathBuf>, &[&str]); 4] = [
        (None, &["no certificate was shown", "tidegate enroll NAME --role machine"]),
        (Some(file("wrong-role")), &["is that of a server, and a machine is needed", "enroll"]),
        (Some(file("late")), &["machine late expired on", "enroll it again"]),
        (Some(stranger), &["is of vault", &theirs, &ours, "enroll"]),
    ];
    for (identity, words) in cases {
        let text = tls::text(&mut tls::client(server.address, identity.as_deref()), &asked);
        assert!(text.starts_with("HTTP/1.1 403 "), "{identity:?}: {text}");
        for word in words {
            assert!(text.contains(word), "should say '{word}': {text}");
        }
    }
    let machines = site.call(&["machines"]).json();
    assert_eq!(machines, serde_json::json!([]), "nobody was given an epoch");
    site.agent(&server.at(), "good", &[&disk]).run().success();
    server.stop().success();
    site.assert_recovers("good", 0, &disk);
}

#[test]
fn a_server_does_not_start_with_an_identity_that_agents_would_refuse() {
    let site = Site::with_vault();
    let ours = vault_of(&site.enroll("db", "machine"));
    let theirs = vault_of(&of_another_vault(&site, "stranger", "server"));
    expired(&site, "late", Role::Server);
    let cases: [(&str, &[&str]); 4] = [
        ("db", &["db.json", "is that of a machine", "enroll --role server"]),
        ("stranger", &["stranger.json", &ours, &theirs, "enroll the server here"]),
        ("late", &["server late", "expired on", "enroll it again"]),
        ("none", &["none.json", "No such file"]),
    ];
    for (identity, words) in cases {
        let file = site.path(&format!("{identity}.json"));
        let args = ["server", "--listen", "127.0.0.1:0", "--identity", shown(&file)];
        site.command(&args).run().refused(words);
    }
    assert!(!site.vault_path().join("runs").exists(), "no run was claimed");
}

#[test]
fn an_agent_gives_nothing_to_a_server_that_is_not_of_its_vault() {
    let site = Site::with_vault();
    let disk = site.disk("db", MIB);
    let ours = vault_of(&site.enroll("db", "machine"));
    let stranger = of_another_vault(&site, "stranger", "server");
    let theirs = vault_of(&stranger);
    let cases: [(PathBuf, &[&str]); 3] = [
        (site.enroll("other", "machine"), &["is that of a machine", "a server is needed"]),
        (expired(&site, "late", Role::Server), &["server late", "expired on", "clocks"]),
        (stranger, &[&theirs, &ours]),
    ];
    for (identity, words) in cases {
        let server = tls::server(&identity, tidegate_wire::http::SWITCHING).to_string();
        let output = site.agent(&server, "db", &[&disk]).run();
        output.refused(&[&[server.as_str(), "identity isn't accepted", "enroll"], words].concat());
    }
}
