//! The floor: what each kernel costs by itself, called as its crate gives it, on the same bytes.

use std::time::Duration;

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
    let mut unit = vec![1; UNIT_BYTES];
    let mut output = vec![1; zstd::zstd_safe::compress_bound(UNIT_BYTES)];
    let mut compressor = Compressor::new(LEVEL).expect("level 1 exists");
    // The crate that the pipeline seals with: with a slower one the floor would lie too high.
    let cipher = UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("a key has 32 bytes");
    let cipher = LessSafeKey::new(cipher);
    let zeros = vec![0; BLOCK_BYTES];
    let mut number = 0_u64;
    let clock = clock_cost();
    let mut run = |kernel: &mut dyn FnMut(&mut [u8])| {
        let mut spent = Duration::ZERO;
        for chunk in data.bytes.chunks(UNIT_BYTES) {
            // As in the pipeline, the bytes have just come into the unit's buffer.
            unit[..chunk.len()].copy_from_slice(chunk);
            let begun = thread_time();
            kernel(&mut unit[..chunk.len()]);
            spent += (thread_time() - begun).saturating_sub(clock);
        }
        nanos_per_byte(spent, data.bytes.len())
    };
    Kernels {
        checksum: run(&mut |unit| {
            for record in unit.chunks(data.record_bytes) {
                std::hint::black_box(xxhash_rust::xxh3::xxh3_64(record));
            }
        }),
        zero_test: run(&mut |unit| {
            for block in unit.chunks(BLOCK_BYTES) {
                std::hint::black_box(*block == zeros[..block.len()]);
            }
        }),
        hash: run(&mut |unit| {
            for block in unit.chunks(BLOCK_BYTES) {
                std::hint::black_box(blake3::hash(block));
            }
        }),
        compress: run(&mut |unit| {
            let packed = compressor.compress_to_buffer(unit, output.as_mut_slice());
            std::hint::black_box(packed.expect("the output has room for the worst"));
        }),
        seal: run(&mut |unit| {
            let mut nonce = [0; 12];
            number += 1;
            nonce[..8].copy_from_slice(&number.to_le_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = cipher.seal_in_place_separate_tag(nonce, Aad::empty(), unit);
            std::hint::black_box(tag.is_ok());
        }),
    }
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
