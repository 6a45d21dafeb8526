//! How many puts may be under way at once: as many as the way to the store needs, and no more.
//!
//! Pure. The rule is TCP Vegas' (Brakmo and Peterson, 1995), applied to puts: of `n` that are under
//! way together, `n * (1 - shortest / this)` merely wait for the others, where `shortest` is the
//! time of the shortest put lately seen and `this` that of the one that has just ended. While hardly
//! any wait there is room for more; when many do, more would only add delay; an error halves.

use std::time::Duration;

/// Puts at the beginning, and never fewer but after errors.
const LIMIT_FIRST: f64 = 4.0;
/// With fewer waiting than this there may be more under way, with more there are too many.
const WAITING_FEW: f64 = 5.0;
const WAITING_MANY: f64 = 10.0;
/// The shortest put is forgotten after so many others, for ways change. Then half as many are let in
/// for a moment, or what is found anew would be the time of puts that wait for each other.
const MEMORY_PUTS: u32 = 1024;
/// What one put counts for in the usual time of all.
const USUAL_PART: f64 = 0.1;

/// A put that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub bytes: usize,
    /// How long the try took that stored it; `None` when none did.
    pub took: Option<Duration>,
    /// How many were under way, this one among them.
    pub under_way: usize,
    pub failed: bool,
}

/// The limit.
#[derive(Debug)]
pub(super) struct PutLimit {
    limit: f64,
    most: f64,
    /// Doubling in each round, until puts begin to wait for each other.
    is_starting: bool,
    shortest: Option<Duration>,
    /// Puts since the shortest was forgotten.
    seen: u32,
    /// What is usual of late: how long, and of how many bytes.
    usual: Option<(Duration, f64)>,
}

impl PutLimit {
    /// At most `most` at once: more packs than that there never are.
    pub(super) fn new(most: usize) -> Self {
        let most = f64::from(u32::try_from(most.max(1)).unwrap_or(u32::MAX));
        Self {
            limit: LIMIT_FIRST.min(most),
            most,
            is_starting: true,
            shortest: None,
            seen: 0,
            usual: None,
        }
    }

    /// How many may be under way.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 1 and `most`
    pub(super) fn get(&self) -> usize {
        self.limit as usize
    }

    /// How long a put of so many bytes usually takes, at most: one that is longer than usual as many
    /// times longer. Nothing before the first.
    pub(super) fn usual(&self, bytes: usize) -> Option<Duration> {
        let (usual, usual_bytes) = self.usual?;
        Some(usual.mul_f64((size(bytes) / usual_bytes).max(1.0)))
    }

    /// Learns from a put.
    pub(super) fn ended(&mut self, put: Ended) {
        if let Some(took) = put.took {
            self.remember(took, put.bytes);
        }
        let Some(took) = put.took.filter(|_| !put.failed) else {
            self.is_starting = false;
            self.limit = (self.limit / 2.0).max(1.0);
            return;
        };
        let under_way = f64::from(u32::try_from(put.under_way).unwrap_or(u32::MAX));
        // One that wasn't held back says nothing of what more would do.
        if under_way + 1.0 <= self.limit {
            return;
        }
        let shortest = self.shortest.unwrap_or(took);
        let waiting =
            under_way * (1.0 - shortest.as_secs_f64() / took.as_secs_f64().max(f64::EPSILON));
        self.is_starting &= waiting < WAITING_FEW;
        let step = if self.is_starting { 1.0 } else { 1.0 / self.limit };
        if waiting < WAITING_FEW {
            self.limit += step;
        } else if waiting > WAITING_MANY {
            self.limit -= step;
        }
        self.limit = self.limit.clamp(LIMIT_FIRST.min(self.most), self.most);
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it was made from a count
    const fn most_u32(&self) -> u32 {
        self.most as u32
    }

    fn remember(&mut self, took: Duration, bytes: usize) {
        self.seen += 1;
        if self.seen == MEMORY_PUTS {
            // What is under way ends first: the shortest is sought among what begins now.
            self.limit = (self.limit / 2.0).max(LIMIT_FIRST.min(self.most));
            self.is_starting = true;
        }
        if self.seen > MEMORY_PUTS + self.most_u32() {
            (self.seen, self.shortest) = (0, None);
        }
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        self.usual = Some(self.usual.map_or((took, size(bytes)), |(usual, usual_bytes)| {
            let time = usual.mul_f64(1.0 - USUAL_PART) + took.mul_f64(USUAL_PART);
            (time, usual_bytes * (1.0 - USUAL_PART) + size(bytes) * USUAL_PART)
        }));
    }
}

/// Of at least one byte.
fn size(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes.max(1)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A way to a store: what each put waits for, and what all of them share.
    struct Way {
        latency_ms: f64,
        mb_per_second: f64,
    }

    /// Puts packs of 10 to 22 MB for a while, as many at once as the limit says; gives MB a second in the
    /// second half, and how many were under way at the end.
    fn drive(way: &Way, most: usize, steps: usize) -> (f64, usize) {
        struct Put {
            begun_ms: f64,
            left_mb: f64,
        }
        let mut limit = PutLimit::new(most);
        let mut puts: Vec<Put> = Vec::new();
        let (mut done_mb, mut begun) = (0.0, 0_u32);
        for step in 0..steps {
            let now_ms = f64::from(u32::try_from(step).unwrap());
            while puts.len() < limit.get() {
                // Of different sizes, or all that began together would end together for ever.
                let mb = 10.0 + f64::from(begun * 7 % 13);
                begun += 1;
                puts.push(Put { begun_ms: now_ms, left_mb: mb });
            }
            let sends = |put: &Put| now_ms - put.begun_ms >= way.latency_ms;
            let sending = puts.iter().filter(|put| sends(put)).count().max(1);
            let share = way.mb_per_second / 1000.0 / f64::from(u32::try_from(sending).unwrap());
            for put in puts.iter_mut().filter(|put| sends(put)) {
                put.left_mb -= share;
                done_mb += if step > steps / 2 { share } else { 0.0 };
            }
            let under_way = puts.len();
            puts.retain(|put| {
                if put.left_mb > 0.0 {
                    return true;
                }
                let took = Duration::from_secs_f64((now_ms - put.begun_ms) / 1000.0);
                limit.ended(Ended { bytes: 1, took: Some(took), under_way, failed: false });
                false
            });
        }
        let seconds = f64::from(u32::try_from(steps / 2).unwrap()) / 1000.0;
        (done_mb / seconds, limit.get())
    }

    #[test]
    fn slow_stores_still_take_what_the_link_carries() {
        for latency_ms in [20.0, 100.0, 400.0] {
            for mb_per_second in [100.0, 400.0, 800.0] {
                let (rate, under_way) = drive(&Way { latency_ms, mb_per_second }, 64, 240_000);
                assert!(
                    rate > 0.9 * mb_per_second,
                    "{latency_ms} ms, {mb_per_second} MB/s: {rate} with {under_way}"
                );
                // What the link holds, and a few that wait.
                let needed = mb_per_second * latency_ms / 1000.0 / 10.0 + WAITING_MANY + 2.0;
                assert!(
                    f64::from(u32::try_from(under_way).unwrap()) <= needed * 1.5,
                    "{latency_ms} ms, {mb_per_second} MB/s: {under_way}, not {needed}"
                );
            }
        }
    }

    #[test]
    fn the_limit_is_kept_where_memory_ends() {
        let (_, under_way) = drive(&Way { latency_ms: 400.0, mb_per_second: 1e6 }, 9, 20_000);
        assert_eq!(under_way, 9);
    }

    #[test]
    fn errors_halve_and_success_grows_again() {
        let mut limit = PutLimit::new(32);
        let put = |limit: &PutLimit, failed| Ended {
            bytes: 1,
            took: Some(Duration::from_millis(100)),
            under_way: limit.get(),
            failed,
        };
        (0..100).for_each(|_| limit.ended(put(&limit, false)));
        assert_eq!(limit.get(), 32);
        (0..2).for_each(|_| limit.ended(put(&limit, true)));
        assert_eq!(limit.get(), 8);
        (0..10).for_each(|_| limit.ended(put(&limit, true)));
        assert_eq!(limit.get(), 1, "one is always tried");
        (0..900).for_each(|_| limit.ended(put(&limit, false)));
        assert_eq!(limit.get(), 32);
    }

    #[test]
    fn what_is_usual_grows_with_the_bytes_and_is_learnt_from_tries_after_failures_too() {
        let mut limit = PutLimit::new(8);
        assert_eq!(limit.usual(1), None);
        let put = |bytes, millis, failed| Ended {
            bytes,
            took: Some(Duration::from_millis(millis)),
            under_way: 1,
            failed,
        };
        limit.ended(put(100_000, 5, false));
        assert_eq!(limit.usual(50_000), Some(Duration::from_millis(5)));
        assert_eq!(limit.usual(16_000_000), Some(Duration::from_millis(800)));
        (0..100).for_each(|_| limit.ended(put(16_000_000, 7000, true)));
        assert!(limit.usual(16_000_000).unwrap() > Duration::from_secs(6));
    }

    #[test]
    fn puts_that_nothing_held_back_change_nothing() {
        let mut limit = PutLimit::new(32);
        let took = Some(Duration::from_millis(5));
        let put = Ended { bytes: 1, took, under_way: 1, failed: false };
        (0..1000).for_each(|_| limit.ended(put));
        assert_eq!(limit.get(), 4);
    }
}
