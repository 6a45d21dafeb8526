//! Hosts that refuse something: a port in use, too little lockable memory, io_uring forbidden. Each
//! is told with what to change, before anything is claimed in the vault.

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::process::Tidegate;
use support::refusals::{contents, shown};
use support::site::Site;
use support::{faults, public_scratch};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// Lockable memory that is enough for a server, and no more than any user has.
const ENOUGH: u64 = 4 * MIB;
/// What many systems give by default: too little for a server of one core.
const TOO_LITTLE: u64 = 64 << 10;

/// The runs of servers that a vault knows of.
fn runs(site: &Site) -> usize {
    let runs = site.vault_path().join("runs");
    if runs.exists() { contents(&runs).len() } else { 0 }
}

#[test]
fn a_port_that_another_program_has_is_named_and_the_vault_is_not_touched() {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let output = site.server_at(&address).run();
    output.refused(&[&address, "is in use", "Stop it", "--listen"]);
    assert_eq!(runs(&site), 0, "no run was claimed");
    // An address that isn't this host's: TEST-NET-1, which nobody has.
    let output = site.server_at("192.0.2.1:9443").run();
    output.refused(&["can't listen at 192.0.2.1:9443"]);
}

#[test]
fn a_second_server_on_a_port_is_refused_and_the_first_serves_on() {
    let site = Site::with_vault();
    let disk = site.disk("db", MIB);
    let server = site.serve();
    let (runs_before, everywhere) = (runs(&site), format!("0.0.0.0:{}", server.address.port()));
    for address in [server.at(), everywhere] {
        let output = site.server_at(&address).run();
        output.refused(&[&address, "is in use", "perhaps another Tidegate", "--listen"]);
    }
    assert_eq!(runs(&site), runs_before, "no run was claimed");
    site.enroll("db", "machine");
    site.agent(&server.at(), "db", &[&disk]).run().success();
    server.stop().success();
    site.assert_recovers("db", 0, &disk);
}

/// A place where every user can run the program, with a disk and a key that everyone may read.
struct Public {
    files: TempDir,
    program: PathBuf,
    disk: PathBuf,
}

impl Public {
    /// None where the test's user can't become another one: then says why `test` doesn't run.
    #[track_caller]
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::getuid().is_root() {
            support::not_run(test, "another user's limits need root", false);
            return None;
        }
        let files = public_scratch();
        let program = faults::program_for_all(files.path());
        faults::open_to_all(files.path());
        let disk = files.path().join("disk.img");
        support::images::random(&disk, 8 * MIB, 1);
        Some(Self { files, program, disk })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn vault(&self) -> String {
        format!("file://{}", self.path("vault").display())
    }

    /// The program as nobody, who can lock so much memory.
    fn call(&self, memlock_bytes: u64, args: &[&str]) -> Tidegate {
        Tidegate::of(&self.program, args)
            .env("TIDEGATE_PASSPHRASE", "a passphrase")
            .with(|command| faults::as_nobody(command, memlock_bytes))
    }

    #[track_caller]
    fn assert_recovers(&self, machine: &str) {
        let (vault, to) = (self.vault(), self.path("recovered"));
        let args = ["recover", machine, "--disk", "0", "--vault", &vault, "--to", shown(&to)];
        self.call(ENOUGH, &args).run().success();
        support::compare::assert_same(&self.disk, &to);
        fs::remove_file(to).expect("what was recovered can be removed");
    }
}

#[test]
fn too_little_lockable_memory_is_told_with_both_figures_and_how_to_raise_it() {
    let Some(public) = Public::new("too_little_lockable_memory") else { return };
    let vault = public.vault();
    let replicate = ["replicate", shown(&public.disk), "--machine", "db", "--vault", &vault];
    public.call(ENOUGH, &replicate).run().success();

    let server = ["server", "--vault", &vault, "--listen", "127.0.0.1:0"];
    for args in [&server[..], &replicate] {
        let output = public.call(TOO_LITTLE, args).run();
        let words = ["too little lockable memory", "65.5 kB", "ulimit -l", "LimitMEMLOCK="];
        output.refused(&words);
    }
    // What needs no ring works all the same.
    public.assert_recovers("db");
}

#[test]
fn an_agent_sends_its_disks_whatever_memory_it_can_lock() {
    let Some(public) = Public::new("an_agent_and_lockable_memory") else { return };
    let site = Site::with_vault();
    let server = site.serve();
    let identity = public.path("db.json");
    fs::copy(site.enroll("db", "machine"), &identity).unwrap();
    support::tool(Command::new("chown").arg("65534:65534").arg(&identity));
    let at = server.at();
    let args = ["agent", "copy", "--server", &at, "--identity", shown(&identity)];
    public.call(TOO_LITTLE, &args).args([&public.disk]).run().success();
    server.stop().success();
    site.assert_recovers("db", 0, &public.disk);
}

#[test]
fn where_io_uring_is_forbidden_server_replicate_and_agent_say_what_to_allow() {
    let site = Site::with_vault();
    let disk = site.disk("db", MIB);
    site.enroll("ps-1", "server");
    site.enroll("db", "machine");
    let words = ["io_uring", "kernel.io_uring_disabled", "seccomp profile", "io_uring_setup"];
    let calls = [
        site.server_at("127.0.0.1:0"),
        site.replicate("db", &[&disk]),
        // It is found before a server is looked for.
        site.agent("127.0.0.1:1", "db", &[&disk]),
    ];
    for call in calls {
        call.with(faults::forbid_io_uring).run().refused(&words);
    }
    assert_eq!(runs(&site), 0, "no run was claimed");

    // What was copied before comes back even there.
    site.replicate("db", &[&disk]).run().success();
    let to = site.path("recovered there");
    site.recover("db", "latest", &to).with(faults::forbid_io_uring).run().success();
    support::compare::assert_same(&disk, &to);
}

#[test]
fn a_server_with_more_cores_or_less_memory_than_there_can_be_is_refused() {
    let site = Site::with_vault();
    site.enroll("ps-1", "server");
    let there = std::thread::available_parallelism().unwrap().get();
    let words = [&format!("only {there} cores"), "1000 were asked for: lower --cores"];
    site.server_at("127.0.0.1:0").args(["--cores", "1000"]).run().refused(&words);
    let config = site.path("server.toml");
    fs::write(&config, "cores = 1000").unwrap();
    let output = site.server_at("127.0.0.1:0").args(["--config", shown(&config)]).run();
    output.refused(&words).says(&["'cores' in the configuration"]);
    let output = site.server_at("127.0.0.1:0").args(["--memory", "1MiB"]).run();
    output.refused(&["memory", "--memory"]);
    assert_eq!(runs(&site), 0, "no run was claimed");
    let missing = Path::new("/no/such/configuration");
    let output = site.server_at("127.0.0.1:0").args(["--config", shown(missing)]).run();
    output.refused(&[shown(missing), "can't be read"]);
}
