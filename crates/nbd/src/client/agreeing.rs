//! The client's end of the handshake: from the greeting to an agreement.
//!
//! Memory: one reply's payload, at most [`OptionReply::PAYLOAD_BYTES_MAX`].

use super::ServerInvalid;
use crate::gather::Gathered;
use crate::limits::{EXPORT_BYTES_MAX, OPTION_REPLIES_MAX, TEXT_BYTES_MAX};
use crate::network::{WriteNetwork, cut};
use crate::{
    BlockSizes, ExportRequest, GREETING, Info, InfoCode, OptionCode, OptionHeader, OptionReply,
    OptionReplyCode, QueryRequest, TransmissionFlags,
};

/// Bytes of the greeting that are the same for all: two magics.
const MAGIC_BYTES: usize = 16;
/// `NBD_FLAG_C_FIXED_NEWSTYLE` and `NBD_FLAG_C_NO_ZEROES`: what a server may offer of each is the same bit.
const FIXED_NEWSTYLE: u16 = 0b01;
const NO_ZEROES: u16 = 0b10;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The export's name.
    pub export: String,
    /// Contexts of block status, each of which must be had.
    pub contexts: Vec<String>,
}

/// What a handshake came to, for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The export's size.
    pub bytes: u64,
    /// What it is, and which commands it takes.
    pub flags: TransmissionFlags,
    /// What lengths it takes.
    pub sizes: BlockSizes,
    /// The server's numbers for the contexts, in the order in which they were wanted.
    pub contexts: Vec<u32>,
}

/// The client's end of a handshake.
#[derive(Debug)]
pub struct Agreeing {
    wanted: Wanted,
    state: State,
    gathered: Gathered,
    /// Replies to the option that is being answered.
    replies: usize,
    contexts: Vec<Option<u32>>,
    export: Option<(u64, TransmissionFlags)>,
    sizes: BlockSizes,
}

#[derive(Debug)]
enum State {
    Greeting,
    /// An answer to this option comes.
    Header(OptionCode),
    Payload(OptionCode, OptionReply),
    /// Nothing is taken any more.
    Ended,
    Failed(ServerInvalid),
}

impl Agreeing {
    /// A handshake in which nothing was said yet.
    #[must_use]
    pub fn new(wanted: Wanted) -> Self {
        let contexts = vec![None; wanted.contexts.len()];
        let (state, gathered) = (State::Greeting, Gathered::default());
        let (export, sizes) = (None, BlockSizes::default());
        Self { wanted, state, gathered, replies: 0, contexts, export, sizes }
    }

    /// Takes what the server says off the front of `input`, and appends what is to be said to `out`, until
    /// they agree; `None` when `input` holds no more.
    ///
    /// # Errors
    /// [`ServerInvalid`] when the connection must be closed; every later call gives the same.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Agreed>, ServerInvalid> {
        let heard = self.hear(input, out);
        match &heard {
            Ok(Some(_)) => self.state = State::Ended,
            Ok(None) => {}
            Err(invalid) => self.state = State::Failed(invalid.clone()),
        }
        heard
    }

    fn hear(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Agreed>, ServerInvalid> {
        loop {
            match self.state {
                State::Greeting => {
                    if !self.gathered.fill(input, GREETING.len()) {
                        return Ok(None);
                    }
                    self.greeting(out)?;
                }
                State::Header(option) => {
                    if !self.gathered.fill(input, OptionReply::BYTES) {
                        return Ok(None);
                    }
                    let reply = OptionReply::decode(self.gathered.bytes())?;
                    self.gathered.clear();
                    if reply.option != option as u32 {
                        return Err(ServerInvalid::Unasked("answers another option"));
                    }
                    self.replies += 1;
                    if self.replies > OPTION_REPLIES_MAX {
                        return Err(ServerInvalid::Endless);
                    }
                    self.state = State::Payload(option, reply);
                }
                State::Payload(option, reply) => {
                    if !self.gathered.fill(input, reply.length as usize) {
                        return Ok(None);
                    }
                    let payload = std::mem::take(&mut self.gathered);
                    self.state = State::Header(option);
                    if let Some(agreed) = self.reply(option, reply.code, payload.bytes(), out)? {
                        return Ok(Some(agreed));
                    }
                }
                State::Ended => return Ok(None),
                State::Failed(ref invalid) => return Err(invalid.clone()),
            }
        }
    }

    fn greeting(&mut self, out: &mut Vec<u8>) -> Result<(), ServerInvalid> {
        let (magic, flags) = self.gathered.bytes().split_at(MAGIC_BYTES);
        let flags = u16::from_be_bytes([flags[0], flags[1]]);
        if magic != &GREETING[..MAGIC_BYTES] || flags & FIXED_NEWSTYLE == 0 {
            return Err(ServerInvalid::Greeting);
        }
        self.gathered.clear();
        out.be_u32(u32::from(flags & (FIXED_NEWSTYLE | NO_ZEROES)));
        OptionHeader { code: OptionCode::StructuredReply as u32, length: 0 }.encode(out);
        self.state = State::Header(OptionCode::StructuredReply);
        Ok(())
    }

    fn reply(
        &mut self,
        option: OptionCode,
        code: OptionReplyCode,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Agreed>, ServerInvalid> {
        if code.is_error() {
            return Err(self.refused(option, code, payload));
        }
        match (option, code) {
            (OptionCode::SetMetaContext, OptionReplyCode::MetaContext) => self.context(payload)?,
            (OptionCode::Go, OptionReplyCode::Info) => match Info::decode(payload)? {
                Info::Export(bytes, _) if bytes > EXPORT_BYTES_MAX => {
                    return Err(ServerInvalid::Bytes(bytes));
                }
                Info::Export(bytes, flags) => self.export = Some((bytes, flags)),
                Info::BlockSize(sizes) => self.sizes = sizes,
                Info::Name(_) | Info::Description(_) | Info::Other(_) => {}
            },
            (OptionCode::StructuredReply, OptionReplyCode::Ack) => self.after_structured(out),
            (OptionCode::SetMetaContext, OptionReplyCode::Ack) => self.go(out),
            (OptionCode::Go, OptionReplyCode::Ack) => return self.agreed().map(Some),
            _ => return Err(ServerInvalid::Unasked("answers an option by what doesn't fit it")),
        }
        Ok(None)
    }

    fn refused(&self, option: OptionCode, code: OptionReplyCode, payload: &[u8]) -> ServerInvalid {
        let what = match option {
            OptionCode::StructuredReply => "structured replies".to_owned(),
            OptionCode::SetMetaContext => "block status".to_owned(),
            _ => format!("the export '{}'", self.wanted.export),
        };
        let text = String::from_utf8_lossy(&payload[..payload.len().min(TEXT_BYTES_MAX)]);
        let text = text.escape_debug().to_string();
        let why = if text.is_empty() { format!("{code:?}") } else { text };
        ServerInvalid::Refused { what, why: cut(&why, TEXT_BYTES_MAX).to_owned() }
    }

    fn after_structured(&mut self, out: &mut Vec<u8>) {
        if self.wanted.contexts.is_empty() {
            return self.go(out);
        }
        let queries: Vec<&str> = self.wanted.contexts.iter().map(String::as_str).collect();
        QueryRequest::encode(OptionCode::SetMetaContext, &self.wanted.export, &queries, out);
        self.expect(OptionCode::SetMetaContext);
    }

    fn go(&mut self, out: &mut Vec<u8>) {
        let infos = [InfoCode::BlockSize as u16];
        ExportRequest::encode(OptionCode::Go, &self.wanted.export, &infos, out);
        self.expect(OptionCode::Go);
    }

    fn expect(&mut self, option: OptionCode) {
        (self.state, self.replies) = (State::Header(option), 0);
    }

    fn context(&mut self, payload: &[u8]) -> Result<(), ServerInvalid> {
        let (id, name) = OptionReply::decode_meta_context(payload)?;
        let at = self.wanted.contexts.iter().position(|wanted| wanted == name);
        let known = self.contexts.contains(&Some(id));
        match at.map(|at| &mut self.contexts[at]) {
            Some(place @ None) if !known => *place = Some(id),
            _ => return Err(ServerInvalid::Unasked("offers a context")),
        }
        Ok(())
    }

    fn agreed(&self) -> Result<Agreed, ServerInvalid> {
        let missing = self.contexts.iter().position(Option::is_none);
        if let Some(missing) = missing {
            return Err(ServerInvalid::Context(self.wanted.contexts[missing].clone()));
        }
        let (bytes, flags) =
            self.export.ok_or(ServerInvalid::Unasked("begins without saying what it serves"))?;
        let contexts = self.contexts.iter().flatten().copied().collect();
        Ok(Agreed { bytes, flags, sizes: self.sizes, contexts })
    }
}
