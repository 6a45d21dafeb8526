//! The journal against a model, over a file system that crashes at every point.
//!
//! The model is the list of what was appended, and how much of it was said to be durable. Whatever
//! happens, the journal gives back exactly what the list has, at least as far as it had said, and never
//! says that it was closed when something is missing.

#![allow(clippy::unwrap_used)] // also in functions that tests share

mod disk;
mod run;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tidegate_hrl::Journal;
use tidegate_hrl::journal::{AppendError, Change, Ending, JournalError};
use tidegate_model::{Lsn, Micros};

use disk::CrashingDisk;
use run::{Action, Run};

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => (0_u8..3, 0_u64..64, 1_usize..12_000, any::<u8>())
            .prop_map(|(disk, place, length, fill)| Action::Write { disk, place, length, fill }),
        2 => (0_u8..3, 1_usize..40).prop_map(|(disk, count)| Action::Many { disk, count }),
        1 => (0_u8..3, 1_u64..1 << 40).prop_map(|(disk, length)| Action::Zero { disk, length }),
        1 => (0_usize..1025).prop_map(Action::Bookmark),
        1 => (0_u8..3, 0_u64..1 << 50).prop_map(|(disk, bytes)| Action::Disk { disk, bytes }),
        1 => any::<u16>().prop_map(Action::Time),
        3 => Just(Action::Take),
        5 => Just(Action::Flush),
        3 => (0_u8..=100).prop_map(Action::Commit),
        2 => (0_u8..=100).prop_map(Action::Read),
        1 => Just(Action::Reopen),
        3 => (0_u64..40, any::<bool>()).prop_map(|(steps, power)| Action::Crash { steps, power }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn what_was_durable_is_given_back_after_any_crash(
        seed in any::<u64>(),
        actions in prop::collection::vec(action(), 1..120),
    ) {
        let mut run = Run::new(seed);
        for action in actions {
            run.act(&action);
            run.check_bound();
        }
        run.crash_now();
        run.check_everything();
    }

    #[test]
    fn a_byte_that_changed_is_told_or_does_not_matter(
        seed in any::<u64>(),
        actions in prop::collection::vec(action(), 1..40),
        file in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        closed in any::<bool>(),
    ) {
        let mut run = Run::new(seed);
        for action in actions {
            run.act(&action);
        }
        run.leave(closed);
        run.flip_a_byte(&file, &at);
        run.check_after_damage();
    }
}

#[test]
fn a_journal_that_was_closed_is_clean_and_goes_on_where_it_ended() {
    let mut run = Run::new(1);
    for round in 0..5 {
        run.act(&Action::Many { disk: 0, count: 200 });
        run.act(&Action::Write { disk: 1, place: 3, length: 9000, fill: round });
        run.act(&Action::Bookmark(3));
        run.act(&Action::Reopen);
        assert_eq!(run.opening.ending, Ending::Clean);
        run.check_everything();
    }
}

#[test]
fn committed_segments_go_and_a_full_journal_takes_more_when_they_have() {
    let mut run = Run::new(2);
    let mut refused = 0;
    for round in 0..600_u32 {
        run.act(&Action::Write { disk: 0, place: 1, length: 8000, fill: 7 });
        run.act(&Action::Flush);
        run.check_bound();
        if run.refused > refused {
            refused = run.refused;
            run.act(&Action::Commit(if round % 2 == 0 { 100 } else { 60 }));
        }
    }
    assert!(refused > 3, "its bound was met {refused} times");
    run.check_everything();
}

#[test]
fn what_was_durable_and_is_not_whole_any_more_is_damage_also_where_nobody_closed() {
    // In a batch that others followed: its order record, its data.
    for (name, at) in
        [("00000001.order", 4096 + 72 + 20), ("00000001-disk-00.hrl", 8192 + 4096 + 50)]
    {
        let mut run = Run::new(3);
        for fill in 0..4 {
            run.act(&Action::Write { disk: 0, place: 0, length: 4096, fill });
            if fill == 1 {
                run.act(&Action::Flush);
            }
        }
        run.act(&Action::Flush);
        run.leave(false);
        run.flip(name, at);
        let error = run.open_again().unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("LSN 2 was durable and isn't whole"), "{error}");
    }
}

#[test]
fn a_journal_that_is_full_to_the_last_record_keeps_its_bound_when_it_is_opened_again() {
    let mut run = Run::new(6);
    while run.refused == 0 {
        run.act(&Action::Write { disk: 0, place: 0, length: 3000, fill: 1 });
        run.act(&Action::Flush);
    }
    run.refused = 0;
    while run.refused == 0 {
        run.act(&Action::Time(1));
    }
    run.act(&Action::Flush);
    for _ in 0..3 {
        run.crash_now();
        run.check_bound();
    }
    run.act(&Action::Commit(100));
    run.check_bound();
    run.refused = 0;
    run.act(&Action::Write { disk: 0, place: 0, length: 3000, fill: 1 });
    assert_eq!(run.refused, 0);
    run.check_everything();
}

#[test]
fn what_was_not_written_is_never_said_to_be_durable() {
    let disk = CrashingDisk::new(7);
    let said = Arc::new(AtomicU64::new(0));
    let say = {
        let said = Arc::clone(&said);
        Box::new(move |lsn: Lsn| said.store(lsn.0, Ordering::SeqCst))
    };
    let (journal, _) = Journal::open(disk.clone(), run::SETTINGS, &run::birth(1), say).unwrap();
    let first = journal.append(&Change::Time, Micros(1)).unwrap();
    journal.wait_durable(first).unwrap();
    disk.light_fuse(1);
    let second = journal.append(&Change::Time, Micros(2)).unwrap();
    assert!(matches!(journal.wait_durable(second), Err(JournalError::Failed)));
    assert_eq!((journal.usage().durable, said.load(Ordering::SeqCst)), (first, first.0));
    let mut reader = journal.read_from(second);
    assert_eq!(reader.next().unwrap(), None, "and it isn't given out");
    assert!(matches!(journal.append(&Change::Time, Micros(3)), Err(AppendError::Ended)));
    assert!(matches!(journal.close(), Err(JournalError::Io { .. })));
}

#[test]
fn a_journal_that_was_discarded_makes_room_for_a_new_one() {
    let mut run = Run::new(5);
    for fill in 0..20 {
        run.act(&Action::Write { disk: 0, place: 0, length: 8000, fill });
        run.act(&Action::Flush);
    }
    run.leave(true);
    run.discard_in_part();
    let opening = run.open_again();
    assert!(matches!(opening, Err(JournalError::Damaged { .. })), "{opening:?}");
    run.discard();
    let opening = run.open_again().unwrap();
    assert_eq!((opening.ending, opening.recovered_to.0), (Ending::New, 0));
}

#[test]
fn a_part_of_a_journal_that_is_taken_away_is_missed() {
    for name in ["00000001.order", "00000002.order", "00000002-disk-00.hrl", "newest"] {
        let mut run = Run::new(4);
        for fill in 0..30 {
            run.act(&Action::Write { disk: 0, place: 0, length: 8000, fill });
            run.act(&Action::Flush);
        }
        run.leave(true);
        run.take_away(name);
        let error = run.open_again().unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }), "{name}: {error}");
    }
}
