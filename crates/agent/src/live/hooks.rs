//! Freezing what writes to the disks around a bookmark, so that applications find at it what they had
//! written out: scripts, and mounted file systems by fsfreeze(8).
//!
//! Invariant: whatever was frozen is thawed, also when freezing failed or took too long, and by the next
//! start of an agent that was killed in between: a marker file stands as long as something is frozen.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

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
        let frozen = self.freeze_all();
        let done = frozen.map(|()| work());
        self.thaw_all(marker);
        done
    }

    /// Thaws what an agent that was killed may have left frozen.
    pub fn recover(&self, marker: &Path) {
        if marker.exists() {
            tracing::warn!(
                "the agent before this one ended while it had frozen something: thawing"
            );
            self.thaw_all(marker);
        }
    }

    fn freeze_all(&self) -> Result<(), HookError> {
        run(&self.freeze, self.limit, &[])?;
        for place in &self.file_systems {
            run(&fsfreeze("--freeze", place), self.limit, &[])?;
        }
        Ok(())
    }

    /// Thaws everything, whether it is known to be frozen or not.
    fn thaw_all(&self, marker: &Path) {
        for place in self.file_systems.iter().rev() {
            if let Err(error) = run(&fsfreeze("--unfreeze", place), self.limit, &[]) {
                // Most often it wasn't frozen, because something before it failed.
                tracing::warn!(%error, place = %place.display(), "not thawed");
            }
        }
        if let Err(error) = run(&self.thaw, self.limit, &[]) {
            tracing::error!(%error, "what the freeze hook stopped may stand still: see to it");
        }
        if let Err(error) = std::fs::remove_file(marker) {
            tracing::warn!(%error, marker = %marker.display(), "can't be removed");
        }
    }
}

/// Runs a program within a time, with these variables; no program is run well.
pub(super) fn run(
    call: &[String],
    limit: Duration,
    variables: &[(&str, &str)],
) -> Result<(), HookError> {
    let [program, args @ ..] = call else { return Ok(()) };
    let text = || call.join(" ");
    let unstarted = |error| HookError::Unstarted { call: text(), error };
    let mut command = Command::new(program);
    // In a group of its own, so that its end is that of all that it started.
    command.args(args).stdin(Stdio::null()).stdout(io::stderr()).process_group(0);
    let mut child = command.envs(variables.iter().copied()).spawn().map_err(unstarted)?;
    let in_time = ends_within(&child, limit).map_err(unstarted);
    if !matches!(in_time, Ok(true)) {
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let status = child.wait().map_err(unstarted)?;
    match in_time? {
        false => Err(HookError::Late { call: text(), limit }),
        true if status.success() => Ok(()),
        true => Err(HookError::Failed { call: text(), status }),
    }
}

fn fsfreeze(how: &str, place: &Path) -> [String; 3] {
    ["fsfreeze".to_owned(), how.to_owned(), place.to_string_lossy().into_owned()]
}

fn ends_within(child: &Child, limit: Duration) -> io::Result<bool> {
    let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&left)) {
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
}
