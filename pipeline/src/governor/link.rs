//! How many bytes a second the way to the store takes, as far as packs wait for it.
//!
//! Pure: it is told when packs set out and when they are stored. A pack that took longer than one that
//! was alone on the way has waited for others: then what was stored since the way was last empty, over
//! that time, is what the way takes. Otherwise that is the least that it takes; and of packs that were
//! on the way together and took no longer than one alone, it would take more at once: a far store isn't
//! a slow one.

use std::time::Duration;

/// A pack that took so many times as long as one alone has waited for others; below the other, it
/// hasn't.
const WAITED_TIMES: f64 = 1.5;
const ALONE_TIMES: f64 = 1.1;
/// What is known grows by this with each pack that shared the way and hasn't waited.
const GROWTH: f64 = 1.5;
/// No link is faster, in bytes a second; so a guess doesn't grow beyond all bounds.
const RATE_MAX: f64 = 1e12;
/// Of smaller packs the time is that of the request, not of the bytes: a quarter of a full one.
const PACK_BYTES_MIN: usize = 4 << 20;
/// What was stored longer ago than about so long counts half: in seconds.
const MEMORY_S: f64 = 2.0;

/// The way to the store. Times count from any moment, the same in all calls.
#[derive(Debug, Default)]
pub struct Link {
    under_way: usize,
    /// Until when the time in which packs were under way is counted.
    counted: Duration,
    /// What was stored since the way was last empty, and in how many seconds.
    bytes: f64,
    seconds: f64,
    /// How long a pack takes that is alone, and its bytes.
    alone: Option<(Duration, usize)>,
    rate: Option<f64>,
}

impl Link {
    /// A pack sets out. Tells whether it is alone, for [`Self::ended`].
    pub fn begun(&mut self, now: Duration) -> bool {
        let is_alone = self.under_way == 0;
        if is_alone {
            (self.counted, self.bytes, self.seconds) = (now, 0.0, 0.0);
        }
        self.under_way += 1;
        is_alone
    }

    /// A pack of so many bytes was stored after `took`; or, with no bytes, wasn't.
    pub fn ended(&mut self, now: Duration, bytes: usize, took: Duration, was_alone: bool) {
        self.under_way = self.under_way.saturating_sub(1);
        self.seconds += now.saturating_sub(self.counted).as_secs_f64();
        self.counted = now;
        self.bytes += float(bytes);
        if self.seconds > 2.0 * MEMORY_S {
            self.seconds /= 2.0;
            self.bytes /= 2.0;
        }
        if bytes < PACK_BYTES_MIN {
            return;
        }
        let times = self.times_alone(bytes, took);
        if was_alone || self.alone.is_none_or(|(alone, _)| took < alone) {
            self.alone = Some((took, bytes));
        }
        let stored = self.bytes / self.seconds.max(1e-6);
        let known = self.rate.unwrap_or(0.0);
        self.rate = Some(match times {
            Some(times) if !was_alone && times > WAITED_TIMES => stored,
            Some(times) if !was_alone && times < ALONE_TIMES => {
                (stored.max(known) * GROWTH).min(RATE_MAX)
            }
            _ => stored.max(known),
        });
    }

    /// Bytes a second that it takes; `None` before the first pack.
    #[must_use]
    pub const fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// How many times as long as one alone it took: longer ones may take as many times longer, shorter
    /// ones as long, for the way may be far.
    fn times_alone(&self, bytes: usize, took: Duration) -> Option<f64> {
        let (alone, alone_bytes) = self.alone?;
        let longer = (float(bytes) / float(alone_bytes)).max(1.0);
        Some(took.as_secs_f64() / (alone.as_secs_f64() * longer).max(1e-6))
    }
}

#[allow(clippy::cast_precision_loss)] // bytes of packs
fn float(bytes: usize) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACK: usize = 16 << 20;

    /// Packs that set out every so many milliseconds, on a way of this latency and rate (bytes a
    /// millisecond) on which one goes after the other.
    fn send(
        link: &mut Link,
        from_ms: f64,
        count: usize,
        every_ms: f64,
        latency_ms: f64,
        rate: f64,
    ) {
        let (mut events, mut free) = (Vec::new(), 0.0_f64);
        for at in (0..count).map(|n| from_ms + float(n) * every_ms) {
            free = free.max(at) + float(PACK) / rate;
            events.push((at, None));
            events.push((free + latency_ms, Some(at)));
        }
        events.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let time = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        let mut alone = Vec::new();
        for (at, begun) in events {
            match begun {
                None => alone.push((at, link.begun(time(at)))),
                Some(begun) => {
                    let was_alone = alone.iter().any(|(at, is_alone)| *at == begun && *is_alone);
                    link.ended(time(at), PACK, time(at - begun), was_alone);
                }
            }
        }
    }

    fn near(rate: Option<f64>, expected: f64) -> bool {
        rate.is_some_and(|rate| (0.85..1.15).contains(&(rate / expected)))
    }

    #[test]
    fn a_slow_way_is_known_after_the_second_pack_that_waits() {
        let mut link = Link::default();
        assert_eq!(link.rate(), None);
        send(&mut link, 0.0, 2, 20.0, 0.0, 1e5);
        assert!(near(link.rate(), 1e8), "{:?}", link.rate());
        send(&mut link, 9e3, 40, 20.0, 0.0, 1e5);
        assert!(near(link.rate(), 1e8), "{:?}", link.rate());
    }

    #[test]
    fn a_far_store_isnt_a_slow_one() {
        let mut link = Link::default();
        send(&mut link, 0.0, 1, 1.0, 300.0, 1e7);
        send(&mut link, 9e3, 50, 40.0, 300.0, 1e7);
        assert!(link.rate() > Some(2e9), "{:?}", link.rate());
    }

    #[test]
    fn a_way_that_became_faster_or_slower_is_known_again() {
        let mut link = Link::default();
        send(&mut link, 0.0, 9, 20.0, 0.0, 1e5);
        send(&mut link, 9e3, 20, 300.0, 0.0, 2e6);
        assert!(link.rate() > Some(5e8), "{:?}", link.rate());
        send(&mut link, 3e4, 9, 20.0, 0.0, 5e4);
        assert!(near(link.rate(), 5e7), "{:?}", link.rate());
    }

    #[test]
    fn small_packs_and_those_that_failed_say_nothing() {
        let mut link = Link::default();
        for bytes in [0, 1000] {
            let alone = link.begun(Duration::ZERO);
            link.ended(Duration::from_secs(9), bytes, Duration::from_secs(9), alone);
        }
        assert_eq!(link.rate(), None);
    }
}
