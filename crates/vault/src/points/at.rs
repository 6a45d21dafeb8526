//! Which moment a person wants: `latest`, a time, or EPOCH:LSN.

use std::str::FromStr;

use tidegate_model::{Micros, Point};

/// The moment that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The newest clean bookmark.
    Latest,
    /// The last moment at or before this time.
    Time(Micros),
    /// This very place: a clean moment, or a bookmark that isn't clean.
    Point(Point),
}

/// Why a text names no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' names no moment: write 'latest', a time with its zone as 2026-03-31T14:05:00Z or 2026-03-31T16:05:00+02:00, or EPOCH:LSN as 3:118204"
)]
pub struct AtError {
    /// What was given, cut to a readable length.
    pub text: String,
}

impl FromStr for At {
    type Err = AtError;

    fn from_str(text: &str) -> Result<Self, AtError> {
        let refuse = || AtError { text: text.chars().take(64).collect() };
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Ok(point) = text.parse() {
            return Ok(Self::Point(point));
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| refuse())?;
        u64::try_from(time.as_microsecond()).map(|us| Self::Time(Micros(us))).map_err(|_| refuse())
    }
}

/// A time for a person's eyes, in UTC.
#[must_use]
pub fn readable_time(time: Micros) -> String {
    let stamp =
        i64::try_from(time.0).ok().and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    stamp.map_or_else(|| format!("{} µs after 1970", time.0), |stamp| stamp.to_string())
}

#[cfg(test)]
mod tests {
    use tidegate_model::{Epoch, Lsn};

    use super::*;

    #[test]
    fn a_moment_reads_as_a_person_writes_it() {
        assert_eq!("latest".parse(), Ok(At::Latest));
        let point = Point { epoch: Epoch(3), lsn: Lsn(118_204) };
        assert_eq!("3:118204".parse(), Ok(At::Point(point)));
        for text in ["1970-01-01T00:00:01Z", "1970-01-01T02:00:01+02:00", "1970-01-01 00:00:01Z"] {
            assert_eq!(text.parse(), Ok(At::Time(Micros(1_000_000))), "{text}");
        }
        for text in
            ["", "newest", "2026-03-31", "2026-03-31T14:05:00", "1960-01-01T00:00:00Z", "3:"]
        {
            assert!(text.parse::<At>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_shown_in_utc() {
        assert_eq!(readable_time(Micros(1_500_000)), "1970-01-01T00:00:01.5Z");
        assert_eq!(readable_time(Micros(u64::MAX)), "18446744073709551615 µs after 1970");
    }
}
