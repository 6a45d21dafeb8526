//! The bytes of steps and of what they say.

use proptest::prelude::*;
use tidegate_model::{LogId, LogName, PackNumber, RunId};

use crate::gc::error::GcError;
use crate::gc::objects::{create_step, decode, read_collected, read_step};
use crate::gc::packs::PackSet;
use crate::gc::step::{Collected, Step};
use crate::layout;
use crate::store::Put;
use crate::testing::{TestVault, run};

/// The content of the step that docs/formats/gc.md shows.
const STEP: &[u8] = include_bytes!("../../golden/step.json");

fn log(byte: u8) -> LogName {
    let id = LogId { run: RunId::from_bytes([byte; 16]), shard: u16::from(byte) };
    LogName { node: "ps-1".parse().unwrap(), id }
}

fn packs(ranges: &[(u8, u64, u64)]) -> PackSet {
    let mut set = PackSet::default();
    for (log_number, first, last) in ranges {
        set.add_range(&log(*log_number), PackNumber(*first), PackNumber(*last));
    }
    set
}

fn sample() -> Step {
    Step { number: 2, packs: packs(&[(1, 0, 6), (1, 9, 9), (2, 3, 4)]) }
}

#[test]
fn a_step_reads_as_the_document_says() {
    assert_eq!(decode(STEP, 2), Ok(sample()));
    let json: serde_json::Value = serde_json::from_slice(STEP).unwrap();
    assert_eq!(serde_json::to_value(sample()).unwrap(), json);
}

#[test]
fn a_step_that_cant_be_is_refused() {
    assert!(decode(STEP, 3).unwrap_err().contains("another"));
    let backwards = String::from_utf8(STEP.to_vec()).unwrap().replace("[3,4]", "[4,3]");
    assert!(decode(backwards.as_bytes(), 2).unwrap_err().contains("before it begins"));
}

#[test]
fn the_newest_step_and_the_one_before_say_all() {
    let condemned = Step { number: 3, packs: packs(&[(2, 5, 5)]) };
    let open = Collected::of(condemned, Some(sample()));
    assert_eq!((open.open_list(), open.newest), (Some(3), 3));
    assert_eq!((&open.removed, open.condemned.count()), (&sample().packs, 1));
    assert!(open.forbids(&log(1), PackNumber(6)) && open.forbids(&log(2), PackNumber(5)));
    assert!(!open.forbids(&log(1), PackNumber(7)) && !open.forbids(&log(3), PackNumber(5)));
    let settled = Collected::of(sample(), None);
    assert_eq!((settled.open_list(), settled.condemned.is_empty()), (None, true));
}

#[test]
fn a_step_is_created_once_and_opens_only_at_its_place() {
    run(async {
        let vault = TestVault::new();
        let (store, ring) = (vault.store(), &vault.ring);
        assert_eq!(create_step(&store, ring, &sample()).await.unwrap(), Put::Created);
        let other = Step { packs: PackSet::default(), ..sample() };
        assert_eq!(create_step(&store, ring, &other).await.unwrap(), Put::Exists);
        assert_eq!(read_step(&store, ring, 2).await, Ok(sample()));
        let bytes = vault.get(&layout::step(2)).await;
        vault.put(&layout::step(4), bytes).await;
        assert!(read_step(&store, ring, 4).await.unwrap_err().is_damage());
    });
}

#[test]
fn what_fills_a_step_is_refused() {
    run(async {
        let vault = TestVault::new();
        let mut step = sample();
        for number in 0..400_000 {
            step.packs.add_range(
                &log(1),
                PackNumber(1_000_000 + 2 * number),
                PackNumber(1_000_000 + 2 * number),
            );
        }
        let refused = create_step(&vault.store(), &vault.ring, &step).await;
        assert!(matches!(refused, Err(GcError::TooLong { .. })), "{refused:?}");
        assert_eq!(read_collected(&vault.store(), &vault.ring).await.unwrap().newest, 0);
    });
}

proptest! {
    #[test]
    fn garbage_is_no_step_and_never_a_panic(
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0..STEP.len(),
        byte in any::<u8>(),
    ) {
        prop_assert!(decode(&garbage, 2).is_err());
        let mut bytes = STEP.to_vec();
        bytes[at] = byte;
        if let Ok(step) = decode(&bytes, 2) {
            prop_assert_eq!(step.number, 2);
        }
    }
}
