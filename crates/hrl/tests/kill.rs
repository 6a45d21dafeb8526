//! The journal on a real file system, in a process that is killed: this test starts itself again as
//! that process.

#![allow(clippy::unwrap_used)] // also in functions that tests share

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use tidegate_hrl::Journal;
use tidegate_hrl::journal::{AppendError, Birth, Change, Ending, JournalSettings};
use tidegate_hrl::scan::{DataState, Found, Scan};
use tidegate_hrl::uring::{DiskFile, UringError, UringStorage};
use tidegate_model::{DiskNumber, Incarnation, Lsn, Micros};

const FOLDER: &str = "TIDEGATE_TEST_JOURNAL";
const BIRTH: Birth = Birth { incarnation: Incarnation::from_bytes([7; 16]), boot: [1; 16] };

fn settings() -> JournalSettings {
    JournalSettings::of(JournalSettings::BYTES_MIN).unwrap()
}

/// What is written as this LSN: anybody can tell it who knows the LSN.
fn change(lsn: Lsn) -> (DiskNumber, u64, Vec<u8>) {
    let salt = lsn.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bytes = salt.to_le_bytes();
    let length = 1 + usize::try_from(salt >> 50).unwrap();
    let data = (0..length).map(|index| bytes[index % 8].wrapping_add(index.to_le_bytes()[0]));
    (DiskNumber::try_from(bytes[3] % 3).unwrap(), u64::from(bytes[4]) * 512, data.collect())
}

fn open(folder: &Path) -> (Journal<UringStorage>, tidegate_hrl::journal::Opening) {
    let storage = UringStorage::open(folder).unwrap();
    Journal::open(storage, settings(), &BIRTH, Box::new(|_| {})).unwrap()
}

/// The process: appends until it is killed, and says what is durable.
#[test]
#[ignore = "started by the test below"]
fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let storage = UringStorage::open(Path::new(&folder)).unwrap();
    let say = |lsn: Lsn| {
        let mut out = std::io::stderr().lock();
        // Who started this may be gone.
        let _ = writeln!(out, "durable {lsn}");
    };
    let (journal, _) = Journal::open(storage, settings(), &BIRTH, Box::new(say)).unwrap();
    loop {
        let next = journal.usage().last.next();
        let (disk, offset, data) = change(next);
        let write = Change::Write { disk, offset, data: &data[..] };
        match journal.append(&write, Micros(1_767_225_600_000_000 + next.0)) {
            Ok(lsn) => assert_eq!(lsn, next),
            Err(AppendError::Full { .. }) => {
                // Half of it is committed, so that segments are deleted, too.
                let usage = journal.usage();
                journal.committed(Lsn(usage.durable.0.midpoint(usage.committed.0))).unwrap();
            }
            Err(AppendError::Behind { .. }) => journal.wait_durable(Lsn(next.0 - 1)).unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_was_durable_survives_kill_9_and_lsns_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut committed = 0;
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_process_that_is_killed", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut durable = 0_u64;
        let said = lines.map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("durable ").and_then(|lsn| lsn.parse::<u64>().ok())
        });
        // Another moment each time; what it still says until it is gone counts, too.
        for (count, lsn) in (0_u32..).zip(said) {
            durable = durable.max(lsn);
            if count == 3 + 40 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let (journal, opening) = open(folder.path());
        assert_eq!(opening.ending, Ending::Unclean { same_boot: true });
        assert!(opening.recovered_to >= Lsn(durable), "{} of {durable}", opening.recovered_to);
        assert!(durable > 0);
        committed = check(&journal, committed, opening.recovered_to);
        let usage = journal.usage();
        assert!(usage.bytes <= usage.bytes_max, "{} of {}", usage.bytes, usage.bytes_max);
        // Not closed: the next process finds what this one began, too.
        drop(journal);
        check_logs(folder.path());
    }
}

/// Reads everything that isn't committed; gives the last LSN that is.
fn check(journal: &Journal<UringStorage>, before: u64, last: Lsn) -> u64 {
    let mut reader = journal.read_from(Lsn(1));
    let committed = journal.usage().committed;
    assert!(committed.0 >= before, "what was committed stays so");
    let mut expected = committed.next();
    while let Some(record) = reader.next().unwrap() {
        let (disk, offset, data) = change(expected);
        assert_eq!(record.lsn, expected);
        assert!(record.change == Change::Write { disk, offset, data }, "LSN {expected}");
        expected = expected.next();
    }
    assert_eq!(expected, last.next());
    committed.0
}

/// Every log is closed, but for those of the newest segment, and whole.
fn check_logs(folder: &Path) {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for path in entries.filter(|path| path.extension().is_some_and(|ending| ending == "hrl")) {
        let file = DiskFile::from(std::fs::File::open(&path).unwrap());
        let mut scan = Scan::open(file).unwrap();
        assert!(scan.is_closed(), "{}", path.display());
        while let Some(found) = scan.next().unwrap() {
            let Found::Entry(found) = found else { panic!("{}: {found:?}", path.display()) };
            assert_eq!(found.data, DataState::Whole);
        }
    }
}

#[test]
fn a_journal_that_was_closed_is_clean_and_a_second_owner_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, opening) = open(&folder.path().join("made"));
    assert_eq!(opening.ending, Ending::New);
    let error = UringStorage::open(&folder.path().join("made")).unwrap_err();
    assert!(matches!(error, UringError::InUse { .. }), "{error}");
    let (disk, offset, data) = change(Lsn(1));
    journal.append(&Change::Write { disk, offset, data: &data }, Micros(5)).unwrap();
    journal.append(&Change::Time, Micros(3)).unwrap();
    journal.close().unwrap();
    let (journal, opening) = open(&folder.path().join("made"));
    assert_eq!((opening.ending, opening.recovered_to), (Ending::Clean, Lsn(2)));
    assert_eq!(opening.time, Micros(5), "times don't go back");
    let mut reader = journal.read_from(Lsn(2));
    assert_eq!(reader.next().unwrap().unwrap().change, Change::Time);
    assert_eq!(reader.next().unwrap(), None);
    let lsn = journal.append(&Change::Zero(extent()), Micros(6)).unwrap();
    journal.wait_durable(lsn).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().change, Change::Zero(extent()));
    journal.close().unwrap();
}

fn extent() -> tidegate_model::Extent {
    tidegate_model::Extent { disk: DiskNumber::default(), offset: 0, length: 1 << 40 }
}

#[test]
fn a_bound_that_is_too_small_is_answered_with_what_is_enough() {
    let error = JournalSettings::of(1 << 20).unwrap_err().to_string();
    assert!(error.contains("1MiB is too small"), "{error}");
    for bytes_max in [JournalSettings::BYTES_MIN, 1 << 30, 1 << 50] {
        assert!(JournalSettings::of(bytes_max).unwrap().goes_on());
    }
}
