//! Freezing what writes to the disks around a bookmark, so that applications find at it what they had
//! written out: scripts, and mounted file systems by fsfreeze(8).
//!
//! Invariant: whatever was frozen is thawed, also when freezing failed or took too long, and by the next
//! start of an agent that was killed in between: a marker file stands as long as something is frozen, or
//! may be because thawing failed. The marker names the process that freezes, which outlives a killed
//! agent, and which is ended then before anything is thawed: it begins only when it is named.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// Waits until it is told to begin, and becomes what its arguments say; not if whoever would tell it
/// has ended.
const GATE: &str = "read -r begin && exec \"$@\" </dev/null";

/// What freezes and thaws.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// A program and its arguments, run before the file systems are frozen.
    pub freeze: Vec<String>,
    /// The same, run after they are thawed.
    pub thaw: Vec<String>,
    /// Where the file systems are mounted.
    pub file_systems: Vec<PathBuf>,
    /// How long each step may take.
    pub limit: Duration,
}

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It can't be run.
    #[error("the hook '{call}' can't be run: {error}; see that it is there and can be executed")]
    Unstarted {
        /// The call.
        call: String,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// It says that it failed.
    #[error("the hook '{call}' failed ({status}); its output says why")]
    Failed {
        /// The call.
        call: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// It took too long, and was ended.
    #[error("the hook '{call}' took longer than {} s and was ended", .limit.as_secs_f64())]
    Late {
        /// The call.
        call: String,
        /// The limit.
        limit: Duration,
    },
    /// The marker can't be made.
    #[error("{} can't be made: {error}; nothing was frozen", .path.display())]
    Marker {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

impl Hooks {
    /// Whether there is anything to freeze.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.freeze.is_empty() && self.thaw.is_empty() && self.file_systems.is_empty()
    }

    /// How long all of it may take at the most.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let steps = 2 + 2 * self.file_systems.len();
        self.limit * u32::try_from(steps).unwrap_or(u32::MAX)
    }

    /// Freezes, does `work`, and thaws. `marker` is there as long as something is frozen. Waits.
    ///
    /// # Errors
    /// [`HookError`] when not all could be frozen; `work` isn't done then. What can't be thawed is
    /// logged.
    pub fn around<T>(&self, marker: &Path, work: impl FnOnce() -> T) -> Result<T, HookError> {
        File::create(marker)
            .map_err(|error| HookError::Marker { path: marker.to_owned(), error })?;
        let frozen = self.freeze_all(marker);
        let done = frozen.map(|()| work());
        self.thaw_all(marker);
        done
    }

    /// Thaws what an agent that was killed may have left frozen, and ends what it left freezing.
    pub fn recover(&self, marker: &Path) {
        let noted = match fs::read_to_string(marker) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            // That it is there says enough.
            noted => noted.unwrap_or_default(),
        };
        tracing::warn!("the agent before this one ended while it had frozen something: thawing");
        if let Some(left) = Freezing::parse(&noted).filter(Freezing::is_there)
            && let Err(error) = left.end(self.limit)
        {
            tracing::error!(%error, "what froze for the agent before this one can't be ended");
        }
        self.thaw_all(marker);
    }

    fn freeze_all(&self, marker: &Path) -> Result<(), HookError> {
        self.run_noted(&self.freeze, marker)?;
        for place in &self.file_systems {
            self.run_noted(&fsfreeze("--freeze", place), marker)?;
        }
        Ok(())
    }

    /// Thaws everything, whether it is known to be frozen or not. Where that failed the marker stays,
    /// for the next start to try again.
    fn thaw_all(&self, marker: &Path) {
        let mut thawed = true;
        for place in self.file_systems.iter().rev() {
            if let Err(error) = run(&fsfreeze("--unfreeze", place), self.limit, &[]) {
                // Most often it wasn't frozen, because something before it failed.
                tracing::warn!(%error, place = %place.display(), "not thawed");
                thawed &= matches!(error, HookError::Failed { .. });
            }
        }
        if let Err(error) = run(&self.thaw, self.limit, &[]) {
            tracing::error!(%error, "what the freeze hook stopped may stand still: see to it");
            thawed = false;
        }
        if thawed && let Err(error) = fs::remove_file(marker) {
            tracing::warn!(%error, marker = %marker.display(), "can't be removed");
        }
    }

    /// Runs a program of which the marker tells from before it begins.
    fn run_noted(&self, call: &[String], marker: &Path) -> Result<(), HookError> {
        if call.is_empty() {
            return Ok(());
        }
        let gated = command("sh").args(["-c", GATE, "sh"]).args(call).stdin(Stdio::piped()).spawn();
        let mut child = gated.map_err(|error| unstarted(call, error))?;
        let begin = child.stdin.take();
        let noted = Freezing::of(&child).and_then(|freezing| fs::write(marker, freezing.text()));
        if let Err(error) = noted {
            drop(begin);
            let _ = child.wait();
            return Err(HookError::Marker { path: marker.to_owned(), error });
        }
        // One that has ended already says why by its status.
        begin.map(|mut begin| begin.write_all(b"\n"));
        ended(call, child, self.limit)
    }
}

/// Runs a program within a time, with these variables; no program is run well.
pub(super) fn run(
    call: &[String],
    limit: Duration,
    variables: &[(&str, &str)],
) -> Result<(), HookError> {
    let [program, args @ ..] = call else { return Ok(()) };
    let mut command = command(program);
    let child = command.args(args).envs(variables.iter().copied()).stdin(Stdio::null()).spawn();
    ended(call, child.map_err(|error| unstarted(call, error))?, limit)
}

/// Waits until it has ended, or ends it and all that it started.
fn ended(call: &[String], mut child: Child, limit: Duration) -> Result<(), HookError> {
    let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let in_time = handle.map_err(io::Error::from).and_then(|of| ends_within(&of, limit));
    if !matches!(in_time, Ok(true)) {
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let status = child.wait().map_err(|error| unstarted(call, error))?;
    match in_time.map_err(|error| unstarted(call, error))? {
        false => Err(HookError::Late { call: call.join(" "), limit }),
        true if status.success() => Ok(()),
        true => Err(HookError::Failed { call: call.join(" "), status }),
    }
}

/// A program in a group of its own, so that its end is that of all that it started.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdout(io::stderr()).process_group(0);
    command
}

fn unstarted(call: &[String], error: io::Error) -> HookError {
    HookError::Unstarted { call: call.join(" "), error }
}

/// A process that freezes, as the marker names it: no other one ever has both numbers while the host
/// is up, and none that was started before the host went down is there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Freezing {
    process: Pid,
    /// Since the host's start, in the kernel's ticks.
    started: u64,
}

impl Freezing {
    fn of(child: &Child) -> io::Result<Self> {
        let process = Pid::from_child(child);
        Ok(Self { process, started: started(process)? })
    }

    fn text(&self) -> String {
        format!("{} {}\n", self.process.as_raw_nonzero(), self.started)
    }

    /// `None` of a marker that was made before anything began.
    fn parse(text: &str) -> Option<Self> {
        let (process, started) = text.trim().split_once(' ')?;
        let process = Pid::from_raw(process.parse().ok()?)?;
        Some(Self { process, started: started.parse().ok()? })
    }

    fn is_there(&self) -> bool {
        started(self.process).is_ok_and(|started| started == self.started)
    }

    /// Ends it with all that it started, and waits until it is gone.
    fn end(&self, limit: Duration) -> io::Result<()> {
        let handle = pidfd_open(self.process, PidfdFlags::empty())?;
        // It may have ended, and its number been given anew, before there was a handle.
        if !self.is_there() {
            return Ok(());
        }
        kill_process_group(self.process, Signal::KILL)?;
        match ends_within(&handle, limit)? {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// When a process was started (proc(5), stat): the 20th field behind its name, which may have any
/// characters.
fn started(process: Pid) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()))?;
    let fields = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(19));
    let started = fields.and_then(|field| field.parse().ok());
    started.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn fsfreeze(how: &str, place: &Path) -> [String; 3] {
    ["fsfreeze".to_owned(), how.to_owned(), place.to_string_lossy().into_owned()]
}

fn ends_within(handle: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hooks that write what they do to a file.
    fn hooks(folder: &Path, freeze: &str) -> Hooks {
        let shell = |script: &str| {
            let script = script.replace("OUT", &folder.join("out").display().to_string());
            vec!["sh".to_owned(), "-c".to_owned(), script]
        };
        Hooks {
            freeze: shell(freeze),
            thaw: shell("echo thaw >> OUT"),
            file_systems: Vec::new(),
            limit: Duration::from_secs(20),
        }
    }

    fn said(folder: &Path) -> String {
        std::fs::read_to_string(folder.join("out")).unwrap()
    }

    #[test]
    fn what_is_done_lies_between_freeze_and_thaw() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("frozen");
        let hooks = hooks(folder.path(), "echo freeze >> OUT");
        let seen = hooks.around(&marker, || (said(folder.path()), marker.exists())).unwrap();
        assert_eq!(seen, ("freeze\n".to_owned(), true));
        assert_eq!((said(folder.path()).as_str(), marker.exists()), ("freeze\nthaw\n", false));
    }

    #[test]
    fn what_cant_be_frozen_is_thawed_and_nothing_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("frozen");
        let error = hooks(folder.path(), "echo freeze >> OUT; exit 3")
            .around(&marker, || panic!("nothing is frozen"));
        assert!(matches!(error, Err(HookError::Failed { .. })), "{error:?}");
        assert_eq!((said(folder.path()).as_str(), marker.exists()), ("freeze\nthaw\n", false));
    }

    #[test]
    fn a_hook_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("frozen");
        let mut hooks = hooks(folder.path(), "sleep 1000 & echo $! > OUT; wait");
        hooks.limit = Duration::from_millis(200);
        hooks.thaw.clear();
        let error = hooks.around(&marker, || ());
        assert!(matches!(error, Err(HookError::Late { .. })), "{error:?}");
        let sleeper = said(folder.path());
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", sleeper.trim()));
            stat.map_or(true, |stat| stat.contains(") Z"))
        };
        while !gone() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_was_left_frozen_is_thawed_at_the_next_start_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("frozen");
        let hooks = hooks(folder.path(), "exit 1");
        hooks.recover(&marker);
        assert!(!folder.path().join("out").exists());
        File::create(&marker).unwrap();
        hooks.recover(&marker);
        assert_eq!((said(folder.path()).as_str(), marker.exists()), ("thaw\n", false));
    }

    #[test]
    fn what_cant_be_thawed_is_tried_again_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("frozen");
        let mut failing = hooks(folder.path(), "true");
        let thaw = std::mem::replace(&mut failing.thaw, vec!["false".to_owned()]);
        failing.around(&marker, || ()).unwrap();
        failing.recover(&marker);
        assert!(marker.exists());
        Hooks { thaw, ..failing }.recover(&marker);
        assert_eq!((said(folder.path()).as_str(), marker.exists()), ("thaw\n", false));
    }

    #[test]
    fn what_outlived_its_agent_is_ended_before_anything_is_thawed() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("frozen");
        let hooks = hooks(folder.path(), "true");
        let mut left = command("sleep").arg("1000").spawn().unwrap();
        let freezing = Freezing::of(&left).unwrap();
        assert_eq!(Freezing::parse(&freezing.text()), Some(freezing));
        // Another process with its number isn't it.
        let another = Freezing { started: freezing.started + 1, ..freezing };
        fs::write(&marker, another.text()).unwrap();
        hooks.recover(&marker);
        assert!(left.try_wait().unwrap().is_none() && !marker.exists());
        fs::write(&marker, freezing.text()).unwrap();
        hooks.recover(&marker);
        assert!(left.try_wait().unwrap().is_some_and(|status| !status.success()));
        assert_eq!((said(folder.path()).as_str(), marker.exists()), ("thaw\nthaw\n", false));
    }

    #[test]
    fn a_hook_is_named_in_the_marker_before_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("frozen");
        let copy = format!("cp {} OUT; echo $$ >> OUT", marker.display());
        hooks(folder.path(), &copy).around(&marker, || ()).unwrap();
        let said = said(folder.path());
        let [named, process, "thaw"] = said.lines().collect::<Vec<_>>()[..] else {
            panic!("{said}")
        };
        assert_eq!(named.split(' ').next(), Some(process));
        // Where it can't be named it doesn't begin.
        let nowhere = folder.path().join("gone/frozen");
        let hooks = hooks(folder.path(), "echo freeze >> OUT");
        let error = hooks.run_noted(&hooks.freeze, &nowhere);
        assert!(matches!(error, Err(HookError::Marker { .. })), "{error:?}");
        let after = fs::read_to_string(folder.path().join("out")).unwrap();
        assert_eq!(after, said);
    }
}
