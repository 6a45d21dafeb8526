//! A setting that is fixed, or left to the program: `auto`. On the command line and in the
//! configuration.

use std::fmt::{Display, Formatter, Result as Formatted};

use serde::Deserialize;
use tidegate_model::parse_bytes;

const AUTO: &str = "auto";
/// The frame sizes that can be asked for, in bytes.
const FRAMES: [u64; 3] = [256 << 10, 1 << 20, 4 << 20];

/// Who decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Choice<T> {
    /// The program, by what is scarce.
    #[default]
    Auto,
    /// Whoever started it.
    Fixed(T),
}

impl<T> Choice<T> {
    /// What was fixed, if it was.
    pub(crate) fn fixed(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Fixed(value) => Some(value),
        }
    }
}

impl<T: Display> Display for Choice<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Formatted {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::Fixed(value) => value.fmt(f),
        }
    }
}

/// The longest frames, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Frame(pub Choice<u64>);

impl std::str::FromStr for Frame {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == AUTO {
            return Ok(Self(Choice::Auto));
        }
        match parse_bytes(text) {
            Ok(bytes) if FRAMES.contains(&bytes) => Ok(Self(Choice::Fixed(bytes))),
            _ => Err("frames have 256KiB, 1MiB, 4MiB, or auto".to_owned()),
        }
    }
}

impl TryFrom<String> for Frame {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_one_of_three_sizes_or_are_left_to_the_program() {
        let parse = |text: &str| text.parse::<Frame>().map(|frame| frame.0);
        assert_eq!(parse("auto"), Ok(Choice::Auto));
        assert_eq!(parse("4MiB"), Ok(Choice::Fixed(4 << 20)));
        for bad in ["2MiB", "8MiB", "0", "", "Auto"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
