//! A gate on the way from an agent to a server: it lets so many bytes pass and then holds what
//! follows, until it is opened. So a test can do what it must while a copy is surely under way. It
//! can also keep from the agent what the server says.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// One way from a port of its own to a server. Its threads end with their connections.
pub struct Gate {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

struct State {
    /// Bytes of agents that may pass; none left holds them.
    left: u64,
    holds: bool,
    open: bool,
    /// Nothing that a server says is passed on.
    silent: bool,
}

impl Gate {
    /// A way to `server` on which agents can send `bytes` before they are held.
    #[track_caller]
    pub fn to(server: SocketAddr, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
        let address = listener.local_addr().expect("it has an address");
        let state = State { left: bytes, holds: false, open: false, silent: false };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        let theirs = state.clone();
        std::thread::spawn(move || {
            for agent in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let pair = (agent.try_clone(), server.try_clone());
                let (Ok(to_agent), Ok(from_server)) = pair else { continue };
                let (there, back) = (theirs.clone(), theirs.clone());
                std::thread::spawn(move || pass(agent, server, |count| admit(&there, count)));
                std::thread::spawn(move || {
                    pass(from_server, to_agent, |count| if heard(&back) { count } else { 0 });
                });
            }
        });
        Self { address, state }
    }

    /// The address as an agent takes it.
    pub fn at(&self) -> String {
        self.address.to_string()
    }

    /// Waits until it holds an agent back.
    #[track_caller]
    pub fn wait_until_it_holds(&self, limit: Duration) {
        let (state, changed) = &*self.state;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = changed
            .wait_timeout_while(state, limit, |state| !state.holds)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(state.holds, "fewer bytes came within {limit:?} than were let through");
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.change(|state| (state.open, state.silent) = (true, false));
    }

    /// Keeps from agents all that servers say from now on.
    pub fn silence(&self) {
        self.change(|state| state.silent = true);
    }

    /// Ends that. What was kept is never passed on: its connections end.
    pub fn end_silence(&self) {
        self.change(|state| state.silent = false);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let (state, changed) = &*self.state;
        change(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// Whether an agent may hear what a server says now. In a silence it may not, and nothing of the
/// same connection afterwards; waits for the end of the silence to say so.
fn heard(state: &(Mutex<State>, Condvar)) -> bool {
    let (state, changed) = state;
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let heard = !state.silent;
    drop(changed.wait_while(state, |state| state.silent));
    heard
}

/// How many of `count` bytes may pass now: at least one; waits for that.
fn admit(state: &(Mutex<State>, Condvar), count: usize) -> usize {
    let (state, changed) = state;
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if state.left == 0 && !state.open {
        state.holds = true;
        changed.notify_all();
        state =
            changed.wait_while(state, |state| !state.open).unwrap_or_else(PoisonError::into_inner);
    }
    if state.open {
        return count;
    }
    let admitted = count.min(usize::try_from(state.left).unwrap_or(usize::MAX));
    state.left -= admitted as u64;
    admitted
}

/// Passes bytes on until either side ends, or none are admitted, and ends the other.
fn pass(mut from: TcpStream, mut to: TcpStream, mut admit: impl FnMut(usize) -> usize) {
    let mut piece = [0; 16 << 10];
    'passing: while let Ok(count) = from.read(&mut piece) {
        let mut rest = &piece[..count];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(admit(rest.len()));
            if now.is_empty() || to.write_all(now).is_err() {
                break 'passing;
            }
            rest = later;
        }
        if count == 0 {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
