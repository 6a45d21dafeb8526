//! A machine whose disks a live agent serves: its configuration, its agent, and clients that write.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as ToolOutput};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::process::{Running, Tidegate};
use super::refusals;
use super::site::{Site, shown};

/// How long an agent may take to serve its disks, and to stop.
const LIMIT: Duration = Duration::from_secs(60);

/// A protected machine of a site. It must be enrolled.
pub struct Machine<'a> {
    pub site: &'a Site,
    pub name: String,
    pub disks: Vec<PathBuf>,
    config: PathBuf,
}

impl<'a> Machine<'a> {
    /// A machine with these disks, whose agent knows these servers. `more` goes into its configuration,
    /// before its tables.
    #[track_caller]
    pub fn new(
        site: &'a Site,
        name: &str,
        disks: &[PathBuf],
        servers: &[&str],
        more: &str,
    ) -> Self {
        Self::with_tables(site, name, disks, servers, more, Self::disk_table)
    }

    /// The same with disks that are captured by scans.
    #[track_caller]
    pub fn scanned(
        site: &'a Site,
        name: &str,
        disks: &[PathBuf],
        servers: &[&str],
        more: &str,
    ) -> Self {
        let table = |_: &Self, number: usize, disk: &Path| {
            let disk = shown(disk);
            format!("[[disk]]\nnumber = {number}\npath = '{disk}'\nsource = 'scan'\n")
        };
        Self::with_tables(site, name, disks, servers, more, table)
    }

    /// A machine each of whose disks has such a table in the configuration.
    #[track_caller]
    fn with_tables(
        site: &'a Site,
        name: &str,
        disks: &[PathBuf],
        servers: &[&str],
        more: &str,
        table: impl Fn(&Self, usize, &Path) -> String,
    ) -> Self {
        site.enroll(name, "machine");
        let config = site.path(&format!("{name}.toml"));
        let machine = Self { site, name: name.to_owned(), disks: disks.to_vec(), config };
        let mut text = machine.head(servers, more);
        for (number, disk) in disks.iter().enumerate() {
            text += &table(&machine, number, disk);
        }
        machine.configure(&text);
        machine
    }

    /// A machine with one disk, once its agent has copied that.
    #[track_caller]
    pub fn copied(site: &'a Site, bytes: u64, server: &str) -> (Self, PathBuf, Running) {
        let disk = site.disk("one", bytes);
        let machine = Self::new(site, "db-1", std::slice::from_ref(&disk), &[server], "");
        let agent = machine.start();
        machine.wait_for_copy();
        (machine, disk, agent)
    }

    /// What the agent keeps.
    pub fn folder(&self) -> PathBuf {
        self.site.path(&format!("{}.agent", self.name))
    }

    /// The socket on which a disk is served.
    pub fn socket(&self, number: usize) -> PathBuf {
        self.site.path(&format!("{}-{number}", self.name))
    }

    /// Where a disk is served.
    pub fn uri(&self, number: usize) -> String {
        format!("nbd+unix:///disk-{number}?socket={}", shown(&self.socket(number)))
    }

    fn configure(&self, text: &str) {
        fs::write(&self.config, text).expect("a configuration can be written");
    }

    /// Adds to the configuration, behind its tables.
    pub fn configure_also(&self, more: &str) {
        let text = fs::read_to_string(&self.config).expect("it can be read");
        self.configure(&format!("{text}{more}\n"));
    }

    /// The same machine with other disks, each with its number.
    pub fn with_disks(mut self, disks: &[(usize, &PathBuf)], servers: &[&str]) -> Self {
        let mut text = self.head(servers, "");
        disks.iter().for_each(|(number, disk)| text += &self.disk_table(*number, disk));
        self.disks = disks.iter().map(|(_, disk)| (*disk).clone()).collect();
        self.configure(&text);
        self
    }

    fn head(&self, servers: &[&str], more: &str) -> String {
        let identity = self.site.path(&format!("{}.json", self.name));
        let (identity, folder) = (shown(&identity), self.folder());
        let folder = shown(&folder);
        format!("identity = '{identity}'\nservers = {servers:?}\nfolder = '{folder}'\n{more}\n")
    }

    fn disk_table(&self, number: usize, disk: &Path) -> String {
        let (path, socket) = (shown(disk), self.socket(number));
        let listen = shown(&socket);
        format!(
            "[[disk]]\nnumber = {number}\npath = '{path}'\nsource = 'nbd'\nlisten = 'unix:{listen}'\n"
        )
    }

    /// A command of its agent, ready to run.
    pub fn call(&self, command: &str) -> Tidegate {
        Tidegate::new(self.args(command))
    }

    fn args(&self, command: &str) -> Vec<PathBuf> {
        let words = ["--json", "agent", command, "--config"].map(PathBuf::from);
        words.into_iter().chain([self.config.clone()]).collect()
    }

    /// `agent run` by another program, ready to run.
    pub fn agent_by(&self, program: &Path) -> Tidegate {
        Tidegate::of(program, self.args("run")).env("TIDEGATE_LOG", "info")
    }

    /// Waits until its first disk is served.
    #[track_caller]
    pub fn wait_until_served(&self) {
        let read = || self.qemu_io(0, &["read 0 512".to_owned()]).status.success();
        refusals::wait_until("its disks", read);
    }

    /// `agent run`, ready to run.
    pub fn agent(&self) -> Tidegate {
        self.call("run").env("TIDEGATE_LOG", "info")
    }

    /// Starts its agent, and waits until its disks are served.
    #[track_caller]
    pub fn start(&self) -> Running {
        serving(self.agent())
    }

    /// How its agent is.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.call("status").run().success().json()
    }

    /// The same of one that may have ended.
    pub fn try_status(&self) -> Option<Value> {
        let told = self.call("status").run();
        told.status.success().then(|| told.json())
    }

    /// The same, as people are told.
    #[track_caller]
    pub fn text_status(&self) -> String {
        let call = Tidegate::new(["agent", "status", "--config"]).args([&self.config]);
        call.run().success().stdout
    }

    /// Waits until its agent is so.
    #[track_caller]
    pub fn wait_until(&self, what: &str, mut reached: impl FnMut(&Value) -> bool) {
        refusals::wait_until(what, || reached(&self.status()));
    }

    /// Waits until the initial copy has ended.
    #[track_caller]
    pub fn wait_for_copy(&self) {
        self.wait_until("the end of the copy", |status| !status["copy"]["end"].is_null());
    }

    /// Waits until the vault has everything that was captured.
    #[track_caller]
    pub fn wait_until_committed(&self) {
        self.wait_until("the last commit", |status| status["backlog_records"] == 0);
    }

    /// `agent bookmark`, ready to run.
    pub fn bookmark_call(&self, name: &str) -> Tidegate {
        self.call("bookmark").args([name])
    }

    /// `agent pass`, ready to run.
    pub fn pass_call(&self, name: &str) -> Tidegate {
        self.call("pass").args([name])
    }

    /// Places a bookmark; gives the point, once the agent knows its epoch.
    #[track_caller]
    pub fn bookmark(&self, name: &str) -> String {
        let marked = self.bookmark_call(name).run().success().json();
        self.wait_until("an epoch", |status| status["epoch"] != 0);
        format!("{}:{}", self.status()["epoch"], marked["lsn"])
    }

    /// Fails unless every disk comes back at `point` as it is in `disks`.
    #[track_caller]
    pub fn assert_recovers_at<P: AsRef<Path>>(&self, point: &str, disks: &[P]) {
        for (number, disk) in disks.iter().enumerate() {
            let to = self.site.path(&format!("{}-{number}.recovered", self.name));
            let number = number.to_string();
            let args =
                ["recover", &self.name, "--disk", &number, "--at", point, "--to", shown(&to)];
            self.site.call(&args);
            super::compare::assert_same(disk.as_ref(), &to);
            fs::remove_file(to).expect("what was recovered can be removed");
        }
    }

    /// Lets qemu-io carry out commands on a disk; whether all of them were answered well.
    pub fn qemu_io(&self, number: usize, commands: &[String]) -> ToolOutput {
        let mut call = Command::new("qemu-io");
        call.args(["-f", "raw"]);
        for command in commands {
            call.args(["-c", command]);
        }
        let output = call.arg(self.uri(number)).output();
        output.expect("qemu-io can be started: run `make tools`")
    }

    /// The same, which must succeed.
    #[track_caller]
    pub fn writes(&self, number: usize, commands: &[String]) {
        let output = self.qemu_io(number, commands);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !said.contains("failed"), "{output:?}");
    }
}

/// Starts an agent, and waits until its disks are served.
#[track_caller]
pub fn serving(agent: Tidegate) -> Running {
    let running = agent.start();
    running.wait_for_line("what it serves", LIMIT, |line| line.starts_with("{\"machine\""));
    running
}

/// Asks an agent to stop, and waits until it has.
#[track_caller]
pub fn stop(agent: Running) -> super::process::Output {
    agent.signal(Signal::TERM);
    agent.wait(LIMIT).success()
}
