//! The client's end of the transmission: requests, and what their replies hold.
//!
//! Replies may come in any order, and in chunks. Each chunk is held against its request before anything of
//! it is handed on.

use std::ops::Range;

use super::{Agreed, ServerInvalid};
use crate::gather::{Gathered, take};
use crate::limits::{REQUESTS_ASKED_MAX, TEXT_BYTES_MAX};
use crate::network::{cut, length};
use crate::{
    ChunkBody, ChunkCode, ChunkHeader, CommandFlags, CommandKind, Cookie, Errno, ReplyHeader,
    Request, Span,
};

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered<'a> {
    /// Some data of a read, and where they are from.
    Data(u64, &'a [u8]),
    /// So many zeros of a read, and where they are.
    Hole(u64, u32),
    /// What a context says from the beginning of what was asked for on: to its end at the most, and perhaps
    /// not as far. The context's place among those that were wanted.
    Spans(usize, Vec<Span>),
    /// A request is answered, with all that belongs to it.
    Done(Cookie),
    /// It failed.
    Failed(Cookie, Errno, String),
}

/// A request that isn't answered yet.
#[derive(Debug)]
struct Asked {
    cookie: Cookie,
    kind: CommandKind,
    range: Range<u64>,
    /// Bytes of a read that were told.
    told: u64,
    /// Contexts that were told.
    contexts: Vec<u32>,
    failed: Option<(Errno, String)>,
}

/// The client's end of a transmission.
#[derive(Debug)]
pub struct Asking {
    contexts: Vec<u32>,
    bytes: u64,
    asked: Vec<Asked>,
    next_cookie: u64,
    state: State,
    gathered: Gathered,
}

#[derive(Debug)]
enum State {
    Header,
    /// A chunk that is taken as a whole.
    Chunk(ChunkHeader),
    /// The data of a chunk, at this offset, of which so many come.
    Data {
        header: ChunkHeader,
        offset: u64,
        left: u32,
    },
    Failed(ServerInvalid),
}

impl Asking {
    /// A transmission in which nothing was asked yet.
    #[must_use]
    pub fn new(agreed: &Agreed) -> Self {
        let (contexts, bytes) = (agreed.contexts.clone(), agreed.bytes);
        let (state, gathered) = (State::Header, Gathered::default());
        Self { contexts, bytes, asked: Vec::new(), next_cookie: 1, state, gathered }
    }

    /// How many requests aren't answered.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.asked.len()
    }

    /// Appends a request for data.
    ///
    /// # Panics
    /// When it doesn't lie on the export, or too many are under way.
    pub fn read(&mut self, offset: u64, bytes: u32, out: &mut Vec<u8>) -> Cookie {
        self.ask(CommandKind::Read, offset, bytes, out)
    }

    /// Appends a request for what the contexts say.
    ///
    /// # Panics
    /// As [`Asking::read`].
    pub fn status(&mut self, offset: u64, bytes: u32, out: &mut Vec<u8>) -> Cookie {
        self.ask(CommandKind::BlockStatus, offset, bytes, out)
    }

    /// Appends the client's farewell.
    pub fn disconnect(out: &mut Vec<u8>) {
        let (code, cookie) = (CommandKind::Disconnect as u16, Cookie(0));
        Request { flags: CommandFlags::NONE, code, cookie, offset: 0, length: 0 }.encode(out);
    }

    fn ask(&mut self, kind: CommandKind, offset: u64, bytes: u32, out: &mut Vec<u8>) -> Cookie {
        let end = offset.checked_add(u64::from(bytes)).filter(|end| *end <= self.bytes);
        assert!(bytes > 0 && end.is_some(), "{bytes} bytes at {offset} aren't on the export");
        assert!(self.asked.len() < REQUESTS_ASKED_MAX, "that many may be under way");
        let cookie = Cookie(self.next_cookie);
        self.next_cookie += 1;
        let range = offset..offset + u64::from(bytes);
        let (told, contexts, failed) = (0, Vec::new(), None);
        self.asked.push(Asked { cookie, kind, range, told, contexts, failed });
        let (flags, code) = (CommandFlags::NONE, kind as u16);
        Request { flags, code, cookie, offset, length: bytes }.encode(out);
        cookie
    }

    /// Takes the next thing that the server answers off the front of `input`; `None` when that holds no
    /// further one.
    ///
    /// # Errors
    /// [`ServerInvalid`] when the connection must be closed; every later call gives the same.
    pub fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<Answered<'a>>, ServerInvalid> {
        let heard = self.hear(input);
        if let Err(invalid) = &heard {
            self.state = State::Failed(invalid.clone());
        }
        heard
    }

    fn hear<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Answered<'a>>, ServerInvalid> {
        loop {
            match self.state {
                State::Header => {
                    let Some(header) = self.header(input)? else { return Ok(None) };
                    if let Some(answered) = self.begin(header)? {
                        return Ok(Some(answered));
                    }
                }
                State::Chunk(header) => {
                    // Of data only where they are from; they follow.
                    let is_data = header.code == ChunkCode::Data;
                    let wanted = if is_data { 8 } else { header.length as usize };
                    if !self.gathered.fill(input, wanted) {
                        return Ok(None);
                    }
                    let payload = std::mem::take(&mut self.gathered);
                    self.state = State::Header;
                    let answered = match is_data {
                        true => self.data(header, payload.bytes())?,
                        false => self.chunk(header, payload.bytes())?,
                    };
                    if answered.is_some() {
                        return Ok(answered);
                    }
                }
                State::Data { header, ref mut offset, ref mut left } => {
                    if *left == 0 {
                        self.state = State::Header;
                        if let Some(answered) = self.settle(&header)? {
                            return Ok(Some(answered));
                        }
                        continue;
                    }
                    let part = take(input, left);
                    if part.is_empty() {
                        return Ok(None);
                    }
                    let at = *offset;
                    *offset += u64::from(length(part.len()));
                    return Ok(Some(Answered::Data(at, part)));
                }
                State::Failed(ref invalid) => return Err(invalid.clone()),
            }
        }
    }

    /// The next header, once it is whole.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<ReplyHeader>, ServerInvalid> {
        loop {
            let count = self.gathered.bytes().len();
            let mut known = self.gathered.bytes();
            if let Some(header) = ReplyHeader::decode(&mut known)? {
                self.gathered.clear();
                return Ok(Some(header));
            }
            if input.is_empty() {
                return Ok(None);
            }
            self.gathered.fill(input, count + 1);
        }
    }

    fn begin<'a>(&mut self, header: ReplyHeader) -> Result<Option<Answered<'a>>, ServerInvalid> {
        match header {
            ReplyHeader::Simple { cookie, error: Some(errno) } => {
                let at = self.position(cookie)?;
                self.asked.swap_remove(at);
                Ok(Some(Answered::Failed(cookie, errno, String::new())))
            }
            ReplyHeader::Simple { .. } => Err(ServerInvalid::Unasked("sends a simple reply")),
            ReplyHeader::Chunk(header) => {
                let at = self.position(header.cookie)?;
                let asked = &self.asked[at];
                let fits = match header.code {
                    ChunkCode::Data | ChunkCode::Hole => asked.kind == CommandKind::Read,
                    ChunkCode::BlockStatus => asked.kind == CommandKind::BlockStatus,
                    ChunkCode::None | ChunkCode::Error | ChunkCode::ErrorOffset => true,
                };
                let left = asked.range.end - asked.range.start - asked.told;
                let is_data = header.code == ChunkCode::Data;
                if !fits || is_data && u64::from(header.length - 8) > left {
                    return Err(ServerInvalid::Unasked("sends a chunk"));
                }
                self.state = State::Chunk(header);
                Ok(None)
            }
        }
    }

    fn position(&self, cookie: Cookie) -> Result<usize, ServerInvalid> {
        let at = self.asked.iter().position(|asked| asked.cookie == cookie);
        at.ok_or(ServerInvalid::Unasked("answers a request"))
    }

    /// The beginning of data.
    fn data<'a>(
        &mut self,
        header: ChunkHeader,
        place: &[u8],
    ) -> Result<Option<Answered<'a>>, ServerInvalid> {
        let offset = place.iter().fold(0, |offset, byte| offset << 8 | u64::from(*byte));
        let left = header.length - 8;
        self.tell(header.cookie, offset, left)?;
        self.state = State::Data { header, offset, left };
        Ok(None)
    }

    fn chunk<'a>(
        &mut self,
        header: ChunkHeader,
        payload: &[u8],
    ) -> Result<Option<Answered<'a>>, ServerInvalid> {
        match ChunkBody::decode(header.code, payload)? {
            ChunkBody::None => self.settle(&header),
            ChunkBody::Data(..) => Err(ServerInvalid::Unasked("sends data")),
            ChunkBody::Hole(offset, bytes) => {
                self.tell(header.cookie, offset, bytes)?;
                // Where it is the last, the end is told next.
                self.state = State::Data { header, offset, left: 0 };
                Ok(Some(Answered::Hole(offset, bytes)))
            }
            body @ ChunkBody::BlockStatus(id, _) => {
                let spans = body.spans().collect();
                let answered = self.spans(header.cookie, id, spans)?;
                self.state = State::Data { header, offset: 0, left: 0 };
                Ok(Some(answered))
            }
            ChunkBody::Error(errno, text, _) => {
                let text = String::from_utf8_lossy(&text[..text.len().min(TEXT_BYTES_MAX)]);
                let text = cut(&text.escape_debug().to_string(), TEXT_BYTES_MAX).to_owned();
                let at = self.position(header.cookie)?;
                self.asked[at].failed = Some((errno, text));
                self.settle(&header)
            }
        }
    }

    /// Holds a part of a read against what was asked.
    fn tell(&mut self, cookie: Cookie, offset: u64, bytes: u32) -> Result<(), ServerInvalid> {
        let at = self.position(cookie)?;
        let asked = &mut self.asked[at];
        let end = offset.checked_add(u64::from(bytes));
        let lies_within =
            offset >= asked.range.start && end.is_some_and(|end| end <= asked.range.end);
        asked.told = asked.told.saturating_add(u64::from(bytes));
        if lies_within && asked.told <= asked.range.end - asked.range.start {
            return Ok(());
        }
        Err(ServerInvalid::Unasked("sends data"))
    }

    fn spans<'a>(
        &mut self,
        cookie: Cookie,
        id: u32,
        mut spans: Vec<Span>,
    ) -> Result<Answered<'a>, ServerInvalid> {
        let context = self.contexts.iter().position(|context| *context == id);
        let at = self.position(cookie)?;
        let asked = &mut self.asked[at];
        let (Some(context), false) = (context, asked.contexts.contains(&id)) else {
            return Err(ServerInvalid::Unasked("tells of a context"));
        };
        asked.contexts.push(id);
        let mut left = asked.range.end - asked.range.start;
        for span in &mut spans {
            if span.length == 0 {
                return Err(ServerInvalid::Unasked("tells of nothing"));
            }
            // The last may reach beyond what was asked for.
            span.length = span.length.min(left);
            left -= span.length;
        }
        spans.retain(|span| span.length > 0);
        Ok(Answered::Spans(context, spans))
    }

    /// Ends a request with its last chunk.
    fn settle<'a>(&mut self, header: &ChunkHeader) -> Result<Option<Answered<'a>>, ServerInvalid> {
        if !header.is_last {
            return Ok(None);
        }
        let at = self.position(header.cookie)?;
        let asked = self.asked.swap_remove(at);
        if let Some((errno, text)) = asked.failed {
            return Ok(Some(Answered::Failed(asked.cookie, errno, text)));
        }
        let is_whole = match asked.kind {
            CommandKind::Read => asked.told == asked.range.end - asked.range.start,
            _ => asked.contexts.len() == self.contexts.len(),
        };
        match is_whole {
            true => Ok(Some(Answered::Done(asked.cookie))),
            false => Err(ServerInvalid::Unasked("ends a reply that isn't whole")),
        }
    }
}
