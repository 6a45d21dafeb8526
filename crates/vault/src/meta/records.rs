//! What the small metadata objects say: runs, epochs, sessions. docs/formats/epochs.md.
//!
//! Owns their fields and the checks that a reader relies on: an object says what its path says,
//! and parents are older than their children, so that a walk up the tree of epochs ends.

use serde::{Deserialize, Serialize};
use tidegate_model::{
    Epoch, Incarnation, LogId, LogName, Micros, Name, PackNumber, Point, RunId, Token,
};

/// A run of a process server: claimed before anything is sealed under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The run.
    pub run: RunId,
    /// The name of the server: where its logs lie.
    pub node: Name,
    /// When it began.
    pub started: Micros,
    /// The root key version that its logs are sealed under.
    pub key_version: u32,
    /// How many logs it has: shards 0 to this, without it.
    pub shards: u16,
    /// Name and version of the program, for people.
    pub program: String,
}

/// What an epoch begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Begins {
    /// The initial copy: it stands on nothing.
    Copy,
    /// What follows its parent.
    Continue,
}

/// An epoch of a machine, granted by the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Its number, from 1.
    pub epoch: Epoch,
    /// The life of the agent's journal that it was granted to.
    pub incarnation: Incarnation,
    /// Of its first session.
    pub token: Token,
    /// Where the machine's history went on from; none for its first.
    pub parent: Option<Point>,
    /// What it begins with.
    pub begins: Begins,
    /// The log of its first session.
    pub log: LogName,
    /// The first pack of that log that can have records of it.
    pub pack: PackNumber,
    /// When it was granted.
    pub granted: Micros,
}

/// A later session of an epoch: a reconnect, perhaps to another server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The epoch.
    pub epoch: Epoch,
    /// Its number, from 1; the epoch itself is where the first session begins.
    pub number: u64,
    /// The same as the epoch's.
    pub incarnation: Incarnation,
    /// By what its agent knows it again; that of the session before where no agent asked for it.
    pub token: Token,
    /// The LSN up to which the vault had everything when it was granted.
    pub committed: tidegate_model::Lsn,
    /// Its log.
    pub log: LogName,
    /// The first pack of that log that can have records of it.
    pub pack: PackNumber,
    /// When it was granted.
    pub granted: Micros,
}

impl Run {
    /// The names of its logs.
    pub fn logs(&self) -> impl Iterator<Item = LogName> + '_ {
        (0..self.shards)
            .map(|shard| LogName { node: self.node.clone(), id: LogId { run: self.run, shard } })
    }

    pub(super) fn check(&self, run: RunId) -> Result<(), &'static str> {
        if self.run == run { Ok(()) } else { Err("it is the record of another run") }
    }
}

impl EpochRecord {
    pub(super) fn check(&self, epoch: Epoch) -> Result<(), &'static str> {
        if self.epoch != epoch || epoch == Epoch::NONE {
            return Err("it is the record of another epoch");
        }
        match self.parent {
            Some(parent) if parent.epoch >= epoch || parent.epoch == Epoch::NONE => {
                Err("its parent isn't an earlier epoch")
            }
            None if self.begins == Begins::Continue => Err("it continues nothing"),
            _ => Ok(()),
        }
    }
}

impl SessionRecord {
    pub(super) fn check(&self, epoch: Epoch, number: u64) -> Result<(), &'static str> {
        if self.epoch == epoch && self.number == number && number > 0 && epoch != Epoch::NONE {
            Ok(())
        } else {
            Err("it is the record of another session")
        }
    }
}
