//! Identities: 128 random bits each, written as 32 lower-case hexadecimal digits.
//!
//! Chance comes in through the caller (`from_bytes`): nothing here reads a random source.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an id: 32 hexadecimal digits are needed")]
pub struct IdError {
    /// What was given.
    pub text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id with these 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its 16 bytes, in the order in which they are written.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                hex16(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

id! {
    /// A vault.
    VaultId
}
id! {
    /// One run of a process server: from its start to its end.
    RunId
}
id! {
    /// One life of an agent's journal.
    Incarnation
}
id! {
    /// One run of an agent, noted before it first asks a server: by it the agent knows its own sessions again.
    Token
}
id! {
    /// One pack: tells a pack that we stored from another of the same number.
    PackId
}
id! {
    /// What keeps from being collected what one recovery or mount reads.
    PinId
}
id! {
    /// One layer of a machine's folded history.
    LayerId
}
id! {
    /// The name of a block's content: keyed, so that it tells nothing to who lacks the key.
    BlockName
}

impl Token {
    /// Nobody's.
    pub const NONE: Self = Self([0; 16]);
}

fn hex16(text: &str) -> Result<[u8; 16], IdError> {
    let refuse = || IdError { text: text.chars().take(64).collect() };
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refuse());
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(pair).map_err(|_| refuse())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| refuse())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_own_text() {
        let id = RunId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
    }

    #[test]
    fn a_text_of_another_shape_is_refused() {
        for text in
            ["", "00", "0123456789abcdef0123456789abcdeg", &"0".repeat(33), &"+f".repeat(16)]
        {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }
}
