//! Cuts a stream of bytes into frames, whatever pieces it arrives in.
//!
//! The payload of a write is handed on in the pieces in which it arrives, without a copy and
//! unchecked: the receiver compares it with its checksum once it lies whole in its own memory. All
//! other payloads are short; they are gathered here, and compared.
//!
//! Memory: one header, or one payload of at most [`crate::limits::CONTROL_BYTES_MAX`] bytes. After
//! an error it gives the same error for ever.

use tidegate_model::limits::RECORD_BYTES_MAX;
use tidegate_model::{Checksum, Reader, Short};

use crate::limits::PROTOCOL_VERSION;
use crate::{HEADER_BYTES, Header, Kind, Message, Record};

/// Why bytes are no frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A header's check doesn't fit: the stream is garbage, or out of step.
    #[error("a frame's header doesn't fit its check")]
    HeaderCheck,
    /// A kind that isn't known, or is reserved.
    #[error("frames of kind {0} aren't known")]
    Kind(u8),
    /// A kind that this end doesn't receive.
    #[error("a frame of kind {0:?} came from the wrong end")]
    Side(Kind),
    /// A reserved byte isn't 0.
    #[error("a reserved byte of a header is set")]
    Reserved,
    /// A field that the kind doesn't use isn't 0.
    #[error("the field '{field}' is set in a frame of kind {kind:?}, which doesn't have it")]
    Unused {
        /// The frame's kind.
        kind: Kind,
        /// The field.
        field: &'static str,
    },
    /// A hello of another version of the protocol.
    #[error("it speaks version {0} of the protocol, not {PROTOCOL_VERSION}")]
    Version(u16),
    /// The payload is longer than its kind allows.
    #[error("a payload of {bytes} bytes is longer than the {most} that are allowed")]
    Long {
        /// What the header states.
        bytes: u32,
        /// What is allowed.
        most: usize,
    },
    /// A write whose payload isn't as long as the place that it is for.
    #[error("a write of {length} bytes came with {payload} bytes")]
    WriteLength {
        /// The place's length.
        length: u64,
        /// The payload's.
        payload: u32,
    },
    /// A payload's checksum doesn't fit.
    #[error("a payload doesn't fit its checksum")]
    Checksum,
    /// A payload ends too early.
    #[error("a payload is cut short: {0}")]
    Short(#[from] Short),
    /// A payload says what can't be.
    #[error("a payload makes no sense: {0}")]
    Payload(&'static str),
}

/// Which end decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The agent: it hears the server.
    Agent,
    /// The server: it hears the agent.
    Server,
}

/// What was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<'a> {
    /// A frame other than a write.
    Message(Message),
    /// A write begins: its record; the payload follows.
    Write(Record),
    /// The next bytes of a write's payload.
    Payload(&'a [u8]),
    /// The payload of the write is complete.
    WriteEnd,
}

/// Decodes one direction of a session.
pub struct Decoder {
    side: Side,
    record_bytes_max: u32,
    state: State,
    /// A header, or the payload of a frame other than a write, as far as it has arrived.
    gathered: Vec<u8>,
}

enum State {
    Header,
    Control(Header),
    /// Bytes of a write's payload that are to come.
    Payload(usize),
    /// Nothing can be decoded any more: where the next frame begins isn't known.
    Failed(DecodeError),
}

impl Decoder {
    /// A decoder at the beginning of the stream that `side` receives.
    #[must_use]
    pub fn new(side: Side) -> Self {
        let gathered = Vec::with_capacity(HEADER_BYTES);
        Self { side, record_bytes_max: RECORD_BYTES_MAX, state: State::Header, gathered }
    }

    /// Sets the longest payload of a write, as welcome says it.
    pub fn set_record_bytes_max(&mut self, bytes: u32) {
        self.record_bytes_max = bytes.min(RECORD_BYTES_MAX);
    }

    /// Takes the next item off the front of `input`; `None` when it holds no further one.
    ///
    /// # Errors
    /// [`DecodeError`] when the stream isn't what it must be; it can't be decoded any further, and
    /// every later call gives the same error.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Item<'a>>, DecodeError> {
        let result = self.decode(input);
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
        }
        result
    }

    fn decode<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Item<'a>>, DecodeError> {
        loop {
            match self.state {
                State::Header => {
                    let Some(header) = self.header(input)? else { return Ok(None) };
                    if header.kind == Kind::Write {
                        let record = Record::decode(&header, &mut Reader::new(&[]))?;
                        self.state = State::Payload(header.payload_bytes as usize);
                        return Ok(Some(Item::Write(record)));
                    }
                    self.state = State::Control(header);
                }
                State::Control(header) => {
                    if !self.gather(input, header.payload_bytes as usize) {
                        return Ok(None);
                    }
                    if Checksum::of(&self.gathered) != header.checksum {
                        return Err(DecodeError::Checksum);
                    }
                    let message = Message::decode(&header, &self.gathered)?;
                    self.gathered.clear();
                    self.state = State::Header;
                    return Ok(Some(Item::Message(message)));
                }
                State::Payload(0) => {
                    self.state = State::Header;
                    return Ok(Some(Item::WriteEnd));
                }
                State::Payload(_) if input.is_empty() => return Ok(None),
                State::Payload(left) => {
                    let (part, rest) = input.split_at(left.min(input.len()));
                    *input = rest;
                    self.state = State::Payload(left - part.len());
                    return Ok(Some(Item::Payload(part)));
                }
                State::Failed(ref error) => return Err(error.clone()),
            }
        }
    }

    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, DecodeError> {
        if !self.gather(input, HEADER_BYTES) {
            return Ok(None);
        }
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&self.gathered);
        self.gathered.clear();
        let header = Header::decode(&bytes)?;
        self.check(&header)?;
        Ok(Some(header))
    }

    /// Refuses a frame by its header alone, before anything is kept of its payload.
    fn check(&self, header: &Header) -> Result<(), DecodeError> {
        if header.kind.is_from_agent() != (self.side == Side::Server) {
            return Err(DecodeError::Side(header.kind));
        }
        let most = match header.kind {
            Kind::Write => self.record_bytes_max as usize,
            kind => kind.payload_bytes_max(),
        };
        if header.payload_bytes as usize > most {
            return Err(DecodeError::Long { bytes: header.payload_bytes, most });
        }
        if header.kind == Kind::Write && header.length != u64::from(header.payload_bytes) {
            let (length, payload) = (header.length, header.payload_bytes);
            return Err(DecodeError::WriteLength { length, payload });
        }
        Ok(())
    }

    /// Gathers until `count` bytes are there; false when `input` ended before.
    fn gather(&mut self, input: &mut &[u8], count: usize) -> bool {
        let missing = count - self.gathered.len();
        let (part, rest) = input.split_at(missing.min(input.len()));
        self.gathered.extend_from_slice(part);
        *input = rest;
        self.gathered.len() == count
    }
}
