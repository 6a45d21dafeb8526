//! The agent's own socket: others of the same user ask how it is, for bookmarks, and for a resync. A line of JSON
//! each way.
//!
//! Limits: so many conversations at once, so long a request, so long until it is there. The folder in
//! which the socket lies is locked by the journal, so one that is found there is of an agent that ended.

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
/// How long a request may take to arrive: it is written in one go.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

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
            Self::Nobody { .. } | Self::Unanswered { .. } => Remedy::Retry,
            Self::Socket { .. } => Remedy::Refuse,
        }
    }
}

/// Asks the agent that listens at `path`.
///
/// # Errors
/// [`ControlError`].
pub async fn ask(path: &Path, request: &Request) -> Result<Answer, ControlError> {
    let nobody = |error| ControlError::Nobody { path: path.to_owned(), error };
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
    stream.write_all(&serde_json::to_vec(&answer)?).await?;
    stream.shutdown().await
}
