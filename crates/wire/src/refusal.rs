//! Refusals: a code for programs, a cause and a remedy for people. docs/formats/wire.md, "Refuse".

use tidegate_model::{Reader, Remedy, Writer};

use crate::DecodeError;
use crate::limits::REFUSAL_TEXT_BYTES_MAX;

/// Why a session is refused or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RefusalCode {
    /// The protocol was broken.
    Protocol = 1,
    /// Another version of the protocol is spoken.
    Version = 2,
    /// Another vault is served.
    Vault = 3,
    /// The certificate names another machine.
    Identity = 4,
    /// Another incarnation of this machine is connected.
    Occupied = 5,
    /// The epoch that was claimed isn't this incarnation's.
    Epoch = 6,
    /// The server has no room for another session.
    Overloaded = 7,
    /// The server stops.
    ShuttingDown = 8,
    /// The store doesn't take what it should.
    Store = 9,
    /// The same incarnation came on another connection.
    TakenOver = 10,
    /// Something went wrong in the server.
    Internal = 11,
    /// The data of a write doesn't fit its checksum.
    Corrupt = 12,
}

impl RefusalCode {
    /// The code with this number; unknown ones, from a later server, count as internal.
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Protocol,
            2 => Self::Version,
            3 => Self::Vault,
            4 => Self::Identity,
            5 => Self::Occupied,
            6 => Self::Epoch,
            7 => Self::Overloaded,
            8 => Self::ShuttingDown,
            9 => Self::Store,
            10 => Self::TakenOver,
            12 => Self::Corrupt,
            _ => Self::Internal,
        }
    }
}

/// No, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}: {advice}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// What the agent shall do.
    pub remedy: Remedy,
    /// What happened, to what.
    pub cause: String,
    /// What to do about it.
    pub advice: String,
}

impl Refusal {
    /// A refusal; texts that are too long are cut.
    #[must_use]
    pub fn new(code: RefusalCode, remedy: Remedy, cause: &str, advice: &str) -> Self {
        Self { code, remedy, cause: cut(cause).to_owned(), advice: cut(advice).to_owned() }
    }

    /// The server stops.
    #[must_use]
    pub fn shutting_down() -> Self {
        let advice = "connect again once it is back, or to another one";
        Self::new(RefusalCode::ShuttingDown, Remedy::Retry, "the server is stopping", advice)
    }

    /// The payload's bytes.
    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        let mut writer = Writer::new(buffer);
        writer.u16(self.code as u16).u8(self.remedy.code());
        for text in [&self.cause, &self.advice] {
            let text = cut(text);
            let length = u16::try_from(text.len()).expect("the limit of a text fits 16 bits");
            writer.u16(length).bytes(text.as_bytes());
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let code = RefusalCode::from_number(reader.u16()?);
        let remedy = Remedy::from_code(reader.u8()?).unwrap_or(Remedy::Stop);
        let mut text = || {
            let length = usize::from(reader.u16()?);
            let bytes = reader.bytes(length)?;
            // It is shown to a person: it needn't be perfect, but it must be safe to print.
            let text = String::from_utf8_lossy(bytes);
            let safe: String = text.chars().filter(|c| is_printable(*c)).collect();
            Ok::<_, DecodeError>(cut(&safe).to_owned())
        };
        Ok(Self { code, remedy, cause: text()?, advice: text()? })
    }
}

/// Cuts a text to the limit, between characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(REFUSAL_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whether a character leaves a terminal and the order of a line alone.
pub(crate) fn is_printable(c: char) -> bool {
    // Line and paragraph separators, and the marks that turn the direction of what follows.
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns
}
