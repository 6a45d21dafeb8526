//! Logs and the numbers of what is in them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Name, RunId};

/// What names a log without doubt: its run (128 random bits) and its shard. Keys derive from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// The run of the process server that writes it.
    pub run: RunId,
    /// The shard of that run.
    pub shard: u16,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.shard)
    }
}

/// A log and the node under whose name its objects lie.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogName {
    /// The process server's name; a part of the path only.
    pub node: Name,
    /// The log.
    pub id: LogId,
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.id)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The place of a pack in its log, from 0, without gaps.
    PackNumber
}
number! {
    /// The place of a frame in its log, from 0, without gaps. Once given it is final: it is the
    /// nonce under which the frame is sealed.
    FrameNumber
}
