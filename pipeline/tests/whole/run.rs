//! One run of a server without threads: its pools, shards, workers, and what is between them.

use std::sync::Arc;

use tidegate_model::{FrameNumber, LogId, LogName, PackId, RunId};
use tidegate_pipeline::{
    Blanks, BufferPool, Effort, FullPack, Known, KnownBlocks, Logs, Shard, ShardSetup, StageTimes,
    Unit, Worker, WorkerSetup,
};
use tidegate_vault::pack::{FRAME_OVERHEAD_BYTES, PackWriter};
use tidegate_vault::seal::KeyRing;

use crate::judge::Judge;
use crate::machine::{BLOCK, RECORD_BYTES_MAX};
use crate::vault::Told;

const SMALL: usize = RECORD_BYTES_MAX + FRAME_OVERHEAD_BYTES;
const LARGE: usize = 4 * RECORD_BYTES_MAX + FRAME_OVERHEAD_BYTES;
/// As much as the smallest pack buffer: where one doesn't fit any more, the pack closes before it.
const LONG: usize = 5 * RECORD_BYTES_MAX + FRAME_OVERHEAD_BYTES;
pub const PACK_AGE: u64 = 250_000;
pub const PACK_AGE_IDLE: u64 = 2_000_000;

/// How a world is shaped.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub seed: u64,
    pub shards: usize,
    pub workers: usize,
    pub machines: usize,
    pub records: usize,
    pub large_buffers: usize,
    pub pack_buffers: usize,
    pub pack_close_bytes: usize,
    pub packs_in_flight: usize,
    pub units_in_flight: usize,
    /// One record in so many arrives with a changed byte; 0 for none.
    pub spoil_one_in: usize,
}

/// A unit between dispatch and pack.
pub struct Away {
    pub unit: Unit,
    pub shard: usize,
    pub frame: u64,
}

/// The run.
pub struct Run {
    known: Arc<KnownBlocks>,
    pub logs: Logs,
    pub names: Vec<LogName>,
    pub small: BufferPool,
    pub large: BufferPool,
    pub long: BufferPool,
    pub blanks: Blanks,
    pub packs: Vec<BufferPool>,
    pub shards: Vec<Shard>,
    pub workers: Vec<Worker>,
    pub times: Arc<StageTimes>,
    /// Units that each shard gave a place, and those that came home.
    pub dispatched: Vec<u64>,
    pub packed: Vec<u64>,
    pub closed: Vec<u64>,
    pub counted: Vec<u64>,
    pub at_cores: Vec<Away>,
    pub homeward: Vec<Away>,
    pub uploads: Vec<FullPack>,
    pub judge: Judge,
}

impl Run {
    pub fn new(shape: &Shape, ring: &KeyRing, run: u8) -> Self {
        let names: Vec<LogName> = (0..shape.shards).map(|shard| log_name(run, shard)).collect();
        let ciphers = |name: &LogName| ring.log_ciphers(1, name.id).unwrap();
        let logs = Logs::default();
        let known = Arc::new(KnownBlocks::new(0));
        let times = Arc::new(StageTimes::default());
        let small = BufferPool::new("small", SMALL, shape.machines + shape.workers);
        let large = BufferPool::new("large", LARGE, shape.large_buffers + shape.workers);
        let long = BufferPool::new("long", LONG, shape.large_buffers + shape.workers);
        let setup = WorkerSetup {
            block_bytes: u32::try_from(BLOCK).unwrap(),
            effort: Arc::new(Effort::new(1, None, LONG)),
            key_version: 1,
            ciphers: names.iter().map(ciphers).collect(),
            namer: ring.block_namer(),
            known: known.clone(),
            logs: logs.clone(),
            times: times.clone(),
        };
        let pools = [small.clone(), large.clone(), long.clone()];
        let worker = |_| Worker::new(setup.clone(), &pools).unwrap();
        let pack_bytes = shape.pack_close_bytes + LARGE;
        assert!(pack_bytes >= LONG);
        let pool = |_| BufferPool::new("packs", pack_bytes, shape.pack_buffers);
        let packs: Vec<BufferPool> = (0..shape.shards).map(pool).collect();
        let blanks = Blanks::new(shape.units_in_flight);
        let shard = |(number, name): (usize, &LogName)| {
            let slot = logs.add(name).unwrap();
            let block = u32::try_from(BLOCK).unwrap();
            let mut id = 0_u128;
            Shard::new(ShardSetup {
                shard: u16::try_from(number).unwrap(),
                writer: PackWriter::new(ring.vault(), name.clone(), 1, block, ciphers(name)),
                slot,
                logs: logs.clone(),
                pack_buffers: packs[number].clone(),
                pack_close_bytes: shape.pack_close_bytes,
                pack_age: PACK_AGE,
                pack_age_idle: PACK_AGE_IDLE,
                packs_in_flight_max: shape.packs_in_flight,
                units_in_flight_max: shape.units_in_flight,
                blanks: blanks.clone(),
                condemned_list: 0,
                pack_ids: Box::new(move || {
                    id += 1;
                    PackId::from_bytes(id.to_le_bytes())
                }),
            })
        };
        Self {
            known,
            shards: names.iter().enumerate().map(shard).collect(),
            workers: (0..shape.workers).map(worker).collect(),
            logs,
            names,
            small,
            large,
            long,
            blanks,
            packs,
            times,
            dispatched: vec![0; shape.shards],
            packed: vec![0; shape.shards],
            closed: vec![0; shape.shards],
            counted: vec![0; shape.shards],
            at_cores: Vec::new(),
            homeward: Vec::new(),
            uploads: Vec::new(),
            judge: Judge::default(),
        }
    }

    /// Makes known what the packs that count have, as a server does at its start.
    pub fn refill(&self, told: &Told) {
        let mut packs: Vec<_> = told.packs.iter().collect();
        packs.sort_by_key(|(place, _)| **place);
        for ((log, number), pack) in packs {
            let name = LogName { id: *log, ..log_name(0, 0) };
            let slot = self.logs.add(&name).expect("logs are few");
            let first = pack.header.first_frame;
            self.logs.place_pack(slot, first, *number);
            let end = pack.index.frames.last().map_or(first, |frame| frame.number.next());
            self.logs.commit(slot, end);
        }
        for (log, _, frame, ordinal, name) in &told.named {
            let log = self.logs.slot(*log).expect("its packs were just made known");
            let frame = FrameNumber(*frame);
            self.known.insert(*name, Known { log, frame, ordinal: *ordinal });
        }
    }
}

pub fn log_name(run: u8, shard: usize) -> LogName {
    let id = LogId { run: RunId::from_bytes([run; 16]), shard: u16::try_from(shard).unwrap() };
    LogName { node: "ps-1".parse().unwrap(), id }
}
