//! What the one who got an error must do about it.

use std::fmt;

/// What to do. Every error that crosses a crate says one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Remedy {
    /// It may pass by itself: try again, with patience.
    Retry = 1,
    /// What was asked for can't be had as asked: a person must change the request.
    Refuse = 2,
    /// This run can't go on: stop it, nothing is lost.
    Stop = 3,
    /// Something stored is damaged: a person must look at it.
    Repair = 4,
}

impl Remedy {
    /// The remedy with this code; `None` when there is none such.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Retry,
            2 => Self::Refuse,
            3 => Self::Stop,
            4 => Self::Repair,
            _ => return None,
        })
    }

    /// Its code in every format.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retry => "retry",
            Self::Refuse => "refuse",
            Self::Stop => "stop",
            Self::Repair => "repair",
        })
    }
}
