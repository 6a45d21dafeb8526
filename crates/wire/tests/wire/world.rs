//! What outlives the connections of `two_ends`: what the agent keeps, and what the vault has.

use std::collections::VecDeque;

use tidegate_model::{Checksum, Disk, DiskNumber, Epoch, Extent, Lsn, Micros};
use tidegate_wire::{Record, RecordKind};

/// Most payload bytes of a write.
pub const RECORD: u32 = 4096;
const DISK: u64 = 1 << 20;

/// Numbers from a seed (splitmix64).
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }
}

/// A record with the data that it has if it is a write.
pub type Full = (Record, Vec<u8>);

/// What the agent has to send: a disk, then a bit of everything.
fn journal(count: usize, chance: &mut Chance) -> Vec<Full> {
    let number = DiskNumber::default();
    let first = RecordKind::Disk(Disk { number, bytes: DISK, name: "sda".into() });
    let mut journal = vec![(Record { lsn: Lsn(1), time: Micros(0), kind: first }, Vec::new())];
    for lsn in 2..=count as u64 {
        let length = 1 + chance.below(RECORD as usize);
        let offset = chance.below(usize::try_from(DISK).unwrap() - length) as u64;
        let extent = Extent { disk: number, offset, length: length as u64 };
        let (kind, data) = match chance.below(4) {
            0 => (RecordKind::Time, Vec::new()),
            1 => (RecordKind::Zero(extent), Vec::new()),
            _ => {
                let data: Vec<u8> =
                    (0..length).map(|at| (at as u64 ^ lsn).to_le_bytes()[0]).collect();
                (RecordKind::Write(extent, Checksum::of(&data)), data)
            }
        };
        journal.push((Record { lsn: Lsn(lsn), time: Micros(lsn / 3), kind }, data));
    }
    journal
}

pub fn payload_bytes(kind: &RecordKind) -> u64 {
    if let RecordKind::Write(extent, _) = kind { extent.length } else { 0 }
}

/// What outlives every connection.
pub struct World {
    pub journal: Vec<Full>,
    /// The agent's memory.
    pub epoch: Epoch,
    pub known_committed: Lsn,
    pub ever_sent: Lsn,
    /// The vault's: records in order.
    pub vault: Vec<Full>,
    /// What connections that broke had brought, and the server goes on storing.
    pub adrift: VecDeque<Full>,
    pub chance: Chance,
}

impl World {
    /// Before the first connection, with so many records to send.
    pub fn new(count: usize, seed: u64) -> Self {
        let mut chance = Chance(seed);
        Self {
            journal: journal(count, &mut chance),
            epoch: Epoch::NONE,
            known_committed: Lsn::NONE,
            ever_sent: Lsn::NONE,
            vault: Vec::new(),
            adrift: VecDeque::new(),
            chance,
        }
    }

    /// Stores a record, perhaps for the second time: then it must be the same.
    pub fn store(&mut self, full: Full) {
        let index = usize::try_from(full.0.lsn.0).unwrap() - 1;
        match self.vault.get(index) {
            Some(there) => assert_eq!(*there, full, "the same LSN has the same bytes"),
            None => {
                assert_eq!(index, self.vault.len(), "nothing before it is missing");
                self.vault.push(full);
            }
        }
    }

    /// A connection broke: what it brought is stored later, or lost with its server.
    pub fn broken(&mut self, received: VecDeque<Full>) {
        if self.chance.below(2) == 0 {
            self.adrift.clear();
        } else {
            self.adrift.extend(received);
        }
    }
}
