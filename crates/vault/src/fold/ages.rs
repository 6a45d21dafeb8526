//! How old records are by the store's clock: when the packs that completed them were stored. Pure, but
//! for listing these times.
//!
//! Errs on the safe side: a record counts as younger than it is by [`STEP_MICROS`] at most, and as all
//! those before it.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use tidegate_model::{LogName, Lsn, Micros, PackNumber};

use crate::layout;
use crate::store::{Store, StoreError};

/// Ages are noted in steps of five minutes: a day has 288 of them, at some 50 bytes of a manifest.
const STEP_MICROS: u64 = 5 * 60 * 1_000_000;

/// Up to where an epoch was stored at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Age {
    /// This record and all before it
    pub lsn: Lsn,
    /// were stored then or before, by the store's clock.
    pub stored: Micros,
}

/// The ages that follow from when records were stored, whatever the order in which these are known.
pub(super) fn ages(known: impl IntoIterator<Item = (Lsn, Micros)>) -> Vec<Age> {
    let mut by_lsn: BTreeMap<Lsn, Micros> = BTreeMap::new();
    for (lsn, stored) in known {
        let known = by_lsn.entry(lsn).or_insert(stored);
        *known = stored.max(*known);
    }
    let mut ages: Vec<Age> = Vec::new();
    let mut latest = Micros(0);
    for (lsn, stored) in by_lsn {
        latest = latest.max(stored);
        match ages.last_mut() {
            Some(last) if last.stored.0 / STEP_MICROS == latest.0 / STEP_MICROS => {
                *last = Age { lsn, stored: latest };
            }
            _ => ages.push(Age { lsn, stored: latest }),
        }
    }
    ages
}

/// When the packs of a log from `from` on were stored.
pub(super) async fn stored_times(
    store: &Store,
    log: &LogName,
    from: PackNumber,
) -> Result<BTreeMap<PackNumber, Micros>, StoreError> {
    let before = from.0.checked_sub(1).map(|before| layout::pack(log, PackNumber(before)));
    let mut listed = store.list(&layout::log(log), before.as_deref());
    let mut times = BTreeMap::new();
    while let Some(object) = listed.try_next().await? {
        if let Some((_, number)) = layout::parse_pack(&object.path) {
            times.insert(number, object.modified);
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_rise_with_lsns_in_steps_and_never_make_a_record_older_than_it_is() {
        let minute = 60_000_000;
        let known = [(9, 11), (3, 1), (5, 2), (7, 12), (8, 6), (12, 30)];
        let told = ages(known.map(|(lsn, stored)| (Lsn(lsn), Micros(stored * minute))));
        let told: Vec<_> = told.iter().map(|age| (age.lsn.0, age.stored.0 / minute)).collect();
        assert_eq!(told, [(5, 2), (9, 12), (12, 30)]);
        // Told again, with more, they are the same and more.
        let again = told.iter().map(|(lsn, stored)| (Lsn(*lsn), Micros(stored * minute)));
        let more = ages(again.chain([(Lsn(4), Micros(13 * minute))]));
        let more: Vec<_> = more.iter().map(|age| (age.lsn.0, age.stored.0 / minute)).collect();
        assert_eq!(more, [(9, 13), (12, 30)]);
    }
}
