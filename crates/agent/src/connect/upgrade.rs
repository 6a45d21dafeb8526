//! The HTTP upgrade: asks for it and reads the answer, whatever it is.

use std::io;
use std::time::Duration;

use tidegate_wire::http::{ANSWER_BYTES_MAX, Answer, parse_answer, request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Once something came, the rest of the answer follows within this, or it is taken as it is: a
/// server that isn't ours may keep the connection open.
const REST_LIMIT: Duration = Duration::from_secs(2);

/// Asks `host` for the upgrade and reads its answer.
pub(super) async fn upgrade<S>(stream: &mut S, host: &str) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&request(host)).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    loop {
        let mut part = [0; 1024];
        let read = stream.read(&mut part);
        let count = if answer.is_empty() {
            read.await?
        } else {
            match timeout(REST_LIMIT, read).await {
                Ok(Ok(count)) => count,
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                Ok(Err(error)) => return Err(error),
                Err(_) => 0,
            }
        };
        if count == 0 && answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&part[..count]);
        let ended = count == 0 || answer.len() >= ANSWER_BYTES_MAX;
        if let Some(parsed) = parse_answer(&answer, ended) {
            return Ok(match parsed {
                // The agent speaks first, so nothing may follow yet.
                Answer::Switching(end) if end < answer.len() => {
                    let text = "it spoke before it was asked".to_owned();
                    Answer::Refused { status: 0, text }
                }
                parsed => parsed,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::http::SWITCHING;

    use super::*;

    async fn answer_to(parts: &'static [&'static [u8]]) -> io::Result<Answer> {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(theirs.read_u8().await.unwrap());
            }
            for part in parts {
                theirs.write_all(part).await.unwrap();
            }
        });
        upgrade(&mut ours, "host:9443").await
    }

    #[tokio::test]
    async fn consent_opens_the_way_and_a_refusal_brings_its_words() {
        let (front, back) = SWITCHING.split_at(20);
        let parts: &'static [&'static [u8]] = Box::leak(Box::new([front, back]));
        assert!(matches!(answer_to(parts).await, Ok(Answer::Switching(_))));
        let refused = answer_to(&[b"HTTP/1.1 403 Forbidden\r\n\r\n", b"no such machine"]).await;
        let text = "no such machine".to_owned();
        assert_eq!(refused.unwrap(), Answer::Refused { status: 403, text });
    }

    #[tokio::test]
    async fn silence_garbage_and_talking_out_of_turn_are_no_consent() {
        assert_eq!(answer_to(&[]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let garbage = answer_to(&[b"SSH-2.0-x\r\n"]).await.unwrap();
        assert!(matches!(garbage, Answer::Refused { status: 0, .. }));
        let both: &'static [u8] = Box::leak([SWITCHING, b"x"].concat().into_boxed_slice());
        let early = answer_to(Box::leak(Box::new([both]))).await.unwrap();
        assert!(matches!(early, Answer::Refused { status: 0, .. }));
    }
}
