//! What can be wrong with a log, in words for people.

use std::io;

use crate::format::{BlockError, HeaderError};

/// Why a file can't be read as a log at all.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The file can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no .hrl file, or one that can't be understood.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// Something that isn't as it should be. Locations are bytes from the beginning of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// EOLLocation is 0.
    #[error(
        "the log wasn't closed properly: its blocks were searched for from its beginning, and what \
         was tracked last may be missing"
    )]
    NotClosed,
    /// EOLLocation isn't within the file.
    #[error(
        "the log is stated to end at {end}, and the file has {file_bytes} bytes: a part is missing"
    )]
    End {
        /// What the header states.
        end: u64,
        /// Bytes of the file.
        file_bytes: u64,
    },
    /// A block isn't whole.
    #[error("the block at {location} isn't whole: {error}")]
    Block {
        /// Where it begins.
        location: u64,
        /// Why.
        error: BlockError,
    },
    /// A block names one before it that can't be.
    #[error(
        "the block at {location} says that the one before it stands {distance} bytes before it, \
         where none can be"
    )]
    Distance {
        /// Where it begins.
        location: u64,
        /// What it states.
        distance: u64,
    },
    /// A block's entries don't fit what lies before it.
    #[error(
        "the entries of the block at {location} have {stated} bytes of data, and {room} lie before \
         it"
    )]
    Lengths {
        /// Where it begins.
        location: u64,
        /// What its entries state.
        stated: u64,
        /// What there is.
        room: u64,
    },
    /// Nothing whole was found here.
    #[error("bytes {from} to {to} hold no whole block")]
    Unread {
        /// Where what can't be read begins.
        from: u64,
        /// Where it ends.
        to: u64,
    },
}
