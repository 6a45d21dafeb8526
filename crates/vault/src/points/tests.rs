//! Points of machines in memory: which are offered, which are chosen, what is said otherwise.

use tidegate_model::{BookmarkKind, Epoch, Lsn, Micros, Point};

use super::*;
use crate::log::LogReader;
use crate::testing::{BLOCK, Op, TestLog, TestMachine, TestVault, disk, extent, run};

/// What is told of a machine.
struct Told {
    points: MachinePoints,
    history: MachineHistory,
    reader: LogReader,
}

impl Told {
    async fn at(&self, at: At) -> Result<RecoveryPoint, ChooseError> {
        self.points.choose(&self.reader, &self.history, at).await
    }
}

/// A machine with these bookmarks: (kind, clean), each after one more write. Record n is of time
/// n ms; the first bookmark has LSN 3, the next 5.
async fn marked(marks: &[(BookmarkKind, bool)]) -> Told {
    let mut vault = TestVault::new();
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
    machine.does(Op::Disk(disk(0, BLOCK)));
    for (kind, clean) in marks {
        machine.writes(extent(0, 0, 100), 1);
        machine.marks(*kind, *clean);
    }
    machine.store(&mut vault).await;
    let history = machine.history(&vault).await;
    Told { points: MachinePoints::of(&history), history, reader: vault.reader() }
}

fn point(lsn: u64) -> Point {
    Point { epoch: Epoch(1), lsn: Lsn(lsn) }
}

const CRASH: BookmarkKind = BookmarkKind::CrashConsistent;
const END: BookmarkKind = BookmarkKind::CopyEnd;

#[test]
fn points_begin_where_the_initial_copy_ended() {
    run(async {
        let told = marked(&[(CRASH, true), (END, true), (CRASH, true)]).await;
        let lsns: Vec<_> = told.points.points.iter().map(|point| point.point).collect();
        assert_eq!(lsns, [point(5), point(7)]);
        assert_eq!(told.points.gaps, []);
        assert_eq!(told.points.points[0].disks, [disk(0, BLOCK)]);
        assert_eq!(told.at(At::Latest).await.unwrap().point, point(7));
        let error = told.at(At::Point(point(4))).await.unwrap_err().to_string();
        assert!(error.contains("ended at LSN 5"), "{error}");
    });
}

#[test]
fn a_copy_that_did_not_end_is_a_gap_and_no_point() {
    run(async {
        let told = marked(&[(CRASH, true)]).await;
        assert_eq!(told.points.points, []);
        assert_eq!(told.points.gaps[0].cause, GapCause::CopyUnfinished(Lsn(3)));
        let error = told.at(At::Latest).await.unwrap_err().to_string();
        assert!(error.contains("the initial copy hasn't ended"), "{error}");
        let error = told.at(At::Point(point(3))).await.unwrap_err();
        assert!(matches!(error, ChooseError::CopyUnfinished { .. }), "{error}");
    });
}

#[test]
fn an_unclean_point_is_only_given_when_asked_for_by_its_name() {
    run(async {
        let told = marked(&[(END, false), (CRASH, false)]).await;
        for at in [At::Latest, At::Time(Micros(99_000))] {
            let error = told.at(at).await.unwrap_err().to_string();
            assert!(error.contains("--at 1:5"), "{error}");
        }
        let chosen = told.at(At::Point(point(3))).await.unwrap();
        assert_eq!((chosen.point, chosen.kind, chosen.clean), (point(3), END, false));
    });
}

#[test]
fn a_time_gives_the_last_moment_at_or_before_it() {
    run(async {
        let told = marked(&[(END, true), (CRASH, true), (CRASH, false)]).await;
        let at = |time| told.at(At::Time(Micros(time)));
        assert_eq!(at(3000).await.unwrap().point, point(3));
        assert_eq!(at(3999).await.unwrap().point, point(3));
        let between = at(4999).await.unwrap();
        assert_eq!((between.point, between.clean, between.time), (point(4), true, Micros(4000)));
        assert_eq!((between.kind, between.name.as_str()), (CRASH, ""));
        assert_eq!(at(5000).await.unwrap().name, "mark");
        assert_eq!(at(99_000).await.unwrap().point, point(6), "the last bookmark is unclean");
        let error = at(2999).await.unwrap_err().to_string();
        assert!(error.contains("the first is 1:3 at 1970-01-01T00:00:00.003Z"), "{error}");
    });
}

#[test]
fn a_point_that_is_later_than_another_is_found_by_the_machines_clock() {
    run(async {
        let told = marked(&[(END, true), (CRASH, true), (CRASH, false)]).await;
        let after = |time| told.points.clean_after(Micros(time)).map(|later| later.point);
        assert_eq!((after(0), after(4999)), (Some(point(5)), Some(point(5))));
        assert_eq!(after(5000), None, "the last one is unclean");
    });
}

#[test]
fn any_lsn_after_the_copy_can_be_asked_for_but_none_beyond_the_chain() {
    run(async {
        let told = marked(&[(END, true), (CRASH, true)]).await;
        let chosen = told.at(At::Point(point(4))).await.unwrap();
        assert_eq!((chosen.point, chosen.clean, chosen.time), (point(4), true, Micros(4000)));
        let error = told.at(At::Point(point(6))).await.unwrap_err().to_string();
        assert!(error.contains("ends at LSN 5, and LSN 6 is needed"), "{error}");
        let other = Point { epoch: Epoch(2), lsn: Lsn(1) };
        let error = told.at(At::Point(other)).await.unwrap_err().to_string();
        assert!(error.contains("no epoch 2"), "{error}");
    });
}

const FULL: BookmarkKind = BookmarkKind::GapJournalFull;
const KILLED: BookmarkKind = BookmarkKind::GapKilled;

#[test]
fn what_lies_in_a_gap_is_no_moment_and_what_lies_around_it_is() {
    run(async {
        // 3 end, 5 full, 7 killed, 9 crash, 11 crash.
        let marks = [(END, true), (FULL, false), (KILLED, false), (CRASH, true), (CRASH, true)];
        let told = marked(&marks).await;
        let lsns: Vec<_> = told.points.points.iter().map(|offered| offered.point).collect();
        assert_eq!(lsns, [point(3), point(9), point(11)]);
        let [gap] = &told.points.gaps[..] else { panic!("{:?}", told.points.gaps) };
        let end = Some((Lsn(9), Micros(9000)));
        let stretch = Stretch { first: Lsn(5), since: Micros(5000), cause: FULL, end };
        assert_eq!(gap.stretch(), Some(&stretch));
        let text = gap.to_string();
        let said = "epoch 1: LSNs 5 to 8 are no moments of its disks: the journal was full, from \
                    1970-01-01T00:00:00.005Z to 1970-01-01T00:00:00.009Z";
        assert_eq!(text, said);
        for lsn in 5..9 {
            let error = told.at(At::Point(point(lsn))).await.unwrap_err().to_string();
            assert!(error.contains("ask for 1:4 before them, or 1:9 behind them"), "{error}");
        }
        for lsn in [3, 4, 9, 10, 11] {
            let chosen = told.at(At::Point(point(lsn))).await.unwrap();
            assert_eq!((chosen.point, chosen.clean), (point(lsn), true));
            assert_eq!(chosen.time, Micros(lsn * 1000));
        }
        let at = async |time| told.at(At::Time(Micros(time))).await.unwrap().point;
        for (time, lsn) in [(4999, 4), (5000, 4), (8999, 4), (9000, 9), (10_500, 10), (99_000, 11)]
        {
            assert_eq!(at(time).await, point(lsn), "at {time}");
            let within = (5000..9000).contains(&time);
            assert_eq!(told.points.gap_at(Epoch(1), Micros(time)).is_some(), within, "at {time}");
        }
    });
}

#[test]
fn a_gap_that_hasnt_ended_goes_on() {
    run(async {
        let told = marked(&[(END, true), (KILLED, false), (FULL, false)]).await;
        let text = told.points.gaps[0].to_string();
        assert!(
            text.contains("LSNs from 5 on are no moments") && text.contains("killed"),
            "{text}"
        );
        assert!(text.ends_with("since 1970-01-01T00:00:00.005Z; it hasn't ended"), "{text}");
        assert_eq!(told.at(At::Time(Micros(99_000))).await.unwrap().point, point(4));
        let error = told.at(At::Point(point(7))).await.unwrap_err().to_string();
        assert!(error.ends_with("ask for 1:4 before them"), "{error}");
    });
}

#[test]
fn a_gap_before_the_end_of_the_copy_costs_nothing() {
    run(async {
        let told = marked(&[(KILLED, false), (END, true), (CRASH, true)]).await;
        assert_eq!(told.points.gaps, []);
        assert_eq!(told.at(At::Point(point(6))).await.unwrap().point, point(6));
    });
}

#[test]
fn a_disk_that_gets_another_size_is_a_change_and_time_that_passes_is_none() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, BLOCK)));
        machine.marks(END, true);
        machine.does(Op::Time);
        machine.does(Op::Disk(disk(0, 2 * BLOCK)));
        machine.does(Op::Time);
        machine.store(&mut vault).await;
        let history = machine.history(&vault).await;
        let told = Told { points: MachinePoints::of(&history), history, reader: vault.reader() };
        for (time, lsn, blocks) in [(3999, 2, 1), (4000, 4, 2), (99_000, 4, 2)] {
            let chosen = told.at(At::Time(Micros(time))).await.unwrap();
            assert_eq!((chosen.point, chosen.disks), (point(lsn), vec![disk(0, blocks * BLOCK)]));
        }
        let idle = told.at(At::Point(point(5))).await.unwrap();
        assert_eq!((idle.point, idle.time), (point(5), Micros(4000)), "of its last change");
    });
}
