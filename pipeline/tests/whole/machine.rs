//! A machine of the simulation: the records that it will send, and what its disks then hold.
//!
//! The journal is the truth: record k has LSN k + 1, and a session that begins again sends the same
//! bytes under the same LSN.

use std::collections::BTreeMap;

use tidegate_model::{Bookmark, BookmarkKind, Disk, DiskNumber, Epoch, Extent, Lsn, Micros, Name};

use crate::chance::Chance;

/// Block size of the simulated vault: the smallest, so that much happens in few bytes.
pub const BLOCK: usize = 4096;
/// Most bytes of a write.
pub const RECORD_BYTES_MAX: usize = 4 * BLOCK;
/// Blocks of a disk at its beginning; its size is no multiple of the block.
const DISK_BLOCKS: usize = 24;
/// Contents that any machine may have: where duplicates come from.
const SHARED_CONTENTS: usize = 24;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Write(Extent, Vec<u8>),
    Zero(Extent),
    Disk(Disk),
    Bookmark(Bookmark),
    Time,
}

/// A record of the journal.
#[derive(Debug, Clone)]
pub struct Record {
    pub lsn: Lsn,
    pub time: Micros,
    pub what: What,
}

impl Record {
    /// Bytes that travel with it.
    pub fn payload_bytes(&self) -> usize {
        if let What::Write(_, bytes) = &self.what { bytes.len() } else { 0 }
    }

    /// Bytes of a disk that it is about.
    pub fn disk_bytes(&self) -> u64 {
        match &self.what {
            What::Write(extent, _) | What::Zero(extent) => extent.length,
            What::Disk(_) | What::Bookmark(_) | What::Time => 0,
        }
    }
}

/// A machine's epoch and its journal.
pub struct Machine {
    pub name: Name,
    pub epoch: Epoch,
    pub journal: Vec<Record>,
}

impl Machine {
    /// A machine that sends `records` records; one that is `quiet` never writes bytes.
    pub fn new(chance: &mut Chance, number: usize, records: usize, quiet: bool) -> Self {
        let mut sizes = vec![disk_bytes(), disk_bytes() / 2];
        let mut journal = Vec::new();
        let mut time = 1_700_000_000_000_000;
        for lsn in 1..=records as u64 {
            time += chance.next() % 1000;
            let what = match usize::try_from(lsn - 1).unwrap() {
                disk if disk < sizes.len() => What::Disk(disk_of(disk, sizes[disk])),
                _ if quiet => quiet_record(chance, &sizes),
                _ => record(chance, &mut sizes),
            };
            journal.push(Record { lsn: Lsn(lsn), time: Micros(time), what });
        }
        // Every two are epochs of one name: they must not mix.
        let name = format!("machine-{}", number / 2).parse().unwrap();
        Self { name, epoch: Epoch(u32::try_from(number % 2).unwrap() + 1), journal }
    }

    /// A machine that sends exactly this, a record a millisecond.
    pub fn that_sends(number: usize, records: Vec<What>) -> Self {
        let record = |(lsn, what)| Record { lsn: Lsn(lsn), time: Micros(lsn * 1000), what };
        let journal = (1..).zip(records).map(record).collect();
        Self { name: format!("m{number}").parse().unwrap(), epoch: Epoch(1), journal }
    }

    pub fn last(&self) -> Lsn {
        Lsn(self.journal.len() as u64)
    }

    pub fn record(&self, lsn: Lsn) -> &Record {
        &self.journal[usize::try_from(lsn.0).unwrap() - 1]
    }
}

/// The disks as plain bytes: what recovery must give.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Disks(BTreeMap<DiskNumber, Vec<u8>>);

impl Disks {
    pub fn declare(&mut self, disk: &Disk) {
        self.0.entry(disk.number).or_default().resize(usize::try_from(disk.bytes).unwrap(), 0);
    }

    /// Writes `bytes` at `extent`, or zeros where there are none.
    pub fn write(&mut self, extent: Extent, bytes: Option<&[u8]>) {
        let begin = usize::try_from(extent.offset).unwrap();
        let end = begin + usize::try_from(extent.length).unwrap();
        let place = &mut self.0.get_mut(&extent.disk).expect("it was declared")[begin..end];
        match bytes {
            Some(bytes) => place.copy_from_slice(bytes),
            None => place.fill(0),
        }
    }

    pub fn apply(&mut self, record: &Record) {
        match &record.what {
            What::Write(extent, bytes) => self.write(*extent, Some(bytes)),
            What::Zero(extent) => self.write(*extent, None),
            What::Disk(disk) => self.declare(disk),
            What::Bookmark(_) | What::Time => {}
        }
    }
}

/// A disk's declaration, and writes of one block each, in order.
pub fn disk_of_blocks(blocks: Vec<Vec<u8>>) -> Vec<What> {
    let disk = disk_of(0, (blocks.len() * BLOCK) as u64);
    let write = |(at, bytes)| write_at(0, (at * BLOCK) as u64, bytes);
    let writes = blocks.into_iter().enumerate().map(write);
    std::iter::once(What::Disk(disk)).chain(writes).collect()
}

fn disk_bytes() -> u64 {
    (DISK_BLOCKS * BLOCK + 777) as u64
}

pub fn disk_of(number: usize, bytes: u64) -> Disk {
    let number = DiskNumber::try_from(u8::try_from(number).unwrap()).unwrap();
    Disk { number, bytes, name: format!("/dev/vd{}", char::from(b'a' + number.get())) }
}

fn record(chance: &mut Chance, sizes: &mut [u64]) -> What {
    match chance.below(20) {
        0..=1 => quiet_record(chance, sizes),
        2 => {
            let disk = chance.below(sizes.len());
            sizes[disk] += chance.next() % 3000;
            What::Disk(disk_of(disk, sizes[disk]))
        }
        3 => What::Bookmark(Bookmark {
            kind: BookmarkKind::CrashConsistent,
            clean: chance.one_in(2),
            name: "b".repeat(chance.below(40)),
        }),
        4..=8 => partial_write(chance, sizes),
        _ => block_write(chance, sizes),
    }
}

fn quiet_record(chance: &mut Chance, sizes: &[u64]) -> What {
    if chance.one_in(2) {
        return What::Time;
    }
    let disk = chance.below(sizes.len());
    let length = 1 + chance.next() % (sizes[disk] / 2);
    let offset = chance.next() % (sizes[disk] - length + 1);
    What::Zero(Extent { disk: disk_of(disk, 0).number, offset, length })
}

/// A write anywhere, of any length: it may hold whole blocks and parts of others.
fn partial_write(chance: &mut Chance, sizes: &[u64]) -> What {
    let disk = chance.below(sizes.len());
    let most = if chance.one_in(2) { 700 } else { RECORD_BYTES_MAX };
    let mut bytes = vec![0; 1 + chance.below(most)];
    match chance.below(4) {
        0 => {}
        1 => chance.fill(&mut bytes),
        2 => {
            let at = chance.below(bytes.len());
            bytes[at] = 1;
        }
        _ => bytes.iter_mut().zip(content(7).iter().cycle()).for_each(|(to, from)| *to = *from),
    }
    let room = sizes[disk] - bytes.len() as u64;
    write_at(disk, chance.next() % (room + 1), bytes)
}

/// Whole blocks at a block's border, of contents that others have too.
fn block_write(chance: &mut Chance, sizes: &[u64]) -> What {
    let disk = chance.below(sizes.len());
    let blocks = 1 + chance.below(RECORD_BYTES_MAX / BLOCK);
    let bytes: Vec<u8> = (0..blocks).flat_map(|_| content(chance.below(SHARED_CONTENTS))).collect();
    let places = usize::try_from(sizes[disk]).unwrap() / BLOCK - blocks + 1;
    write_at(disk, (chance.below(places) * BLOCK) as u64, bytes)
}

fn write_at(disk: usize, offset: u64, bytes: Vec<u8>) -> What {
    let extent = Extent { disk: disk_of(disk, 0).number, offset, length: bytes.len() as u64 };
    What::Write(extent, bytes)
}

/// The content of a block: zeros, noise, text, or a repeated word, by its number.
pub fn content(number: usize) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    let mut chance = Chance::new(number as u64);
    match number % 4 {
        0 if number == 0 => {}
        0 | 1 => chance.fill(&mut bytes),
        2 => {
            let words = ["frame ", "pack ", "block ", "shard ", "vault\n"];
            let text = std::iter::repeat_with(|| words[chance.below(words.len())].bytes());
            bytes.iter_mut().zip(text.flatten()).for_each(|(to, from)| *to = from);
        }
        _ => bytes.fill(u8::try_from(number).unwrap()),
    }
    bytes
}
