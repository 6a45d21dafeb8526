//! The program as a user runs it: real processes with a time limit, their output kept and shown
//! when something isn't as it should be, stopped by their own process id.
//!
//! No process outlives its guard, and none waits for ever.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

/// How long a command may take unless its test says otherwise. Far more than any needs: a limit
/// against hanging, not a measurement.
const LIMIT: Duration = Duration::from_secs(300);
/// How long a server may take until it listens, and a stopped process until it has ended.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a process that overran its limit has to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// One call of the program, being put together.
pub struct Tidegate {
    command: Command,
    limit: Duration,
}

impl Tidegate {
    /// The program that was built with this test, with the variables of Tidegate and of Azure that
    /// this process happens to have taken away.
    pub fn new<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::of(Path::new(env!("CARGO_BIN_EXE_tidegate")), args)
    }

    /// The same for another copy of the program.
    pub fn of<S: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(program);
        command.args(args);
        let foreign = |name: &OsString| {
            let name = name.to_string_lossy();
            name.starts_with("TIDEGATE_") || name.starts_with("AZURE_")
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| foreign(name)) {
            command.env_remove(name);
        }
        Self { command, limit: LIMIT }
    }

    /// `--json server` on a free port of the loopback, with `args` after it; see `serve`.
    pub fn server<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::server_at("127.0.0.1:0", args)
    }

    /// The same at an address: a server that is started again where its agents look for it.
    pub fn server_at<S: AsRef<OsStr>>(listen: &str, args: impl IntoIterator<Item = S>) -> Self {
        Self::new(["--json", "server", "--listen", listen]).args(args)
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.command.envs(variables);
        self
    }

    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Anything else, the faults of `faults` among it.
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// Runs it to its end. One that overruns its limit is stopped, and the test fails with what it
    /// had printed.
    #[track_caller]
    pub fn run(self) -> Output {
        let limit = self.limit;
        self.start().wait(limit)
    }

    /// Starts it and returns.
    #[track_caller]
    pub fn start(self) -> Running {
        Running::start(self.command)
    }

    /// Starts a server and waits until it says where it listens.
    #[track_caller]
    pub fn serve(self) -> Server {
        let running = self.start();
        let line =
            running.wait_for_line("its address", START_LIMIT, |line| address_in(line).is_some());
        let address = address_in(&line).expect("the line was chosen because it holds one");
        let announced = serde_json::from_str(&line).unwrap_or_default();
        Server { address, announced, running }
    }
}

/// The address in `{"listening":"ADDR",...}`, or after `listening on `.
fn address_in(line: &str) -> Option<SocketAddr> {
    if let Ok(value) = serde_json::from_str::<Value>(line) {
        return value.get("listening")?.as_str()?.parse().ok();
    }
    let (_, rest) = line.split_once("listening on ")?;
    rest.split_whitespace().next()?.trim_end_matches(['.', ',']).parse().ok()
}

/// A process server that listens; killed when dropped.
pub struct Server {
    pub address: SocketAddr,
    /// What it printed with its address, of `--json`.
    announced: Value,
    running: Running,
}

impl Server {
    /// The address as an agent takes it.
    pub fn at(&self) -> String {
        self.address.to_string()
    }

    /// What it printed with its address, of `--json`.
    pub const fn announced(&self) -> &Value {
        &self.announced
    }

    /// The memory that it said it would never exceed, in bytes.
    #[track_caller]
    pub fn memory_bound_bytes(&self) -> u64 {
        let bound = self.announced["memory_bytes"].as_u64();
        bound.unwrap_or_else(|| panic!("no bound in {}", self.announced))
    }

    /// One named part of that.
    #[track_caller]
    pub fn memory_term_bytes(&self, name: &str) -> u64 {
        let terms = self.announced["memory"].as_array().into_iter().flatten();
        let bytes = terms.into_iter().find(|term| term["name"] == name);
        bytes
            .and_then(|term| term["bytes"].as_u64())
            .unwrap_or_else(|| panic!("no '{name}' in {}", self.announced))
    }

    /// Asks it to stop and waits for its end.
    #[track_caller]
    pub fn stop(self) -> Output {
        self.running.signal(Signal::TERM);
        self.running.wait(START_LIMIT)
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait(self, limit: Duration) -> Output {
        self.running.wait(limit)
    }
}

impl Deref for Server {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

/// What one ended process left behind.
#[derive(Debug)]
pub struct Output {
    pub call: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Output {
    /// Fails unless it ended with status 0.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "should have succeeded:\n{self}");
        self
    }

    /// Fails unless it ended by itself with another status than 0: a crash or a signal is no
    /// refusal.
    #[track_caller]
    pub fn failure(self) -> Self {
        let refused = self.status.code().is_some_and(|code| code != 0 && code != 101);
        assert!(refused, "should have ended with an error of its own:\n{self}");
        self
    }

    /// Fails unless it was refused as asked, in these words.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Self {
        let output = self.failure().says(words);
        assert_eq!(output.status.code(), Some(2), "refused as asked:\n{output}");
        output
    }

    /// Fails unless what it printed holds each of `parts`, in any case of letters.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        let said = format!("{}{}", self.stdout, self.stderr).to_lowercase();
        for part in parts {
            assert!(said.contains(&part.to_lowercase()), "should say '{part}':\n{self}");
        }
        self
    }

    /// The result that `--json` printed: the last line of its output.
    #[track_caller]
    pub fn json(&self) -> Value {
        let line = self.stdout.lines().rev().find(|line| !line.trim().is_empty());
        let line = line.unwrap_or_else(|| panic!("no JSON was printed:\n{self}"));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}):\n{self}"))
    }

    /// One number of that result.
    #[track_caller]
    pub fn number(&self, field: &str) -> u64 {
        let value = self.json();
        value[field].as_u64().unwrap_or_else(|| panic!("no number '{field}' in {value}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\nended with {} after {:?}", self.call, self.status, self.took)?;
        write!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// A process on its way; killed when dropped.
pub struct Running {
    child: Child,
    call: String,
    started: Instant,
    seen: Arc<Seen>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts any command with its output kept and nothing to read.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let call = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{call} can't be started: {error}"));
        let seen = Arc::new(Seen::default());
        let stdout = child.stdout.take().expect("its output is piped");
        let stderr = child.stderr.take().expect("its errors are piped");
        let readers = vec![
            Seen::read(&seen, stdout, |state| &mut state.stdout),
            Seen::read(&seen, stderr, |state| &mut state.stderr),
        ];
        Self { child, call, started: Instant::now(), seen, readers }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        // Until `wait` has reaped it, the id is this child's and nobody else's.
        let _ = kill_process(self.process(), signal);
    }

    /// `kill -9`, and waits until it is gone.
    #[track_caller]
    pub fn kill(self) -> Output {
        self.signal(Signal::KILL);
        self.wait(START_LIMIT)
    }

    /// Stops it where it stands, without its knowing, until `thaw`.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Whether it has ended.
    pub fn ended(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    /// The most memory that it has held so far, in bytes; none once it has ended.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    }

    /// What it has printed until now, on both outputs.
    pub fn printed(&self) -> String {
        let state = self.seen.lock();
        format!(
            "--- stdout\n{}\n--- stderr\n{}",
            String::from_utf8_lossy(&state.stdout),
            String::from_utf8_lossy(&state.stderr)
        )
    }

    /// Waits for a whole line that `wanted` takes, on either output.
    #[track_caller]
    pub fn wait_for_line(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let end = Instant::now() + limit;
        let mut state = self.seen.lock();
        loop {
            if let Some(line) = state.line(&wanted) {
                return line;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.open == 0 {
                let why = if left.is_zero() { "in time" } else { "before it ended" };
                drop(state);
                panic!("{} didn't print {what} {why}:\n{}", self.call, self.printed());
            }
            let waited = self.seen.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Waits for its end and gives what it left. One that overruns `limit` is stopped, and the test
    /// fails with what it had printed.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Output {
        let in_time = self.ends_within(limit);
        if !in_time {
            self.signal(Signal::TERM);
            if !self.ends_within(GRACE) {
                self.signal(Signal::KILL);
            }
        }
        let status = self.child.wait().expect("a child can be waited for");
        let took = self.started.elapsed();
        for reader in self.readers.drain(..) {
            reader.join().expect("reading its output doesn't panic");
        }
        let (stdout, stderr) = {
            let state = self.seen.lock();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (text(&state.stdout), text(&state.stderr))
        };
        let output = Output { call: self.call.clone(), status, stdout, stderr, took };
        assert!(in_time, "didn't end within {limit:?}:\n{output}");
        output
    }

    fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn ends_within(&self, limit: Duration) -> bool {
        let handle = pidfd_open(self.process(), PidfdFlags::empty());
        let handle = handle.expect("a child that isn't reaped has a handle");
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).expect("a limit of a test is short");
            let mut waiting = [PollFd::new(&handle, PollFlags::IN)];
            match poll(&mut waiting, Some(&left)) {
                Ok(count) => return count > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("can't wait for {}: {error}", self.call),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already reaped by `wait`: then there is nothing to do. Readers end with the pipes.
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}\n{}", self.call, self.printed());
        }
    }
}

/// The output of a process as far as it has come.
struct Seen {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    open: u8,
}

impl Default for Seen {
    fn default() -> Self {
        let state = State { stdout: Vec::new(), stderr: Vec::new(), open: 2 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn read(
        seen: &Arc<Self>,
        mut from: impl Read + Send + 'static,
        into: fn(&mut State) -> &mut Vec<u8>,
    ) -> JoinHandle<()> {
        let seen = Arc::clone(seen);
        std::thread::spawn(move || {
            let mut piece = [0; 16 << 10];
            loop {
                let count = match from.read(&mut piece) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Ok(count) => count,
                    Err(_) => 0,
                };
                let mut state = seen.lock();
                into(&mut state).extend_from_slice(&piece[..count]);
                if count == 0 {
                    state.open -= 1;
                }
                drop(state);
                seen.changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        })
    }
}

impl State {
    /// The first whole line that `wanted` takes; the last one too, once nothing more can come.
    fn line(&self, wanted: &impl Fn(&str) -> bool) -> Option<String> {
        [&self.stdout, &self.stderr].into_iter().find_map(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let whole = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n') || self.open == 0)
                .map(|line| line.trim_end());
            whole.into_iter().find(|line| wanted(line)).map(str::to_owned)
        })
    }
}
