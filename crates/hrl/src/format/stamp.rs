//! Times of [MS-HRL]: whole seconds since 2000-01-01 00:00:00 UTC.

use tidegate_model::Micros;

/// Seconds from 1970 to 2000: 30 years, seven of them leap years.
const EPOCH_SECONDS: u64 = (30 * 365 + 7) * 86_400;

/// A time in seconds since 2000. It ends in 2136, and begins in 2000: a time before or after is
/// stated as the nearest there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub u32);

impl Stamp {
    /// The time in microseconds since 1970.
    #[must_use]
    pub const fn micros(self) -> Micros {
        Micros((self.0 as u64 + EPOCH_SECONDS) * 1_000_000)
    }
}

impl From<Micros> for Stamp {
    fn from(time: Micros) -> Self {
        let seconds = (time.0 / 1_000_000).saturating_sub(EPOCH_SECONDS);
        Self(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_count_from_the_year_2000() {
        // 2017-02-08 04:13:02 UTC, of the specification's example.
        assert_eq!(Stamp(539_842_382).micros(), Micros(1_486_527_182_000_000));
        assert_eq!(Stamp::from(Micros(1_486_527_182_999_999)), Stamp(539_842_382));
        assert_eq!(Stamp::from(Micros(0)), Stamp(0));
        assert_eq!(Stamp::from(Micros(u64::MAX)), Stamp(u32::MAX));
    }
}
