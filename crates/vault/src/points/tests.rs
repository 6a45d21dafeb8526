//! Points of machines in memory: which are offered, which are chosen, what is said otherwise.

use tidegate_model::{BookmarkKind, Epoch, Lsn, Micros, Point};

use super::*;
use crate::testing::{BLOCK, Op, TestLog, TestMachine, TestVault, disk, extent, run};

/// A machine with these bookmarks: (kind, clean), each after one more write. Record n is of time
/// n ms; the first bookmark has LSN 3, the next 5.
async fn marked(marks: &[(BookmarkKind, bool)]) -> (MachinePoints, MachineHistory) {
    let mut vault = TestVault::new();
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
    machine.does(Op::Disk(disk(0, BLOCK)));
    for (kind, clean) in marks {
        machine.writes(extent(0, 0, 100), 1);
        machine.marks(*kind, *clean);
    }
    machine.store(&mut vault).await;
    let history = machine.history(&vault).await;
    (MachinePoints::of(&history), history)
}

fn point(lsn: u64) -> Point {
    Point { epoch: Epoch(1), lsn: Lsn(lsn) }
}

const CRASH: BookmarkKind = BookmarkKind::CrashConsistent;
const END: BookmarkKind = BookmarkKind::CopyEnd;

#[test]
fn points_begin_where_the_initial_copy_ended() {
    run(async {
        let (points, history) = marked(&[(CRASH, true), (END, true), (CRASH, true)]).await;
        let lsns: Vec<_> = points.points.iter().map(|point| point.point).collect();
        assert_eq!(lsns, [point(5), point(7)]);
        assert_eq!(points.gaps, []);
        assert_eq!(points.points[0].disks, [disk(0, BLOCK)]);
        assert_eq!(points.choose(&history, At::Latest).unwrap().point, point(7));
        let error = points.choose(&history, At::Point(point(4))).unwrap_err().to_string();
        assert!(error.contains("ended at LSN 5"), "{error}");
    });
}

#[test]
fn a_copy_that_did_not_end_is_a_gap_and_no_point() {
    run(async {
        let (points, history) = marked(&[(CRASH, true)]).await;
        assert_eq!(points.points, []);
        assert_eq!(points.gaps[0].cause, GapCause::CopyUnfinished(Lsn(3)));
        let error = points.choose(&history, At::Latest).unwrap_err().to_string();
        assert!(error.contains("the initial copy hasn't ended"), "{error}");
        let error = points.choose(&history, At::Point(point(3))).unwrap_err();
        assert!(matches!(error, ChooseError::CopyUnfinished { .. }), "{error}");
    });
}

#[test]
fn an_unclean_point_is_only_given_when_asked_for_by_its_name() {
    run(async {
        let (points, history) = marked(&[(END, false), (CRASH, false)]).await;
        for at in [At::Latest, At::Time(Micros(99_000))] {
            let error = points.choose(&history, at).unwrap_err().to_string();
            assert!(error.contains("--at 1:5"), "{error}");
        }
        let chosen = points.choose(&history, At::Point(point(3))).unwrap();
        assert_eq!((chosen.point, chosen.kind, chosen.clean), (point(3), END, false));
    });
}

#[test]
fn a_time_gives_the_newest_clean_point_at_or_before_it() {
    run(async {
        let (points, history) = marked(&[(END, true), (CRASH, true), (CRASH, false)]).await;
        let at = |time| points.choose(&history, At::Time(Micros(time)));
        assert_eq!(at(3000).unwrap().point, point(3));
        assert_eq!(at(4999).unwrap().point, point(3));
        assert_eq!(at(99_000).unwrap().point, point(5));
        let error = at(2999).unwrap_err().to_string();
        assert!(error.contains("the first is 1:3 at 1970-01-01T00:00:00.003Z"), "{error}");
    });
}

#[test]
fn a_point_that_is_later_than_another_is_found_by_the_machines_clock() {
    run(async {
        let (points, _) = marked(&[(END, true), (CRASH, true), (CRASH, false)]).await;
        let after = |time| points.clean_after(Micros(time)).map(|later| later.point);
        assert_eq!((after(0), after(4999)), (Some(point(5)), Some(point(5))));
        assert_eq!(after(5000), None, "the last one is unclean");
    });
}

#[test]
fn any_lsn_after_the_copy_can_be_asked_for_but_none_beyond_the_chain() {
    run(async {
        let (points, history) = marked(&[(END, true), (CRASH, true)]).await;
        let chosen = points.choose(&history, At::Point(point(4))).unwrap();
        assert_eq!((chosen.point, chosen.clean, chosen.time), (point(4), false, Micros(3000)));
        let error = points.choose(&history, At::Point(point(6))).unwrap_err().to_string();
        assert!(error.contains("ends at LSN 5, and LSN 6 is needed"), "{error}");
        let other = Point { epoch: Epoch(2), lsn: Lsn(1) };
        let error = points.choose(&history, At::Point(other)).unwrap_err().to_string();
        assert!(error.contains("no epoch 2"), "{error}");
    });
}
