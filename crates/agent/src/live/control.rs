//! The agent's own socket: others of the same user ask how it is, for bookmarks, and for a resync. A line of JSON
//! each way.
//!
//! Limits: so many conversations at once, so long a request, so long until it is there and until its
//! answer is taken; who asks waits so long for that and no longer. The folder in which the socket lies is locked by the journal, so one that is found there is of an agent that ended.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_model::Remedy;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::status::{Marked, Status};

/// Conversations at once; more wait their turn.
const CONVERSATIONS_MAX: usize = 8;
/// Longest request: a bookmark's name has at most 1,024 bytes, six times as many as JSON writes it.
const REQUEST_BYTES_MAX: u64 = 8 << 10;
/// Longest answer: the status of 64 disks with long names.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How long a request may take to arrive, and an answer to be taken: each is written in one go.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long an agent may take to answer, besides what it is asked to do: a bookmark waits for the
/// journal's disk, and for a stretch that is read again.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// How the agent is.
    Status,
    /// Compare the disks with the vault.
    Resync,
    /// A bookmark, here and now.
    Bookmark {
        /// A person's name for it.
        name: String,
        /// Whether what writes to the disks is frozen around it.
        application: bool,
    },
    /// A pass over the disks that aren't served.
    Pass {
        /// A person's name for its end; may be empty.
        name: String,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// How the agent is.
    Status(Box<Status>),
    /// It begins.
    Resync,
    /// The bookmark is in the journal.
    Marked(Marked),
    /// A pass is made as soon as it can be.
    Pass {
        /// Its number.
        number: u64,
        /// Which life of the agent numbers it so.
        life: u64,
    },
    /// It can't be done; the text says why.
    Refused(String),
}

/// Who answers. Called on threads for waiting.
pub(crate) trait Answers: Send + Sync + 'static {
    fn answer(&self, request: Request) -> Answer;
}

/// Why an agent can't be asked, or can't be made to listen.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no agent runs here: {} can't be connected to ({error}); start it", .path.display())]
    Nobody {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// It ended in the middle.
    #[error("the agent at {} didn't answer ({error}); see its log", .path.display())]
    Unanswered {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// It listens and says nothing.
    #[error(
        "the agent at {} didn't answer within {} s: it hangs, or its disk does; see its log and the \
         kernel's (dmesg), and ask again",
        .path.display(), .limit.as_secs()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// It can't listen.
    #[error("no socket can be made at {} ({error}); see its folder, and that its path has less than 108 bytes", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

impl ControlError {
    /// What the caller must do.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Nobody { .. } | Self::Unanswered { .. } | Self::Silent { .. } => Remedy::Retry,
            Self::Socket { .. } => Remedy::Refuse,
        }
    }
}

/// Asks the agent that listens at `path`, and may take `work` for what it is asked to do.
///
/// # Errors
/// [`ControlError`].
pub async fn ask(path: &Path, request: &Request, work: Duration) -> Result<Answer, ControlError> {
    let limit = ANSWER_LIMIT.saturating_add(work);
    let asked = timeout(limit, talk(path, request)).await;
    asked.unwrap_or_else(|_| Err(ControlError::Silent { path: path.to_owned(), limit }))
}

async fn talk(path: &Path, request: &Request) -> Result<Answer, ControlError> {
    let nobody = |error| ControlError::Nobody { path: path.to_owned(), error };
    // A full backlog makes this wait, too.
    let mut stream = UnixStream::connect(path).await.map_err(nobody)?;
    let talk = async {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        io::Result::Ok(serde_json::from_slice(&answer)?)
    };
    talk.await.map_err(|error| ControlError::Unanswered { path: path.to_owned(), error })
}

/// A socket that is removed when it is dropped.
pub(crate) struct Listening {
    path: PathBuf,
    listener: UnixListener,
}

impl Listening {
    /// Listens at `path`, for this user alone.
    pub(crate) fn at(path: &Path) -> Result<Self, ControlError> {
        let listen = || -> io::Result<UnixListener> {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let failed = |error| ControlError::Socket { path: path.to_owned(), error };
        Ok(Self { path: path.to_owned(), listener: listen().map_err(failed)? })
    }

    /// Answers whoever asks, until it is dropped.
    pub(crate) async fn serve(&self, who: Arc<dyn Answers>) {
        // Dropped with this, they end.
        let mut conversations = JoinSet::new();
        loop {
            if conversations.len() >= CONVERSATIONS_MAX {
                conversations.join_next().await;
            }
            while conversations.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let who = who.clone();
                    conversations.spawn(async move {
                        if let Err(error) = converse(stream, who).await {
                            tracing::debug!(%error, "somebody asked, and went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the agent's socket takes nobody just now");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // The next agent takes it away otherwise.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn converse(mut stream: UnixStream, who: Arc<dyn Answers>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let answer = if peer == 0 || peer == rustix::process::geteuid().as_raw() {
        let mut line = String::new();
        let (reader, _) = stream.split();
        let mut reader = BufReader::new(reader.take(REQUEST_BYTES_MAX));
        timeout(REQUEST_LIMIT, reader.read_line(&mut line)).await??;
        let request: Request = serde_json::from_str(&line)?;
        let answering = tokio::task::spawn_blocking(move || who.answer(request));
        answering.await.map_err(io::Error::other)?
    } else {
        Answer::Refused("only the user as whom the agent runs may ask it".to_owned())
    };
    let answer = serde_json::to_vec(&answer)?;
    timeout(REQUEST_LIMIT, stream.write_all(&answer)).await??;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_hangs_is_waited_for_as_long_as_its_work_may_take_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let work = Duration::from_secs(100);
        let begun = tokio::time::Instant::now();
        let error = ask(&path, &Request::Status, work).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 130);
        assert!(error.to_string().contains("didn't answer within 130 s"), "{error}");
        drop(listener);
    }

    struct Loud;

    impl Answers for Loud {
        fn answer(&self, _: Request) -> Answer {
            Answer::Refused("no".repeat(300_000))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_take_no_answer_keep_nobody_from_asking() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let listening = Listening::at(&path).unwrap();
        let serving = tokio::spawn(async move { listening.serve(Arc::new(Loud)).await });
        let mut silent = Vec::new();
        for _ in 0..CONVERSATIONS_MAX {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(b"\"status\"\n").await.unwrap();
            // The first byte is there: the rest doesn't fit the socket.
            stream.readable().await.unwrap();
            silent.push(stream);
        }
        let answer = ask(&path, &Request::Status, Duration::ZERO).await.unwrap();
        assert!(matches!(answer, Answer::Refused(_)));
        serving.abort();
    }
}
