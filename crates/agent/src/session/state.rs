//! What an agent keeps from one connection to the next.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_model::{Disk, Epoch, Incarnation, Lsn, Name, Point, Token, VaultId};
use tidegate_wire::limits::{FEATURE_HASHES, PROTOCOL_VERSION};
use tidegate_wire::{Begins, Hello, Totals, Welcome};
use tokio::time::Instant;

use super::error::SessionError;
use super::feed::Feed;
use super::questions::Questions;
use super::record::Kept;
use crate::error::Awaited;
use crate::progress::{Progress, add, raise};
use crate::window::Window;

/// What a new epoch stands on, as far as the agent knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stands {
    /// On nothing: it begins with a copy.
    #[default]
    Nothing,
    /// On what the vault has of the machine.
    Newest,
    /// On this point.
    Point(Point),
}

impl Stands {
    /// What it is tried with when the vault can't go on from this.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Point(_) => Some(Self::Newest),
            Self::Newest => Some(Self::Nothing),
            Self::Nothing => None,
        }
    }
}

/// Whose stream it is.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// The machine's name.
    pub(crate) machine: Name,
    /// The vault in which it is enrolled.
    pub(crate) vault: VaultId,
    /// The agent's life.
    pub(crate) incarnation: Incarnation,
    /// The epoch, if a server granted one before.
    pub(crate) epoch: Epoch,
    /// What a new one stands on.
    pub(crate) stands: Stands,
    /// What is known to be committed of it.
    pub(crate) committed: Lsn,
    /// The last LSN that any connection can have sent before.
    pub(crate) ever_sent: Lsn,
    /// Those of the sessions that can be the epoch's last one if it is ours; of this run of the agent the last.
    pub(crate) tokens: Vec<Token>,
    /// How records are cut, where that is settled before there is a server.
    pub(crate) record_bytes_max: Option<u32>,
    /// Memory for records that aren't committed, unless the feed bounds it.
    pub(crate) window_bytes: u64,
}

/// The state of one stream.
#[derive(Debug)]
pub(crate) struct State<F> {
    stream: Stream,
    pub(crate) progress: Arc<Progress>,
    pub(super) window: Window<Kept>,
    pub(crate) feed: F,
    /// Questions by hashes, where any are asked.
    pub(crate) questions: Option<Arc<Questions>>,
    /// Of what the window holds.
    memory_bytes: u64,
    /// When something was last committed, or there was nothing to commit.
    advanced: Option<Instant>,
    connections: u64,
    totals: Totals,
    bytes_uncounted: u64,
}

impl<F: Feed> State<F> {
    pub(crate) fn new(stream: Stream, feed: F, progress: Arc<Progress>) -> Self {
        Self {
            window: Window::after(stream.committed),
            stream,
            progress,
            feed,
            questions: None,
            memory_bytes: 0,
            advanced: None,
            connections: 0,
            totals: Totals::default(),
            bytes_uncounted: 0,
        }
    }

    /// The last LSN that the vault has.
    pub(crate) const fn committed(&self) -> Lsn {
        self.window.committed_lsn()
    }

    /// What servers have done so far: the last LSN that the vault has, and questions answered.
    pub(crate) fn done(&self) -> (Lsn, u64) {
        (self.committed(), self.questions.as_ref().map_or(0, |questions| questions.given()))
    }

    /// The last LSN that any connection has sent.
    pub(super) const fn ever_sent(&self) -> Lsn {
        self.stream.ever_sent
    }

    /// A connection is about to send this.
    pub(super) fn sends(&mut self, lsn: Lsn, payload_bytes: u64) {
        if lsn <= self.stream.ever_sent {
            add(&self.progress.bytes_resent, payload_bytes);
        }
        self.stream.ever_sent = self.stream.ever_sent.max(lsn);
    }

    /// The epoch, once one is granted.
    pub(crate) const fn epoch(&self) -> Epoch {
        self.stream.epoch
    }

    /// The vault can't go on from what a new epoch would stand on: takes the next, and gives it.
    pub(crate) fn stand_on_less(&mut self) -> Option<Stands> {
        self.stream.stands = self.stream.stands.next()?;
        Some(self.stream.stands)
    }

    /// What became of the committed bytes, as servers counted it, and how many payload bytes none did.
    pub(crate) const fn totals(&self) -> (Totals, u64) {
        (self.totals, self.bytes_uncounted)
    }

    /// Since when the vault owes a commit; `None` while no server has accepted the agent.
    pub(crate) const fn advanced(&self) -> Option<Instant> {
        self.advanced
    }

    /// What patience is needed for.
    pub(crate) const fn awaited(&self) -> Awaited {
        if self.advanced.is_none() { Awaited::Session } else { Awaited::Commit }
    }

    /// Whether everything is said and committed.
    pub(super) fn is_whole(&self) -> bool {
        self.window.is_empty() && self.feed.has_ended()
    }

    /// Whether another record may be asked for.
    pub(super) fn has_room(&self) -> bool {
        self.memory_bytes < self.stream.window_bytes && !self.feed.has_ended()
    }

    /// The disks whose declarations are committed, and so aren't sent again.
    pub(super) fn declared(&self, committed: Lsn) -> Vec<Disk> {
        self.feed.declared(committed)
    }

    /// The hello of the next connection.
    pub(super) fn hello(&mut self) -> Hello {
        self.connections += 1;
        if self.connections > 1 {
            add(&self.progress.reconnects, 1);
        }
        let epoch = self.stream.epoch;
        Hello {
            version: PROTOCOL_VERSION,
            vault: self.stream.vault,
            incarnation: self.stream.incarnation,
            epoch,
            committed: if epoch == Epoch::NONE { Lsn::NONE } else { self.committed() },
            features: if self.questions.is_some() { FEATURE_HASHES } else { 0 },
            begins: match self.stream.stands {
                Stands::Nothing => Begins::Copy,
                Stands::Newest | Stands::Point(_) => Begins::Continue,
            },
            parent: match self.stream.stands {
                Stands::Point(point) => Some(point),
                Stands::Newest | Stands::Nothing => None,
            },
            token: self.stream.tokens.last().copied().unwrap_or(Token::NONE),
            machine: self.stream.machine.clone(),
        }
    }

    /// Whether what a server knows of this stream agrees with what we know.
    pub(super) fn check(&self, welcome: &Welcome) -> Result<(), SessionError> {
        let epoch = self.stream.epoch;
        if epoch != Epoch::NONE && welcome.epoch != epoch {
            return Err(SessionError::OtherEpoch { epoch, granted: welcome.epoch });
        }
        self.window.check_resume(welcome.committed, self.ever_sent())?;
        if welcome.before != Token::NONE && !self.stream.tokens.contains(&welcome.before) {
            return Err(SessionError::Copied);
        }
        match self.stream.record_bytes_max {
            Some(cut) if welcome.record_bytes_max < cut => {
                Err(SessionError::SmallerRecords { cut, granted: welcome.record_bytes_max })
            }
            _ => Ok(()),
        }
    }

    /// A server accepted us: takes what it has committed.
    pub(super) fn welcome(&mut self, welcome: &Welcome) -> Result<(), F::Error> {
        self.stream.epoch = welcome.epoch;
        // No session of those before comes after this one.
        let own = self.stream.tokens.len().saturating_sub(1);
        self.stream.tokens.drain(..own);
        if self.advanced.is_none() {
            self.advanced = Some(Instant::now());
        }
        self.stream.record_bytes_max.get_or_insert(welcome.record_bytes_max);
        // First of all: what is known to be committed is of this epoch.
        self.feed.welcomed(welcome)?;
        self.bytes_uncounted += self.committed_up_to(welcome.committed)?;
        Ok(())
    }

    /// Lets go of what is committed; returns the payload bytes of it.
    pub(super) fn committed_up_to(&mut self, lsn: Lsn) -> Result<u64, F::Error> {
        let before = self.committed();
        let (mut payload_bytes, mut disk_bytes) = (0, 0);
        for kept in self.window.committed(lsn) {
            payload_bytes += kept.payload_bytes();
            disk_bytes += kept.disk_bytes();
            self.memory_bytes -= kept.memory_bytes();
        }
        if self.committed() > before {
            self.advanced = Some(Instant::now());
            self.feed.committed(self.committed())?;
        }
        add(&self.progress.bytes_committed, disk_bytes);
        raise(&self.progress.lsn_committed, self.committed().0);
        Ok(payload_bytes)
    }

    /// Keeps the next record.
    pub(super) fn keep(&mut self, kept: Kept) {
        if self.window.is_empty() {
            self.advanced = Some(Instant::now());
        }
        self.memory_bytes += kept.memory_bytes();
        self.window.push(kept);
    }

    /// A connection has ended, with these totals.
    pub(super) fn disconnected(&mut self, totals: &Totals) {
        self.totals.zero_bytes += totals.zero_bytes;
        self.totals.deduplicated_bytes += totals.deduplicated_bytes;
        self.totals.kept_bytes += totals.kept_bytes;
        self.totals.stored_bytes += totals.stored_bytes;
        if self.window.is_empty() && self.advanced.is_some() {
            self.advanced = Some(Instant::now());
        }
    }
}
