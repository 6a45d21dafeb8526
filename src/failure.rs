//! How a command fails: one text for the person, and an exit status.

use std::fmt;

use tidegate_model::Remedy;

/// Why a command failed. The text says what happened, to what, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    status: u8,
}

/// Exit status for the rest: failed, or stopped before it was done.
const FAILED: u8 = 1;
/// Exit status where the request can't be met as it was made; clap's for what it can't parse, too.
const REFUSED: u8 = 2;
/// Exit status where stored data is damaged.
const DAMAGED: u8 = 3;
/// Exit status where trying again may help: EX_TEMPFAIL of sysexits.h.
const RETRY: u8 = 75;

/// What `--help` says of exit statuses.
pub(crate) const STATUSES: &str = "\
Exit status: 0 done (a server: stopped as it was asked to); 1 failed, or stopped before it was done, \
or copied disks that changed meanwhile; 2 refused as asked; 3 stored data is damaged; 75 try again \
later; 130 or 143 ended at once by a second SIGINT or SIGTERM";

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

    /// It went wrong, and asking otherwise wouldn't help.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::new(text, Remedy::Stop)
    }

    /// SIGINT or SIGTERM came before it was done.
    pub(crate) fn stopped() -> Self {
        Self::failed("stopped on request before it was done")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_not_started_again_where_a_person_must_act_first() {
        let unit = include_str!("../tuning/etc/systemd/system/tidegate-server.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
        let statuses: Vec<&str> = line.expect("the unit has such a line").split(' ').collect();
        assert_eq!(statuses, [REFUSED.to_string(), DAMAGED.to_string()]);
    }

    #[test]
    fn help_and_readme_name_every_status() {
        let readme = include_str!("../README.md");
        for status in [FAILED, REFUSED, DAMAGED, RETRY, 130, 143] {
            assert!(STATUSES.contains(&format!(" {status} ")), "{status} in the help");
            assert!(readme.contains(&format!("| {status} |")), "{status} in the README");
        }
    }
}
