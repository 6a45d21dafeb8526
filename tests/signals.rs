//! SIGINT and SIGTERM: the first stops each command cleanly wherever it waits, the second ends it
//! at once. Statuses are those of the README; nothing is left that a second try trips over.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};
use support::compare::assert_same;
use support::process::{Running, Tidegate};
use support::site::{Site, shown};
use support::terminal::{Lines, at_terminal, terminal};
use support::{images, scratch, shim};

/// Far more than any stop takes: a limit against hanging.
const LIMIT: Duration = Duration::from_secs(60);
/// What the program says when the first signal came.
const HEARD: &str = "stopping; once more";

/// Somebody who takes connections and never answers: a store or a server.
struct Mute {
    port: u16,
    connections: mpsc::Receiver<TcpStream>,
}

impl Mute {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
        let port = listener.local_addr().expect("it has an address").port();
        let (sender, connections) = mpsc::channel();
        // Ends with the test's process; whoever isn't waited for any more is hung up on.
        std::thread::spawn(move || {
            listener.incoming().flatten().for_each(|connection| drop(sender.send(connection)));
        });
        Self { port, connections }
    }

    /// Starts a command on a vault in this store, and returns when it waits for an answer.
    #[track_caller]
    fn start(&self, call: Tidegate) -> (Running, TcpStream) {
        let running = call
            .env("AZURE_STORAGE_ACCOUNT_NAME", "tests")
            .env("AZURE_STORAGE_ACCOUNT_KEY", "dGVzdHM=")
            .env("AZURE_STORAGE_ENDPOINT", format!("http://127.0.0.1:{}/tests", self.port))
            .env("AZURE_ALLOW_HTTP", "true")
            .start();
        let connection = self.wait(&running);
        (running, connection)
    }

    /// Waits until somebody has asked something.
    #[track_caller]
    fn wait(&self, running: &Running) -> TcpStream {
        let connection = self.connections.recv_timeout(LIMIT);
        let mut connection =
            connection.unwrap_or_else(|_| panic!("it didn't ask: {}", running.printed()));
        connection.set_read_timeout(Some(LIMIT)).expect("a limit can be set");
        assert!(connection.read(&mut [0]).is_ok_and(|count| count > 0), "something is asked");
        connection
    }
}

#[test]
fn commands_that_wait_for_a_store_stop_with_the_status_of_a_stop() {
    let (mute, site) = (Mute::new(), Site::in_scratch().elsewhere("az://tests/vault"));
    let (disk, secret, out) = (site.path("disk"), site.path("new"), site.path("out.json"));
    images::random(&disk, 1_000_000, 3);
    fs::write(&secret, "a new passphrase").expect("it can be written");
    let (key, secret) = (site.key(), secret.to_string_lossy().into_owned());
    let (key, out) = (key.to_string_lossy(), out.to_string_lossy());
    let new = ["--key-file", &*key, "--new-passphrase-file", &*secret];
    let on_vault = |action: &[&str], args: &[&str]| {
        Tidegate::new(action.iter().copied()).args([site.vault()]).args(args)
    };
    let calls = [
        (on_vault(&["vault", "init"], &["--key-file", &*key]), 1),
        (on_vault(&["vault", "key", "add"], &new), 1),
        (on_vault(&["vault", "key", "change"], &new), 1),
        (on_vault(&["vault", "key", "list"], &[]), 1),
        (site.command(&["enroll", "m", "--out", &out]), 1),
        (site.command(&["machines"]), 1),
        (site.command(&["points", "m"]), 1),
        (site.command(&["verify"]), 1),
        (site.command(&["recover", "m", "--to", &out]), 1),
        (site.replicate("m", &[&disk]), 1),
        // Being stopped is how a server ends.
        (site.command(&["server", "--listen", "127.0.0.1:0"]), 0),
    ];
    for (call, status) in calls {
        let (running, _connection) = mute.start(call);
        running.signal(Signal::TERM);
        let stopped = running.wait(LIMIT).says(&[HEARD]);
        assert_eq!(stopped.status.code(), Some(status), "{stopped}");
    }
    assert!(!Path::new(&*out).exists(), "nothing was written");
}

/// In front of the C library's fsync: that of a file without its name yet waits for the file GATE.
const SYNC_AT_A_GATE: &str = r#"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int fsync(int fd) {
    char link[64], path[PATH_MAX + 1];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX);
    path[length > 0 ? length : 0] = 0;
    if (strstr(path, ".partial")) {
        fputs("at the gate\n", stderr);
        while (access(getenv("GATE"), F_OK) != 0)
            usleep(20000);
    }
    return (int) syscall(SYS_fsync, fd);
}
"#;

#[test]
fn a_recovery_that_is_stopped_while_it_makes_its_disk_durable_leaves_what_it_says() {
    let site = Site::with_vault();
    let disk = site.disk("db", 1 << 20);
    site.replicate("db", &[&disk]).run().success();
    let (gate, to) = (site.path("gate"), site.path("restore"));
    let shim = shim::build(&site.path("shim"), SYNC_AT_A_GATE);
    let recover = || site.command(&["recover", "db", "--to", shown(&to)]);
    let stopped = || {
        let running = recover().env("LD_PRELOAD", &shim).env("GATE", &gate).start();
        running.wait_for_line("its sync", LIMIT, |line| line.contains("at the gate"));
        running.signal(Signal::INT);
        running.wait_for_line("that it heard", LIMIT, |line| line.contains(HEARD));
        running
    };
    let running = stopped();
    fs::write(&gate, "").expect("a file can be made");
    let output = running.wait(LIMIT);
    if output.status.success() {
        // The sync ended before the stop was seen.
        assert_same(&disk, &to.join("disk-0.img"));
        fs::remove_dir_all(&to).expect("what was recovered can be removed");
    } else {
        assert_eq!(output.status.code(), Some(1), "{output}");
        output.says(&["stopped on request"]);
        assert!(!to.exists(), "it was stopped, and something is there");
    }

    // Nobody waits for a disk who asks twice.
    fs::remove_file(&gate).expect("it is there");
    let running = stopped();
    running.signal(Signal::INT);
    let ended = running.wait(LIMIT);
    assert_eq!(ended.status.code(), Some(130), "{ended}");
    recover().run().success();
    assert_same(&disk, &to.join("disk-0.img"));
}

#[test]
fn an_agent_stops_while_its_server_does_not_answer() {
    let (mute, site) = (Mute::new(), Site::in_scratch());
    site.init();
    site.enroll("m", "machine");
    let disk = site.path("disk");
    images::random(&disk, 1_000_000, 3);
    let agent = site.agent(&format!("127.0.0.1:{}", mute.port), "m", &[&disk]).start();
    let _connection = mute.wait(&agent);
    agent.signal(Signal::INT);
    let stopped = agent.wait(LIMIT).says(&[HEARD, "stopped on request"]);
    assert_eq!(stopped.status.code(), Some(1), "{stopped}");
}

/// A pipe that takes nothing more: whoever prints into it waits.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe can be had");
    let flags = fcntl_getfl(&writer).expect("it has flags");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("they can be set");
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    while writer.write(b"\n").is_ok() {}
    fcntl_setfl(&writer, flags).expect("they can be set");
    (reader, writer)
}

#[test]
fn a_second_signal_ends_a_command_at_once_as_shells_tell_it() {
    let site = Site::in_scratch();
    site.init();
    for (second, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        // The server has begun, and can't say so: it hears no gentle stop.
        let (_reader, writer) = full_pipe();
        let mut server = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        server.args(["--log", "info", "server", "--listen", "127.0.0.1:0"]);
        server.args(["--vault", site.vault(), "--key-file"]).arg(site.key());
        let mut server = Guard(
            server
                .stdin(Stdio::null())
                .stdout(writer)
                .stderr(Stdio::piped())
                .spawn()
                .expect("it can be started"),
        );
        let mut errors = Lines(server.0.stderr.take().expect("its errors are piped"));
        errors.wait_for("the table of known blocks is filled");
        server.wait_until_it_writes();
        server.signal(Signal::TERM);
        errors.wait_for(HEARD);
        server.signal(second);
        assert_eq!(server.wait().code(), Some(status));
    }
}

/// A child that doesn't outlive the test.
struct Guard(std::process::Child);

impl Guard {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it runs");
    }

    /// Waits until one of its threads stands in a write to a full pipe; where the kernel doesn't say what
    /// threads wait for, not at all.
    #[track_caller]
    fn wait_until_it_writes(&self) {
        let threads = format!("/proc/{}/task", self.0.id());
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            let threads = std::fs::read_dir(&threads).expect("it runs").flatten();
            let place = |thread: std::fs::DirEntry| {
                std::fs::read_to_string(thread.path().join("wchan")).unwrap_or_default()
            };
            let places: Vec<_> = threads.map(place).collect();
            let untold = places.iter().all(|place| matches!(place.as_str(), "" | "0"));
            if untold || places.iter().any(|place| place.contains("pipe_write")) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it writes nothing");
    }

    #[track_caller]
    fn wait(&mut self) -> std::process::ExitStatus {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().expect("a child can be waited for") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it didn't end");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shows_what_is_typed(terminal: &File) -> bool {
    tcgetattr(terminal).expect("it is a terminal").local_modes.contains(LocalModes::ECHO)
}

/// Starts a command whose terminal `theirs` is.
fn asked_at(theirs: &File, args: &[&str]) -> Guard {
    Guard(at_terminal(theirs, args).spawn().expect("setsid of util-linux is there"))
}

#[test]
fn a_stop_at_a_prompt_gives_the_terminal_back_and_makes_nothing() {
    let files = scratch();
    let vault = format!("file://{}", files.path().join("vault").display());
    for (signal, answers) in [(Signal::INT, 0), (Signal::TERM, 1)] {
        let (ours, theirs) = terminal();
        let mut screen = Lines(ours.try_clone().expect("it can be shared"));
        let mut asked = asked_at(&theirs, &["vault", "init", &vault]);
        screen.wait_for("New passphrase: ");
        for _ in 0..answers {
            (&ours).write_all(b"hush\n").expect("it can be typed");
            screen.wait_for("Once more: ");
        }
        assert!(!shows_what_is_typed(&theirs));
        asked.signal(signal);
        assert_eq!(asked.wait().code(), Some(1));
        assert!(shows_what_is_typed(&theirs), "the shell after it is blind");
    }

    // The second try doesn't trip; what is typed doesn't show.
    let (ours, theirs) = terminal();
    let mut screen = Lines(ours.try_clone().expect("it can be shared"));
    let mut asked = asked_at(&theirs, &["vault", "init", &vault]);
    for question in ["New passphrase: ", "Once more: "] {
        screen.wait_for(question);
        (&ours).write_all(b"hush\n").expect("it can be typed");
    }
    screen.wait_for("recovery key");
    assert!(asked.wait().success());
    assert!(shows_what_is_typed(&theirs));
    Tidegate::new(["machines", "--vault", &vault])
        .env("TIDEGATE_PASSPHRASE", "hush")
        .run()
        .success();
}

/// The children of a process that haven't ended, with the command that each runs.
fn children(parent: u32) -> BTreeMap<i32, String> {
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let child = |number: i32| {
        let status = fs::read_to_string(format!("/proc/{number}/status")).ok()?;
        let is_ours = status.lines().any(|line| line == format!("PPid:\t{parent}"));
        let call = fs::read_to_string(format!("/proc/{number}/cmdline")).ok()?;
        is_ours.then(|| (number, call.replace('\0', " ")))
    };
    numbers.filter_map(child).collect()
}

/// Whether a process is gone, or a zombie that only waits for its parent.
fn is_gone(number: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
    status.is_empty() || status.lines().any(|line| line.starts_with("State:\tZ"))
}

/// A demo in `directory` whose server stands still: it goes on only if it is killed. One whose
/// server has ended before it could be caught is begun again.
#[track_caller]
fn demo_with_a_frozen_server(directory: &Path) -> (Running, BTreeMap<i32, String>) {
    let directory = directory.to_str().expect("a path of a test is UTF-8");
    for _ in 0..10 {
        let demo = Tidegate::new(["demo", "--size", "64MiB", "--dir", directory]).start();
        demo.wait_for_line("its vault", LIMIT, |line| line.contains("made a vault"));
        while !demo.ended() {
            let children = children(demo.pid());
            let server = children.iter().find(|(_, call)| call.contains(" server "));
            let Some((server, _)) = server else { continue };
            let process = Pid::from_raw(*server).expect("a number");
            if kill_process(process, Signal::STOP).is_ok() && !is_gone(*server) {
                return (demo, children);
            }
        }
    }
    panic!("its server always ended too soon");
}

#[test]
fn a_demo_that_nobody_stops_does_not_speak_of_stopping() {
    let files = scratch();
    let directory = files.path().to_str().expect("a path of a test is UTF-8");
    let demo = Tidegate::new(["demo", "--size", "64MiB", "--dir", directory]).run().success();
    assert!(!demo.stderr.contains(HEARD), "{demo}");
}

#[test]
fn a_demo_that_is_stopped_leaves_no_file_and_no_process() {
    let files = scratch();
    let (demo, children) = demo_with_a_frozen_server(files.path());
    demo.signal(Signal::TERM);
    demo.wait_for_line("that it heard", LIMIT, |line| line.contains(HEARD));
    // It is the server that the first signal waits for.
    for number in children.keys() {
        let _ = kill_process(Pid::from_raw(*number).expect("a number"), Signal::CONT);
    }
    let stopped = demo.wait(LIMIT).says(&["stopped on request"]);
    assert_eq!(stopped.status.code(), Some(1), "{stopped}");
    assert_eq!(stopped.stderr.matches(HEARD).count(), 1, "one was stopped:\n{stopped}");
    assert!(children.keys().all(|number| is_gone(*number)), "{children:?}");
    assert_eq!(fs::read_dir(files.path()).expect("it is there").count(), 0);
}

#[test]
fn a_demo_that_is_ended_at_once_leaves_no_file_and_no_process() {
    let files = scratch();
    let (demo, children) = demo_with_a_frozen_server(files.path());
    demo.signal(Signal::TERM);
    demo.wait_for_line("that it heard", LIMIT, |line| line.contains(HEARD));
    demo.signal(Signal::TERM);
    let ended = demo.wait(LIMIT);
    assert_eq!(ended.status.code(), Some(143), "{ended}");
    assert!(children.keys().all(|number| is_gone(*number)), "{children:?}");
    assert_eq!(fs::read_dir(files.path()).expect("it is there").count(), 0);
}
