//! A setting that is fixed, or left to the program: `auto`. On the command line and in the
//! configuration.

use std::fmt::{Display, Formatter, Result as Formatted};

use serde::Deserialize;
use tidegate_model::limits::{LEVEL_MAX, LEVEL_MIN};
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

/// The zstd level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "LevelText")]
pub(crate) struct Level(pub Choice<i32>);

#[derive(Deserialize)]
#[serde(untagged)]
enum LevelText {
    Number(i32),
    Text(String),
}

impl std::str::FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == AUTO {
            return Ok(Self(Choice::Auto));
        }
        let level = text.parse().map_err(|_| format!("'{text}' is neither a level nor {AUTO}"))?;
        LevelText::Number(level).try_into()
    }
}

impl TryFrom<LevelText> for Level {
    type Error = String;

    fn try_from(text: LevelText) -> Result<Self, String> {
        match text {
            LevelText::Text(text) => text.parse(),
            LevelText::Number(level) if (LEVEL_MIN..=LEVEL_MAX).contains(&level) => {
                Ok(Self(Choice::Fixed(level)))
            }
            LevelText::Number(level) => Err(format!(
                "level {level} can't be had: it lies from {LEVEL_MIN} to {LEVEL_MAX}, or is {AUTO}"
            )),
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
    fn levels_beyond_the_memory_plan_are_refused() {
        let parse = |text: &str| text.parse::<Level>().map(|level| level.0);
        assert_eq!(parse("auto"), Ok(Choice::Auto));
        assert_eq!(parse("-7"), Ok(Choice::Fixed(-7)));
        assert_eq!(parse("12"), Ok(Choice::Fixed(12)));
        for bad in ["-8", "13", "", "fast", "1.5"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

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
