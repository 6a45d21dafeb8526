//! What is typed at the terminal: secrets, unseen, and answers.
//!
//! Owns the terminal's echo while a secret is typed. Whatever ends that, an answer, a stop, or a
//! signal that ends the process at once, the terminal is left as it was found.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::signals::{self, LastDuty};

/// The longest line that Linux's terminals hand over at once.
const LINE_BYTES_MAX: usize = 4096;

/// Asks for one line that isn't shown. Dropping the future gives the question up.
pub(crate) async fn ask_unseen(prompt: &str) -> io::Result<Zeroizing<String>> {
    let terminal = Arc::new(OpenOptions::new().read(true).write(true).open("/dev/tty")?);
    let unseen = Unseen::begin(&terminal)?;
    (&*terminal).write_all(prompt.as_bytes())?;
    let (sender, receiver) = oneshot::channel();
    // A thread of its own, which nothing waits for: nobody may ever answer.
    std::thread::Builder::new().name("terminal".to_owned()).spawn(move || {
        let _ = sender.send(read_line(&terminal));
    })?;
    let line = receiver.await.map_err(io::Error::other)?;
    unseen.end()?;
    line
}

/// Asks for one line that is shown. Dropping the future gives the question up.
pub(crate) async fn ask(prompt: &str) -> io::Result<String> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    (&terminal).write_all(prompt.as_bytes())?;
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("terminal".to_owned()).spawn(move || {
        let _ = sender.send(read_line(&terminal));
    })?;
    Ok(receiver.await.map_err(io::Error::other)??.to_string())
}

/// A terminal's line comes with one read, for it is handed over when it is whole.
fn read_line(terminal: &File) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new([0; LINE_BYTES_MAX]);
    let count = loop {
        match (&*terminal).read(line.as_mut_slice()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            count => break count?,
        }
    };
    let typed = &line[..count];
    if typed.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nothing was typed"));
    }
    let text = std::str::from_utf8(typed).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "what was typed isn't UTF-8: use a file")
    })?;
    Ok(Zeroizing::new(text.strip_suffix('\n').unwrap_or(text).to_owned()))
}

/// A terminal that doesn't show what is typed, until this is dropped.
struct Unseen {
    terminal: Arc<File>,
    before: Termios,
    ended: bool,
    _duty: LastDuty,
}

impl Unseen {
    fn begin(terminal: &Arc<File>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let duty = {
            let (terminal, before) = (terminal.clone(), before.clone());
            signals::before_the_end(move || give_back(&terminal, &before))
        };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        // The end of the line is shown, so that the next one begins where it should.
        quiet.local_modes.insert(LocalModes::ECHONL);
        let unseen = Self { terminal: terminal.clone(), before, ended: false, _duty: duty };
        tcsetattr(terminal, OptionalActions::Now, &quiet)?;
        Ok(unseen)
    }

    /// The line has come. What was typed after it is kept: the next question's answer.
    fn end(mut self) -> io::Result<()> {
        self.ended = true;
        Ok(tcsetattr(&self.terminal, OptionalActions::Now, &self.before)?)
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if !self.ended {
            give_back(&self.terminal, &self.before);
        }
    }
}

/// Nobody answered. What was half typed is forgotten: the shell would show it.
fn give_back(mut terminal: &File, before: &Termios) {
    let _ = tcsetattr(terminal, OptionalActions::Flush, before);
    let _ = terminal.write_all(b"\n");
}
