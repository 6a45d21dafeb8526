//! How fast a counter rises, over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over how long.
const SPAN: Duration = Duration::from_secs(10);

/// A counter's samples.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// What the counter shows now. Samples are a tenth of a second apart at least, whoever takes more.
    pub fn sample(&mut self, at: Instant, count: u64) {
        let apart = SPAN / 100;
        if self.samples.back().is_some_and(|(last, _)| at.saturating_duration_since(*last) < apart)
        {
            return;
        }
        while self
            .samples
            .front()
            .is_some_and(|(first, _)| at.saturating_duration_since(*first) > SPAN)
        {
            self.samples.pop_front();
        }
        self.samples.push_back((at, count));
    }

    /// By how much it rose a second.
    pub fn a_second(&self) -> u64 {
        let (Some((from, first)), Some((to, last))) = (self.samples.front(), self.samples.back())
        else {
            return 0;
        };
        let us = u64::try_from(to.saturating_duration_since(*from).as_micros()).unwrap_or(u64::MAX);
        let rose = u128::from(last.saturating_sub(*first)) * 1_000_000;
        rose.checked_div(us.into()).map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_the_last_seconds_and_0_before_there_are_any() {
        let mut rate = Rate::default();
        let start = Instant::now();
        assert_eq!(rate.a_second(), 0);
        rate.sample(start, 100);
        assert_eq!(rate.a_second(), 0);
        for second in 1..=30 {
            rate.sample(start + Duration::from_secs(second), 100 + 50 * second.min(20));
        }
        assert_eq!(rate.a_second(), 0, "for 10 seconds nothing happened");
        rate.sample(start + Duration::from_secs(31), 100 + 50 * 20 + 1000);
        assert_eq!(rate.a_second(), 100);
        assert!(rate.samples.len() <= 101);
    }
}
