//! Records where the chain of a quiet machine ends, so that nobody searches for it later: its last
//! records sink ever deeper under those of other machines of its log.

use tidegate_model::{Incarnation, LogName, Micros, Name, Token};

use super::KnownEnd;
use crate::meta::{self, MetaError, SessionRecord};
use crate::seal::KeyRing;
use crate::store::{Put, Store};

/// What the writer of a log knows of a machine that has committed nothing for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuietEnd {
    /// The machine.
    pub machine: Name,
    /// The life of the agent to which its epoch was granted.
    pub incarnation: Incarnation,
    /// That of its newest session.
    pub token: Token,
    /// The number of its newest session, as far as the log's writer knows: one that it granted.
    pub session: u64,
    /// The end.
    pub end: KnownEnd,
    /// The log.
    pub log: LogName,
    /// Now.
    pub now: Micros,
}

/// Adds a session to the machine's epoch that nobody uses, and that states the end.
/// [`Put::Exists`] when there is a newer session than is known: another server has the machine, and
/// this one's log isn't where its chain ends any more.
///
/// # Errors
/// What the store reports.
pub async fn record_end(store: &Store, ring: &KeyRing, quiet: &QuietEnd) -> Result<Put, MetaError> {
    let record = SessionRecord {
        epoch: quiet.end.epoch,
        number: quiet.session.saturating_add(1),
        incarnation: quiet.incarnation,
        token: quiet.token,
        committed: quiet.end.committed,
        log: quiet.log.clone(),
        pack: quiet.end.stored,
        granted: quiet.now,
    };
    meta::create_session(store, ring, &quiet.machine, &record).await
}
