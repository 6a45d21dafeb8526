//! What is on its way: late, out of order, bounded, damaged, dropped.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tidegate_model::DiskNumber;
use tidegate_model::limits::FRAME_BYTES_MAX;

use super::*;
use crate::log::CACHE_BYTES_DEFAULT;
use crate::log::buffers::Buffers;
use crate::restore::{Part, Waiting, WriteError, Writer};
use crate::store::Store;
use crate::testing::LateStore;

const FEW: Means = Means { threads: 3, buffers: 2, runs: 3 };

pub(super) fn noise(seed: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A machine whose disk holds so many frames of noise, each of `bytes`, two in a pack; the paths of
/// its packs.
pub(super) async fn noisy(
    vault: &mut TestVault,
    frames: u64,
    bytes: u64,
) -> (TestMachine, Vec<String>) {
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(vault, 1));
    let mut paths = Vec::new();
    machine.does(Op::Disk(disk(0, frames * bytes)));
    for frame in 0..frames {
        machine.does(Op::Write(extent(0, frame * bytes, bytes), noise(frame, bytes)));
        machine.send(vault);
        machine.log.seal(vault);
        if frame % 2 == 1 {
            paths.push(machine.store(vault).await);
        }
    }
    (machine, paths)
}

pub(super) fn late_reader(vault: &TestVault, seed: u64) -> (Arc<LateStore>, LogReader) {
    let late = LateStore::new(vault.objects.clone(), seed);
    let store = Store::over(late.clone(), "memory://late");
    (late, LogReader::new(store, vault.ring.clone(), CACHE_BYTES_DEFAULT))
}

async fn plan(vault: &TestVault, machine: &TestMachine) -> RestorePlan {
    let history = machine.history(vault).await;
    let lsn = Lsn(machine.ops.len() as u64);
    let point = Point { epoch: machine.of.1, lsn };
    RestorePlan::build(&vault.reader(), &history, point, &[]).await.unwrap()
}

/// Takes the bytes of one disk, which it knows: refuses others. Its writers keep what they are
/// given until they have no buffer left, and count what they hold.
struct Watching {
    whole: Vec<u8>,
    writers: AtomicUsize,
    /// Memory of all buffers that there are.
    memory_bytes: AtomicUsize,
    written: AtomicUsize,
    finished: AtomicBool,
    panics: bool,
}

impl Watching {
    fn over(machine: &TestMachine) -> Arc<Self> {
        let whole = machine.states.last().unwrap()[&DiskNumber::try_from(0).unwrap()].clone();
        Arc::new(Self::of(whole, false))
    }

    fn of(whole: Vec<u8>, panics: bool) -> Self {
        let (writers, memory_bytes, written, finished) = Default::default();
        Self { whole, writers, memory_bytes, written, finished, panics }
    }
}

impl Sink for Watching {
    fn write(&self, _disk: DiskNumber, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.panics, "this sink panics");
        let begin = usize::try_from(offset).unwrap();
        if self.whole[begin..begin + bytes.len()] != *bytes {
            return Err(io::Error::other("these aren't the bytes that belong there"));
        }
        self.written.fetch_add(bytes.len(), Ordering::SeqCst);
        Ok(())
    }

    fn zero(&self, _disk: DiskNumber, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        self.finished.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn writer(&self, buffers: usize) -> Box<dyn Writer + '_> {
        self.writers.fetch_add(1, Ordering::SeqCst);
        Box::new(Holding {
            sink: self,
            free: vec![Vec::new(); buffers],
            given_bytes: 0,
            held: Vec::new(),
        })
    }
}

struct Holding<'s> {
    sink: &'s Watching,
    free: Vec<Vec<u8>>,
    /// Memory of the buffer that was given out.
    given_bytes: usize,
    held: Vec<(Vec<u8>, Vec<Part>)>,
}

impl Writer for Holding<'_> {
    fn buffer(&mut self) -> Result<Vec<u8>, WriteError> {
        if self.free.is_empty() {
            self.flush()?;
        }
        let buffer = self.free.pop().expect("no more are taken than given back");
        self.given_bytes = buffer.capacity();
        Ok(buffer)
    }

    fn write(&mut self, buffer: Vec<u8>, parts: &[Part]) -> Result<(), WriteError> {
        let grown = buffer.capacity() - self.given_bytes;
        self.sink.memory_bytes.fetch_add(grown, Ordering::SeqCst);
        self.held.push((buffer, parts.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        for (buffer, parts) in self.held.drain(..) {
            let mut waiting = Waiting::new(self.sink);
            waiting.write(buffer, &parts)?;
            self.free.push(waiting.buffer()?);
        }
        Ok(())
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.sink.writers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Blocks of another machine, in many old packs, to which this one's blocks refer in another order.
pub(super) async fn referring(vault: &mut TestVault) -> TestMachine {
    let blocks = |machine: &mut TestMachine, vault: &mut TestVault, at: u64, seed: u64| {
        machine.does(Op::Write(extent(0, at * BLOCK, BLOCK), noise(seed, BLOCK)));
        machine.send(vault);
        if seed.is_multiple_of(3) {
            machine.log.seal(vault);
        }
    };
    let mut other = TestMachine::new("old", 1, TestLog::new(vault, 1));
    other.does(Op::Disk(disk(0, 200 * BLOCK)));
    for seed in 0..200 {
        blocks(&mut other, vault, seed, seed);
        if seed % 8 == 7 {
            other.store(vault).await;
        }
    }
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(vault, 2));
    machine.does(Op::Disk(disk(0, 300 * BLOCK)));
    for at in 0..280 {
        // 71 has no factor in common with 200: every block of the other, scattered, and some twice.
        let seed = if at % 5 == 4 { 1000 + at } else { at * 71 % 200 };
        blocks(&mut machine, vault, at, seed);
    }
    machine.does(Op::Zero(extent(0, 100 * BLOCK, 3 * BLOCK)));
    machine.writes(extent(0, 50 * BLOCK + 7, 99), 3);
    machine.store(vault).await;
    machine
}

#[test]
fn a_machine_whose_blocks_lie_in_old_packs_of_others_comes_back_however_late_they_come() {
    run(async {
        let mut vault = TestVault::new();
        let machine = referring(&mut vault).await;
        let plan = plan(&vault, &machine).await;
        for seed in 0..4 {
            let (late, reader) = late_reader(&vault, seed);
            let sink = Arc::new(MemorySink::new(plan.disks()));
            plan.run(&reader, sink.clone(), FEW, &|_| ()).await.unwrap();
            assert!(sink.disks() == *machine.states.last().unwrap(), "the disks differ");
            // Each frame was fetched once, whoever refers to it and how often.
            let mut ranges = late.ranges.lock().unwrap().clone();
            assert!(ranges.len() > 20, "{ranges:?}");
            ranges.sort_by_key(|(path, range)| (path.clone(), range.start));
            for pair in ranges.windows(2) {
                let [(a, first), (b, next)] = pair else { continue };
                assert!(a != b || first.end <= next.start, "{a}: {first:?} and {next:?}");
            }
        }
    });
}

#[test]
fn what_is_on_its_way_stays_below_its_bound_with_the_longest_frames() {
    run(async {
        let mut vault = TestVault::new();
        let (machine, _) = noisy(&mut vault, 8, u64::from(FRAME_BYTES_MAX)).await;
        let plan = plan(&vault, &machine).await;
        let (_, reader) = late_reader(&vault, 1);
        for means in [FEW, Means { threads: 1, buffers: 2, runs: 2 }] {
            let sink = Watching::over(&machine);
            let buffers = Buffers::growing(2, means.runs);
            plan.run_with(&reader, sink.clone(), means, &buffers, &|_| ()).await.unwrap();
            assert_eq!(sink.written.load(Ordering::SeqCst), sink.whole.len());
            // No buffer gives memory back, so this is the most that there ever was.
            let opened = sink.memory_bytes.load(Ordering::SeqCst);
            let bytes = opened + buffers.bytes_most();
            assert!(bytes as u64 <= means.bytes(), "{bytes} of {}", means.bytes());
            assert!(opened >= 2 * FRAME_BYTES_MAX as usize, "{opened}");
            assert!(buffers.bytes_most() >= 2 * FRAME_BYTES_MAX as usize);
        }
    });
}

#[test]
fn a_damaged_frame_in_the_middle_is_named_and_no_wrong_byte_is_written() {
    run(async {
        let mut vault = TestVault::new();
        let (machine, paths) = noisy(&mut vault, 40, 16 * BLOCK).await;
        let plan = plan(&vault, &machine).await;
        let path = &paths[10];
        let mut bytes = vault.get(path).await;
        let middle = bytes.len() - 100;
        bytes[middle] ^= 1;
        vault.put(path, bytes).await;
        for seed in 0..4 {
            let (_, reader) = late_reader(&vault, seed);
            let sink = Watching::over(&machine);
            let error = plan.run(&reader, sink.clone(), FEW, &|_| ()).await.unwrap_err();
            let text = error.to_string();
            // Each pack ends with a number that no frame took.
            assert!(text.contains("frame 31 in log/ps-1/"), "{text}");
            assert!(text.contains("of disk 0 of db-1"), "{text}");
            assert_eq!(error.remedy(), tidegate_model::Remedy::Repair);
            // The threads have ended, what they wrote is right, and nothing was called whole.
            assert_eq!(sink.writers.load(Ordering::SeqCst), 0);
            assert!(sink.written.load(Ordering::SeqCst) < sink.whole.len());
            assert!(!sink.finished.load(Ordering::SeqCst));
        }
    });
}

#[test]
fn a_restore_that_is_dropped_in_the_middle_writes_nothing_more() {
    run(async {
        let mut vault = TestVault::new();
        let (machine, _) = noisy(&mut vault, 40, 16 * BLOCK).await;
        let plan = plan(&vault, &machine).await;
        let (late, reader) = late_reader(&vault, 1);
        late.answers.store(12, Ordering::SeqCst);
        let sink = Watching::over(&machine);
        let some = Arc::new(tokio::sync::Notify::new());
        let told = some.clone();
        let progress = move |bytes| {
            if bytes > 0 {
                told.notify_one()
            }
        };
        tokio::select! {
            _ = plan.run(&reader, sink.clone(), FEW, &progress) => panic!("not all is answered"),
            () = some.notified() => {}
        }
        assert_eq!(sink.writers.load(Ordering::SeqCst), 0);
        assert!(!sink.finished.load(Ordering::SeqCst));
    });
}

/// A sink that takes its time for what no thread of the crew does.
#[derive(Default)]
struct Slow {
    began: tokio::sync::Notify,
    busy: AtomicBool,
    zeroed: AtomicUsize,
}

impl Slow {
    fn takes_its_time(&self) {
        self.busy.store(true, Ordering::SeqCst);
        self.began.notify_one();
        std::thread::sleep(std::time::Duration::from_millis(50));
        self.busy.store(false, Ordering::SeqCst);
    }
}

impl Sink for Slow {
    fn write(&self, _disk: DiskNumber, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn zero(&self, _disk: DiskNumber, _offset: u64, _length: u64) -> io::Result<()> {
        self.takes_its_time();
        self.zeroed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        self.takes_its_time();
        Ok(())
    }
}

#[test]
fn a_restore_that_is_dropped_waits_until_its_sink_makes_nothing_zero_or_durable() {
    const ZEROS: u64 = 8;
    run(async {
        let mut vault = TestVault::new();
        let mut with_zeros = TestMachine::new("db-0", 1, TestLog::new(&vault, 2));
        with_zeros.does(Op::Disk(disk(0, 2 * ZEROS * BLOCK)));
        for at in 0..ZEROS {
            with_zeros.writes(extent(0, 2 * at * BLOCK, BLOCK), 1);
        }
        with_zeros.store(&mut vault).await;
        let (without, _) = noisy(&mut vault, 2, BLOCK).await;
        for machine in [with_zeros, without] {
            let plan = plan(&vault, &machine).await;
            let (sink, reader) = (Arc::new(Slow::default()), vault.reader());
            tokio::select! {
                biased;
                () = sink.began.notified() => {}
                done = plan.run(&reader, sink.clone(), FEW, &|_| ()) => drop(done),
            }
            assert!(!sink.busy.load(Ordering::SeqCst));
            assert!((sink.zeroed.load(Ordering::SeqCst) as u64) < ZEROS, "it went on to its end");
        }
    });
}

#[test]
fn a_sink_that_fails_or_panics_ends_the_restore() {
    run(async {
        let mut vault = TestVault::new();
        let (machine, _) = noisy(&mut vault, 20, 4 * BLOCK).await;
        let plan = plan(&vault, &machine).await;
        let length = Watching::over(&machine).whole.len();
        let run = async |whole: Vec<u8>, panics| {
            let (_, reader) = late_reader(&vault, 1);
            let sink = Arc::new(Watching::of(whole, panics));
            let error = plan.run(&reader, sink.clone(), FEW, &|_| ()).await.unwrap_err();
            assert_eq!(sink.writers.load(Ordering::SeqCst), 0);
            assert!(!sink.finished.load(Ordering::SeqCst));
            error.to_string()
        };
        let text = run(vec![0; length], false).await;
        assert!(text.contains("of disk 0 of db-1 can't be written"), "{text}");
        let text = run(vec![0; length], true).await;
        assert!(text.contains("panicked"), "{text}");
    });
}
