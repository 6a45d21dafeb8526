//! What a server may answer to what.
//!
//! Replies may come in any order, those of one read in chunks in any order too, but for the last.
//! The caller answers each command once, with what fits it: another answer is a mistake of the
//! program and stops it.

use crate::limits::{SPANS_SENT_MAX, TEXT_BYTES_MAX};
use crate::network::{WriteNetwork, cut, length};
use crate::status::{BASE_ALLOCATION_ID, Merged};
use crate::{
    ChunkCode, ChunkHeader, Command, CommandFlags, CommandKind, Cookie, Errno, ReplyHeader, Span,
    StatusFlags,
};

/// Writes the replies of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replies {
    structured: bool,
}

impl Replies {
    /// Replies as they were agreed on.
    #[must_use]
    pub const fn new(structured: bool) -> Self {
        Self { structured }
    }

    /// Success of a command that gives nothing.
    ///
    /// # Panics
    /// If the command gives something.
    pub fn done(self, command: &Command, out: &mut Vec<u8>) {
        let gives = matches!(command.kind, CommandKind::Read | CommandKind::BlockStatus);
        assert!(!gives, "{:?} is answered by what it asks for", command.kind);
        self.nothing(false, command.cookie, out);
    }

    /// Failure of any command of which nothing was answered before, or only chunks that weren't the
    /// last. The text reaches a person only where replies are structured.
    pub fn error(self, command: &Command, errno: Errno, text: &str, out: &mut Vec<u8>) {
        self.refuse(command.cookie, errno, text, out);
    }

    /// Whether a read may be answered in chunks, with holes; otherwise [`Self::read_whole`] does.
    #[must_use]
    pub const fn takes_chunks(self, command: &Command) -> bool {
        self.structured && !command.flags.has(CommandFlags::DF)
    }

    /// The header of a read's data, all of which must follow in one piece, surely: an error in their
    /// midst can't be told any more but by closing the connection.
    ///
    /// # Panics
    /// If it is no read.
    pub fn read_whole(self, command: &Command, out: &mut Vec<u8>) {
        assert_eq!(command.kind, CommandKind::Read, "data answer reads only");
        if self.structured {
            self.data_header(command.cookie, command.offset, command.length, true, out);
        } else {
            ReplyHeader::Simple { cookie: command.cookie, error: None }.encode(out);
        }
    }

    /// The header of a part of a read's data, which must follow in one piece.
    ///
    /// # Panics
    /// If the read doesn't take chunks, or not there.
    pub fn read_data(
        self,
        command: &Command,
        offset: u64,
        bytes: u32,
        is_last: bool,
        out: &mut Vec<u8>,
    ) {
        self.check_part(command, offset, bytes);
        self.data_header(command.cookie, offset, bytes, is_last, out);
    }

    /// A part of a read that is zero.
    ///
    /// # Panics
    /// If the read doesn't take chunks, or not there.
    pub fn read_hole(
        self,
        command: &Command,
        offset: u64,
        bytes: u32,
        is_last: bool,
        out: &mut Vec<u8>,
    ) {
        self.check_part(command, offset, bytes);
        let cookie = command.cookie;
        ChunkHeader { cookie, code: ChunkCode::Hole, is_last, length: 12 }.encode(out);
        out.be_u64(offset).be_u32(bytes);
    }

    /// A part of a read that failed; [`Self::read_end`] or another last chunk must follow.
    ///
    /// # Panics
    /// If the read doesn't take chunks, or not there.
    pub fn read_error(
        self,
        command: &Command,
        offset: u64,
        errno: Errno,
        text: &str,
        out: &mut Vec<u8>,
    ) {
        self.check_part(command, offset, 1);
        let text = cut(text, TEXT_BYTES_MAX);
        let (cookie, code) = (command.cookie, ChunkCode::ErrorOffset);
        let bytes = length(14 + text.len());
        ChunkHeader { cookie, code, is_last: false, length: bytes }.encode(out);
        error_and_text(errno, text, out);
        out.be_u64(offset);
    }

    /// The end of a read whose last chunk wasn't known to be the last.
    ///
    /// # Panics
    /// If replies aren't structured.
    pub fn read_end(self, command: &Command, out: &mut Vec<u8>) {
        assert!(self.structured, "only chunks have an end of their own");
        self.nothing(true, command.cookie, out);
    }

    /// What a range holds: `spans` from the command's offset on. As many are told as the command
    /// takes, at most [`SPANS_SENT_MAX`]; where none is known, data are assumed.
    ///
    /// # Panics
    /// If it isn't asked for.
    pub fn block_status(
        self,
        command: &Command,
        spans: impl IntoIterator<Item = Span>,
        out: &mut Vec<u8>,
    ) {
        assert!(self.structured && command.kind == CommandKind::BlockStatus, "{command:?}");
        let is_one = command.flags.has(CommandFlags::REQ_ONE);
        let most = if is_one { 1 } else { SPANS_SENT_MAX };
        let (cookie, code) = (command.cookie, ChunkCode::BlockStatus);
        // The length is known, and written over its place, once the spans are there.
        ChunkHeader { cookie, code, is_last: true, length: 0 }.encode(out);
        let payload = out.len();
        out.be_u32(BASE_ALLOCATION_ID);
        for (bytes, flags) in Merged::new(spans, command.length).take(most) {
            out.be_u32(bytes).be_u32(flags.0);
        }
        if out.len() == payload + 4 {
            out.be_u32(command.length).be_u32(StatusFlags::NONE.0);
        }
        let bytes = length(out.len() - payload);
        out[payload - 4..payload].copy_from_slice(&bytes.to_be_bytes());
    }

    /// Success without anything; where a read is meant, in chunks only.
    pub(crate) fn nothing(self, of_read: bool, cookie: Cookie, out: &mut Vec<u8>) {
        if self.structured && of_read {
            let code = ChunkCode::None;
            ChunkHeader { cookie, code, is_last: true, length: 0 }.encode(out);
        } else {
            ReplyHeader::Simple { cookie, error: None }.encode(out);
        }
    }

    pub(crate) fn refuse(self, cookie: Cookie, errno: Errno, text: &str, out: &mut Vec<u8>) {
        if !self.structured {
            return ReplyHeader::Simple { cookie, error: Some(errno) }.encode(out);
        }
        let text = cut(text, TEXT_BYTES_MAX);
        let bytes = length(6 + text.len());
        let header = ChunkHeader { cookie, code: ChunkCode::Error, is_last: true, length: bytes };
        header.encode(out);
        error_and_text(errno, text, out);
    }

    fn check_part(self, command: &Command, offset: u64, bytes: u32) {
        let is_read = command.kind == CommandKind::Read && self.takes_chunks(command);
        let end = offset.saturating_add(u64::from(bytes));
        let within = offset >= command.offset && bytes > 0 && end <= command.end();
        assert!(is_read && within, "no part at {offset} with {bytes} bytes answers {command:?}");
    }

    fn data_header(
        self,
        cookie: Cookie,
        offset: u64,
        bytes: u32,
        is_last: bool,
        out: &mut Vec<u8>,
    ) {
        // A read's length was held to the export's payload limit, far below 4 GiB.
        ChunkHeader { cookie, code: ChunkCode::Data, is_last, length: 8 + bytes }.encode(out);
        out.be_u64(offset);
    }
}

fn error_and_text(errno: Errno, text: &str, out: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).expect("a text was cut to its limit");
    out.be_u32(errno.code()).be_u16(length).raw(text.as_bytes());
}
