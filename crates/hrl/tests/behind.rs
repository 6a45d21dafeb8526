//! A journal whose disk is slower than what is captured: who may wait for it does.

#![allow(clippy::unwrap_used)] // also in functions that tests share

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use tidegate_hrl::Journal;
use tidegate_hrl::journal::{AppendError, Birth, Change, JournalSettings};
use tidegate_hrl::storage::{Storage, Write};
use tidegate_hrl::uring::{DiskFile, UringStorage};
use tidegate_model::{DiskNumber, Incarnation, Lsn, Micros};

/// In it who appends has begun to wait, most likely; where not the test passes for less.
const A_WHILE: Duration = Duration::from_millis(50);

/// A directory whose writes wait, or fail, when the test wants it.
#[derive(Debug, Clone)]
struct Gated(UringStorage, Arc<(Mutex<State>, Condvar)>);

#[derive(Debug)]
struct State {
    gate: Gate,
    /// Somebody waits at it.
    taken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Gate {
    Open,
    Shut,
    Fail,
}

impl Gated {
    fn set(&self, gate: Gate) {
        self.1.0.lock().unwrap().gate = gate;
        self.1.1.notify_all();
    }

    /// Waits until a batch is at the gate.
    fn wait_taken(&self) {
        let mut state = self.1.0.lock().unwrap();
        while !state.taken {
            state = self.1.1.wait(state).unwrap();
        }
    }
}

impl Storage for Gated {
    type File = DiskFile;

    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }

    fn open(&self, name: &str) -> io::Result<DiskFile> {
        self.0.open(name)
    }

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        self.0.create(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn truncate(&self, file: &DiskFile, bytes: u64) -> io::Result<()> {
        self.0.truncate(file, bytes)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.sync_names()
    }

    fn write(&self, writes: Vec<Write<DiskFile>>) -> io::Result<()> {
        let mut state = self.1.0.lock().unwrap();
        while state.gate == Gate::Shut {
            state.taken = true;
            self.1.1.notify_all();
            state = self.1.1.wait(state).unwrap();
        }
        if state.gate == Gate::Fail {
            return Err(io::Error::other("the disk of the test fails"));
        }
        drop(state);
        self.0.write(writes)
    }
}

fn change(data: &[u8]) -> Change<&[u8]> {
    Change::Write { disk: DiskNumber::default(), offset: 0, data }
}

/// A journal that is behind already, and the last LSN that it took.
fn behind(folder: &std::path::Path, data: &[u8]) -> (Journal<Gated>, Gated, Lsn) {
    let gate = Arc::new((Mutex::new(State { gate: Gate::Open, taken: false }), Condvar::new()));
    let storage = Gated(UringStorage::open(folder).unwrap(), gate);
    let settings = JournalSettings::of(64 << 20).unwrap();
    let birth = Birth { incarnation: Incarnation::from_bytes([1; 16]), boot: [1; 16] };
    let open = Journal::open(storage.clone(), settings, &birth, Box::new(|_| {}));
    let (journal, _) = open.unwrap();
    storage.set(Gate::Shut);
    let mut last = journal.append(&change(data), Micros(1)).unwrap();
    storage.wait_taken();
    loop {
        match journal.append(&change(data), Micros(1)) {
            Ok(lsn) => last = lsn,
            Err(AppendError::Behind { .. }) => return (journal, storage, last),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn who_waits_is_taken_in_as_soon_as_there_is_room() {
    let (folder, data) = (tempfile::tempdir().unwrap(), vec![7; 200_000]);
    let (journal, storage, last) = behind(folder.path(), &data);
    assert_eq!(journal.durable(), Lsn::NONE);
    thread::scope(|scope| {
        let waits = scope.spawn(|| journal.append_waiting(&change(&data), Micros(2)).unwrap());
        thread::sleep(A_WHILE);
        storage.set(Gate::Open);
        assert!(waits.join().unwrap() > last);
    });
    let last = journal.usage().last;
    journal.wait_durable(last).unwrap();
    assert_eq!((journal.durable(), journal.has_failed()), (last, false));
    journal.close().unwrap();
}

#[test]
fn who_waits_is_told_when_the_disk_fails() {
    let (folder, data) = (tempfile::tempdir().unwrap(), vec![7; 200_000]);
    let (journal, storage, _) = behind(folder.path(), &data);
    thread::scope(|scope| {
        let waits = scope.spawn(|| journal.append_waiting(&change(&data), Micros(2)));
        thread::sleep(A_WHILE);
        storage.set(Gate::Fail);
        assert_eq!(waits.join().unwrap(), Err(AppendError::Ended));
    });
    assert!(journal.has_failed());
}
