//! How a command fails: one text for the person, and an exit status.

use std::fmt;

use tidegate_model::Remedy;

/// Why a command failed. The text says what happened, to what, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    status: u8,
}

/// Exit status where the request can't be met as it was made.
const REFUSED: u8 = 2;
/// Exit status where trying again may help.
const RETRY: u8 = 75;
/// Exit status where stored data is damaged.
const DAMAGED: u8 = 3;
/// Exit status for the rest.
const FAILED: u8 = 1;

impl Failure {
    /// A failure with a remedy.
    pub(crate) fn new(text: impl Into<String>, remedy: Remedy) -> Self {
        let status = match remedy {
            Remedy::Retry => RETRY,
            Remedy::Refuse => REFUSED,
            Remedy::Stop => FAILED,
            Remedy::Repair => DAMAGED,
        };
        Self { text: text.into(), status }
    }

    /// The user asked for what can't be.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(text, Remedy::Refuse)
    }

    /// The exit status; never 0.
    pub(crate) const fn status(&self) -> u8 {
        self.status
    }

    /// Puts what was being done in front.
    pub(crate) fn during(mut self, what: impl fmt::Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Every error with a remedy becomes a failure with all its causes in one line.
macro_rules! from_errors {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                let remedy = error.remedy();
                Self::new($crate::failure::with_causes(&error), remedy)
            }
        })+
    };
}
pub(crate) use from_errors;

/// An error's text, and those of its causes that it doesn't contain already.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}
