//! The server's end of the handshake: from the greeting to an agreement.
//!
//! Every option that comes in is answered, be it with a refusal: a client is given up only when its
//! stream is out of step, when it asks for nonsense without end, or when it names an export in the
//! one way that can't be refused otherwise.
//!
//! Memory: one option's data, at most [`OPTION_BYTES_MAX`].

use std::sync::Arc;

use crate::gather::{Gathered, take};
use crate::limits::{OPTION_BYTES_MAX, OPTION_SKIPPED_BYTES_MAX, OPTIONS_MAX, TEXT_BYTES_MAX};
use crate::network::{WriteNetwork, cut};
use crate::option::OptionInvalid;
use crate::status::{BASE_ALLOCATION, BASE_ALLOCATION_ID};
use crate::{
    Agreement, Export, ExportRequest, Info, InfoCode, OptionCode, OptionHeader, OptionReply,
    OptionReplyCode, QueryRequest,
};

/// What a server says first: two magics, fixed newstyle, and that it can do without zeros.
pub const GREETING: [u8; 18] = *b"NBDMAGICIHAVEOPT\x00\x03";

/// `NBD_FLAG_C_FIXED_NEWSTYLE` and `NBD_FLAG_C_NO_ZEROES`.
const CLIENT_FLAGS: u32 = 0b11;
const NO_ZEROES: u32 = 0b10;
/// What follows an export's flags where a client can't do without.
const ZEROES: [u8; 124] = [0; 124];

/// Why a handshake can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Flags that aren't known.
    #[error("the client set flags that aren't known, {0:#x}: it speaks another protocol")]
    ClientFlags(u32),
    /// No option where one must be.
    #[error(transparent)]
    Option(#[from] OptionInvalid),
    /// Too many options.
    #[error("the client sent more than {OPTIONS_MAX} options without choosing an export")]
    Options,
    /// Too long an option.
    #[error("option {option} has {bytes} bytes: at most {OPTION_SKIPPED_BYTES_MAX} are borne with")]
    Long {
        /// The option's number.
        option: u32,
        /// Its length.
        bytes: u32,
    },
    /// An export that isn't there.
    #[error("the client asked for an export that isn't served, '{0}': give it another name")]
    UnknownExport(String),
}

/// What was heard. Something may have been written to answer it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// An option, which was answered.
    Option,
    /// The client goes; close the connection once the answer is written.
    Aborted,
    /// An export was chosen: what follows belongs to its transmission.
    Agreed(Agreement),
}

/// The server's end of a handshake. It begins once [`GREETING`] was sent.
#[derive(Debug)]
pub struct Handshake {
    exports: Arc<[Export]>,
    state: State,
    gathered: Gathered,
    zeroes: bool,
    options: u32,
    structured: bool,
    /// The export for which `base:allocation` was chosen.
    allocation: Option<usize>,
}

#[derive(Debug)]
enum State {
    ClientFlags,
    Header,
    Data(OptionHeader),
    /// The data of an option that is refused once they are gone.
    Skip {
        header: OptionHeader,
        left: u32,
    },
    /// Agreed or aborted: nothing is taken any more.
    Ended,
    /// The stream is out of step.
    Failed(HandshakeError),
}

impl Handshake {
    /// A handshake in which these exports can be chosen. An empty name means the one that has it,
    /// or else the only one.
    #[must_use]
    pub fn new(exports: Arc<[Export]>) -> Self {
        let gathered = Gathered::with_room(OptionHeader::BYTES);
        let state = State::ClientFlags;
        let (zeroes, structured) = (true, false);
        Self { exports, state, gathered, zeroes, options: 0, structured, allocation: None }
    }

    /// Takes the next thing that the client says off the front of `input`, and appends what is to be
    /// answered to `out`; `None` when `input` holds no further one.
    ///
    /// # Errors
    /// [`HandshakeError`] when the connection must be closed; every later call gives the same.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Heard>, HandshakeError> {
        let result = self.hear(input, out);
        match &result {
            Ok(Some(Heard::Agreed(_) | Heard::Aborted)) => self.state = State::Ended,
            Ok(_) => {}
            Err(error) => self.state = State::Failed(error.clone()),
        }
        result
    }

    fn hear(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Heard>, HandshakeError> {
        loop {
            match self.state {
                State::ClientFlags => {
                    if !self.gathered.fill(input, 4) {
                        return Ok(None);
                    }
                    self.client_flags()?;
                }
                State::Header => {
                    if !self.gathered.fill(input, OptionHeader::BYTES) {
                        return Ok(None);
                    }
                    self.header()?;
                }
                State::Data(header) => {
                    if !self.gathered.fill(input, header.length as usize) {
                        return Ok(None);
                    }
                    let data = std::mem::take(&mut self.gathered);
                    self.state = State::Header;
                    return self.option(header.code, data.bytes(), out).map(Some);
                }
                State::Skip { header, ref mut left } => {
                    take(input, left);
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = State::Header;
                    return Ok(Some(refuse_skipped(header, out)));
                }
                State::Ended => return Ok(None),
                State::Failed(ref error) => return Err(error.clone()),
            }
        }
    }

    fn client_flags(&mut self) -> Result<(), HandshakeError> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.gathered.bytes());
        let flags = u32::from_be_bytes(bytes);
        self.gathered.clear();
        if flags & !CLIENT_FLAGS != 0 {
            return Err(HandshakeError::ClientFlags(flags));
        }
        self.zeroes = flags & NO_ZEROES == 0;
        self.state = State::Header;
        Ok(())
    }

    /// Decides by an option's header alone whether its data are gathered.
    fn header(&mut self) -> Result<(), HandshakeError> {
        let header = OptionHeader::decode(self.gathered.bytes())?;
        self.gathered.clear();
        self.options += 1;
        if self.options > OPTIONS_MAX {
            return Err(HandshakeError::Options);
        }
        if header.length > OPTION_SKIPPED_BYTES_MAX {
            return Err(HandshakeError::Long { option: header.code, bytes: header.length });
        }
        let is_long = header.length as usize > OPTION_BYTES_MAX;
        self.state = match OptionCode::from_code(header.code) {
            Some(OptionCode::ExportName) if is_long => {
                let name = format!("a name of {} bytes", header.length);
                return Err(HandshakeError::UnknownExport(name));
            }
            Some(OptionCode::SetMetaContext) if is_long => {
                self.allocation = None;
                State::Skip { header, left: header.length }
            }
            // What is said with an abort is ignored, however long.
            Some(OptionCode::Abort) => State::Data(OptionHeader { length: 0, ..header }),
            Some(_) if !is_long => State::Data(header),
            _ => State::Skip { header, left: header.length },
        };
        Ok(())
    }

    fn option(
        &mut self,
        code: u32,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Heard, HandshakeError> {
        let option = OptionCode::from_code(code).expect("others are skipped");
        match option {
            OptionCode::ExportName => return self.export_name(data, out).map(Heard::Agreed),
            OptionCode::Abort => {
                ack(code, out);
                return Ok(Heard::Aborted);
            }
            OptionCode::List | OptionCode::StructuredReply | OptionCode::StartTls
                if !data.is_empty() =>
            {
                refuse(code, OptionReplyCode::Invalid, "this option has no data", out);
            }
            OptionCode::List => {
                for export in &*self.exports {
                    OptionReply::server(code, export.name(), export.description(), out);
                }
                ack(code, out);
            }
            OptionCode::StartTls => {
                refuse(code, OptionReplyCode::Policy, "TLS isn't offered here: go on without", out);
            }
            OptionCode::StructuredReply => {
                self.structured = true;
                ack(code, out);
            }
            OptionCode::Info | OptionCode::Go => {
                if let Some(agreement) = self.info(code, data, out)
                    && option == OptionCode::Go
                {
                    return Ok(Heard::Agreed(agreement));
                }
            }
            OptionCode::ListMetaContext => self.list_contexts(code, data, out),
            OptionCode::SetMetaContext => self.set_contexts(code, data, out),
        }
        Ok(Heard::Option)
    }

    fn export_name(&mut self, name: &[u8], out: &mut Vec<u8>) -> Result<Agreement, HandshakeError> {
        let index = std::str::from_utf8(name).ok().and_then(|name| self.find(name));
        let Some(index) = index else {
            // Each byte may become several: what isn't shown isn't made.
            let shown = &name[..name.len().min(TEXT_BYTES_MAX)];
            let name = String::from_utf8_lossy(shown).escape_debug().to_string();
            return Err(HandshakeError::UnknownExport(cut(&name, TEXT_BYTES_MAX).to_owned()));
        };
        let agreement = self.agreement(index);
        let flags = agreement.export.flags(self.structured);
        out.be_u64(agreement.export.bytes()).be_u16(flags.0);
        if self.zeroes {
            out.raw(&ZEROES);
        }
        Ok(agreement)
    }

    /// Answers what an export is; nothing when it was refused.
    fn info(&self, code: u32, data: &[u8], out: &mut Vec<u8>) -> Option<Agreement> {
        let request = valid(code, ExportRequest::decode(data), out)?;
        let agreement = self.agreement(self.find_or_refuse(code, request.name, out)?);
        let export = &agreement.export;
        Info::Export(export.bytes(), export.flags(self.structured)).encode(code, out);
        // Unasked too: a client that doesn't keep to them at least learned why it is refused.
        Info::BlockSize(export.sizes()).encode(code, out);
        if request.asks_for(InfoCode::Name as u16) {
            Info::Name(export.name()).encode(code, out);
        }
        if request.asks_for(InfoCode::Description as u16) && !export.description().is_empty() {
            Info::Description(export.description()).encode(code, out);
        }
        ack(code, out);
        Some(agreement)
    }

    fn list_contexts(&self, code: u32, data: &[u8], out: &mut Vec<u8>) {
        let Some(request) = valid(code, QueryRequest::decode(data), out) else { return };
        if self.find_or_refuse(code, request.name, out).is_none() {
            return;
        }
        let all = request.queries.clone().next().is_none();
        let matches = |query: &str| query == BASE_ALLOCATION || query == "base:";
        if all || request.queries.clone().any(matches) {
            OptionReply::meta_context(code, 0, BASE_ALLOCATION, out);
        }
        ack(code, out);
    }

    fn set_contexts(&mut self, code: u32, data: &[u8], out: &mut Vec<u8>) {
        // What was set before is gone, also when this fails.
        self.allocation = None;
        if !self.structured {
            let text = "structured replies must be agreed on before";
            return refuse(code, OptionReplyCode::Invalid, text, out);
        }
        let Some(mut request) = valid(code, QueryRequest::decode(data), out) else { return };
        let Some(index) = self.find_or_refuse(code, request.name, out) else { return };
        if request.queries.any(|query| query == BASE_ALLOCATION) {
            self.allocation = Some(index);
            OptionReply::meta_context(code, BASE_ALLOCATION_ID, BASE_ALLOCATION, out);
        }
        ack(code, out);
    }

    fn agreement(&self, index: usize) -> Agreement {
        let (export, structured) = (self.exports[index].clone(), self.structured);
        Agreement { index, export, structured, allocation: self.allocation == Some(index) }
    }

    fn find(&self, name: &str) -> Option<usize> {
        let only = (name.is_empty() && self.exports.len() == 1).then_some(0);
        self.exports.iter().position(|export| export.name() == name).or(only)
    }

    fn find_or_refuse(&self, code: u32, name: &str, out: &mut Vec<u8>) -> Option<usize> {
        let index = self.find(name);
        if index.is_none() {
            refuse(code, OptionReplyCode::Unknown, "no export has this name", out);
        }
        index
    }
}

fn ack(code: u32, out: &mut Vec<u8>) {
    OptionReply::text(code, OptionReplyCode::Ack, "", out);
}

fn refuse(code: u32, reply: OptionReplyCode, text: &str, out: &mut Vec<u8>) {
    OptionReply::text(code, reply, text, out);
}

fn refuse_skipped(header: OptionHeader, out: &mut Vec<u8>) -> Heard {
    match OptionCode::from_code(header.code) {
        Some(_) => refuse(header.code, OptionReplyCode::TooBig, "the option is too long", out),
        None => refuse(header.code, OptionReplyCode::Unsupported, "the option isn't known", out),
    }
    Heard::Option
}

/// What an option's data say, or nothing once they were refused.
fn valid<T>(code: u32, data: Result<T, OptionInvalid>, out: &mut Vec<u8>) -> Option<T> {
    match data {
        Ok(data) => Some(data),
        Err(error) => {
            refuse(code, OptionReplyCode::Invalid, &error.to_string(), out);
            None
        }
    }
}
