//! Which places of an epoch are still kept. Pure.

use serde::{Deserialize, Serialize};
use tidegate_model::Lsn;

/// The places of an epoch to which its machine can be brought back, as far as its history is there at
/// all. Without thinning these are all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retained {
    /// Every LSN from this one on.
    pub from: Lsn,
    /// And these before it, in order.
    pub points: Vec<Lsn>,
}

impl Retained {
    /// Whether this place is kept. Before its first record an epoch is what it continues.
    #[must_use]
    pub fn has(&self, lsn: Lsn) -> bool {
        lsn >= self.from || lsn == Lsn::NONE || self.points.binary_search(&lsn).is_ok()
    }

    /// The first kept place that isn't before this one.
    #[must_use]
    pub fn next(&self, lsn: Lsn) -> Lsn {
        if self.has(lsn) { lsn } else { self.around(lsn).1 }
    }

    /// The kept places around one that isn't.
    #[must_use]
    pub fn around(&self, lsn: Lsn) -> (Option<Lsn>, Lsn) {
        let next = self.points.partition_point(|point| *point < lsn);
        let before = next.checked_sub(1).map(|before| self.points[before]);
        (before, self.points.get(next).copied().unwrap_or(self.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_kept_from_one_on_and_where_points_are() {
        assert!(Retained::default().has(Lsn(1)));
        let retained = Retained { from: Lsn(9), points: vec![Lsn(3), Lsn(5)] };
        let kept: Vec<u64> = (0..12).filter(|lsn| retained.has(Lsn(*lsn))).collect();
        assert_eq!(kept, [0, 3, 5, 9, 10, 11]);
        assert_eq!([1, 3, 6, 9, 10].map(|lsn| retained.next(Lsn(lsn)).0), [3, 3, 9, 9, 10]);
        assert_eq!(retained.around(Lsn(1)), (None, Lsn(3)));
        assert_eq!(retained.around(Lsn(4)), (Some(Lsn(3)), Lsn(5)));
        assert_eq!(retained.around(Lsn(7)), (Some(Lsn(5)), Lsn(9)));
    }
}
