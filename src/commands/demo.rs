//! `tidegate demo`: the main job end to end, with real processes over TLS on loopback.
//!
//! Makes an ext4 image from files of this host, a vault, identities for a server and a machine;
//! runs `tidegate server` and `tidegate agent copy`; recovers the disk, compares it byte for byte,
//! verifies the vault. It is a user of the program like any other: it runs its commands.
//!
//! However it ends, its scratch directory goes and its children end; see `children`.

mod children;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;
use tidegate_model::{HumanBytes, Remedy};

use self::children::Children;
use crate::cli::DemoArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::{self, Stop};

/// Files from here fill the image: what an operating system consists of.
const SOURCE: &str = "/usr";
/// How much of the image is filled: the rest stays free, as on most disks.
const FILL_PERCENT: u64 = 60;
/// Bytes of two files that are compared at once.
const COMPARED_AT_ONCE: usize = 1 << 20;

#[derive(Serialize)]
struct DemoReport {
    image_bytes: u64,
    bytes_read: u64,
    bytes_zero: u64,
    bytes_deduplicated: u64,
    bytes_stored: u64,
    copy_seconds: f64,
    copy_mb_per_second: f64,
    agent_cpu_seconds: f64,
    server_cpu_seconds: f64,
    recover_seconds: f64,
    recover_mb_per_second: f64,
    identical: bool,
    verified: bool,
}

pub(super) async fn run(args: DemoArgs, output: Output, stop: Stop) -> Result<(), Failure> {
    let scratch = Scratch::new(args.dir.as_deref())?;
    let children = Arc::new(Children::default());
    let _duty = {
        let (children, path) = (children.clone(), scratch.path.clone());
        signals::before_the_end(move || {
            children.kill();
            let _ = fs::remove_dir_all(path);
        })
    };
    let demo = Demo { scratch, output, stop: stop.clone(), children: children.clone() };
    let mut work = tokio::task::spawn_blocking(move || demo.run(args.size));
    let report = tokio::select! {
        biased;
        report = &mut work => report,
        () = stop.asked() => {
            children.stop();
            work.await
        }
    };
    let report = report.map_err(|error| Failure::failed(format!("the demo broke: {error}")))?;
    // What a child said of its end was only that it was told to.
    let report =
        report.map_err(|error| if stop.is_asked() { Failure::stopped() } else { error })?;
    output.result(&report, text)?;
    if report.identical && report.verified {
        Ok(())
    } else {
        Err(Failure::new("the recovered disk differs from the one that was copied", Remedy::Repair))
    }
}

struct Demo {
    scratch: Scratch,
    output: Output,
    stop: Stop,
    children: Arc<Children>,
}

impl Demo {
    fn run(&self, size: u64) -> Result<DemoReport, Failure> {
        let image = self.make_image(size)?;
        self.make_vault()?;
        let server = self.start_server()?;
        self.output.say(&format!("a process server listens at {} (TLS 1.3)", server.address));

        let begun = Instant::now();
        let copy = self.tidegate(&[
            "agent",
            "copy",
            "--server",
            &server.address,
            "--identity",
            &self.path("machine.json"),
            &self.path("disk.img"),
        ])?;
        let copy_seconds = begun.elapsed().as_secs_f64();
        let server_cpu_seconds = server.stop()?;
        self.output.say("the disk is copied and committed; the server has stopped");

        let begun = Instant::now();
        let recovered = self.path("recovered.img");
        self.vault_command(&["recover", "demo-machine", "--disk", "0", "--to", &recovered])?;
        let recover_seconds = begun.elapsed().as_secs_f64();
        let identical = same_content(&image, Path::new(&recovered), &self.stop)?;
        self.output.say(if identical {
            "the recovered disk is identical, byte for byte"
        } else {
            "the recovered disk DIFFERS"
        });
        let verified = self.vault_command(&["verify", "--contents"]).is_ok();

        let number = |name: &str| copy.get(name).and_then(Value::as_u64).unwrap_or(0);
        Ok(DemoReport {
            image_bytes: size,
            bytes_read: number("bytes_read"),
            bytes_zero: number("bytes_zero"),
            bytes_deduplicated: number("bytes_deduplicated"),
            bytes_stored: number("bytes_stored"),
            copy_seconds,
            copy_mb_per_second: megabytes(size) / copy_seconds,
            agent_cpu_seconds: copy.get("cpu_seconds").and_then(Value::as_f64).unwrap_or(0.0),
            server_cpu_seconds,
            recover_seconds,
            recover_mb_per_second: megabytes(size) / recover_seconds,
            identical,
            verified,
        })
    }

    /// An ext4 file system with files of this host in it.
    fn make_image(&self, size: u64) -> Result<PathBuf, Failure> {
        let (tree, image) = (self.scratch.path.join("tree"), self.scratch.path.join("disk.img"));
        fs::create_dir(&tree).map_err(|error| io_failure("make", &tree, &error))?;
        let filled = copy_files(Path::new(SOURCE), &tree, size / 100 * FILL_PERCENT, &self.stop)?;
        let file = File::create(&image).map_err(|error| io_failure("make", &image, &error))?;
        file.set_len(size).map_err(|error| io_failure("size", &image, &error))?;
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-d"]).args([&tree, &image]).stderr(Stdio::piped());
        let made = self.children.start(&mut make).and_then(Child::wait_with_output);
        let made = made.map_err(|error| {
            Failure::usage(format!("can't run mkfs.ext4 (Debian's package e2fsprogs): {error}"))
        })?;
        if !made.status.success() {
            let text = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(Failure::failed(format!("mkfs.ext4 failed: {}", text.trim())));
        }
        fs::remove_dir_all(&tree).map_err(|error| io_failure("remove", &tree, &error))?;
        self.output.say(&format!(
            "made an ext4 image of {} with {} of files from {SOURCE}",
            HumanBytes(size),
            HumanBytes(filled)
        ));
        Ok(image)
    }

    fn make_vault(&self) -> Result<(), Failure> {
        let key = self.scratch.path.join("vault.key");
        tidegate_vault::keys::make_key_file(&key)?;
        let vault = self.vault();
        self.tidegate(&["vault", "init", &vault, "--key-file", &self.path("vault.key")])?;
        for (name, role, file) in
            [("demo-machine", "machine", "machine.json"), ("demo-server", "server", "server.json")]
        {
            let out = self.path(file);
            self.vault_command(&["enroll", name, "--role", role, "--out", &out])?;
        }
        self.output.say("made a vault, and enrolled a machine and a server");
        Ok(())
    }

    fn start_server(&self) -> Result<RunningServer, Failure> {
        let identity = self.path("server.json");
        let mut server =
            self.command(&["server", "--listen", "127.0.0.1:0", "--identity", &identity]);
        server.args(["--vault", &self.vault(), "--key-file", &self.path("vault.key")]);
        let (mut child, _errors) = self
            .start(&mut server)
            .map_err(|error| Failure::failed(format!("can't start the server: {error}")))?;
        let stdout = child.stdout.take();
        let mut server = RunningServer { child, _errors, address: String::new() };
        let mut line = String::new();
        let mut reader = BufReader::new(stdout.ok_or_else(|| Failure::failed("no server output"))?);
        let read = reader.read_line(&mut line);
        let address = read.ok().and_then(|_| serde_json::from_str::<Value>(&line).ok());
        let address = address.and_then(|value| Some(value.get("listening")?.as_str()?.to_owned()));
        server.address = address.ok_or_else(|| {
            Failure::failed("the server ended before it listened; its message stands above")
        })?;
        // What it prints later must not block it.
        std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
        Ok(server)
    }

    /// Runs one of our own commands and gives its JSON.
    fn tidegate(&self, args: &[&str]) -> Result<Value, Failure> {
        let done = self
            .start(&mut self.command(args))
            .and_then(|(child, _errors)| child.wait_with_output())
            .map_err(|error| Failure::failed(format!("can't run tidegate: {error}")))?;
        if !done.status.success() {
            return Err(Failure::failed(format!(
                "'tidegate {}' failed; its message stands above",
                args.join(" ")
            )));
        }
        let text = String::from_utf8_lossy(&done.stdout);
        Ok(text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default())
    }

    fn vault_command(&self, args: &[&str]) -> Result<Value, Failure> {
        let (vault, key) = (self.vault(), self.path("vault.key"));
        let mut all = args.to_vec();
        all.extend(["--vault", &vault, "--key-file", &key]);
        self.tidegate(&all)
    }

    /// Starts one of our own commands: what it prints is read, what it says of errors passed on.
    fn start(&self, command: &mut Command) -> io::Result<(Child, Errors)> {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.children.start(command)?;
        let errors = Errors::pass_on(child.stderr.take());
        Ok((child, errors))
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("tidegate"));
        let mut command = Command::new(program);
        command.args(args).arg("--json");
        command
    }

    fn vault(&self) -> String {
        format!("file://{}", self.path("vault"))
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path.join(name).display().to_string()
    }
}

/// A directory of our own, removed at the end.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(parent: Option<&Path>) -> Result<Self, Failure> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let parent =
            fs::canonicalize(&parent).map_err(|error| io_failure("use", &parent, &error))?;
        let path = parent.join(format!("tidegate-demo-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| io_failure("make", &path, &error))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}

/// What a child says of errors, on its way to where ours go.
///
/// Dropping it waits until all is said, which is when the child has ended.
struct Errors(Option<JoinHandle<()>>);

impl Errors {
    /// All but that it was asked to stop: that was the demo's doing, or stands there already.
    fn pass_on(from: Option<ChildStderr>) -> Self {
        let lines = from.map(|errors| BufReader::new(errors).split(b'\n'));
        Self(Some(std::thread::spawn(move || {
            let lines = lines.into_iter().flatten().map_while(Result::ok);
            for line in lines.filter(|line| line != signals::HEARD.as_bytes()) {
                // Whoever closed our errors doesn't want these either.
                let _ = io::stderr().write_all(&[&line[..], b"\n"].concat());
            }
        })))
    }
}

impl Drop for Errors {
    fn drop(&mut self) {
        // It only copies, and can't fail.
        let _ = self.0.take().map(JoinHandle::join);
    }
}

struct RunningServer {
    child: Child,
    /// Ends after it.
    _errors: Errors,
    address: String,
}

impl RunningServer {
    /// Stops it cleanly; gives the processor time that it used.
    fn stop(mut self) -> Result<f64, Failure> {
        let before = children_cpu_seconds();
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let status = self.child.wait();
        match status {
            Ok(status) if status.success() => Ok(children_cpu_seconds() - before),
            _ => Err(Failure::failed("the server failed; its message stands above")),
        }
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        // Only where an error came between; it has ended otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time of all children that have ended.
fn children_cpu_seconds() -> f64 {
    super::cpu_seconds(libc::RUSAGE_CHILDREN)
}

/// Copies regular files into `to` until `limit` bytes are there; gives how many they are. Files
/// that can't be read are passed over.
fn copy_files(from: &Path, to: &Path, limit: u64, stop: &Stop) -> Result<u64, Failure> {
    let mut copied = 0;
    let mut number = 0_u64;
    let mut folders = vec![from.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            if stop.is_asked() {
                return Err(Failure::stopped());
            }
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                folders.push(path);
            } else if meta.is_file() && copied + meta.len() <= limit {
                let target = to.join(format!("{number:06}"));
                number += 1;
                copied += fs::copy(&path, &target).unwrap_or(0);
            }
        }
    }
    Ok(copied)
}

/// Whether two files have the same bytes.
fn same_content(one: &Path, two: &Path, stop: &Stop) -> Result<bool, Failure> {
    let open = |path: &Path| File::open(path).map_err(|error| io_failure("read", path, &error));
    let (mut one, two) = (open(one)?, open(two)?);
    let (mut left, mut right) = (vec![0; COMPARED_AT_ONCE], vec![0; COMPARED_AT_ONCE]);
    let mut offset = 0;
    loop {
        if stop.is_asked() {
            return Err(Failure::stopped());
        }
        let count = one
            .read(&mut left)
            .map_err(|error| Failure::failed(format!("can't read the image: {error}")))?;
        if count == 0 {
            let length = two.metadata().map(|meta| meta.len()).unwrap_or(0);
            return Ok(length == offset);
        }
        if two.read_exact_at(&mut right[..count], offset).is_err()
            || left[..count] != right[..count]
        {
            return Ok(false);
        }
        offset += count as u64;
    }
}

fn megabytes(bytes: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // a figure for people
    let bytes = bytes as f64;
    bytes / 1e6
}

fn io_failure(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("can't {what} {}: {error}; --dir names another place", path.display()))
}

fn text(report: &DemoReport) -> String {
    let reduction = megabytes(report.image_bytes) / megabytes(report.bytes_stored.max(1));
    format!(
        "copy     {:.2} s, {:.0} MB/s of disk; agent {:.2} s, server {:.2} s of CPU time\n\
         stored   {} of {} (reduction {reduction:.1} to 1): {} zero, {} known already\n\
         recover  {:.2} s, {:.0} MB/s of disk; {}",
        report.copy_seconds,
        report.copy_mb_per_second,
        report.agent_cpu_seconds,
        report.server_cpu_seconds,
        HumanBytes(report.bytes_stored),
        HumanBytes(report.image_bytes),
        HumanBytes(report.bytes_zero),
        HumanBytes(report.bytes_deduplicated),
        report.recover_seconds,
        report.recover_mb_per_second,
        if report.identical && report.verified {
            "identical, and every frame of the vault verified"
        } else {
            "NOT identical or not verified"
        },
    )
}
