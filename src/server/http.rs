//! The little HTTP/1.1 that port 9443 speaks: `GET /healthz`, and the upgrade to the stream.

use std::fmt::Write as _;

/// Longest request head: ours have 200 bytes, a browser's a few thousand.
pub(crate) const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// To speak the replication protocol.
    Replicate,
    /// Whether the server is well.
    Health,
    /// Something else: the status and the text to answer with.
    Refused(u16, String),
}

/// Reads a request's head, once it is whole; gives it with its length in bytes.
pub(crate) fn parse(bytes: &[u8]) -> Option<(Request, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => Some((route(&request), length)),
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => None,
        Ok(httparse::Status::Partial) => {
            Some((Request::Refused(431, "The request's head is too long.".to_owned()), bytes.len()))
        }
        Err(error) => {
            let text = format!("This is no HTTP/1.1 request: {error}.");
            Some((Request::Refused(400, text), bytes.len()))
        }
    }
}

fn route(request: &httparse::Request<'_, '_>) -> Request {
    let path = request.path.unwrap_or_default();
    let refuse = |status, text: &str| Request::Refused(status, text.to_owned());
    if request.method != Some("GET") {
        return refuse(405, "Only GET is answered here.");
    }
    match path {
        "/healthz" => Request::Health,
        tidegate_wire::http::PATH => {
            let header = |name: &str| {
                let found = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
                found.map_or("", |h| std::str::from_utf8(h.value).unwrap_or(""))
            };
            let upgrades = header("connection")
                .split(',')
                .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
            if upgrades && header("upgrade").eq_ignore_ascii_case(tidegate_wire::http::PROTOCOL) {
                Request::Replicate
            } else {
                refuse(
                    426,
                    "This path speaks the replication protocol: ask for 'Upgrade: tidegate/1'.",
                )
            }
        }
        _ => refuse(404, "There is nothing here. GET /healthz tells whether the server is well."),
    }
}

/// A whole answer that ends the connection.
pub(crate) fn answer(status: u16, content_type: &str, body: &str) -> Vec<u8> {
    let mut text = String::new();
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    };
    let length = body.len() + 1;
    // Writing to a String can't fail.
    let _ = write!(
        text,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n"
    );
    if status == 426 {
        let _ = write!(text, "Upgrade: {}\r\n", tidegate_wire::http::PROTOCOL);
    }
    let _ = write!(text, "Connection: close\r\n\r\n{body}\n");
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Option<Request> {
        parse(text.as_bytes()).map(|(request, _)| request)
    }

    #[test]
    fn the_upgrade_and_the_health_check_are_understood() {
        let upgrade = "GET /replicate HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: tidegate/1\r\n\r\n";
        assert_eq!(ask(upgrade), Some(Request::Replicate));
        assert_eq!(ask("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), Some(Request::Health));
    }

    #[test]
    fn everything_else_gets_an_answer_that_says_why() {
        let status = |text: &str| match ask(text) {
            Some(Request::Refused(status, _)) => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 404);
        assert_eq!(status("POST /healthz HTTP/1.1\r\n\r\n"), 405);
        assert_eq!(status("GET /replicate HTTP/1.1\r\n\r\n"), 426);
        assert_eq!(status("\x16\x03\x01garbage\r\n\r\n"), 400);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(HEAD_BYTES_MAX))), 431);
    }

    #[test]
    fn a_head_that_isnt_whole_is_waited_for() {
        assert_eq!(ask("GET /healthz HTTP/1.1\r\nHost:"), None);
    }
}
