//! The errors that NBD knows: numbers of its own, whatever the system's are.

/// Why a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Errno {
    /// `NBD_EPERM`: the export can't be written.
    NotPermitted = 1,
    /// `NBD_EIO`: the disk failed.
    Io = 5,
    /// `NBD_ENOMEM`: no memory for it.
    NoMemory = 12,
    /// `NBD_EINVAL`: the command makes no sense here.
    Invalid = 22,
    /// `NBD_ENOSPC`: no room on the disk, or beyond its end.
    NoSpace = 28,
    /// `NBD_EOVERFLOW`: too much at once.
    Overflow = 75,
    /// `NBD_ENOTSUP`: zeros can't be written faster than data.
    NotSupported = 95,
    /// `NBD_ESHUTDOWN`: the server is stopping.
    ShuttingDown = 108,
}

impl Errno {
    /// Its number.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The error with this number. Unknown ones count as invalid, as the document asks of clients;
    /// 0 is none.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::NotPermitted,
            5 => Self::Io,
            12 => Self::NoMemory,
            28 => Self::NoSpace,
            75 => Self::Overflow,
            95 => Self::NotSupported,
            108 => Self::ShuttingDown,
            _ => Self::Invalid,
        })
    }
}
