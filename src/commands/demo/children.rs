//! The demo's child processes: none outlives it, however a signal ends it.
//!
//! They are in process groups of their own, so that a terminal's Ctrl-C reaches the demo alone,
//! which passes it on as its own stop: gently, or with the last signal at once. They are named by
//! handles, which unlike numbers never mean another process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

/// All that were started, the few that have ended among them.
#[derive(Default)]
pub(super) struct Children(Mutex<State>);

#[derive(Default)]
struct State {
    handles: Vec<OwnedFd>,
    stopped: bool,
}

impl Children {
    /// Starts one with nothing to read, unless they were stopped.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Child> {
        let mut state = self.lock();
        if state.stopped {
            return Err(io::Error::other("the demo is stopping"));
        }
        let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(handle) => state.handles.push(handle),
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                return Err(error.into());
            }
        }
        Ok(child)
    }

    /// Asks all of them to end, and starts no more.
    pub(super) fn stop(&self) {
        drop(self.signal(Signal::TERM));
    }

    /// Ends all of them at once, and returns when they are gone.
    pub(super) fn kill(&self) {
        let state = self.signal(Signal::KILL);
        for handle in &state.handles {
            // Only looked at: whoever started it takes its status. None there: it was taken.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let _ = waitid(WaitId::PidFd(handle.as_fd()), options);
        }
    }

    fn signal(&self, signal: Signal) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.stopped = true;
        for handle in &state.handles {
            // One that has ended doesn't hear it.
            let _ = pidfd_send_signal(handle, signal);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
