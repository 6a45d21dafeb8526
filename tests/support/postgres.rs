//! A real database on a disk: PostgreSQL with its data directory on a mounted image, worked on by
//! pgbench, and asked afterwards whether it still has everything.
//!
//! It listens on a socket in a directory of its own and on no port, and runs as the user that the
//! package made, because it refuses to run as root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::devices::{Loop, Mount};
use super::{public_scratch, tool};

/// pgbench's unit of 100,000 accounts.
const SCALE: &str = "10";
const TRANSACTIONS: &str = "2000";

/// What every account together holds: any lost or doubled row or balance shows in it.
const ACCOUNTS: &str = "select count(*), sum(abalance), \
     (select count(*) from pgbench_history), (select sum(delta) from pgbench_history) \
     from pgbench_accounts";

/// Makes a database on the xfs of `image`, lets pgbench work on it, and leaves it cleanly closed.
#[track_caller]
pub fn fill(image: &Path) {
    let disk = Database::mount(image);
    disk.run("initdb", &["--no-sync", "--auth=trust", "-D", &disk.data()]);
    disk.start();
    disk.run("pgbench", &["--initialize", "--quiet", "--scale", SCALE, "postgres"]);
    disk.run("pgbench", &["--client=4", "--transactions", TRANSACTIONS, "postgres"]);
    disk.run("psql", &["--quiet", "--command", "checkpoint", "postgres"]);
    disk.stop();
}

/// What the database on an image answers about its accounts. The image is written to by that.
#[track_caller]
pub fn accounts(image: &Path) -> String {
    let disk = Database::mount(image);
    disk.start();
    let answer =
        disk.run("psql", &["--tuples-only", "--no-align", "--command", ACCOUNTS, "postgres"]);
    disk.stop();
    answer.trim().to_owned()
}

/// A data directory on a mounted image. Fields are dropped in their order.
struct Database {
    mount: Mount,
    _device: Loop,
    directory: TempDir,
    programs: PathBuf,
}

impl Database {
    #[track_caller]
    fn mount(image: &Path) -> Self {
        let directory = public_scratch();
        let at = directory.path().join("mount");
        let sockets = directory.path().join("sockets");
        fs::create_dir(&at)
            .and_then(|()| fs::create_dir(&sockets))
            .expect("directories can be made");
        let device = Loop::attach(image);
        // A copy of a file system keeps its id, and xfs refuses to mount the same id twice.
        let mount = Mount::new(device.device(), &at, "nouuid");
        for path in [&at, &sockets] {
            tool(Command::new("chown").arg("postgres:postgres").arg(path));
        }
        Self { mount, _device: device, directory, programs: programs() }
    }

    fn data(&self) -> String {
        self.mount.path().join("data").to_string_lossy().into_owned()
    }

    fn sockets(&self) -> String {
        self.directory.path().join("sockets").to_string_lossy().into_owned()
    }

    #[track_caller]
    fn start(&self) {
        let options = format!("-c listen_addresses= -c unix_socket_directories={}", self.sockets());
        let log = format!("{}/log", self.sockets());
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-l", &log, "-o", &options, "start"]);
    }

    #[track_caller]
    fn stop(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-m", "fast", "stop"]);
    }

    #[track_caller]
    fn run(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(self.programs.join(program)).args(args);
        command.env("PGHOST", self.sockets()).current_dir("/");
        tool(&mut command)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // After a panic it may still run, and the mount below it can't go before it has ended.
        if self.mount.path().join("data/postmaster.pid").exists() {
            let mut stop = Command::new("runuser");
            stop.args(["-u", "postgres", "--"]).arg(self.programs.join("pg_ctl"));
            stop.args(["-D", &self.data(), "-w", "-m", "immediate", "stop"]).current_dir("/");
            let _ = stop.output();
        }
    }
}

/// Where Debian puts the programs of its newest PostgreSQL.
#[track_caller]
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("pgbench").exists());
    found.max().expect("PostgreSQL isn't installed: run `make tools`")
}
