//! The pipeline, fed from memory, with a store that discards: one thread that gathers, packs and
//! works, as a shard's executor does, and perhaps a second that works on units too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tidegate_model::{
    DiskNumber, Epoch, Extent, LogId, LogName, Lsn, Micros, PackId, RunId, VaultId,
};
use tidegate_pipeline::{
    Admission, Blanks, BufferPool, Effort, FullPack, Homecoming, KnownBlocks, Logs, Mailbox,
    MemoryPlan, Shard, ShardSetup, Stage, StageTimes, Stream, StreamTotals, Unit, UnitBuilder,
    Worker, WorkerSetup,
};
use tidegate_vault::pack::PackWriter;
use tidegate_vault::seal::{KeyRing, Secret};

use crate::counting;
use crate::data::{BLOCK_BYTES, Data, Sent};

const MEMORY_BYTES: usize = 512 << 20;
const TABLE_BYTES: usize = 16 << 20;
const UNITS_IN_FLIGHT: usize = 64;
const BLOCK: u32 = 64 << 10;
/// The time when everything happens.
const START: Micros = Micros(1);
/// Units that are fed ahead of each worker.
const AHEAD: usize = 2;

/// The memory of all rounds, touched once.
pub struct Host {
    ring: KeyRing,
    plan: MemoryPlan,
    small: BufferPool,
    large: BufferPool,
    packs: BufferPool,
}

/// What a round measured; times of stages by the wall clock.
#[derive(Debug, Clone, Default)]
pub struct Round {
    pub wall: Duration,
    /// Processor time of all threads.
    pub cpu: Duration,
    /// Nanoseconds and bytes of each stage, in the order of [`Stage::ALL`].
    pub stages: Vec<(u64, u64)>,
    /// Copying into units' buffers, which a server's receiving does.
    pub gather: Duration,
    /// Dispatch, homecoming, packs and commits.
    pub pack: Duration,
    pub totals: StreamTotals,
    /// Bytes of all packs.
    pub output_bytes: u64,
    pub allocations: u64,
    pub units: u64,
}

impl Host {
    pub fn new() -> Self {
        let plan = MemoryPlan::new(MEMORY_BYTES, 2, BLOCK_BYTES).expect("it is enough for two");
        let ring =
            KeyRing::new(VaultId::from_bytes([1; 16]), BTreeMap::from([(1, Secret::new([7; 32]))]));
        let pool = |name, bytes, count| {
            let pool = BufferPool::new(name, bytes, count);
            // Fresh pages cost several times what touched ones do.
            let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
            all.into_iter().for_each(|mut buffer| buffer.fill(1));
            pool
        };
        Self {
            small: pool("small", plan.small_buffer_bytes, 4),
            large: pool("large", plan.large_buffer_bytes, UNITS_IN_FLIGHT + 4),
            packs: pool("packs", plan.pack_buffer_bytes, plan.pack_buffers_per_shard),
            ring,
            plan,
        }
    }

    /// Sends all of the data through, with so many workers.
    pub fn run(&self, data: &Data, workers: usize) -> Round {
        let mut line = Line::new(self, workers);
        let streams = if data.sent == Sent::Twice { 2 } else { 1 };
        std::thread::scope(|scope| {
            for mut worker in line.spares.drain(..) {
                let (units, home, stop) =
                    (line.units.clone(), line.home.clone(), line.stop.clone());
                line.threads.push(
                    scope.spawn(move || work(&mut worker, &units, &home, &stop)).thread().clone(),
                );
            }
            if data.sent == Sent::Again {
                line.feed(data, 1);
            }
            let before = line.reading();
            let begun = Instant::now();
            line.feed(data, streams);
            let wall = begun.elapsed();
            let round = Round { wall, ..line.reading().since(&before) };
            line.stop.store(true, Ordering::Release);
            line.threads.iter().for_each(Thread::unpark);
            round
        })
    }
}

/// One shard and its workers.
struct Line {
    shard: Shard,
    worker: Worker,
    spares: Vec<Worker>,
    threads: Vec<Thread>,
    units: Mailbox<Unit>,
    home: Mailbox<Unit>,
    stop: Arc<AtomicBool>,
    times: Arc<StageTimes>,
    large: BufferPool,
    blanks: Blanks,
    /// Streams so far: the next one's id.
    streams: u64,
    so_far: Round,
    now: Micros,
    homes: Vec<Homecoming>,
    full: Vec<FullPack>,
}

impl Line {
    fn new(host: &Host, workers: usize) -> Self {
        let id = LogId { run: RunId::from_bytes([2; 16]), shard: 0 };
        let name = LogName { node: "bench".parse().expect("a name"), id };
        let ciphers = host.ring.log_ciphers(1, id).expect("the ring has version 1");
        let logs = Logs::default();
        let times = Arc::new(StageTimes::default());
        let setup = WorkerSetup {
            block_bytes: BLOCK,
            effort: Arc::new(Effort::new(1, None, BLOCK_BYTES)),
            key_version: 1,
            ciphers: Arc::new([ciphers.clone()]),
            namer: host.ring.block_namer(),
            known: Arc::new(KnownBlocks::new(TABLE_BYTES)),
            logs: logs.clone(),
            times: times.clone(),
        };
        let pools = [host.small.clone(), host.large.clone()];
        let worker = || Worker::new(setup.clone(), &pools).expect("level 1 exists");
        let slot = logs.add(&name).expect("it is the first");
        let blanks = Blanks::new(UNITS_IN_FLIGHT);
        let shard = Shard::new(ShardSetup {
            shard: 0,
            writer: PackWriter::new(host.ring.vault(), name, 1, BLOCK, ciphers),
            slot,
            logs,
            pack_buffers: host.packs.clone(),
            pack_close_bytes: host.plan.pack_close_bytes,
            pack_age: 250_000,
            pack_age_idle: 2_000_000,
            packs_in_flight_max: host.plan.pack_buffers_per_shard,
            units_in_flight_max: UNITS_IN_FLIGHT,
            blanks: blanks.clone(),
            condemned_list: 0,
            pack_ids: Box::new(|| PackId::from_bytes([9; 16])),
        });
        Self {
            shard,
            worker: worker(),
            spares: (1..workers).map(|_| worker()).collect(),
            threads: Vec::new(),
            units: Mailbox::new("units", UNITS_IN_FLIGHT),
            home: Mailbox::new("home", UNITS_IN_FLIGHT),
            stop: Arc::default(),
            times,
            large: host.large.clone(),
            blanks,
            streams: 0,
            so_far: Round::default(),
            now: START,
            homes: Vec::new(),
            full: Vec::new(),
        }
    }

    /// Sends the data as `streams` machines, in turns, and waits until all is committed.
    fn feed(&mut self, data: &Data, streams: u64) {
        let ids = self.streams..self.streams + streams;
        self.streams = ids.end;
        let mut senders: Vec<Sender<'_>> = (0..)
            .zip(ids)
            .map(|(machine, id)| Sender::new(data, machine, id, self.blanks.clone()))
            .collect();
        let ahead = AHEAD * (self.threads.len() + 1);
        while senders.iter().any(|sender| !sender.is_done()) {
            for sender in &mut senders {
                if sender.is_done() {
                    continue;
                }
                let buffer = self.large.take().expect("there are as many as units in flight");
                let begun = Instant::now();
                let unit = sender.unit(buffer);
                self.so_far.gather += begun.elapsed();
                self.dispatch(unit);
                while self.units.len() >= ahead {
                    self.work();
                }
            }
        }
        while self.shard.units_in_flight() > 0 {
            self.work();
        }
        self.now.0 += 10_000_000;
        self.advance();
    }

    fn dispatch(&mut self, mut unit: Unit) {
        let begun = Instant::now();
        loop {
            match self.shard.dispatch(unit) {
                Admission::Placed(unit) => {
                    assert!(self.units.post(unit).is_ok(), "it holds all that may be under way");
                    break;
                }
                Admission::Later(back) => unit = back,
            }
            self.work();
        }
        self.so_far.units += 1;
        self.so_far.pack += begun.elapsed();
    }

    /// Works on a unit, if there is one, and packs what has come home.
    fn work(&mut self) {
        if let Some(mut unit) = self.units.take() {
            self.worker.process(&mut unit);
            self.shard.come_home(unit);
        } else if self.home.is_empty() {
            std::hint::spin_loop();
            return;
        }
        self.advance();
    }

    fn advance(&mut self) {
        let begun = Instant::now();
        while let Some(unit) = self.home.take() {
            self.shard.come_home(unit);
        }
        self.shard.advance(self.now, &mut self.homes, &mut self.full);
        self.homes.clear();
        let (mut committed, mut latencies) = (Vec::new(), Vec::new());
        while let Some(pack) = self.full.pop() {
            let number = pack.header.number;
            self.so_far.output_bytes += pack.header.object_bytes;
            // The store discards it.
            drop(pack);
            self.shard.stored(number, self.now, &mut committed, &mut latencies);
        }
        committed.iter().for_each(|news| self.so_far.totals.add(&news.totals));
        self.so_far.pack += begun.elapsed();
    }

    fn reading(&self) -> Round {
        Round {
            stages: Stage::ALL.map(|stage| self.times.get(stage)).to_vec(),
            allocations: counting::allocations(),
            cpu: counting::process_time(),
            ..self.so_far.clone()
        }
    }
}

impl Round {
    /// Processor time a wall time: below the number of workers where others had the cores.
    pub fn busy(&self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }

    fn since(&self, before: &Self) -> Self {
        let stages = self.stages.iter().zip(&before.stages);
        let (now, then) = (&self.totals, &before.totals);
        Self {
            wall: Duration::ZERO,
            cpu: self.cpu - before.cpu,
            stages: stages.map(|(now, then)| (now.0 - then.0, now.1 - then.1)).collect(),
            gather: self.gather - before.gather,
            pack: self.pack - before.pack,
            totals: StreamTotals {
                zero_bytes: now.zero_bytes - then.zero_bytes,
                deduplicated_bytes: now.deduplicated_bytes - then.deduplicated_bytes,
                kept_bytes: now.kept_bytes - then.kept_bytes,
                stored_bytes: now.stored_bytes - then.stored_bytes,
            },
            output_bytes: self.output_bytes - before.output_bytes,
            allocations: self.allocations - before.allocations,
            units: self.units - before.units,
        }
    }
}

/// A machine that sends the data.
struct Sender<'a> {
    data: &'a Data,
    builder: UnitBuilder,
    next: usize,
}

impl<'a> Sender<'a> {
    fn new(data: &'a Data, machine: u64, id: u64, blanks: Blanks) -> Self {
        let machine = format!("machine-{machine}").parse().expect("a name");
        let stream = Arc::new(Stream { machine, epoch: Epoch(1), id, committed: Lsn::NONE });
        Self { data, builder: UnitBuilder::new(stream, data.record_bytes, blanks), next: 0 }
    }

    fn is_done(&self) -> bool {
        self.next == self.data.checksums.len()
    }

    /// The next records, as many as fit.
    fn unit(&mut self, buffer: tidegate_pipeline::Buffer) -> Unit {
        self.builder.give_buffer(buffer);
        while !self.is_done() && !self.builder.is_full() {
            let begin = self.next * self.data.record_bytes;
            let end = (begin + self.data.record_bytes).min(self.data.bytes.len());
            let bytes = &self.data.bytes[begin..end];
            self.builder.space(0, bytes.len()).copy_from_slice(bytes);
            let extent = Extent {
                disk: DiskNumber::default(),
                offset: begin as u64,
                length: bytes.len() as u64,
            };
            let lsn = Lsn(self.next as u64 + 1);
            let checksum = self.data.checksums[self.next];
            self.builder.add_write(lsn, Micros(lsn.0), extent, checksum, || START);
            self.next += 1;
        }
        self.builder.close(false).expect("it has a record")
    }
}

/// The second core: works on whatever there is, and sleeps when there is nothing.
fn work(worker: &mut Worker, units: &Mailbox<Unit>, home: &Mailbox<Unit>, stop: &AtomicBool) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    while !stop.load(Ordering::Acquire) {
        match units.poll_take(&mut context) {
            Poll::Ready(mut unit) => {
                worker.process(&mut unit);
                assert!(home.post(unit).is_ok(), "it holds all that may be under way");
            }
            Poll::Pending => std::thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
