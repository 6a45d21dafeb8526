//! A real database: PostgreSQL with its data directory on a mounted file system, worked on by pgbench,
//! and asked afterwards whether it still has everything.
//!
//! It listens on a socket in a directory of its own and on no port, and runs as the user that the
//! package made, because it refuses to run as root.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::devices::{Loop, Mount};
use super::process::Running;
use super::{public_scratch, refusals, tool};

/// pgbench's unit of 100,000 accounts.
const SCALE: &str = "10";
const TRANSACTIONS: &str = "2000";

/// What every account together holds: any lost or doubled row or balance shows in it.
const ACCOUNTS: &str = "select count(*), sum(abalance), \
     (select count(*) from pgbench_history), (select sum(delta) from pgbench_history) \
     from pgbench_accounts";

/// How long a database may take until it answers, and until it has ended.
const LIMIT: Duration = Duration::from_secs(120);

/// Makes a database on the xfs of `image`, lets pgbench work on it, and leaves it cleanly closed.
#[track_caller]
pub fn fill(image: &Path) {
    let disk = MountedImage::new(image, "nouuid");
    init(&disk.data(), &[]);
    let database = Postgres::start(&disk.data());
    let work = |args: &[&str]| tool(database.client("pgbench").args(args).arg("postgres"));
    work(&["--initialize", "--quiet", "--scale", SCALE]);
    work(&["--client=4", "--transactions", TRANSACTIONS]);
    database.ask("checkpoint");
    database.stop();
}

/// What the database on an image answers about its accounts. The image is written to by that.
#[track_caller]
pub fn accounts(image: &Path) -> String {
    let disk = MountedImage::new(image, "nouuid");
    let database = Postgres::start(&disk.data());
    let answer = database.ask(ACCOUNTS);
    database.stop();
    answer
}

/// An image that is mounted for a database. Fields are dropped in their order.
pub struct MountedImage {
    mount: Mount,
    _device: Loop,
    _directory: TempDir,
}

impl MountedImage {
    /// Mounts it. A copy of a file system keeps its id, and xfs refuses to mount the same id twice
    /// unless its `options` have "nouuid".
    #[track_caller]
    pub fn new(image: &Path, options: &str) -> Self {
        let directory = public_scratch();
        let at = directory.path().join("mount");
        std::fs::create_dir(&at).expect("a directory can be made");
        let device = Loop::attach(image);
        let mount = Mount::new(device.device(), &at, options);
        give(&at);
        Self { mount, _device: device, _directory: directory }
    }

    /// Where the database lies on it.
    pub fn data(&self) -> PathBuf {
        self.mount.path().join("data")
    }
}

/// Makes an empty database. What it wrote may still be in memory only.
#[track_caller]
pub fn init(data: &Path, options: &[&str]) {
    let mut command = as_its_user("initdb");
    command.args(["--no-sync", "--auth=trust", "--locale=C", "-D"]).arg(data).args(options);
    tool(&mut command);
}

/// Lets the database's user have a directory.
#[track_caller]
pub fn give(directory: &Path) {
    tool(Command::new("chown").arg("postgres:postgres").arg(directory));
}

/// A database that answers; killed when dropped. Fields are dropped in their order.
pub struct Postgres {
    running: Running,
    _processes: Processes,
    sockets: TempDir,
}

impl Postgres {
    /// Starts it, and waits until it has recovered and answers.
    #[track_caller]
    pub fn start(data: &Path) -> Self {
        let sockets = public_scratch();
        give(sockets.path());
        let mut command = as_its_user("postgres");
        command.args(["-c", "listen_addresses=", "-c", "logging_collector=off", "-k"]);
        command.arg(sockets.path()).arg("-D").arg(data);
        let processes = Processes { data: data.to_owned() };
        let running = Running::start(command);
        let ready = |line: &str| line.contains("ready to accept connections");
        running.wait_for_line("that it is ready", LIMIT, ready);
        Self { running, _processes: processes, sockets }
    }

    /// A client of it, to be given its arguments.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        command.env("PGHOST", self.sockets.path()).env("PGUSER", "postgres").current_dir("/");
        command
    }

    /// What it answers: a line for each row, with '|' between columns.
    #[track_caller]
    pub fn ask(&self, query: &str) -> String {
        self.try_ask(query).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same of one that may have ended.
    pub fn try_ask(&self, query: &str) -> Result<String, String> {
        let mut command = self.client("psql");
        command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--command"]);
        let answer = super::try_tool(command.arg(query).arg("postgres"))?;
        Ok(answer.trim().to_owned())
    }

    /// What it has logged.
    pub fn logged(&self) -> String {
        self.running.printed()
    }

    /// Ends it in order.
    #[track_caller]
    pub fn stop(self) {
        self.running.signal(Signal::INT);
        self.running.wait(LIMIT).success();
    }

    /// `kill -9` of all its processes, and waits until none is left.
    pub fn kill(self) {
        drop(self);
    }
}

/// The processes of the database on a directory; none is left when this was dropped.
struct Processes {
    data: PathBuf,
}

impl Drop for Processes {
    fn drop(&mut self) {
        // One that waits for another of them never learns of the first one's end.
        refusals::wait_until("the end of the database's processes", || {
            let left = working_in(&self.data);
            for process in &left {
                let _ = kill_process(*process, Signal::KILL);
            }
            left.is_empty()
        });
    }
}

/// The processes that have `directory` as their own: all of a database have.
fn working_in(directory: &Path) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").expect("/proc can be listed").flatten();
    let works = |path: &PathBuf| path.join("cwd").read_link().is_ok_and(|cwd| cwd == directory);
    let number = |path: PathBuf| path.file_name()?.to_str()?.parse().ok().and_then(Pid::from_raw);
    processes.map(|process| process.path()).filter(works).filter_map(number).collect()
}

/// A program of the database, run as the user that the package made.
#[track_caller]
fn as_its_user(program: &str) -> Command {
    let id = |which| {
        let id = tool(Command::new("id").args([which, "postgres"]));
        id.trim().parse().unwrap_or_else(|_| panic!("'{id}' isn't a number"))
    };
    let mut command = Command::new(programs().join(program));
    command.uid(id("-u")).gid(id("-g")).current_dir("/").env("LC_ALL", "C");
    command
}

/// Where Debian puts the programs of its newest PostgreSQL.
#[track_caller]
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("pgbench").exists());
    found.max().expect("PostgreSQL isn't installed: run `make tools`")
}
