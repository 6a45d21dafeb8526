//! QEMU's monitor: a small client of QMP over its unix socket. One command at a time, and its answer.
//!
//! Limits: so long an answer, so long a wait, so many events before it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

/// Longest line: what hundreds of block nodes say of themselves.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// How long an answer may take: a transaction waits for the guest's requests that are under way.
const LIMIT: Duration = Duration::from_secs(30);
/// Most events that may come before an answer.
const EVENTS_MAX: usize = 10_000;

/// Why the monitor didn't do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Nobody is there, or it ended.
    #[error("QEMU's monitor at {} {doing} ({error}); see that it runs, and serves one client at a time", .path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        doing: &'static str,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// It refuses.
    #[error("QEMU's monitor at {} refuses '{command}': {why}", .path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The command.
        command: String,
        /// Its words.
        why: String,
    },
    /// Something in QEMU isn't as it should be.
    #[error("{what} (QEMU's monitor at {})", .path.display())]
    State {
        /// The socket.
        path: PathBuf,
        /// What, and what to do.
        what: String,
    },
}

/// A conversation with a monitor.
pub(super) struct Qmp {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects, and takes the monitor out of its mode of negotiation.
    pub(super) fn connect(path: &Path) -> Result<Self, QmpError> {
        let connect = || {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            Ok(stream)
        };
        let broken = |error| QmpError::Broken {
            path: path.to_owned(),
            doing: "can't be connected to",
            error,
        };
        let stream = BufReader::new(connect().map_err(broken)?);
        let mut qmp = Self { path: path.to_owned(), stream };
        // The greeting.
        qmp.line()?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Has a command carried out, and gives what it returns.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let mut request = json!({ "execute": command });
        if arguments.as_object().is_none_or(|arguments| !arguments.is_empty()) {
            request["arguments"] = arguments.clone();
        }
        let sent = self.stream.get_mut().write_all(format!("{request}\n").as_bytes());
        sent.map_err(|error| self.broken("isn't there any more", error))?;
        for _ in 0..EVENTS_MAX {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                let why = error["desc"].as_str().unwrap_or("it says no cause");
                let why = why.chars().filter(|letter| !letter.is_control()).take(512).collect();
                let (path, command) = (self.path.clone(), command.to_owned());
                return Err(QmpError::Refused { path, command, why });
            }
            if let Some(returned) = answer.get_mut("return") {
                return Ok(returned.take());
            }
        }
        Err(self.state("it tells of events and doesn't answer".to_owned()))
    }

    /// The same where it may be that there is nothing to be done: then it is refused.
    pub(super) fn try_execute(
        &mut self,
        command: &str,
        arguments: &Value,
    ) -> Result<bool, QmpError> {
        match self.execute(command, arguments) {
            Err(QmpError::Refused { why, .. }) => {
                tracing::debug!(command, why, "QEMU's monitor had nothing to do");
                Ok(false)
            }
            done => done.map(|_| true),
        }
    }

    /// An error that isn't of the conversation.
    pub(super) fn state(&self, what: String) -> QmpError {
        QmpError::State { path: self.path.clone(), what }
    }

    fn line(&mut self) -> Result<Value, QmpError> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let parsed = read.and_then(|_| {
            if line.last() != Some(&b'\n') {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(serde_json::from_slice(&line)?)
        });
        parsed.map_err(|error| self.broken("doesn't answer", error))
    }

    fn broken(&self, doing: &'static str, error: io::Error) -> QmpError {
        QmpError::Broken { path: self.path.clone(), doing, error }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A monitor that says these lines, and what a client makes of them.
    fn said(lines: &[u8]) -> Result<Value, QmpError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                // A client that has heard enough is gone.
                let _ = stream.write_all(lines);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = io::copy(&mut stream, &mut io::sink());
            });
            Qmp::connect(&path)?.execute("query-status", &json!({}))
        })
    }

    #[test]
    fn answers_are_found_among_events_and_refusals_told_in_the_monitors_words() {
        let start = b"{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"STOP\"}\n".to_vec();
        let good = [&start[..], b"{\"return\": {\"running\": true}}\n"].concat();
        assert_eq!(said(&good).unwrap()["running"], true);
        let bad = [&start[..], b"{\"error\": {\"class\": \"G\", \"desc\": \"no \\u0007such\"}}\n"];
        let error = said(&bad.concat()).unwrap_err().to_string();
        assert!(error.contains("refuses 'query-status': no such"), "{error}");
    }

    #[test]
    fn a_monitor_that_says_nonsense_without_end_or_nothing_is_given_up() {
        let long = vec![b'x'; (4 << 20) + 10];
        let endless = b"{\"event\": \"STOP\"}\n".repeat(EVENTS_MAX + 5);
        for bad in [&b""[..], b"{\"QMP\": {}}", b"garbage\n", &long, &endless] {
            assert!(said(bad).is_err());
        }
    }
}
