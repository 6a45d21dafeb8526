//! Names of machines and nodes: what a person types, and a part of object paths.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::NAME_BYTES_MAX;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not a name: 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' or '-' are needed, the first a letter or digit"
)]
pub struct NameError {
    /// What was given, cut to a readable length.
    pub text: String,
}

/// The name of a machine or a node: 1 to [`NAME_BYTES_MAX`] ASCII letters, digits, `.`, `_`, `-`,
/// starting with a letter or digit. Safe as one component of an object's path. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let body = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if first && text.len() <= NAME_BYTES_MAX && text.bytes().all(body) {
            Ok(Self(text.into()))
        } else {
            Err(NameError { text: text.chars().take(80).collect() })
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0.to_string()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for text in
            ["", ".", "..", "-a", "a/b", "a\\b", "a b", "é", &"a".repeat(NAME_BYTES_MAX + 1)]
        {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        for text in ["a", "db-1.example", "0", &"a".repeat(NAME_BYTES_MAX)] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
    }
}
