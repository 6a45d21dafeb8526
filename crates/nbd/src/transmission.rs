//! The server's end of a transmission: requests in, commands out.
//!
//! A request that can't be served is answered here with an error, its data skipped; the caller sees
//! commands that lie within the export and are allowed there, and no empty ones. The connection is
//! given up only when the stream is out of step or a write is absurdly long.
//!
//! The payload of a write is handed on in the pieces in which it arrives, without a copy. How many
//! commands are under way at once is the caller's to limit: it stops feeding.
//!
//! Memory: one request's header.

use crate::gather::{Gathered, take};
use crate::limits::SKIPPED_BYTES_MAX;
use crate::request::RequestMagic;
use crate::{
    Agreement, Command, CommandFlags, CommandKind, Errno, REQUEST_BYTES, Replies, Request,
    TransmissionFlags,
};

/// Why a transmission can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransmissionError {
    /// No request where one must be.
    #[error(transparent)]
    Magic(#[from] RequestMagic),
    /// A write beyond all measure.
    #[error("a write of {0} bytes was announced: at most {SKIPPED_BYTES_MAX} are borne with")]
    Long(u32),
}

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A command; of a write, the payload follows.
    Command(Command),
    /// The next bytes of the write's payload; never none.
    Payload(&'a [u8]),
    /// The payload of the write is complete.
    PayloadEnd,
    /// A request that was answered here, for it made no sense or was empty.
    Answered,
    /// The client goes: answer what is under way, then close the connection.
    Disconnect,
}

/// The server's end of a transmission.
#[derive(Debug)]
pub struct Transmission {
    agreement: Agreement,
    state: State,
    gathered: Gathered,
}

#[derive(Debug)]
enum State {
    Header,
    /// Bytes of a write's payload that are to come.
    Payload(u32),
    /// Bytes of a write's payload that nobody wants, and what is answered to it.
    Skip(u32, Request, Answer),
    /// The client went: nothing is taken any more.
    Disconnected,
    /// The stream is out of step.
    Failed(TransmissionError),
}

/// What is answered to a request that the caller doesn't see.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// It was empty: there is nothing to do.
    Empty,
    No(Errno, &'static str),
}

impl Transmission {
    /// A transmission of what was agreed on.
    #[must_use]
    pub fn new(agreement: Agreement) -> Self {
        let gathered = Gathered::with_room(REQUEST_BYTES);
        Self { agreement, state: State::Header, gathered }
    }

    /// What was agreed on.
    #[must_use]
    pub const fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// Whether no request has begun: where the client may go without a word.
    #[must_use]
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Header | State::Disconnected)
            && self.gathered.bytes().is_empty()
    }

    /// What writes the replies; a copy, so that another part of the program can.
    #[must_use]
    pub const fn replies(&self) -> Replies {
        Replies::new(self.agreement.structured)
    }

    /// Takes the next event off the front of `input`, and appends to `out` what is answered here;
    /// `None` when `input` holds no further one.
    ///
    /// # Errors
    /// [`TransmissionError`] when the connection must be closed; every later call gives the same.
    pub fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'a>>, TransmissionError> {
        let result = self.hear(input, out);
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
        }
        result
    }

    fn hear<'a>(
        &mut self,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'a>>, TransmissionError> {
        match self.state {
            State::Header => self.header(input, out),
            State::Payload(0) => {
                self.state = State::Header;
                Ok(Some(Event::PayloadEnd))
            }
            State::Payload(_) if input.is_empty() => Ok(None),
            State::Payload(ref mut left) => Ok(Some(Event::Payload(take(input, left)))),
            State::Skip(ref mut left, request, answer) => {
                take(input, left);
                if *left > 0 {
                    return Ok(None);
                }
                self.state = State::Header;
                self.answer(&request, answer, out);
                Ok(Some(Event::Answered))
            }
            State::Disconnected => Ok(None),
            State::Failed(ref error) => Err(error.clone()),
        }
    }

    fn header<'a>(
        &mut self,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'a>>, TransmissionError> {
        if !self.gathered.fill(input, REQUEST_BYTES) {
            return Ok(None);
        }
        let mut bytes = [0; REQUEST_BYTES];
        bytes.copy_from_slice(self.gathered.bytes());
        self.gathered.clear();
        let request = Request::decode(&bytes)?;
        let is_write = request.code == CommandKind::Write as u16;
        match self.check(&request) {
            Ok(command) => {
                self.state = match command.kind {
                    CommandKind::Write => State::Payload(command.length),
                    CommandKind::Disconnect => State::Disconnected,
                    _ => State::Header,
                };
                let goes = command.kind == CommandKind::Disconnect;
                Ok(Some(if goes { Event::Disconnect } else { Event::Command(command) }))
            }
            Err(_) if is_write && request.length > SKIPPED_BYTES_MAX => {
                Err(TransmissionError::Long(request.length))
            }
            Err(answer) if is_write => {
                self.state = State::Skip(request.length, request, answer);
                self.hear(input, out)
            }
            Err(answer) => {
                self.answer(&request, answer, out);
                Ok(Some(Event::Answered))
            }
        }
    }

    fn answer(&self, request: &Request, answer: Answer, out: &mut Vec<u8>) {
        let of_read = request.code == CommandKind::Read as u16;
        match answer {
            Answer::Empty => self.replies().nothing(of_read, request.cookie, out),
            Answer::No(errno, text) => self.replies().refuse(request.cookie, errno, text, out),
        }
    }

    fn check(&self, request: &Request) -> Result<Command, Answer> {
        let Some(kind) = CommandKind::from_code(request.code) else {
            return Err(invalid("the command isn't known"));
        };
        let Request { flags, cookie, offset, length, .. } = *request;
        let command = Command { cookie, kind, offset, length, flags };
        if kind == CommandKind::Disconnect {
            // It has no reply: whatever else it says, the client goes.
            return Ok(command);
        }
        self.check_offer(&command)?;
        if kind == CommandKind::Flush {
            let is_plain = offset == 0 && length == 0;
            return if is_plain { Ok(command) } else { Err(invalid("a flush has no range")) };
        }
        self.check_range(&command)?;
        if length > 0 {
            Ok(command)
        } else if kind == CommandKind::BlockStatus {
            Err(invalid("an empty range has no status"))
        } else {
            Err(Answer::Empty)
        }
    }

    /// Whether the client was told that it may ask this.
    fn check_offer(&self, command: &Command) -> Result<(), Answer> {
        let (offered, flags) = match command.kind {
            CommandKind::Read => (true, CommandFlags::DF),
            CommandKind::Write | CommandKind::Disconnect => (true, CommandFlags::NONE),
            CommandKind::Flush => (self.offers(TransmissionFlags::FLUSH), CommandFlags::NONE),
            CommandKind::Trim => (self.offers(TransmissionFlags::TRIM), CommandFlags::NONE),
            CommandKind::Cache => (self.offers(TransmissionFlags::CACHE), CommandFlags::NONE),
            CommandKind::WriteZeroes => (
                self.offers(TransmissionFlags::WRITE_ZEROES),
                CommandFlags::NO_HOLE.with(CommandFlags::FAST_ZERO),
            ),
            CommandKind::BlockStatus => {
                (self.agreement.structured && self.agreement.allocation, CommandFlags::REQ_ONE)
            }
        };
        if command.kind.writes() && self.offers(TransmissionFlags::READ_ONLY) {
            return Err(Answer::No(Errno::NotPermitted, "the export can't be written"));
        }
        if !offered {
            return Err(invalid("the command wasn't offered"));
        }
        let unknown = command.flags.without(flags.with(CommandFlags::FUA));
        if unknown != CommandFlags::NONE {
            return Err(invalid("the command doesn't have this flag"));
        }
        let unoffered = |flag, offer| command.flags.has(flag) && !self.offers(offer);
        if unoffered(CommandFlags::FUA, TransmissionFlags::FUA)
            || unoffered(CommandFlags::DF, TransmissionFlags::DF)
            || unoffered(CommandFlags::FAST_ZERO, TransmissionFlags::FAST_ZERO)
        {
            return Err(invalid("the flag wasn't offered"));
        }
        Ok(())
    }

    /// Whether the range lies within the export, on its blocks, and isn't too long.
    fn check_range(&self, command: &Command) -> Result<(), Answer> {
        let (export, length) = (&self.agreement.export, u64::from(command.length));
        let is_data = matches!(command.kind, CommandKind::Read | CommandKind::Write);
        if is_data && command.length > export.sizes().payload_max {
            let splits = command.kind == CommandKind::Read && self.agreement.structured;
            let errno = if splits { Errno::Overflow } else { Errno::Invalid };
            return Err(Answer::No(errno, "more data than the export takes at once"));
        }
        if command.offset.checked_add(length).is_none_or(|end| end > export.bytes()) {
            let fills = matches!(command.kind, CommandKind::Write | CommandKind::WriteZeroes);
            let errno = if fills { Errno::NoSpace } else { Errno::Invalid };
            return Err(Answer::No(errno, "beyond the end of the export"));
        }
        let minimum = u64::from(export.sizes().minimum);
        if command.offset.is_multiple_of(minimum) && length.is_multiple_of(minimum) {
            Ok(())
        } else {
            Err(invalid("not on the export's blocks"))
        }
    }

    const fn offers(&self, flags: TransmissionFlags) -> bool {
        self.agreement.offers(flags)
    }
}

const fn invalid(text: &'static str) -> Answer {
    Answer::No(Errno::Invalid, text)
}
