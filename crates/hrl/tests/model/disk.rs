//! A file system that crashes: what was synced is there afterwards, and of all else any part.
//!
//! `kill` ends the process only: everything that was written stays, still not synced. `power_cut` takes
//! away what wasn't synced: of each write any of its sectors, of each name made or removed any. A fuse
//! burns down with each step, and the step at which it ends is done in part and fails, as do all after
//! it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use tidegate_hrl::storage::{ReadAt, Storage, Write};

const SECTOR: usize = 512;

/// Chance, by a seed (xorshift64*).
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 1).unwrap() % bound.max(1)
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    synced: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
}

impl Inode {
    fn write(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
        if bytes.len() < at + data.len() {
            bytes.resize(at + data.len(), 0);
        }
        bytes[at..at + data.len()].copy_from_slice(data);
    }

    /// Any of the sectors that a write touches.
    fn write_some(bytes: &mut Vec<u8>, at: usize, data: &[u8], chance: &mut Chance) {
        let mut start = 0;
        while start < data.len() {
            let end = data.len().min(start + SECTOR - (at + start) % SECTOR);
            if chance.coin() {
                Self::write(bytes, at + start, &data[start..end]);
            }
            start = end;
        }
    }
}

#[derive(Debug)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    name_changes: Vec<(String, Option<usize>)>,
    fuse: Option<u64>,
    dead: bool,
    chance: Chance,
}

/// The file system; clones are the same one.
#[derive(Debug, Clone)]
pub struct CrashingDisk(Arc<Mutex<World>>);

/// A file of it.
#[derive(Debug, Clone)]
pub struct CrashingFile {
    world: Arc<Mutex<World>>,
    inode: usize,
}

fn crashed() -> io::Error {
    io::Error::other("crashed")
}

impl World {
    fn step(&mut self) -> io::Result<()> {
        if self.dead {
            return Err(crashed());
        }
        match &mut self.fuse {
            Some(0) => {
                self.dead = true;
                Err(crashed())
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn write(&mut self, inode: usize, at: u64, bytes: &[u8]) -> io::Result<()> {
        let alive = !self.dead;
        let done = self.step();
        let at = usize::try_from(at).unwrap();
        let mut chance = self.chance.clone();
        let inode = &mut self.inodes[inode];
        match done {
            Ok(()) => {
                Inode::write(&mut inode.current, at, bytes);
                inode.unsynced.push(Change::Write(at, bytes.to_vec()));
            }
            Err(_) if alive => {
                let before = inode.current.clone();
                Inode::write_some(&mut inode.current, at, bytes, &mut chance);
                // What got through may still get lost, in the same sectors or others.
                if inode.current != before {
                    let part = inode.current[at.min(inode.current.len())..].to_vec();
                    inode.unsynced.push(Change::Write(at, part));
                }
            }
            Err(_) => {}
        }
        self.chance = chance;
        done
    }

    fn sync(&mut self, inode: usize) -> io::Result<()> {
        self.step()?;
        let inode = &mut self.inodes[inode];
        inode.synced = inode.current.clone();
        inode.unsynced.clear();
        Ok(())
    }
}

impl CrashingDisk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            name_changes: Vec::new(),
            fuse: None,
            dead: false,
            chance: Chance(seed),
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// After so many more steps everything fails.
    pub fn light_fuse(&self, steps: u64) {
        self.world().fuse = Some(steps);
    }

    /// The process ends and another one begins.
    pub fn kill(&self) {
        let mut world = self.world();
        (world.fuse, world.dead) = (None, false);
    }

    /// The host goes down and comes up again.
    pub fn power_cut(&self) {
        self.kill();
        let mut world = self.world();
        let mut chance = world.chance.clone();
        for inode in &mut world.inodes {
            let mut bytes = std::mem::take(&mut inode.synced);
            for change in inode.unsynced.drain(..) {
                match change {
                    Change::Write(at, data) => {
                        Inode::write_some(&mut bytes, at, &data, &mut chance);
                    }
                    Change::Truncate(length) if chance.coin() => bytes.resize(length, 0),
                    Change::Truncate(_) => {}
                }
            }
            inode.current = bytes.clone();
            inode.synced = bytes;
        }
        let changes = std::mem::take(&mut world.name_changes);
        let mut names = std::mem::take(&mut world.synced_names);
        for (name, inode) in changes.into_iter().filter(|_| chance.coin()) {
            match inode {
                Some(inode) => names.insert(name, inode),
                None => names.remove(&name),
            };
        }
        world.names = names.clone();
        world.synced_names = names;
        world.chance = chance;
    }

    /// Bytes of all files that have a name.
    pub fn bytes(&self) -> u64 {
        let world = self.world();
        world.names.values().map(|inode| world.inodes[*inode].current.len() as u64).sum()
    }

    /// Changes one byte of a file.
    pub fn flip(&self, name: &str, at: usize) {
        let mut world = self.world();
        let inode = world.names[name];
        let inode = &mut world.inodes[inode];
        if let Some(byte) = inode.current.get_mut(at) {
            *byte ^= 0x40;
            inode.synced = inode.current.clone();
            inode.unsynced.clear();
        }
    }
}

impl ReadAt for CrashingFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut world = self.world.lock().unwrap();
        world.step()?;
        let bytes = &world.inodes[self.inode].current;
        let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.world.lock().unwrap().inodes[self.inode].current.len() as u64)
    }
}

impl Storage for CrashingDisk {
    type File = CrashingFile;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.world().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<CrashingFile> {
        let inode = self.world().names.get(name).copied();
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        Ok(CrashingFile { world: self.0.clone(), inode })
    }

    fn create(&self, name: &str) -> io::Result<CrashingFile> {
        let mut world = self.world();
        world.step()?;
        assert!(!world.names.contains_key(name), "{name} is made twice");
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.names.insert(name.to_owned(), inode);
        world.name_changes.push((name.to_owned(), Some(inode)));
        Ok(CrashingFile { world: self.0.clone(), inode })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        world.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        world.name_changes.push((name.to_owned(), None));
        Ok(())
    }

    fn truncate(&self, file: &CrashingFile, bytes: u64) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        let length = usize::try_from(bytes).unwrap();
        let inode = &mut world.inodes[file.inode];
        inode.current.resize(length, 0);
        inode.unsynced.push(Change::Truncate(length));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        world.synced_names = world.names.clone();
        world.name_changes.clear();
        Ok(())
    }

    fn write(&self, mut writes: Vec<Write<CrashingFile>>) -> io::Result<()> {
        // Files go beside each other: any order of them, all writes before the syncs or not.
        let mut world = self.world();
        let (turn, together) = (world.chance.below(writes.len()), world.chance.coin());
        writes.rotate_left(turn);
        let mut syncs = Vec::new();
        for Write { file, parts } in writes {
            for (at, bytes) in parts {
                world.write(file.inode, at, &bytes)?;
            }
            syncs.push(file.inode);
            if !together {
                syncs.drain(..).try_for_each(|inode| world.sync(inode))?;
            }
        }
        syncs.into_iter().try_for_each(|inode| world.sync(inode))
    }
}
