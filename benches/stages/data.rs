//! What the pipeline is fed: bytes of several kinds, cut into records, all in memory beforehand.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_model::Checksum;

/// Bytes of a block, and of a record unless the data says otherwise.
pub const BLOCK_BYTES: usize = 64 << 10;

/// How the bytes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// By one machine, into an empty vault.
    Once,
    /// After the same bytes were sent before, which isn't measured.
    Again,
    /// By two machines at the same time.
    Twice,
}

/// One kind of input.
pub struct Data {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub record_bytes: usize,
    /// Of each record, as its agent computed it.
    pub checksums: Vec<Checksum>,
    pub sent: Sent,
}

impl Data {
    fn new(name: &'static str, bytes: Vec<u8>, record_bytes: usize, sent: Sent) -> Self {
        let checksums = bytes.chunks(record_bytes).map(Checksum::of).collect();
        Self { name, bytes, record_bytes, checksums, sent }
    }

    /// Bytes that all machines send.
    pub fn sent_bytes(&self) -> usize {
        self.bytes.len() * if self.sent == Sent::Twice { 2 } else { 1 }
    }
}

/// Every kind, or the one that is named, one at a time, each of `bytes` bytes.
pub fn all(bytes: usize, only: Option<&str>) -> impl Iterator<Item = Data> {
    type Make = fn(usize) -> Vec<u8>;
    let kinds: [(&str, Make, usize, Sent); 7] = [
        ("programs", programs, BLOCK_BYTES, Sent::Once),
        ("text", text, BLOCK_BYTES, Sent::Once),
        ("random", random, BLOCK_BYTES, Sent::Once),
        ("zeros", zeros, BLOCK_BYTES, Sent::Once),
        ("programs, known already", programs, BLOCK_BYTES, Sent::Again),
        ("programs, two copies at once", programs, BLOCK_BYTES, Sent::Twice),
        ("programs in 4 KiB writes", programs, 4 << 10, Sent::Once),
    ];
    kinds
        .into_iter()
        .filter(move |(name, ..)| only.is_none_or(|only| only == *name))
        .map(move |(name, make, record, sent)| Data::new(name, make(bytes), record, sent))
}

fn zeros(bytes: usize) -> Vec<u8> {
    // Written, not merely reserved: fresh pages would be measured otherwise.
    let mut zeros = vec![1; bytes];
    zeros.fill(0);
    zeros
}

/// SplitMix64, as in the tests of the pipeline.
fn noise() -> impl FnMut() -> u64 {
    let mut state = 7_u64;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn random(bytes: usize) -> Vec<u8> {
    let mut noise = noise();
    std::iter::repeat_with(|| noise().to_le_bytes()).flatten().take(bytes).collect()
}

/// Lines of words, some far more frequent than others.
fn text(bytes: usize) -> Vec<u8> {
    let mut noise = noise();
    let mut word = || {
        let letters = 2 + noise() % 9;
        let letter = |_| b"etaoinshrdlucmfwypvbgkjqxz"[(noise() % 26).min(noise() % 26) as usize];
        (0..letters).map(letter).collect::<Vec<u8>>()
    };
    let words: Vec<Vec<u8>> = (0..4096).map(|_| word()).collect();
    let mut text = Vec::with_capacity(bytes + 64);
    let mut column = 0;
    while text.len() < bytes {
        let rank = noise() >> 52;
        let word = &words[((rank * rank) >> 12) as usize];
        text.extend_from_slice(word);
        column += word.len() + 1;
        text.push(if column > 90 { b'\n' } else { b' ' });
        column %= 91;
    }
    text.truncate(bytes);
    text
}

/// Programs and libraries of this host, in the order of their names; text where they don't reach.
fn programs(bytes: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(bytes);
    for folder in ["/usr/bin", "/usr/sbin", "/usr/lib"] {
        gather(Path::new(folder), bytes, &mut all);
    }
    let missing = bytes.saturating_sub(all.len());
    all.extend_from_slice(&text(missing));
    all.truncate(bytes);
    all
}

fn gather(folder: &Path, bytes: usize, all: &mut Vec<u8>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if all.len() >= bytes {
            return;
        }
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => gather(&path, bytes, all),
            // A file of more than a sixteenth of all would be all that is measured.
            Ok(found) if found.is_file() && found.len() <= bytes as u64 / 16 => {
                all.extend_from_slice(&fs::read(&path).unwrap_or_default());
                // Files begin at a block of their disk.
                all.resize(all.len().next_multiple_of(4096), 0);
            }
            _ => {}
        }
    }
}
