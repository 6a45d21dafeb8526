//! Where a vault lies, as a person writes it: `file:///dir`, `az://container[/prefix]`,
//! `memory://[name]`.
//!
//! Owns the texts and their errors. Doesn't own what is found there (`store`), nor the settings of
//! an account (the AZURE_* variables, `store::azure`). A location holds no secret: it may be
//! printed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use object_store::path::Path as ObjectPath;

/// Longest text of a location: the longest path of Linux, and the scheme.
const LOCATION_BYTES_MAX: usize = 4096 + 16;

/// Where a vault lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// A directory of this host.
    Directory(PathBuf),
    /// A container of Azure's blob store (or Azurite), and the prefix of the vault's objects in it.
    Azure {
        /// The container.
        container: String,
        /// Without slashes at its ends; empty for the container's root.
        prefix: String,
    },
    /// A store in this process's memory, gone with it; for tests.
    Memory(String),
}

/// Why a text is no location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// A path without a scheme.
    #[error("'{text}' names no vault's place: write it as {advice}")]
    BarePath {
        /// What was given.
        text: String,
        /// How to write it.
        advice: String,
    },
    /// Another scheme.
    #[error(
        "'{0}' is no vault's place: file:///dir, az://container[/prefix] and memory://[name] are known"
    )]
    Scheme(String),
    /// A directory that isn't an absolute path.
    #[error("'{0}' names no absolute directory: write it with three slashes, as file:///srv/vault")]
    Directory(String),
    /// Not a name that a container can have.
    #[error(
        "'{0}' names no container: write az://container/prefix; a container has 3 to 63 lower-case letters, digits and single hyphens"
    )]
    Container(String),
    /// A prefix that object paths can't have.
    #[error(
        "the prefix of '{0}' can't be used: no empty parts, no '.' or '..', and only printable characters other than \\ {{ }} % ^ [ ] ~ < > # | ` * ? and quotes"
    )]
    Prefix(String),
    /// Not a name for a store in memory.
    #[error(
        "'{0}' names no store in memory: letters, digits, '.', '_' and '-' may follow memory://"
    )]
    Memory(String),
    /// Longer than any path.
    #[error("the vault's place is {0} bytes long: at most {LOCATION_BYTES_MAX} are possible")]
    Long(usize),
}

impl Location {
    /// The location of the vault in `directory`, which must be absolute.
    #[must_use]
    pub fn directory(directory: &Path) -> Self {
        Self::Directory(directory.to_path_buf())
    }
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if text.len() > LOCATION_BYTES_MAX {
            return Err(LocationError::Long(text.len()));
        }
        match text.split_once("://") {
            Some(("file", rest)) => directory(text, rest),
            Some(("az" | "azure", rest)) => azure(text, rest),
            Some(("memory", name)) => memory(text, name),
            Some(_) => Err(LocationError::Scheme(text.into())),
            None => Err(bare(text)),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file://{}", encode(&path.to_string_lossy())),
            Self::Azure { container, prefix } if prefix.is_empty() => write!(f, "az://{container}"),
            Self::Azure { container, prefix } => write!(f, "az://{container}/{prefix}"),
            Self::Memory(name) => write!(f, "memory://{name}"),
        }
    }
}

fn bare(text: &str) -> LocationError {
    if text.is_empty() {
        return LocationError::Scheme(text.into());
    }
    let path = text.strip_prefix("file:").unwrap_or(text);
    let advice = if path.starts_with('/') {
        format!("file://{}", encode(path))
    } else {
        format!("file://\"$PWD\"/{}", path.trim_start_matches("./"))
    };
    LocationError::BarePath { text: text.into(), advice }
}

fn directory(text: &str, rest: &str) -> Result<Location, LocationError> {
    let refuse = || LocationError::Directory(text.into());
    let rest = rest.strip_prefix("localhost").filter(|r| r.starts_with('/')).unwrap_or(rest);
    let path = decode(rest).ok_or_else(refuse)?;
    let trimmed = path.trim_end_matches('/');
    // The root of the file system is nobody's vault, and a NUL ends a path early.
    if !trimmed.starts_with('/') || trimmed.contains('\0') {
        return Err(refuse());
    }
    Ok(Location::Directory(PathBuf::from(trimmed)))
}

fn azure(text: &str, rest: &str) -> Result<Location, LocationError> {
    let (container, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let body = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let named = (3..=63).contains(&container.len())
        && container.bytes().all(body)
        && !container.starts_with('-')
        && !container.ends_with('-')
        && !container.contains("--");
    if !named {
        return Err(LocationError::Container(text.into()));
    }
    let prefix = prefix.trim_end_matches('/');
    let parsed = ObjectPath::parse(prefix).map_err(|_| LocationError::Prefix(text.into()))?;
    if parsed.as_ref() != prefix || prefix.contains(char::is_control) {
        return Err(LocationError::Prefix(text.into()));
    }
    Ok(Location::Azure { container: container.into(), prefix: prefix.into() })
}

fn memory(text: &str, name: &str) -> Result<Location, LocationError> {
    let body = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.bytes().all(body) {
        Ok(Location::Memory(name.into()))
    } else {
        Err(LocationError::Memory(text.into()))
    }
}

/// Undoes the percent-encoding of a file URL; `None` when it isn't one, or isn't UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = tail.get(..2).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

/// Encodes what a file URL can't hold as it is and a person's shell would trip over.
fn encode(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for character in path.chars() {
        match character {
            '%' => text.push_str("%25"),
            ' ' => text.push_str("%20"),
            '#' => text.push_str("%23"),
            '?' => text.push_str("%3F"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_from_its_own_text() {
        for text in [
            "file:///srv/vault",
            "file:///srv/a%20b%25c",
            "az://backups",
            "az://backups/site-1/x",
            "memory://",
            "memory://t1",
        ] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        let location: Location = "file://localhost/srv/a%20b/".parse().unwrap();
        assert_eq!(location, Location::Directory("/srv/a b".into()));
    }

    #[test]
    fn a_bare_path_is_answered_with_how_to_write_it() {
        let error = "/srv/my vault".parse::<Location>().unwrap_err().to_string();
        assert!(error.contains("file:///srv/my%20vault"), "{error}");
        let error = "file:/srv/vault".parse::<Location>().unwrap_err().to_string();
        assert!(error.contains("as file:///srv/vault"), "{error}");
        let error = "./vault".parse::<Location>().unwrap_err().to_string();
        assert!(error.contains("file://\"$PWD\"/vault"), "{error}");
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for text in [
            "",
            "s3://bucket",
            "file://",
            "file:///",
            "file://host/dir",
            "file://dir",
            "file:///a%zz",
            "file:///a%00",
            "az://",
            "az://Upper",
            "az://ab",
            "az://a--b",
            "az://ok-name//x",
            "az://ok-name/../x",
            "memory://a/b",
        ] {
            assert!(text.parse::<Location>().is_err(), "{text}");
        }
        assert!(format!("file:///{}", "a".repeat(9000)).parse::<Location>().is_err());
    }
}
