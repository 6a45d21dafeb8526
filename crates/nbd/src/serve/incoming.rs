//! What a client sends during its transmission: bytes in, commands with their data out.

use std::io;

use super::Socket;
use super::budget::{Budget, Credit};
use crate::limits::RECEIVED_BYTES;
use crate::{Agreement, Command, CommandKind, Event, Replies, Transmission, TransmissionError};

/// Why a client can't be served any further. What it asked before is answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The socket failed.
    #[error("the connection broke: {0}")]
    Socket(#[from] io::Error),
    /// It broke the protocol.
    #[error(transparent)]
    Protocol(#[from] TransmissionError),
    /// It went without a word.
    #[error("the client left in the midst of a request")]
    Left,
}

/// The receiving half of a connection.
#[derive(Debug)]
pub(super) struct Incoming {
    transmission: Transmission,
    received: Box<[u8]>,
    /// What of it wasn't taken yet.
    start: usize,
    end: usize,
    out: Vec<u8>,
    ended: bool,
}

impl Incoming {
    /// Goes on after a handshake, with what was received behind it.
    pub(super) fn new(transmission: Transmission, rest: &[u8]) -> Self {
        let mut received = vec![0; RECEIVED_BYTES].into_boxed_slice();
        received[..rest.len()].copy_from_slice(rest);
        Self { transmission, received, start: 0, end: rest.len(), out: Vec::new(), ended: false }
    }

    pub(super) const fn agreement(&self) -> &Agreement {
        self.transmission.agreement()
    }

    pub(super) const fn replies(&self) -> Replies {
        self.transmission.replies()
    }

    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// The next command, with the right to hold its data; those of a write are in `data`. `None` when
    /// the client goes. What is answered here is given to `send`.
    pub(super) fn next<'a>(
        &mut self,
        socket: &Socket,
        budget: &'a Budget,
        data: &mut Vec<u8>,
        send: impl Fn(&[u8]) -> io::Result<()>,
    ) -> Result<Option<(Command, Credit<'a>)>, Broken> {
        loop {
            let mut input = &self.received[self.start..self.end];
            let event = self.transmission.next(&mut input, &mut self.out)?;
            self.start = self.end - input.len();
            match event {
                Some(Event::Command(command)) => {
                    let credit = budget.take(held_bytes(&command));
                    if command.kind == CommandKind::Write {
                        self.payload(&command, socket, data)?;
                    }
                    return Ok(Some((command, credit)));
                }
                Some(Event::Answered) => {
                    send(&self.out)?;
                    self.out.clear();
                }
                Some(Event::Disconnect) => return Ok(None),
                Some(Event::Payload(_) | Event::PayloadEnd) => {
                    unreachable!("a payload is taken with its command")
                }
                None => {
                    self.start = 0;
                    self.end = socket.receive(&mut self.received)?;
                    if self.end == 0 {
                        return if self.transmission.is_between() {
                            Ok(None)
                        } else {
                            Err(Broken::Left)
                        };
                    }
                }
            }
        }
    }

    /// Takes a write's data: what is here already, then straight into their place.
    fn payload(
        &mut self,
        command: &Command,
        socket: &Socket,
        data: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let bytes = command.length as usize;
        // The budget has it.
        data.resize(bytes, 0);
        let here = bytes.min(self.end - self.start);
        data[..here].copy_from_slice(&self.received[self.start..self.start + here]);
        self.start += here;
        self.hear_payload(&data[..here])?;
        let mut filled = here;
        while filled < bytes {
            let count = socket.receive(&mut data[filled..])?;
            if count == 0 {
                return Err(Broken::Left);
            }
            self.hear_payload(&data[filled..filled + count])?;
            filled += count;
        }
        let end = self.transmission.next(&mut &[][..], &mut self.out)?;
        assert_eq!(end, Some(Event::PayloadEnd), "all of it was taken");
        Ok(())
    }

    fn hear_payload(&mut self, mut part: &[u8]) -> Result<(), Broken> {
        if !part.is_empty() {
            let event = self.transmission.next(&mut part, &mut self.out)?;
            assert!(matches!(event, Some(Event::Payload(_))), "no more than it has was given");
        }
        Ok(())
    }
}

/// What a command holds until it is answered.
fn held_bytes(command: &Command) -> u32 {
    match command.kind {
        CommandKind::Read | CommandKind::Write => command.length,
        _ => 0,
    }
}
