//! Chance from a seed, and changes made of it.

use tidegate_nbd::CommandKind;

/// SplitMix64: enough to spread changes over a disk.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Something that a client does to a disk.
#[derive(Debug, Clone)]
pub struct Op {
    pub kind: CommandKind,
    pub offset: u64,
    pub data: Vec<u8>,
    pub bytes: u64,
    pub durable: bool,
}

impl Op {
    /// Most are short writes, all close together, so that many overlap; some are long.
    pub fn any(chance: &mut Chance, disk_bytes: u64) -> Self {
        let durable = chance.below(50) == 0;
        let kind = match chance.below(20) {
            0 => {
                return Self {
                    kind: CommandKind::Flush,
                    offset: 0,
                    data: vec![],
                    bytes: 0,
                    durable,
                };
            }
            1 | 2 => CommandKind::WriteZeroes,
            3 | 4 => CommandKind::Trim,
            _ => CommandKind::Write,
        };
        let longest = if chance.below(10) == 0 { 300 << 10 } else { 8 << 10 };
        let bytes = 1 + chance.below(longest);
        let offset = chance.below(disk_bytes - bytes);
        let salt = chance.next().to_le_bytes();
        let data = match kind {
            CommandKind::Write if chance.below(20) == 0 => vec![0; bytes as usize],
            CommandKind::Write => (0..bytes as usize).map(|at| salt[at % 8]).collect(),
            _ => vec![],
        };
        Self { kind, offset, data, bytes, durable }
    }
}
