//! The pipeline as a whole, without threads, sockets or clocks: a seed decides what the machines
//! send, which core works on what, when packs are stored, when sessions end and servers crash.
//!
//! `machine` knows what was sent, `vault` reads back what is stored, `judge` knows the rules,
//! `world` moves; `agents`, `run` and `checks` are its parts.

#![allow(clippy::unwrap_used)] // its parts are tests, though their functions aren't

mod agents;
mod chance;
mod checks;
mod focused;
mod judge;
mod machine;
mod run;
mod stalled;
mod vault;
mod world;

use proptest::prelude::*;

use run::Shape;
use world::World;

/// Any world: the seed does most, the sizes decide what runs into what.
fn shapes() -> impl Strategy<Value = Shape> {
    let work = (any::<u64>(), 1..4_usize, 1..4_usize, 1..6_usize, 4..60_usize);
    let room = (0..4_usize, 1..5_usize, 1..9_usize, 1..6_usize, 1..12_usize);
    (work, room).prop_map(|(work, room)| {
        let (seed, shards, workers, machines, records) = work;
        let (large_buffers, pack_buffers, pack_close, packs_in_flight, units_in_flight) = room;
        Shape {
            seed,
            shards,
            workers,
            machines,
            records,
            large_buffers,
            pack_buffers,
            pack_close_bytes: pack_close * 16_384,
            packs_in_flight,
            units_in_flight,
            spoil_one_in: 0,
        }
    })
}

fn steps(shape: &Shape) -> usize {
    shape.machines * shape.records * 3
}

/// A world is hundreds of steps: it counts for so many inputs of PROPTEST_CASES.
const INPUTS_PER_WORLD: u32 = 200;

/// So many worlds, or more if the environment asks for it.
fn cases(count: u32) -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    ProptestConfig { cases: count.max(config.cases / INPUTS_PER_WORLD), ..config }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn all_that_is_acknowledged_reads_back_from_the_packs_that_count(shape in shapes()) {
        let mut world = World::new(shape);
        for _ in 0..steps(&shape) {
            world.step();
        }
        world.check_vault();
        world.finish();
    }

    #[test]
    fn a_crash_at_any_moment_loses_nothing_that_was_acknowledged(shape in shapes()) {
        let mut world = World::new(shape);
        for crash in 0..3 {
            for _ in 0..steps(&shape) / (2 + crash) {
                world.step();
            }
            world.crash();
        }
        world.finish();
    }

    #[test]
    fn a_spoiled_record_ends_its_own_stream_and_loses_nothing_else(shape in shapes()) {
        let mut world = World::new(Shape { spoil_one_in: 12, ..shape });
        for _ in 0..steps(&shape) {
            world.step();
        }
        world.check_vault();
        world.shape.spoil_one_in = 0;
        world.finish();
    }
}
