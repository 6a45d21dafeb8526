//! A policy, and which points it keeps. Pure.
//!
//! The rules for points beyond a time are those that backups are kept by everywhere (grandfather,
//! father, son; as restic's `forget` has them): of the last so many hours in which there is a point the
//! newest of each, and so with days and weeks. Hours without a point don't count, so a machine that
//! was away for a year has as many points as one that wasn't.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tidegate_model::{Micros, Point};

/// Seconds of a day.
pub const DAY_SECONDS: u64 = 24 * HOUR_SECONDS;
const HOUR_SECONDS: u64 = 60 * 60;
const WEEK_SECONDS: u64 = 7 * DAY_SECONDS;
/// Weeks begin on Mondays; 1970 began on a Thursday.
const DAYS_BEFORE_MONDAY: u64 = 3;
/// The longest window: what it holds of a machine is kept record by record.
const SECONDS_MAX: u64 = 3660 * DAY_SECONDS;
/// Most hours, days or weeks: of each one point is held, and a manifest lists them.
const COUNT_MAX: u32 = 10_000;

/// What is kept of a machine's past. Ages count by the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Every LSN is kept so long.
    pub window_seconds: u64,
    /// Every point is kept so long, and as long as the window.
    pub all_seconds: u64,
    /// Then the newest of each of so many hours.
    pub hourly: u32,
    /// And of so many days.
    pub daily: u32,
    /// And of so many weeks.
    pub weekly: u32,
}

/// Why a policy can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A time is too long.
    #[error("{what} of {} days can't be kept: {} days are the most", seconds / DAY_SECONDS, SECONDS_MAX / DAY_SECONDS)]
    Long {
        /// Of what.
        what: &'static str,
        /// What was asked for.
        seconds: u64,
    },
    /// A number is too large.
    #[error("{count} {what} points can't be kept: {COUNT_MAX} are the most")]
    Many {
        /// Which.
        what: &'static str,
        /// How many were asked for.
        count: u32,
    },
}

impl Default for Policy {
    /// A day of which every moment is there, three of which every point is; then what people ask for
    /// when they notice late: a week by hours, a month by days, half a year by weeks.
    fn default() -> Self {
        let (window_seconds, all_seconds) = (DAY_SECONDS, 3 * DAY_SECONDS);
        Self { window_seconds, all_seconds, hourly: 7 * 24, daily: 30, weekly: 26 }
    }
}

/// A point and its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgedPoint {
    /// The point.
    pub point: Point,
    /// When it was stored, by the store's clock.
    pub stored: Micros,
    /// Whether its disks are of one moment.
    pub clean: bool,
}

impl AgedPoint {
    /// By what the newest is found: of two of one time the later one holds more.
    fn order(&self) -> (Micros, Point) {
        (self.stored, self.point)
    }
}

impl Policy {
    /// Refuses what can't be kept.
    ///
    /// # Errors
    /// [`PolicyError`] says what.
    pub fn check(&self) -> Result<(), PolicyError> {
        for (what, seconds) in [("a window", self.window_seconds), ("all points", self.all_seconds)]
        {
            if seconds > SECONDS_MAX {
                return Err(PolicyError::Long { what, seconds });
            }
        }
        for (what, count) in
            [("hourly", self.hourly), ("daily", self.daily), ("weekly", self.weekly)]
        {
            if count > COUNT_MAX {
                return Err(PolicyError::Many { what, count });
            }
        }
        Ok(())
    }

    /// What was stored before this is outside of the any-point window.
    #[must_use]
    pub fn window_begin(&self, now: Micros) -> Micros {
        before(now, self.window_seconds)
    }

    /// Which of a machine's points are kept.
    #[must_use]
    pub fn kept(&self, points: &[AgedPoint], now: Micros) -> BTreeSet<Point> {
        let recent = before(now, self.all_seconds.max(self.window_seconds));
        let mut kept: BTreeSet<Point> =
            points.iter().filter(|aged| aged.stored >= recent).map(|aged| aged.point).collect();
        let clean = || points.iter().filter(|aged| aged.clean);
        for (count, seconds, offset) in [
            (self.hourly, HOUR_SECONDS, 0),
            (self.daily, DAY_SECONDS, 0),
            (self.weekly, WEEK_SECONDS, DAYS_BEFORE_MONDAY * DAY_SECONDS),
        ] {
            let bucket = |aged: &AgedPoint| (aged.stored.0 / 1_000_000 + offset) / seconds;
            kept.extend(newest_of_each(clean(), bucket, count));
        }
        // Never down to nothing: neither by age nor in the order in which recovery looks for one.
        match clean().next() {
            Some(_) => kept.extend(newest(clean())),
            None => kept.extend(newest(points.iter())),
        }
        kept
    }
}

/// The newest point of each of the last `count` buckets that have one.
fn newest_of_each<'p>(
    points: impl Iterator<Item = &'p AgedPoint>,
    bucket: impl Fn(&AgedPoint) -> u64,
    count: u32,
) -> impl Iterator<Item = Point> {
    let mut buckets: BTreeMap<u64, &AgedPoint> = BTreeMap::new();
    for aged in points {
        let newest = buckets.entry(bucket(aged)).or_insert(aged);
        if aged.order() > newest.order() {
            *newest = aged;
        }
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    buckets.into_values().rev().take(count).map(|aged| aged.point)
}

/// The newest point by age, and the last of the newest epoch.
fn newest<'p>(points: impl Iterator<Item = &'p AgedPoint> + Clone) -> impl Iterator<Item = Point> {
    let by_age = points.clone().max_by_key(|aged| aged.order()).map(|aged| aged.point);
    let last = points.map(|aged| aged.point).max();
    by_age.into_iter().chain(last)
}

fn before(now: Micros, seconds: u64) -> Micros {
    Micros(now.0.saturating_sub(seconds.saturating_mul(1_000_000)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_model::{Epoch, Lsn};

    use super::*;

    const HOUR: u64 = HOUR_SECONDS;
    /// A Monday: 2026-01-05 00:00:00 UTC.
    const MONDAY: u64 = 1_767_571_200;

    fn at(seconds: u64, lsn: u64, clean: bool) -> AgedPoint {
        let point = Point { epoch: Epoch(1), lsn: Lsn(lsn) };
        AgedPoint { point, stored: Micros(seconds * 1_000_000), clean }
    }

    fn kept(policy: &Policy, points: &[AgedPoint], now: u64) -> Vec<u64> {
        policy.kept(points, Micros(now * 1_000_000)).iter().map(|point| point.lsn.0).collect()
    }

    const NONE: Policy =
        Policy { window_seconds: 0, all_seconds: 0, hourly: 0, daily: 0, weekly: 0 };

    #[test]
    fn of_each_hour_day_and_week_the_newest_is_kept() {
        // Every half hour for three weeks; LSNs count them from 1.
        let points: Vec<_> =
            (0..3 * 7 * 48).map(|n| at(MONDAY + n * HOUR / 2, n + 1, true)).collect();
        let now = MONDAY + 3 * WEEK_SECONDS;
        let last = points.len() as u64;
        let hourly = Policy { hourly: 3, ..NONE };
        assert_eq!(kept(&hourly, &points, now), [last - 4, last - 2, last]);
        let daily = Policy { daily: 3, ..NONE };
        assert_eq!(kept(&daily, &points, now), [last - 96, last - 48, last]);
        let weekly = Policy { weekly: 9, ..NONE };
        assert_eq!(kept(&weekly, &points, now), [last / 3, 2 * last / 3, last]);
        let all = Policy { all_seconds: HOUR, window_seconds: 2 * HOUR, ..NONE };
        assert_eq!(kept(&all, &points, now), [last - 3, last - 2, last - 1, last]);
    }

    #[test]
    fn hours_without_a_point_dont_count() {
        let points = [at(MONDAY, 1, true), at(MONDAY + 900 * HOUR, 2, true)];
        let policy = Policy { hourly: 2, ..NONE };
        assert_eq!(kept(&policy, &points, MONDAY + 9000 * HOUR), [1, 2]);
    }

    #[test]
    fn the_newest_clean_point_stays_whatever_is_newer_and_however_old_it_is() {
        let points = [at(10, 1, true), at(20, 2, true), at(30, 3, false), at(40, 4, false)];
        assert_eq!(kept(&NONE, &points, MONDAY), [2]);
        assert_eq!(kept(&NONE, &points[2..], MONDAY), [4]);
        assert_eq!(kept(&NONE, &[], MONDAY), [0_u64; 0]);
        // A point of a newer epoch that was stored earlier is what recovery takes first.
        let newer = Point { epoch: Epoch(2), lsn: Lsn(7) };
        let points = [at(20, 2, true), AgedPoint { point: newer, ..at(5, 0, true) }];
        assert_eq!(kept(&NONE, &points, MONDAY), [2, 7]);
    }

    #[test]
    fn what_cant_be_kept_is_refused() {
        assert_eq!(Policy::default().check(), Ok(()));
        let long = Policy { window_seconds: SECONDS_MAX + 1, ..NONE };
        assert!(matches!(long.check(), Err(PolicyError::Long { what: "a window", .. })));
        let many = Policy { weekly: COUNT_MAX + 1, ..NONE };
        assert!(matches!(many.check(), Err(PolicyError::Many { what: "weekly", .. })));
    }

    fn life() -> impl Strategy<Value = (Vec<AgedPoint>, Policy)> {
        let step = (0..3 * DAY_SECONDS, any::<bool>(), 0..8_u8);
        let policy = (0..2 * DAY_SECONDS, 0..5 * DAY_SECONDS, 0..5_u32, 0..4_u32, 0..4_u32);
        (proptest::collection::vec(step, 1..60), policy).prop_map(|(steps, policy)| {
            let mut seconds = MONDAY;
            let mut points = Vec::new();
            for (lsn, (step, short, kind)) in (1..).zip(steps) {
                seconds += 1 + if short { step / 200 } else { step };
                points.push(at(seconds, lsn, kind > 0));
            }
            let (window_seconds, all_seconds, hourly, daily, weekly) = policy;
            (points, Policy { window_seconds, all_seconds, hourly, daily, weekly })
        })
    }

    proptest! {
        /// However often a fold thins on the way, the same is left in the end: nothing is let go that
        /// would be kept later.
        #[test]
        fn looking_more_often_keeps_the_same((points, policy) in life(), looks in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let end = Micros(points.last().unwrap().stored.0 + 5_000_000);
            let once = policy.kept(&points, end);
            let mut looks: Vec<usize> = looks.iter().map(|look| look.index(points.len())).collect();
            looks.sort_unstable();
            let (mut left, mut taken): (Vec<AgedPoint>, usize) = (Vec::new(), 0);
            for look in looks {
                left.extend(points.iter().take(look + 1).skip(taken));
                taken = taken.max(look + 1);
                let kept = policy.kept(&left, points[look].stored);
                left.retain(|aged| kept.contains(&aged.point));
            }
            left.extend(&points[taken..]);
            prop_assert_eq!(policy.kept(&left, end), once);
        }

        #[test]
        fn nothing_is_kept_that_wasnt_there_and_never_nothing((points, policy) in life(), later in 0..400 * DAY_SECONDS) {
            let now = Micros(points.last().unwrap().stored.0 + later * 1_000_000);
            let kept = policy.kept(&points, now);
            prop_assert!(kept.iter().all(|point| points.iter().any(|aged| aged.point == *point)));
            let newest = points.iter().rev().find(|aged| aged.clean).or(points.last()).unwrap();
            prop_assert!(kept.contains(&newest.point));
            // What is young enough stays, clean or not.
            let recent = before(now, policy.all_seconds.max(policy.window_seconds));
            for aged in points.iter().filter(|aged| aged.stored >= recent) {
                prop_assert!(kept.contains(&aged.point));
            }
            // More is kept by a policy that asks for more.
            let more = Policy { hourly: policy.hourly + 1, weekly: policy.weekly + 2, ..policy };
            prop_assert!(more.kept(&points, now).is_superset(&kept));
        }
    }
}
