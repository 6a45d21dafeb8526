//! How patiently an agent tries again: exponential backoff with jitter, and when it gives up.
//!
//! Pure: time comes in as durations, chance as a seed. Trying again is safe because a record keeps
//! its LSN and its bytes, so a server that gets it twice changes nothing.

use std::time::Duration;

use tidegate_model::limits::{AGENT_PATIENCE_AT_START_SECONDS, AGENT_PATIENCE_SECONDS};
use tidegate_wire::limits::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, USER_TIMEOUT};

/// The longest delay: it keeps a thousand agents from knocking more than a hundred times a second.
const DELAY_MAX_SECONDS: u64 = 10;
const _: () = {
    let noticed = KEEPALIVE_IDLE.as_secs() + KEEPALIVE_PROBES as u64 * KEEPALIVE_INTERVAL.as_secs();
    // Between two tries lies a delay at most.
    assert!(AGENT_PATIENCE_AT_START_SECONDS > noticed + DELAY_MAX_SECONDS);
    assert!(AGENT_PATIENCE_AT_START_SECONDS > USER_TIMEOUT.as_secs() + DELAY_MAX_SECONDS);
};

/// When to try again, and how long.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Gives up when the vault committed nothing for this long, after it had accepted the agent
    /// once.
    pub patience: Duration,
    /// Gives up when no server accepted the agent within this time from its start: longer than a
    /// server needs to notice that an agent before it is gone.
    pub patience_at_start: Duration,
    /// The first delay, before jitter; each further one is twice the one before.
    pub delay_min: Duration,
    /// The longest delay, before jitter.
    pub delay_max: Duration,
    /// Where jitter begins; the same seed gives the same delays.
    pub seed: u64,
}

impl Default for RetryPolicy {
    /// The first delay is about the time in which a server that was killed is back.
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(AGENT_PATIENCE_SECONDS),
            patience_at_start: Duration::from_secs(AGENT_PATIENCE_AT_START_SECONDS),
            delay_min: Duration::from_millis(250),
            delay_max: Duration::from_secs(DELAY_MAX_SECONDS),
            seed: 0,
        }
    }
}

/// The delays of one agent.
#[derive(Debug)]
pub(crate) struct Backoff {
    delay_min: Duration,
    delay_max: Duration,
    next: Duration,
    state: u64,
}

impl Backoff {
    pub(crate) const fn new(policy: &RetryPolicy) -> Self {
        Self {
            delay_min: policy.delay_min,
            delay_max: policy.delay_max,
            next: policy.delay_min,
            state: policy.seed,
        }
    }

    /// The next delay: between half of the current step and the whole of it.
    pub(crate) fn delay(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.delay_max);
        let thousandths = u32::try_from(self.random() % 501).unwrap_or(0);
        step * (500 + thousandths) / 1000
    }

    /// Something went well: the next delay is the first again.
    pub(crate) const fn reset(&mut self) {
        self.next = self.delay_min;
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): enough chance to keep agents apart.
    const fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_with_jitter_and_start_over_after_success() {
        let policy = RetryPolicy { seed: 7, ..RetryPolicy::default() };
        let mut backoff = Backoff::new(&policy);
        let mut step = policy.delay_min;
        for _ in 0..12 {
            let delay = backoff.delay();
            assert!(delay >= step / 2 && delay <= step, "{delay:?} of {step:?}");
            step = (step * 2).min(policy.delay_max);
        }
        backoff.reset();
        assert!(backoff.delay() <= policy.delay_min);
    }

    #[test]
    fn agents_with_different_seeds_knock_at_different_times() {
        let delays = |seed| {
            let mut backoff = Backoff::new(&RetryPolicy { seed, ..RetryPolicy::default() });
            (0..4).map(|_| backoff.delay()).collect::<Vec<_>>()
        };
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
    }
}
