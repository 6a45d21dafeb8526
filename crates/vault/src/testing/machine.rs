//! A machine of a test vault: sends records through sessions, and remembers what its disks held
//! after each.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use tidegate_model::{
    Bookmark, BookmarkKind, Disk, DiskNumber, Epoch, Extent, Incarnation, Lsn, Micros, Name, Point,
    Token,
};

use super::{Op, TestLog, TestVault};
use crate::chain::MachineHistory;
use crate::meta::{self, Begins, EpochRecord, Records, Run, SessionRecord};

pub fn extent(disk: u8, offset: u64, length: u64) -> Extent {
    Extent { disk: DiskNumber::try_from(disk).unwrap(), offset, length }
}

pub fn disk(number: u8, bytes: u64) -> Disk {
    let number = DiskNumber::try_from(number).unwrap();
    Disk { number, bytes, name: format!("/dev/vd{number}") }
}

/// The bytes of disks.
pub type Disks = BTreeMap<DiskNumber, Vec<u8>>;

/// A machine with one epoch.
pub struct TestMachine {
    pub of: (Name, Epoch),
    pub log: TestLog,
    pub ops: Vec<Op>,
    /// The disks after each LSN; before the first there are none.
    pub states: Vec<Disks>,
    pub record: EpochRecord,
    pub sessions: Vec<SessionRecord>,
    /// The next LSN to send.
    pub next: u64,
    /// The highest LSN that is stored, and all before it.
    pub stored: u64,
}

impl TestMachine {
    /// A machine whose first session begins in the open pack of `log`.
    pub fn new(name: &str, epoch: u32, log: TestLog) -> Self {
        let record = EpochRecord {
            epoch: Epoch(epoch),
            incarnation: Incarnation::from_bytes([5; 16]),
            token: Token::NONE,
            parent: None,
            begins: Begins::Copy,
            log: log.name.clone(),
            pack: log.number(),
            granted: Micros(1),
        };
        Self {
            of: (name.parse().unwrap(), Epoch(epoch)),
            log,
            ops: Vec::new(),
            states: vec![Disks::new()],
            record,
            sessions: Vec::new(),
            next: 1,
            stored: 0,
        }
    }

    /// What the machine does next; it is sent by [`TestMachine::send`].
    pub fn does(&mut self, op: Op) -> u64 {
        let mut disks = self.states.last().unwrap().clone();
        change(&mut disks, &op);
        self.states.push(disks);
        self.ops.push(op);
        self.ops.len() as u64
    }

    pub fn writes(&mut self, extent: Extent, byte: u8) -> u64 {
        self.does(Op::Write(extent, vec![byte; usize::try_from(extent.length).unwrap()]))
    }

    pub fn marks(&mut self, kind: BookmarkKind, clean: bool) -> u64 {
        self.does(Op::Bookmark(Bookmark { kind, clean, name: "mark".to_owned() }))
    }

    /// Sends everything that wasn't sent in this session.
    pub fn send(&mut self, vault: &TestVault) {
        while let Some(op) = self.ops.get(usize::try_from(self.next).unwrap() - 1) {
            self.log.add(vault, &self.of, self.next, op, None);
            self.next += 1;
        }
    }

    /// Sends all, and stores the pack.
    pub async fn store(&mut self, vault: &mut TestVault) -> String {
        self.send(vault);
        let path = self.log.store(vault, false).await;
        self.stored = self.next - 1;
        path
    }

    /// Begins a new session, in another log if one is given; sends again what follows `committed`.
    pub fn reconnect(&mut self, log: Option<TestLog>, committed: u64) {
        if let Some(log) = log {
            self.log = log;
        }
        self.sessions.push(SessionRecord {
            epoch: self.of.1,
            number: self.sessions.len() as u64 + 1,
            incarnation: self.record.incarnation,
            token: self.record.token,
            committed: Lsn(committed),
            log: self.log.name.clone(),
            pack: self.log.number(),
            granted: Micros(2),
        });
        self.next = committed + 1;
        self.stored = self.stored.min(committed);
    }

    /// An epoch that goes on where `parent` was at `lsn`, in a log of its own.
    pub fn continuing(parent: &Self, lsn: u64, epoch: u32, log: TestLog) -> Self {
        let mut machine = Self::new(parent.of.0.as_str(), epoch, log);
        machine.record.begins = Begins::Continue;
        machine.record.incarnation = Incarnation::from_bytes([6; 16]);
        machine.record.parent = Some(Point { epoch: parent.of.1, lsn: Lsn(lsn) });
        machine.states = vec![parent.states[usize::try_from(lsn).unwrap()].clone()];
        machine
    }

    /// Records the machine's epoch, its sessions and their runs in the vault.
    pub async fn publish(&self, vault: &TestVault) {
        let (store, ring) = (vault.store(), &vault.ring);
        meta::create_epoch(&store, ring, &self.of.0, &self.record).await.unwrap();
        for session in &self.sessions {
            meta::create_session(&store, ring, &self.of.0, session).await.unwrap();
        }
        let logs = self.sessions.iter().map(|session| &session.log);
        for log in logs.chain([&self.record.log]) {
            let run = Run {
                run: log.id.run,
                node: log.node.clone(),
                started: Micros(1),
                key_version: 1,
                shards: 2,
                program: "test".into(),
            };
            meta::create_run(&store, ring, &run).await.unwrap();
        }
    }

    pub async fn history(&self, vault: &TestVault) -> MachineHistory {
        let epochs = Records { whole: vec![self.record.clone()], ..Records::default() };
        let sessions = Records { whole: self.sessions.clone(), ..Records::default() };
        let mut history = MachineHistory::new(self.of.0.clone(), epochs, sessions);
        history.read_logs(&vault.reader()).await.unwrap();
        history
    }
}

/// What an op does to disks.
pub fn change(disks: &mut Disks, op: &Op) {
    match op {
        Op::Disk(disk) => {
            let bytes = usize::try_from(disk.bytes).unwrap();
            if bytes == 0 {
                disks.remove(&disk.number);
                return;
            }
            disks.entry(disk.number).or_default().resize(bytes, 0);
        }
        Op::Write(extent, bytes) => paint(disks, extent, bytes),
        Op::Zero(extent) => {
            let zeros = vec![0; usize::try_from(extent.length).unwrap()];
            paint(disks, extent, &zeros);
        }
        Op::Bookmark(_) | Op::Time => {}
    }
}

fn paint(disks: &mut Disks, extent: &Extent, bytes: &[u8]) {
    let begin = usize::try_from(extent.offset).unwrap();
    disks.get_mut(&extent.disk).unwrap()[begin..begin + bytes.len()].copy_from_slice(bytes);
}

/// Takes restored disks; refuses what it was given already or lies outside.
#[derive(Debug)]
pub struct MemorySink {
    disks: Mutex<BTreeMap<DiskNumber, Vec<Option<u8>>>>,
    pub finished: Mutex<bool>,
}

impl MemorySink {
    pub fn new(disks: &[Disk]) -> Self {
        let empty = |disk: &Disk| vec![None; usize::try_from(disk.bytes).unwrap()];
        let disks = disks.iter().map(|disk| (disk.number, empty(disk))).collect();
        Self { disks: Mutex::new(disks), finished: Mutex::new(false) }
    }

    /// The disks, every byte of which was told once.
    pub fn disks(&self) -> BTreeMap<DiskNumber, Vec<u8>> {
        assert!(*self.finished.lock().unwrap());
        let disks = self.disks.lock().unwrap();
        let whole = |disk: &Vec<Option<u8>>| disk.iter().map(|byte| byte.unwrap()).collect();
        disks.iter().map(|(number, disk)| (*number, whole(disk))).collect()
    }

    fn fill(
        &self,
        disk: DiskNumber,
        offset: u64,
        bytes: impl Iterator<Item = u8>,
    ) -> io::Result<()> {
        let mut disks = self.disks.lock().unwrap();
        let disk = disks.get_mut(&disk).unwrap();
        for (at, byte) in (usize::try_from(offset).unwrap()..).zip(bytes) {
            let outside = || io::Error::other("outside of the disk");
            let before = disk.get_mut(at).ok_or_else(outside)?.replace(byte);
            if before.is_some() {
                return Err(io::Error::other("written twice"));
            }
        }
        Ok(())
    }
}

impl crate::restore::Sink for MemorySink {
    fn write(&self, disk: DiskNumber, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.fill(disk, offset, bytes.iter().copied())
    }

    fn zero(&self, disk: DiskNumber, offset: u64, length: u64) -> io::Result<()> {
        self.fill(disk, offset, (0..length).map(|_| 0))
    }

    fn finish(&self) -> io::Result<()> {
        *self.finished.lock().unwrap() = true;
        Ok(())
    }
}
