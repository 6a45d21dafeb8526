//! A disk whose reads wait at a gate, where the test wants it.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex};

use tidegate_nbd::Errno;
use tidegate_nbd::serve::{Disk, Failure, Zeroing};

/// Every byte of it is its offset's last byte. What begins at an offset that is shut waits.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    shut: BTreeSet<u64>,
    /// Offsets of the commands that are being carried out, and the most of them at once.
    inside: Vec<u64>,
    most: usize,
    done: usize,
}

impl Gate {
    pub fn shut(&self, offset: u64) {
        self.state.lock().unwrap().shut.insert(offset);
    }

    pub fn open(&self, offset: u64) {
        self.state.lock().unwrap().shut.remove(&offset);
        self.moved.notify_all();
    }

    /// Waits until so many commands are at the gate.
    pub fn wait_inside(&self, count: usize) {
        let mut state = self.state.lock().unwrap();
        while state.inside.len() < count {
            state = self.moved.wait(state).unwrap();
        }
    }

    pub fn most_inside(&self) -> usize {
        self.state.lock().unwrap().most
    }

    pub fn done(&self) -> usize {
        self.state.lock().unwrap().done
    }

    fn pass(&self, offset: u64) {
        let mut state = self.state.lock().unwrap();
        state.inside.push(offset);
        state.most = state.most.max(state.inside.len());
        self.moved.notify_all();
        while state.shut.contains(&offset) {
            state = self.moved.wait(state).unwrap();
        }
        state.inside.retain(|inside| *inside != offset);
        state.done += 1;
    }
}

impl Disk for Gate {
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Failure> {
        self.pass(offset);
        for (at, byte) in (offset..).zip(into) {
            *byte = at.to_le_bytes()[0];
        }
        Ok(())
    }

    fn write(&self, offset: u64, _data: &[u8], _durable: bool) -> Result<(), Failure> {
        self.pass(offset);
        Ok(())
    }

    fn zero(&self, offset: u64, _bytes: u64, _how: Zeroing) -> Result<(), Failure> {
        assert!(offset != 666, "a disk of the tests has a defect");
        Ok(())
    }

    fn trim(&self, _offset: u64, _bytes: u64, _durable: bool) -> Result<(), Failure> {
        Err(Failure::new(Errno::Io, "nothing is forgotten here"))
    }

    fn flush(&self) -> Result<(), Failure> {
        Ok(())
    }
}
