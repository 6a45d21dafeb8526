//! The floor: what each kernel costs by itself, called as its crate gives it, on the same bytes; and
//! how long all of them take on one thread and on two.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tidegate_pipeline::Stage;
use zstd::bulk::Compressor;

use crate::counting::thread_time;
use crate::data::{BLOCK_BYTES, Data};

/// Bytes of a unit's buffer.
const UNIT_BYTES: usize = 256 << 10;
const LEVEL: i32 = 1;

/// Nanoseconds a byte of each kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kernels {
    pub checksum: f64,
    pub zero_test: f64,
    pub hash: f64,
    pub compress: f64,
    pub seal: f64,
}

impl Kernels {
    /// The kernel that a stage must run; `None` for one that needs none.
    pub fn of(&self, stage: Stage) -> Option<f64> {
        match stage {
            Stage::Checksum => Some(self.checksum),
            Stage::ZeroTest => Some(self.zero_test),
            Stage::Hash => Some(self.hash),
            Stage::LookUp => None,
            Stage::Compress => Some(self.compress),
            Stage::Seal => Some(self.seal),
        }
    }
}

/// Runs each over all of the data, a unit at a time.
pub fn measure(data: &Data) -> Kernels {
    let (mut bench, clock) = (Bench::new(data.record_bytes), clock_cost());
    let mut run = |kernel: fn(&mut Bench, usize)| {
        let mut spent = Duration::ZERO;
        for chunk in data.bytes.chunks(UNIT_BYTES) {
            bench.fill(chunk);
            let begun = thread_time();
            kernel(&mut bench, chunk.len());
            spent += (thread_time() - begun).saturating_sub(clock);
        }
        nanos_per_byte(spent, data.bytes.len())
    };
    Kernels {
        checksum: run(Bench::checksum),
        zero_test: run(Bench::zero_test),
        hash: run(Bench::hash),
        compress: run(Bench::compress),
        seal: run(Bench::seal),
    }
}

/// How long it takes so many threads to run all of them over the data, unit after unit: what no
/// pipeline that begins with the same bytes in memory can gain more of.
pub fn wall(data: &Data, threads: usize) -> Duration {
    let next = AtomicUsize::new(0);
    let units: Vec<&[u8]> = data.bytes.chunks(UNIT_BYTES).collect();
    let mut benches: Vec<Bench> = (0..threads).map(|_| Bench::new(data.record_bytes)).collect();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for bench in &mut benches {
            scope.spawn(|| {
                while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                    bench.fill(unit);
                    bench.all(unit.len());
                }
            });
        }
    });
    begun.elapsed()
}

/// What a thread needs to run them: a unit's buffer, and room for what comes out.
struct Bench {
    unit: Vec<u8>,
    output: Vec<u8>,
    zeros: Vec<u8>,
    record_bytes: usize,
    compressor: Compressor<'static>,
    cipher: LessSafeKey,
    /// Sealed so far; no nonce is used twice.
    number: u64,
}

impl Bench {
    fn new(record_bytes: usize) -> Self {
        // The crate that the pipeline seals with: with a slower one the floor would lie too high.
        let cipher = UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("a key has 32 bytes");
        Self {
            unit: vec![1; UNIT_BYTES],
            output: vec![1; zstd::zstd_safe::compress_bound(UNIT_BYTES)],
            zeros: vec![0; BLOCK_BYTES],
            record_bytes,
            compressor: Compressor::new(LEVEL).expect("level 1 exists"),
            cipher: LessSafeKey::new(cipher),
            number: 0,
        }
    }

    /// As in the pipeline, the bytes have just come into the unit's buffer.
    fn fill(&mut self, chunk: &[u8]) {
        self.unit[..chunk.len()].copy_from_slice(chunk);
    }

    fn checksum(&mut self, bytes: usize) {
        for record in self.unit[..bytes].chunks(self.record_bytes) {
            std::hint::black_box(xxhash_rust::xxh3::xxh3_64(record));
        }
    }

    fn zero_test(&mut self, bytes: usize) {
        for block in self.unit[..bytes].chunks(BLOCK_BYTES) {
            std::hint::black_box(*block == self.zeros[..block.len()]);
        }
    }

    fn hash(&mut self, bytes: usize) {
        for block in self.unit[..bytes].chunks(BLOCK_BYTES) {
            std::hint::black_box(blake3::hash(block));
        }
    }

    /// From the unit's buffer into the output's.
    fn compress(&mut self, bytes: usize) {
        std::hint::black_box(self.packed(bytes));
    }

    fn packed(&mut self, bytes: usize) -> usize {
        let packed = self.compressor.compress_to_buffer(&self.unit[..bytes], &mut self.output[..]);
        packed.expect("the output has room for the worst")
    }

    /// The unit's buffer itself.
    fn seal(&mut self, bytes: usize) {
        seal(&self.cipher, &mut self.number, &mut self.unit[..bytes]);
    }

    /// All of them; what is sealed is what compressing made.
    fn all(&mut self, bytes: usize) {
        self.checksum(bytes);
        self.zero_test(bytes);
        self.hash(bytes);
        let packed = self.packed(bytes);
        seal(&self.cipher, &mut self.number, &mut self.output[..packed]);
    }
}

fn seal(cipher: &LessSafeKey, number: &mut u64, bytes: &mut [u8]) {
    let mut nonce = [0; 12];
    *number += 1;
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = cipher.seal_in_place_separate_tag(nonce, Aad::empty(), bytes);
    std::hint::black_box(tag.is_ok());
}

/// What reading the clock costs: a call of the system.
fn clock_cost() -> Duration {
    const READINGS: u32 = 1000;
    let begun = thread_time();
    (0..READINGS).for_each(|_| {
        std::hint::black_box(thread_time());
    });
    (thread_time() - begun) / READINGS
}

/// Nanoseconds a byte; 0 for no bytes.
#[allow(clippy::cast_precision_loss)] // figures for people
fn nanos_per_byte(spent: Duration, bytes: usize) -> f64 {
    spent.as_nanos() as f64 / (bytes.max(1)) as f64
}
