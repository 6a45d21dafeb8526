//! A store that takes nothing: what the pipeline holds then is bounded, and it goes on afterwards.

use crate::run::Shape;
use crate::world::World;

#[test]
fn with_a_stalled_store_hundreds_of_streams_stop_growing_and_resume() {
    let shape = Shape {
        seed: 1,
        shards: 2,
        workers: 2,
        machines: 300,
        records: 24,
        large_buffers: 16,
        pack_buffers: 3,
        pack_close_bytes: 64 << 10,
        packs_in_flight: 6,
        units_in_flight: 64,
        spoil_one_in: 0,
    };
    let mut world = World::new(shape);
    for stall in 0..2 {
        world.store_is_stalled = true;
        let before = world.progress();
        let stopped = (0..500).find(|_| {
            let before = world.progress();
            world.round();
            before == world.progress()
        });
        assert!(stopped.is_some(), "it goes on growing");
        assert_ne!(before, world.progress(), "it went as far as it could");
        let (units, packs) = world.in_flight();
        assert!(units <= shape.shards * shape.units_in_flight, "{units}");
        assert!(packs <= shape.shards * shape.packs_in_flight, "{packs}");
        assert!(!world.is_all_committed());
        world.check_vault();
        world.store_is_stalled = false;
        (0..2 + stall).for_each(|_| world.round());
    }
    world.finish();
}
