//! The HTTP/1.1 upgrade with which a session over TLS opens: texts only.

use crate::refusal::is_printable;

/// The path that is asked for.
pub const PATH: &str = "/replicate";
/// The token of the `Upgrade` header.
pub const PROTOCOL: &str = "tidegate/1";
/// The server's consent.
pub const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tidegate/1\r\n\r\n";
/// Longest answer that an agent reads before it gives up.
pub const ANSWER_BYTES_MAX: usize = 8 << 10;
/// Most characters of a refusal's text that a person is shown.
const TEXT_CHARS_MAX: usize = 1024;

/// The agent's request.
#[must_use]
pub fn request(host: &str) -> Vec<u8> {
    // A host that a person typed must not add lines of its own.
    let host: String = host.chars().filter(|c| c.is_ascii_graphic()).collect();
    format!(
        "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n"
    )
    .into_bytes()
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Frames follow after so many bytes.
    Switching(usize),
    /// Something else, with its text as far as it has arrived.
    Refused {
        /// The HTTP status; 0 when it was no HTTP.
        status: u16,
        /// What it says, cleaned for a person.
        text: String,
    },
}

/// Reads an answer; `None` while its head isn't whole. At the end of the stream, or once
/// [`ANSWER_BYTES_MAX`] bytes are there, say so with `ended`.
#[must_use]
pub fn parse_answer(bytes: &[u8], ended: bool) -> Option<Answer> {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(head_end) = head_end else {
        return ended.then(|| Answer::Refused { status: 0, text: clean(bytes) });
    };
    let status = std::str::from_utf8(bytes.get(9..12).unwrap_or_default())
        .ok()
        .filter(|_| bytes.starts_with(b"HTTP/1."))
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0);
    let body = &bytes[head_end + 4..];
    match status {
        101 if !switches_to_us(&bytes[..head_end]) => {
            let text = format!("the consent isn't to {PROTOCOL}");
            Some(Answer::Refused { status, text })
        }
        101 => Some(Answer::Switching(head_end + 4)),
        _ if ended => Some(Answer::Refused { status, text: clean(body) }),
        _ => None,
    }
}

/// Whether a head names our protocol: a consent to another one is none to us.
fn switches_to_us(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    head.lines().filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.trim().eq_ignore_ascii_case("upgrade") && value.trim().eq_ignore_ascii_case(PROTOCOL)
    })
}

fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let cleaned: String =
        text.chars().map(|c| if is_printable(c) { c } else { ' ' }).take(TEXT_CHARS_MAX).collect();
    cleaned.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consent_is_found_and_what_follows_it_is_left() {
        let mut bytes = SWITCHING.to_vec();
        let length = bytes.len();
        bytes.extend_from_slice(b"frames");
        assert_eq!(parse_answer(&bytes, false), Some(Answer::Switching(length)));
        assert_eq!(parse_answer(&bytes[..length - 1], false), None);
    }

    #[test]
    fn a_refusal_is_read_to_its_end_and_cleaned() {
        let bytes = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nno\x1b[31m!\n";
        assert_eq!(parse_answer(bytes, false), None);
        let text = "no [31m!".to_owned();
        assert_eq!(parse_answer(bytes, true), Some(Answer::Refused { status: 403, text }));
        let text = "SSH-2.0".to_owned();
        assert_eq!(parse_answer(b"SSH-2.0", true), Some(Answer::Refused { status: 0, text }));
    }

    #[test]
    fn consent_to_another_protocol_is_none() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WEBSOCKET\r\n\r\n";
        let answer = parse_answer(head.as_bytes(), false);
        assert!(matches!(answer, Some(Answer::Refused { status: 101, .. })), "{answer:?}");
        let ours = head.replace("WEBSOCKET", "Tidegate/1");
        let switching = Answer::Switching(ours.len());
        assert_eq!(parse_answer(ours.as_bytes(), false), Some(switching));
    }

    #[test]
    fn a_host_adds_no_lines() {
        let text = String::from_utf8(request("a\r\nX: y")).unwrap();
        assert_eq!(text.lines().count(), 5);
    }
}
