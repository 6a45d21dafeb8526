//! What the stages call, each by itself on one unit, by criterion: whether a change to one of them
//! made it faster, told from noise.
//!
//! ```text
//! cargo bench --bench kernels                            all
//! cargo bench --bench kernels -- compress                those whose names hold a word
//! cargo bench --bench kernels -- --save-baseline before  then, changed: -- --baseline before
//! cargo test --bench kernels                             each once, as in the gate
//! ```
//!
//! In the caches: what the stages cost where everything else takes its part of them is told by
//! `stages.rs`, and whether they are what they must be.

#[allow(dead_code)] // how the bytes are cut and sent is for the stages
#[path = "stages/data.rs"]
mod data;

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use data::BLOCK_BYTES;
use tidegate_model::{BlockName, Checksum, FrameNumber, LogId, LogName, RunId, VaultId};
use tidegate_pipeline::{Known, KnownBlocks, Logs};
use tidegate_vault::pack::FRAME_HEADER_BYTES;
use tidegate_vault::seal::{BlockNamer, KeyRing, Secret};
use zstd::bulk::Compressor;

/// Bytes of a unit of whole blocks.
const UNIT_BYTES: usize = 256 << 10;
/// The fastest that peers' points ask for, the usual one, and the first with long frames.
const LEVELS: [i32; 3] = [-5, 1, 3];
/// A table of 350,000 entries, which no cache holds, and the names in it.
const TABLE_BYTES: usize = 16 << 20;
const NAMES: u64 = 200_000;

fn kernels(criterion: &mut Criterion) {
    let unit = data::all(UNIT_BYTES, Some("programs")).next().expect("there is such data").bytes;
    let zeros = vec![0; UNIT_BYTES];
    let ring =
        KeyRing::new(VaultId::from_bytes([1; 16]), BTreeMap::from([(1, Secret::new([7; 32]))]));
    let id = LogId { run: RunId::from_bytes([2; 16]), shard: 0 };
    let mut group = criterion.benchmark_group("unit");
    group.throughput(Throughput::Bytes(UNIT_BYTES as u64));

    group.bench_function("checksum", |bencher| {
        bencher.iter(|| {
            black_box(&unit).chunks(BLOCK_BYTES).for_each(|block| {
                black_box(Checksum::of(block));
            });
        });
    });
    // Other bytes end it at the first that isn't zero.
    group.bench_function("zero test of zeros", |bencher| {
        bencher.iter(|| black_box(&zeros).chunks(BLOCK_BYTES).all(tidegate_model::is_zero));
    });
    let namer = ring.block_namer();
    group.bench_function("hash", |bencher| {
        bencher.iter(|| {
            black_box(&unit).chunks(BLOCK_BYTES).for_each(|block| {
                black_box(namer.name_block(block));
            });
        });
    });
    let mut output = vec![1; zstd::zstd_safe::compress_bound(UNIT_BYTES)];
    for level in LEVELS {
        let mut compressor = Compressor::new(level).expect("the level exists");
        group.bench_function(format!("compress at {level}"), |bencher| {
            bencher.iter(|| compressor.compress_to_buffer(black_box(&unit), &mut output[..]));
        });
    }
    let ciphers = ring.log_ciphers(1, id).expect("the ring has version 1");
    let (mut sealed, mut number) = (unit.clone(), FrameNumber(0));
    group.bench_function("seal", |bencher| {
        bencher.iter(|| {
            number.0 += 1;
            ciphers.seal_frame(number, &[0; FRAME_HEADER_BYTES], &mut sealed)
        });
    });
    group.finish();
    look_up(criterion, &namer, id);
}

/// As many blocks as a unit has, in a table where each is known.
fn look_up(criterion: &mut Criterion, namer: &BlockNamer, id: LogId) {
    let name = LogName { node: "bench".parse().expect("a name"), id };
    let mine = Known {
        log: Logs::default().add(&name).expect("it is the first"),
        frame: FrameNumber(1),
        ordinal: 0,
    };
    let table = KnownBlocks::new(TABLE_BYTES);
    let name_of = |number: u64| namer.name_block(&number.to_le_bytes());
    let names: Vec<BlockName> = (0..NAMES).map(name_of).collect();
    names.iter().for_each(|name| table.insert(*name, mine));
    let mut next = names.iter().copied().cycle();
    let blocks = UNIT_BYTES / BLOCK_BYTES;
    criterion.bench_function("unit/look up", |bencher| {
        bencher.iter(|| {
            next.by_ref().take(blocks).for_each(|name| {
                black_box(table.find_or_insert(name, mine, |_| true));
            });
        });
    });
}

criterion_group!(benches, kernels);
criterion_main!(benches);
