//! Reads of a point at any place, against a plain model; what they fetch, and what damage does.

use futures::future::join_all;
use tidegate_model::limits::FRAME_BYTES_MAX;

use super::flow::{late_reader, noise, noisy, referring};
use super::*;

/// So little that frames drive each other out all the time.
const LITTLE: ViewMeans = ViewMeans { runs: 2, openers: 1, reads: 3, kept_bytes: 20 << 10 };

async fn view(reader: &LogReader, vault: &TestVault, of: (&TestMachine, u64)) -> PointView {
    view_with(reader, vault, of, ViewMeans::of(VIEW_MEMORY_MIN, 2)).await
}

async fn view_with(
    reader: &LogReader,
    vault: &TestVault,
    (machine, lsn): (&TestMachine, u64),
    means: ViewMeans,
) -> PointView {
    let history = machine.history(vault).await;
    let point = Point { epoch: machine.of.1, lsn: Lsn(lsn) };
    PointView::build(reader, &history, point, &[], means).await.unwrap()
}

fn number(disk: u8) -> DiskNumber {
    DiskNumber::try_from(disk).unwrap()
}

async fn read(view: &PointView, disk: u8, offset: u64, length: u64) -> Result<Vec<u8>, String> {
    let mut out = vec![0xee; usize::try_from(length).unwrap()];
    let done = view.read(number(disk), offset, &mut out).await;
    done.map(|()| out).map_err(|error| error.to_string())
}

/// Reads all these ranges of a disk at once and compares them.
async fn agrees(view: &PointView, disk: u8, ranges: &[(u64, u64)], model: &[u8]) {
    let reads = ranges.iter().map(|(offset, length)| read(view, disk, *offset, *length));
    for (result, (offset, length)) in join_all(reads).await.into_iter().zip(ranges) {
        let range = usize::try_from(*offset).unwrap()..usize::try_from(offset + length).unwrap();
        assert!(result.unwrap() == model[range], "{length} bytes at {offset} differ");
    }
}

/// What the stretches tell of a disk must be true, and cover it.
fn stretches_agree(view: &PointView, disk: u8, model: &[u8]) {
    let mut next = 0;
    for stretch in view.stretches(number(disk), 0, model.len() as u64) {
        assert_eq!(stretch.offset, next);
        next += stretch.length;
        let range = usize::try_from(stretch.offset).unwrap()..usize::try_from(next).unwrap();
        assert!(!stretch.is_zero || model[range].iter().all(|byte| *byte == 0), "{stretch:?}");
    }
    assert_eq!(next, model.len() as u64);
}

proptest! {
    #![proptest_config(crate::testing::cases(200))]
    #[test]
    fn any_part_of_any_disk_reads_as_a_model_has_it_however_little_is_kept(
        events in proptest::collection::vec(event(), 1..40),
        at in any::<prop::sample::Index>(),
        ranges in proptest::collection::vec((any::<u64>(), any::<u64>()), 12),
        seed in any::<u64>(),
    ) {
        run(async {
            let mut vault = TestVault::new();
            let (machine, copy_end) = live(&mut vault, &events).await;
            let end = machine.ops.len() as u64;
            let lsn = copy_end + at.index(usize::try_from(end - copy_end + 1).unwrap()) as u64;
            let (_, reader) = late_reader(&vault, seed);
            let view = view_with(&reader, &vault, (&machine, lsn), LITTLE).await;
            for disk in view.disks() {
                let model = &machine.states[usize::try_from(lsn).unwrap()][&disk.number];
                let ranges: Vec<_> = ranges
                    .iter()
                    .map(|(offset, length)| {
                        let offset = offset % disk.bytes;
                        (offset, 1 + length % (disk.bytes - offset))
                    })
                    .chain([(0, disk.bytes)])
                    .collect();
                agrees(&view, disk.number.get(), &ranges, model).await;
                stretches_agree(&view, disk.number.get(), model);
            }
        });
    }
}

#[test]
fn blocks_in_old_packs_of_others_are_read_however_late_they_come() {
    run(async {
        let mut vault = TestVault::new();
        let machine = referring(&mut vault).await;
        let model = &machine.states.last().unwrap()[&number(0)];
        for (seed, means) in [(1, LITTLE), (2, ViewMeans::of(VIEW_MEMORY_MIN, 2))] {
            let (late, reader) = late_reader(&vault, seed);
            let of = (&machine, machine.ops.len() as u64);
            let view = view_with(&reader, &vault, of, means).await;
            late.ranges.lock().unwrap().clear();
            let pieces: Vec<_> = (0..75).map(|at| (at * 4 * BLOCK, 4 * BLOCK)).collect();
            agrees(&view, 0, &pieces, model).await;
            let mut ranges = late.ranges.lock().unwrap().clone();
            ranges.sort_by_key(|(path, range)| (path.clone(), range.start));
            let again = ranges.windows(2).filter(|pair| pair[0] == pair[1]).count();
            // With room for all frames each is fetched once, whoever wants it and how often.
            assert!(means == LITTLE || again == 0, "{again} of {}", ranges.len());
        }
    });
}

/// A machine whose disk holds so many frames of noise in one pack.
async fn one_pack(vault: &mut TestVault, frames: u64, bytes: u64) -> TestMachine {
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(vault, 1));
    machine.does(Op::Disk(disk(0, frames * bytes)));
    for frame in 0..frames {
        machine.does(Op::Write(extent(0, frame * bytes, bytes), noise(frame, bytes)));
        machine.send(vault);
        machine.log.seal(vault);
    }
    machine.store(vault).await;
    machine
}

#[test]
fn a_scattered_read_fetches_the_frames_that_hold_it_and_a_kept_one_is_not_fetched_again() {
    run(async {
        let mut vault = TestVault::new();
        let (frames, bytes) = (40, 16 * BLOCK);
        let machine = one_pack(&mut vault, frames, bytes).await;
        let model = &machine.states.last().unwrap()[&number(0)];
        let (late, reader) = late_reader(&vault, 1);
        let view = view(&reader, &vault, (&machine, frames + 1)).await;
        late.ranges.lock().unwrap().clear();
        let fetched = || std::mem::take(&mut *late.ranges.lock().unwrap());
        // Many at once, all of one frame.
        let ranges: Vec<_> = (0..16).map(|at| (7 * bytes + at * BLOCK, 512)).collect();
        agrees(&view, 0, &ranges, model).await;
        let first = fetched();
        let lengths: Vec<u64> = first.iter().map(|(_, range)| range.end - range.start).collect();
        assert!(lengths.len() == 1 && lengths[0] < bytes + 4096, "{first:?}");
        agrees(&view, 0, &ranges, model).await;
        assert_eq!(fetched(), [], "it was kept");
        // Across the border of two.
        agrees(&view, 0, &[(20 * bytes - 1, 2)], model).await;
        let both: u64 = fetched().iter().map(|(_, range)| range.end - range.start).sum();
        assert!((2 * bytes..3 * bytes).contains(&both), "{both}");
    });
}

#[test]
fn who_reads_in_sequence_is_read_ahead_for_in_long_runs_and_nothing_twice() {
    run(async {
        let mut vault = TestVault::new();
        let (frames, bytes) = (200, 16 * BLOCK);
        let machine = one_pack(&mut vault, frames, bytes).await;
        let model = &machine.states.last().unwrap()[&number(0)];
        let (late, reader) = late_reader(&vault, 1);
        let view = view(&reader, &vault, (&machine, frames + 1)).await;
        late.ranges.lock().unwrap().clear();
        for at in 0..frames * 4 {
            agrees(&view, 0, &[(at * 4 * BLOCK, 4 * BLOCK)], model).await;
        }
        let mut ranges = late.ranges.lock().unwrap().clone();
        assert!(ranges.len() < 30, "{} requests for {frames} frames", ranges.len());
        ranges.sort_by_key(|(_, range)| range.start);
        for pair in ranges.windows(2) {
            assert!(pair[0].1.end <= pair[1].1.start, "{pair:?}");
        }
    });
}

#[test]
fn what_is_kept_and_fetched_stays_below_its_bounds_with_the_longest_frames() {
    run(async {
        let mut vault = TestVault::new();
        let long = u64::from(FRAME_BYTES_MAX);
        let machine = one_pack(&mut vault, 8, long).await;
        let model = &machine.states.last().unwrap()[&number(0)];
        let (_, reader) = late_reader(&vault, 1);
        let kept_bytes = 2 * FRAME_BYTES_MAX as usize + (1 << 20);
        let means = ViewMeans { kept_bytes, ..LITTLE };
        let view = view_with(&reader, &vault, (&machine, machine.ops.len() as u64), means).await;
        // Each across the border of two frames, which are too long to be one run.
        let ranges: Vec<_> =
            (0..63).map(|at| ((at % 7 + 1) * long - at * BLOCK, 1 << 20)).collect();
        agrees(&view, 0, &ranges, model).await;
        agrees(&view, 0, &[(0, 8 * long)], model).await;
        let (kept, fetched) = view.memory_taken();
        assert!(kept <= kept_bytes && kept > FRAME_BYTES_MAX as usize, "{kept}");
        assert!(fetched as u64 <= 2 * crate::log::frames::BUFFER_BYTES_MAX, "{fetched}");
    });
}

#[test]
fn a_damaged_frame_fails_the_reads_that_need_it_and_no_others_until_it_is_put_back() {
    run(async {
        let mut vault = TestVault::new();
        let (frames, bytes) = (8, 16 * BLOCK);
        let (machine, paths) = noisy(&mut vault, frames, bytes).await;
        let model = &machine.states.last().unwrap()[&number(0)];
        let view = view(&vault.reader(), &vault, (&machine, frames + 1)).await;
        let whole = vault.get(&paths[1]).await;
        let mut bad = whole.clone();
        let last = bad.len() - 100;
        bad[last] ^= 1;
        vault.put(&paths[1], bad).await;
        let wrong = 3 * bytes;
        let error = read(&view, 0, wrong + 5, 10).await.unwrap_err();
        assert!(error.contains("log/ps-1/") && error.contains("of disk 0 of db-1"), "{error}");
        let mut all: Vec<_> = (0..frames * 16).map(|at| (at * BLOCK, BLOCK)).collect();
        all.retain(|(offset, _)| !(wrong..wrong + bytes).contains(offset));
        agrees(&view, 0, &all, model).await;
        assert!(read(&view, 0, 0, frames * bytes).await.is_err());
        vault.delete(&paths[1]).await;
        assert!(read(&view, 0, wrong, 1).await.is_err());
        vault.put(&paths[1], whole).await;
        agrees(&view, 0, &[(0, frames * bytes)], model).await;
    });
}

#[test]
fn a_pack_that_went_is_named() {
    run(async {
        let mut vault = TestVault::new();
        let (machine, paths) = noisy(&mut vault, 4, 16 * BLOCK).await;
        let view = view(&vault.reader(), &vault, (&machine, 5)).await;
        vault.delete(&paths[0]).await;
        let error = read(&view, 0, 0, 512).await.unwrap_err();
        assert!(error.contains(&paths[0]), "{error}");
        assert!(read(&view, 0, 40 * BLOCK, 512).await.is_ok());
    });
}

#[test]
fn a_record_that_is_another_than_was_meant_or_changed_before_it_was_sealed_is_not_given() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, 8 * BLOCK)));
        machine.writes(extent(0, 0, BLOCK), 1);
        machine.writes(extent(0, BLOCK, BLOCK), 2);
        machine.store(&mut vault).await;
        let targets: Vec<_> = vault.known.values().cloned().collect();
        for (value, other) in vault.known.values_mut().zip(targets.into_iter().rev()) {
            *value = other;
        }
        machine.writes(extent(0, 2 * BLOCK, BLOCK), 1);
        machine.log.bad_memory = true;
        machine.writes(extent(0, 3 * BLOCK, 2 * BLOCK), 7);
        machine.does(Op::Zero(extent(0, 3 * BLOCK, 100)));
        machine.store(&mut vault).await;
        let view = view(&vault.reader(), &vault, (&machine, 6)).await;
        let error = read(&view, 0, 2 * BLOCK, 10).await.unwrap_err();
        assert!(error.contains("name, checksum or length differ"), "{error}");
        // The byte that changed isn't even wanted: the record as a whole is checked.
        let error = read(&view, 0, 3 * BLOCK + 200, 10).await.unwrap_err();
        assert!(error.contains("doesn't have the checksum"), "{error}");
        assert_eq!(read(&view, 0, 3 * BLOCK, 100).await.unwrap(), [0; 100]);
        assert_eq!(read(&view, 0, BLOCK, 10).await.unwrap(), [2; 10]);
    });
}

#[test]
fn a_reader_that_goes_away_leaves_nobody_waiting() {
    run(async {
        let mut vault = TestVault::new();
        let (machine, _) = noisy(&mut vault, 4, 16 * BLOCK).await;
        let model = &machine.states.last().unwrap()[&number(0)];
        let (_, reader) = late_reader(&vault, 1);
        let view = view(&reader, &vault, (&machine, 5)).await;
        tokio::select! {
            biased;
            _ = read(&view, 0, 0, 512) => panic!("the store is late"),
            () = tokio::task::yield_now() => {}
        }
        agrees(&view, 0, &[(0, 512), (0, 64 * BLOCK)], model).await;
    });
}
