//! What can go wrong between us and the object store, told apart by what the caller must do.
//!
//! The causes come as texts: a store's own error types are many, and nobody decides by them. The
//! store client leaves secrets (keys, shared access signatures) out of its texts.

use std::error::Error as StdError;
use std::io;

use object_store::Error as ObjectError;
use object_store::client::HttpError;
use tidegate_model::Remedy;

/// Longest cause that is passed on: a store's whole HTML page is of no use to anyone.
const CAUSE_CHARS_MAX: usize = 500;

/// Why the store didn't do what was asked. `place` is the vault's, `path` the object's in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The object isn't there.
    #[error("{place}: {path} isn't there")]
    NotFound {
        /// The vault's place.
        place: String,
        /// The object.
        path: String,
    },
    /// The directory or the container isn't there.
    #[error("there is no vault at {place}: {advice}")]
    NoPlace {
        /// The vault's place.
        place: String,
        /// What is missing, and what to do.
        advice: String,
    },
    /// No room left.
    #[error("{place} is full: {path} could not be written ({cause}); make room there")]
    Full {
        /// The vault's place.
        place: String,
        /// The object.
        path: String,
        /// What was reported.
        cause: String,
    },
    /// A file may not be so long.
    #[error(
        "{place} takes no file so long as {path} ({cause}): raise the limit of this process (ulimit -f), or use a file system that takes longer ones"
    )]
    FileTooLong {
        /// The vault's place.
        place: String,
        /// The object.
        path: String,
        /// What was reported.
        cause: String,
    },
    /// We may not.
    #[error(
        "{place}: no permission for {path} ({cause}); check the rights of this user or account"
    )]
    Denied {
        /// The vault's place.
        place: String,
        /// The object.
        path: String,
        /// What was reported.
        cause: String,
    },
    /// The store doesn't answer, answers too late, or asks for patience.
    #[error("{place} can't be reached for {path}: {cause}")]
    Unreachable {
        /// The vault's place.
        place: String,
        /// The object.
        path: String,
        /// What was reported.
        cause: String,
    },
    /// Anything else; trying again won't help.
    #[error("{place}: {path} failed: {cause}")]
    Failed {
        /// The vault's place.
        place: String,
        /// The object.
        path: String,
        /// What was reported.
        cause: String,
    },
    /// The directory is no longer the one that was opened.
    #[error(
        "{place} is no longer the directory that was opened (unmounted, moved or deleted?): nothing more is written; bring it back"
    )]
    Replaced {
        /// The vault's place.
        place: String,
    },
    /// The directory went before anything was written to it.
    #[error(
        "{place} was deleted, moved or unmounted before anything was written to it (by a stopped 'vault init' that had made it?): try again"
    )]
    Gone {
        /// The vault's place.
        place: String,
    },
    /// An object longer than any that is ours.
    #[error(
        "{place}: {path} has {bytes} bytes, and at most {bytes_max} are possible: it is damaged or not ours"
    )]
    Long {
        /// The vault's place.
        place: String,
        /// The object.
        path: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// An object shorter than what was to be read of it.
    #[error("{place}: {path} is cut short: {bytes} bytes, and those up to {end} were to be read")]
    Short {
        /// The vault's place.
        place: String,
        /// The object.
        path: String,
        /// What there is.
        bytes: u64,
        /// The end of what was asked for.
        end: u64,
    },
    /// A file system that can't create a file under its name only if there is none.
    #[error(
        "{place} lies on a file system without hard links ({cause}); a vault needs them: use ext4, xfs, btrfs or zfs"
    )]
    NoHardLinks {
        /// The vault's place.
        place: String,
        /// What was reported.
        cause: String,
    },
    /// The settings of the store can't be used.
    #[error("{place}: {cause}")]
    Settings {
        /// The vault's place.
        place: String,
        /// What is wrong, and what to do.
        cause: String,
    },
}

impl StoreError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Unreachable { .. } => Remedy::Retry,
            Self::NoPlace { .. }
            | Self::Denied { .. }
            | Self::NoHardLinks { .. }
            | Self::Settings { .. } => Remedy::Refuse,
            Self::Full { .. }
            | Self::FileTooLong { .. }
            | Self::Failed { .. }
            | Self::Replaced { .. }
            | Self::Gone { .. } => Remedy::Stop,
            Self::NotFound { .. } | Self::Long { .. } | Self::Short { .. } => Remedy::Repair,
        }
    }

    /// Whether what is stored is wrong (and not the way to it): others can be read all the same. A
    /// read that fails counts: the disk under it may be bad in one place.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. } | Self::Short { .. } | Self::Long { .. } | Self::Failed { .. }
        )
    }

    /// The object that it is about, if it is about one.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::NotFound { path, .. }
            | Self::Full { path, .. }
            | Self::FileTooLong { path, .. }
            | Self::Denied { path, .. }
            | Self::Unreachable { path, .. }
            | Self::Failed { path, .. }
            | Self::Long { path, .. }
            | Self::Short { path, .. } => Some(path),
            Self::NoPlace { .. }
            | Self::Replaced { .. }
            | Self::Gone { .. }
            | Self::NoHardLinks { .. }
            | Self::Settings { .. } => None,
        }
    }

    /// Whether the object isn't there (the vault itself may be).
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// What an I/O error on a vault's directory means.
    pub(super) fn of_io(place: &str, path: &str, error: &io::Error) -> Self {
        let (place, path, cause) = (place.to_owned(), path.to_owned(), error.to_string());
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound { place, path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { place, path, cause }
            }
            io::ErrorKind::FileTooLarge => Self::FileTooLong { place, path, cause },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Denied { place, path, cause }
            }
            _ => Self::Failed { place, path, cause },
        }
    }

    /// What an error of the store client means.
    pub(super) fn of_object(place: &str, path: &str, error: &ObjectError) -> Self {
        let kind = find::<HttpError>(error).map(HttpError::kind);
        if kind.is_none()
            && !matches!(error, ObjectError::NotFound { .. })
            && let Some(io) = find::<io::Error>(error)
        {
            return Self::of_io(place, path, io);
        }
        let (place, path, cause) = (place.to_owned(), path.to_owned(), cause(error));
        // What Azure says to a listing comes without a kind of its own.
        if cause.contains("ContainerNotFound") {
            let advice = "its container doesn't exist; create it first".into();
            return Self::NoPlace { place, advice };
        }
        let status = if kind.is_none() { status(&cause) } else { None };
        match error {
            ObjectError::NotFound { .. } if cause.contains("ContainerNotFound") => Self::NoPlace {
                place,
                advice: "its container doesn't exist; create it first".into(),
            },
            ObjectError::NotFound { .. } => Self::NotFound { place, path },
            ObjectError::PermissionDenied { .. } | ObjectError::Unauthenticated { .. } => {
                Self::Denied { place, path, cause }
            }
            ObjectError::Generic { .. } if matches!(status, Some(401 | 403)) => {
                Self::Denied { place, path, cause }
            }
            ObjectError::Generic { .. } if kind.is_some() || may_pass(status, &cause) => {
                Self::Unreachable { place, path, cause }
            }
            _ => Self::Failed { place, path, cause },
        }
    }
}

/// The status of an answer. The client keeps it to itself, except in its text.
fn status(cause: &str) -> Option<u16> {
    cause.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)?.parse().ok())
}

/// Whether the answer asks for patience.
fn may_pass(status: Option<u16>, cause: &str) -> bool {
    match status {
        Some(status) => matches!(status, 408 | 429 | 500..=599),
        None => cause.contains("Server returned error response"),
    }
}

/// The first error of this type in the chain of sources.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The chain of causes as one line.
fn cause(error: &ObjectError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        // Most of these types print their sources themselves.
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = error.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(CAUSE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl StdError + Send + Sync + 'static) -> ObjectError {
        ObjectError::Generic { store: "test", source: Box::new(source) }
    }

    #[test]
    fn a_full_disk_is_told_apart_however_deep_it_lies() {
        #[derive(Debug, thiserror::Error)]
        #[error("unable to copy data to file")]
        struct Layer(#[source] io::Error);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = StoreError::of_object("file:///v", "log/x", &generic(Layer(full)));
        assert!(error.to_string().contains("make room"), "{error}");
        assert_eq!(error.remedy(), Remedy::Stop);
        // Where there is room, and a file may not be so long, making more doesn't help.
        let long = io::Error::from(io::ErrorKind::FileTooLarge);
        let error = StoreError::of_object("file:///v", "log/x", &generic(Layer(long)));
        assert!(error.to_string().contains("ulimit -f"), "{error}");
        assert!(!error.to_string().contains("full"), "{error}");
        assert_eq!(error.remedy(), Remedy::Stop);
    }

    #[test]
    fn an_answer_says_whether_to_try_again() {
        for (text, remedy) in [
            ("Server returned non-2xx status code: 503 Busy: x", Remedy::Retry),
            ("Server returned non-2xx status code: 429 Too Many: x", Remedy::Retry),
            ("Server returned non-2xx status code: 400 Bad: x", Remedy::Stop),
            ("Server returned non-2xx status code: 403 Forbidden: x", Remedy::Refuse),
            ("non-2xx status code: 404 Not Found: <Code>ContainerNotFound</Code>", Remedy::Refuse),
            ("something else", Remedy::Stop),
        ] {
            #[derive(Debug, thiserror::Error)]
            #[error("{0}")]
            struct Text(&'static str);
            let error = StoreError::of_object("az://c", "p", &generic(Text(text)));
            assert_eq!(error.remedy(), remedy, "{text}");
        }
    }
}
