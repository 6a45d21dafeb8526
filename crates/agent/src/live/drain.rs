//! The drain: brings what the journal holds into the vault, connection after connection, for as long
//! as the agent runs.
//!
//! It never gives up: a server that refuses or is away costs the recovery point's age, never the
//! disks. Servers are tried in the order in which they were named; after the last of them, and after
//! one that is alone, it waits, longer each time.
//!
//! What only a new incarnation can heal ends it: the vault doesn't know what this one goes on from, or no
//! server can read that. But an incarnation that no server has ever welcomed isn't healed by another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_model::limits::AGENT_PATIENCE_SECONDS;
use tidegate_model::{Epoch, Remedy};
use tidegate_wire::RefusalCode;
use tokio::sync::watch;

use super::Stands;
use super::error::LiveError;
use super::feed::JournalFeed;
use super::notes::Notebook;
use crate::connect::{ConnectError, Connection, Connector};
use crate::retry::{Backoff, RetryPolicy};
use crate::session::{self, End, SessionError, State, stopped};
use crate::window::WindowError;

/// How long a server may owe a welcome or a commit before the next one is tried.
const PATIENCE: Duration = Duration::from_secs(AGENT_PATIENCE_SECONDS);

/// A server that can be connected to, and what people call it.
pub struct Server {
    /// Its address, for people.
    pub name: String,
    /// Where connections come from.
    pub connector: Box<dyn Connector>,
}

/// How the connection is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// The server that is connected, or was tried last.
    pub server: String,
    /// Whether it has accepted this agent.
    pub connected: bool,
    /// Why the last connection ended, or none could be made; none while one is well.
    pub trouble: Option<String>,
}

/// The link, as the drain changes it and others look at it.
#[derive(Debug, Clone, Default)]
pub struct SharedLink(Arc<Mutex<Link>>);

impl SharedLink {
    /// How it is now.
    #[must_use]
    pub fn look(&self) -> Link {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Link)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Why a drain ended.
#[derive(Debug)]
pub(crate) enum Drained {
    /// Everything that will ever be appended is committed.
    Whole,
    /// The caller wanted it.
    Stopped,
    /// The vault can't go on from where this incarnation is.
    Broken(SessionError),
}

/// Brings one journal into the vault.
pub(crate) struct Drain {
    pub(crate) state: State<JournalFeed>,
    pub(crate) servers: Arc<Vec<Server>>,
    pub(crate) link: SharedLink,
    pub(crate) notebook: Arc<Notebook>,
    pub(crate) retry: RetryPolicy,
}

impl Drain {
    /// Runs until everything is committed that the journal will ever hold, or `stop`. Nothing of the
    /// journal is in use any more when this returns.
    ///
    /// # Errors
    /// [`LiveError`] of the journal or the notes.
    pub(crate) async fn run(
        mut self,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Drained, LiveError> {
        let ended = self.serve(stop).await;
        self.state.feed.rest().await;
        ended
    }

    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Drained, LiveError> {
        let mut backoff = Backoff::new(&self.retry);
        // How many servers in turn got nothing done.
        let mut idle = 0;
        // How many in turn say that the vault is damaged.
        let mut damaged = 0;
        for index in (0..self.servers.len()).cycle() {
            let done = self.state.done();
            let trouble = match self.one(index, stop).await? {
                Outcome::Trouble(trouble) => {
                    damaged = 0;
                    trouble
                }
                Outcome::Damaged(error) => {
                    damaged += 1;
                    if damaged >= self.servers.len() {
                        return Ok(Drained::Broken(error));
                    }
                    error.to_string()
                }
                Outcome::Ended(ended) => return Ok(ended),
            };
            if self.state.done() > done {
                backoff.reset();
                idle = 0;
            }
            idle += 1;
            self.note(&trouble);
            if idle >= self.servers.len() {
                idle = 0;
                tokio::select! {
                    () = stopped(stop) => return Ok(Drained::Stopped),
                    () = tokio::time::sleep(backoff.delay()) => {}
                }
            }
        }
        Ok(Drained::Stopped)
    }

    /// One connection to one server.
    async fn one(
        &mut self,
        index: usize,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Outcome, LiveError> {
        let server = &self.servers[index];
        self.link.change(|link| link.server.clone_from(&server.name));
        let connected = tokio::select! {
            () = stopped(stop) => return Ok(Outcome::Ended(Drained::Stopped)),
            connected = server.connector.connect() => connected,
        };
        match connected {
            Ok(connection) => self.session(connection, stop).await,
            Err(error) => Ok(Outcome::Trouble(unconnected(&error))),
        }
    }

    async fn session(
        &mut self,
        connection: Connection,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Outcome, LiveError> {
        let ended = session::run(&mut self.state, connection, PATIENCE, stop).await;
        self.link.change(|link| link.connected = false);
        Ok(match ended {
            Ok(End::Whole) => Outcome::Ended(Drained::Whole),
            Ok(End::Stopped) => Outcome::Ended(Drained::Stopped),
            Ok(End::Broken(cause) | End::Late(cause)) => Outcome::Trouble(cause),
            // Also of one that was never welcomed: then a copy of it was.
            Err(LiveError::Session(error)) if is_of_another(&error) => {
                Outcome::Ended(Drained::Broken(error))
            }
            Err(LiveError::Session(error)) if self.state.epoch() == Epoch::NONE => {
                if cant_stand(&error) {
                    self.stand_on_less(&error)?;
                }
                Outcome::Trouble(error.to_string())
            }
            Err(LiveError::Session(error)) if breaks_chain(&error) => {
                Outcome::Ended(Drained::Broken(error))
            }
            Err(LiveError::Session(error)) if tells_of_damage(&error) => Outcome::Damaged(error),
            // A person may mend it; until then the disks are served and captured.
            Err(LiveError::Session(error)) => Outcome::Trouble(error.to_string()),
            Err(error) if error.is_of_room() => Outcome::Trouble(error.to_string()),
            Err(error) => return Err(error),
        })
    }

    /// The vault can't go on from what this incarnation would stand on: it is tried with less.
    fn stand_on_less(&mut self, error: &SessionError) -> Result<(), LiveError> {
        let Some(stands) = self.state.stand_on_less() else { return Ok(()) };
        match stands {
            Stands::Nothing => tracing::error!(%error, "the disks are copied anew"),
            _ => tracing::warn!(%error, "the disks are compared with what the vault has last"),
        }
        self.notebook.change(|notes| notes.stands = stands)
    }

    /// Tells of trouble, once while it stays the same.
    fn note(&self, trouble: &str) {
        let known = self.link.look().trouble;
        if known.as_deref() != Some(trouble) {
            let (server, committed) = (self.link.look().server, self.state.committed());
            tracing::warn!(%server, %trouble, %committed, "no connection; it is tried again");
        }
        self.link.change(|link| link.trouble = Some(trouble.to_owned()));
    }
}

enum Outcome {
    /// There was trouble; another connection may do.
    Trouble(String),
    /// What this incarnation goes on from can't be read in the vault, says the server.
    Damaged(SessionError),
    Ended(Drained),
}

fn unconnected(error: &ConnectError) -> String {
    error.to_string()
}

/// Whether another agent has gone on with this incarnation, as far as what the vault has or as its sessions
/// tell: this one's folder was restored, or copied, and what it has captured since is another history.
const fn is_of_another(error: &SessionError) -> bool {
    matches!(error, SessionError::Window(WindowError::NeverSent { .. }) | SessionError::Copied)
}

/// Whether the vault lacks what this incarnation goes on from; or another agent has taken its place, which
/// can only be a copy of this one: two would write one history.
fn breaks_chain(error: &SessionError) -> bool {
    const EPOCH: u16 = RefusalCode::Epoch as u16;
    const TAKEN_OVER: u16 = RefusalCode::TakenOver as u16;
    match error {
        SessionError::Window(WindowError::Forgotten { .. }) => true,
        SessionError::Refused { code, .. } => matches!(*code, EPOCH | TAKEN_OVER),
        SessionError::Window(WindowError::NeverSent { .. })
        | SessionError::Copied
        | SessionError::Protocol { .. }
        | SessionError::OtherEpoch { .. }
        | SessionError::SmallerRecords { .. } => false,
    }
}

/// Whether the vault may grant an epoch that stands on less: it lacks what this would, can't read it, or
/// the server is of a release that knows only named parents.
fn cant_stand(error: &SessionError) -> bool {
    const EPOCH: u16 = RefusalCode::Epoch as u16;
    const PROTOCOL: u16 = RefusalCode::Protocol as u16;
    match error {
        SessionError::Refused { code, remedy, .. } => {
            matches!(*code, EPOCH | PROTOCOL) || *remedy == Remedy::Repair
        }
        _ => false,
    }
}

/// Whether the server can't read what this incarnation goes on from.
fn tells_of_damage(error: &SessionError) -> bool {
    matches!(error, SessionError::Refused { remedy: Remedy::Repair, .. })
}
