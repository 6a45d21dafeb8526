//! Reading packs of vaults in memory: long indexes, runs of frames, what a cache must not hide.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use tidegate_model::{Checksum, Epoch, PackNumber};

use super::buffers::Buffers;
use super::frames::{RUN_BYTES_MAX, runs};
use super::reader::Found;
use super::*;
use crate::pack::{
    Content, Expander, HEADER_BYTES, PackBlock, PackBlocks, PackError, PackHeader, PackSummary,
};
use crate::store::Store;
use crate::testing::{BLOCK, LateStore, Op, TestLog, TestMachine, TestVault, disk, extent, run};

/// Bytes that don't compress, different for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A pack with frames of so many bytes of noise, and its machine.
async fn pack_of(vault: &mut TestVault, frames: u64, bytes: u64) -> TestMachine {
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(vault, 1));
    machine.does(Op::Disk(disk(0, bytes)));
    for seed in 0..frames {
        let content = noise(seed, usize::try_from(bytes).unwrap());
        machine.does(Op::Write(extent(0, 0, bytes), content));
        machine.send(vault);
        machine.log.seal(vault);
    }
    machine.store(vault).await;
    machine
}

/// A pack of many small writes, whose index is longer than what is read first.
async fn many_writes(vault: &mut TestVault, machine: &mut TestMachine) {
    for seed in 0..6000_u64 {
        let length = 1 + seed % 9;
        let offset = seed * 7 % (BLOCK - 9);
        let bytes = noise(seed, usize::try_from(length).unwrap());
        machine.does(Op::Write(extent(0, offset, length), bytes));
    }
    machine.store(vault).await;
}

#[test]
fn an_index_longer_than_the_first_read_is_read_to_its_end() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, BLOCK)));
        many_writes(&mut vault, &mut machine).await;
        let pack = vault.reader().pack(&machine.log.place(0)).await.unwrap();
        assert!(pack.header.index_bytes > 64 << 10, "{}", pack.header.index_bytes);
        assert_eq!(pack.index.records.len(), 6001);
        // With the size from a listing, and without.
        let survey = vault.reader().survey(&machine.log.name).await.unwrap();
        assert_eq!(survey.counted.packs, [PackNumber(0)]);
        let found = vault.reader().find(&machine.log.place(0), Some(survey.stored[&0])).await;
        assert!(matches!(found, Ok(Found::Pack(again)) if again.index == pack.index));
    });
}

#[test]
fn neighbouring_frames_are_one_run_up_to_its_limit() {
    run(async {
        let mut vault = TestVault::new();
        let machine = pack_of(&mut vault, 6, 1 << 20).await;
        let reader = vault.reader();
        let pack = reader.pack(&machine.log.place(0)).await.unwrap();
        let all = runs(&pack.index, 0..6);
        assert_eq!(all.iter().map(|run| run.frames.len()).collect::<Vec<_>>(), [3, 3]);
        assert!(all.iter().all(|run| run.range.end - run.range.start <= RUN_BYTES_MAX));
        assert_eq!(all[1].range.end, pack.header.object_bytes);
        // A frame that nobody wants isn't read when it is large.
        assert_eq!(runs(&pack.index, [0, 2]).len(), 2);
        let mut fetched = reader.fetch(&pack, &all[1], &Buffers::new(1)).await.unwrap();
        let (mut expander, mut plain) = (Expander::default(), Vec::new());
        for place in [3, 4, 5] {
            fetched.open(&pack, place, &mut expander, &mut plain).unwrap();
            assert!(plain == noise(u64::from(place), 1 << 20));
        }
        // A frame of the other run isn't in this one.
        assert!(fetched.open(&pack, 0, &mut expander, &mut plain).is_err());
    });
}

#[test]
fn a_small_frame_between_two_wanted_ones_is_read_along() {
    run(async {
        let mut vault = TestVault::new();
        let machine = pack_of(&mut vault, 3, BLOCK).await;
        let pack = vault.reader().pack(&machine.log.place(0)).await.unwrap();
        let wanted = runs(&pack.index, [0, 2]);
        assert_eq!((wanted.len(), wanted[0].frames.as_slice()), (1, [0, 2].as_slice()));
    });
}

#[test]
fn two_frames_that_changed_places_are_refused() {
    run(async {
        let mut vault = TestVault::new();
        let machine = pack_of(&mut vault, 2, BLOCK).await;
        let path = machine.log.place(0).path();
        let reader = vault.reader();
        let pack = reader.pack(&machine.log.place(0)).await.unwrap();
        let bytes = vault.get(&path).await;
        let at = |place: usize| {
            let begin = usize::try_from(pack.index.frames[place].offset).unwrap();
            begin..begin + usize::try_from(pack.index.frames[place].object_bytes()).unwrap()
        };
        let swapped = [&bytes[..at(0).start], &bytes[at(1)], &bytes[at(0)]].concat();
        vault.put(&path, swapped).await;
        let run = &runs(&pack.index, 0..2)[0];
        let mut fetched = reader.fetch(&pack, run, &Buffers::new(1)).await.unwrap();
        let error = fetched
            .open(&pack, 0, &mut Expander::default(), &mut Vec::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains("another frame"), "{error}");
    });
}

#[test]
fn a_summary_says_what_the_index_says() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = pack_of(&mut vault, 2, BLOCK).await;
        many_writes(&mut vault, &mut machine).await;
        // And one in which there is nothing.
        let mut log = TestLog::new(&vault, 2);
        log.store(&mut vault, true).await;
        for place in [machine.log.place(0), machine.log.place(1), log.place(0)] {
            let pack = vault.reader().pack(&place).await.unwrap();
            let index = &pack.index;
            let summary = vault.reader().summary(&place, Some(pack.header.object_bytes)).await;
            let expected = PackSummary {
                last: index.last,
                committed_packs: index.committed_packs,
                machines: index.machines.clone(),
            };
            assert_eq!(summary.unwrap(), expected);
            let changed = vault.reader().summary(&place, Some(1)).await.unwrap_err();
            assert!(changed.is_damage(), "{changed}");
            let mut bytes = vault.get(&place.path()).await;
            bytes[HEADER_BYTES + 9] ^= 1;
            vault.put(&place.path(), bytes).await;
            let error = vault.reader().summary(&place, None).await.unwrap_err();
            assert!(matches!(error, LogError::Pack { cause: PackError::Digest, .. }), "{error}");
        }
    });
}

#[test]
fn the_blocks_of_a_pack_are_those_that_its_index_names() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = pack_of(&mut vault, 3, 3 * BLOCK).await;
        // Small writes have no names, but their places among a frame's records.
        machine.does(Op::Write(extent(0, 9, 9), noise(7, 9)));
        machine.does(Op::Write(extent(0, BLOCK, BLOCK), noise(8, usize::try_from(BLOCK).unwrap())));
        machine.marks(tidegate_model::BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        many_writes(&mut vault, &mut machine).await;
        machine.does(Op::Time);
        machine.store(&mut vault).await;
        let mut counts = Vec::new();
        for number in 0..4 {
            let place = machine.log.place(number);
            let PackRead { header, index, .. } = &*vault.reader().pack(&place).await.unwrap();
            let mut expected = Vec::new();
            for (at, entry) in (0..).zip(&index.frames) {
                for (ordinal, record) in (0..).zip(index.kept_of(at)) {
                    let Content::Kept { name: Some(name), .. } = record.content else { continue };
                    expected.push(PackBlock { name, frame: entry.number, ordinal });
                }
            }
            let end = index.frames.last().map_or(header.first_frame, |frame| frame.number.next());
            let taken = |of: &PackHeader, found: PackBlocks| {
                assert_eq!((of, found.frames_end), (header, end));
                found.blocks
            };
            let found = vault.reader().kept_blocks(&place, None, taken).await.unwrap();
            assert_eq!(found, expected);
            counts.push(found.len());
        }
        assert_eq!(counts, [9, 1, 0, 0]);
    });
}

/// Starts `reads` of packs over a store that never answers with the rest of a long index; gives how
/// many bytes of those were asked for when nothing went on any more.
async fn asked_at_once<F: Future>(vault: &TestVault, read: impl Fn(LogReader) -> F) -> u64 {
    let objects = LateStore::new(vault.objects.clone(), 0);
    objects.answers.store(0, Ordering::SeqCst);
    let store = Store::over(objects.clone(), "memory://test");
    let reader = LogReader::new(store, vault.ring.clone(), 0);
    let asked = || {
        let ranges = objects.ranges.lock().unwrap();
        ranges.iter().map(|(_, range)| range.end - range.start).sum::<u64>()
    };
    // More than there is room for at 64 KiB each, the least that such an index has.
    let reads = (0..INDEX_ROOM_BYTES >> 15).map(|_| Box::pin(read(reader.clone())));
    let mut reads = Box::pin(futures::future::join_all(reads));
    let (mut last, mut quiet) = (0, 0);
    // The store gives way 255 times at most before it notes what it is asked for.
    while quiet < 1000 {
        assert!(futures::poll!(&mut reads).is_pending());
        tokio::task::yield_now().await;
        quiet = if asked() == last { quiet + 1 } else { 0 };
        last = asked();
    }
    last
}

#[test]
fn sealed_indexes_of_which_only_a_part_is_wanted_never_take_more_than_their_room() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, BLOCK)));
        many_writes(&mut vault, &mut machine).await;
        let place = machine.log.place(0);
        let is_bounded = |bytes: u64| {
            assert!((INDEX_ROOM_BYTES as u64 / 4..=INDEX_ROOM_BYTES as u64).contains(&bytes));
        };
        let at = &place;
        is_bounded(
            asked_at_once(&vault, |reader| async move { reader.summary(at, None).await.map(drop) })
                .await,
        );
        is_bounded(
            asked_at_once(
                &vault,
                |reader| async move { reader.kept_blocks(at, None, |_, _| ()).await },
            )
            .await,
        );
        // Of another format, which nobody expands.
        let mut bytes = vault.get(&place.path()).await;
        bytes[8] = 2;
        vault.put(&place.path(), bytes).await;
        is_bounded(
            asked_at_once(&vault, |reader| async move { reader.summary(at, None).await.map(drop) })
                .await,
        );
    });
}

#[test]
fn searches_that_need_more_room_than_there_is_wait_and_end() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, BLOCK)));
        many_writes(&mut vault, &mut machine).await;
        let (reader, place) = (vault.reader(), machine.log.place(0));
        let index_bytes = vault.reader().pack(&place).await.unwrap().header.index_bytes as usize;
        let survey = reader.survey(&machine.log.name).await.unwrap();
        let searches = INDEX_ROOM_BYTES / index_bytes / INDEXES_AHEAD + 2;
        let searched = (0..searches).map(|_| {
            let packs = vec![PackNumber(0); 2 * INDEXES_AHEAD];
            let found = reader.summaries(&survey, packs, |_, summary| summary.machines.len());
            found.map(|(_, machines)| machines.unwrap()).collect::<Vec<_>>()
        });
        let found = futures::future::join_all(searched).await;
        assert_eq!(found, vec![vec![1; 2 * INDEXES_AHEAD]; searches]);
    });
}

#[test]
fn a_cached_index_doesnt_hide_that_the_object_shrank() {
    run(async {
        let mut vault = TestVault::new();
        let machine = pack_of(&mut vault, 1, BLOCK).await;
        let (reader, place) = (vault.reader(), machine.log.place(0));
        let pack = reader.pack(&place).await.unwrap();
        let stored = pack.header.object_bytes;
        assert!(reader.find(&place, Some(stored)).await.is_ok());
        let error = reader.find(&place, Some(stored - 1)).await.unwrap_err();
        assert!(matches!(error, LogError::Size { .. }), "{error}");
        let kept = pack.index.kept_at(0, 0).map(|record| record.content.clone());
        let Some(Content::Kept { checksum, .. }) = kept else { panic!("it keeps a block") };
        assert_eq!(checksum, Checksum::of(&noise(0, usize::try_from(BLOCK).unwrap())));
    });
}

#[test]
fn a_listing_that_lacks_a_pack_which_is_there_calls_nothing_lost() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = pack_of(&mut vault, 1, BLOCK).await;
        machine.does(Op::Time);
        machine.store(&mut vault).await;
        machine.does(Op::Time);
        machine.store(&mut vault).await;
        let whole = vault.reader().survey(&machine.log.name).await.unwrap();
        // What a listing that is late in one place gives: pack 2, but not pack 1.
        let mut late: BTreeMap<u64, u64> = whole.stored.clone();
        late.remove(&1);
        let mut survey = Survey::of(machine.log.name.clone(), PackNumber(0), late);
        assert_eq!(survey.counted.leftovers, [PackNumber(2)]);
        vault.reader().judge(&mut survey).await.unwrap();
        assert_eq!(survey.counted, whole.counted);
    });
}

#[test]
fn a_long_log_is_judged_in_stretches_as_in_the_whole() {
    run(async {
        let mut vault = TestVault::new();
        let mut log = TestLog::new(&vault, 1);
        let of = ("db-1".parse().unwrap(), Epoch(1));
        let packs = STRETCH_PACKS + 700;
        for lsn in 1..=packs {
            log.add(&vault, &of, lsn, &Op::Time, None);
            log.store(&mut vault, false).await;
        }
        // One is lost, and behind the last lies one beyond a gap.
        vault.delete(&log.place(400).path()).await;
        log.add(&vault, &of, packs + 1, &Op::Time, None);
        log.close(&mut vault, false);
        log.add(&vault, &of, packs + 2, &Op::Time, None);
        let (path, bytes) = log.close(&mut vault, false);
        vault.put(&path, bytes).await;
        let reader = vault.reader();
        let whole = reader.survey(&log.name).await.unwrap();
        assert_eq!(whole.counted.packs.len() as u64, packs - 1);
        for first in [0, 300, 500, 1000, packs - 10].map(PackNumber) {
            let tail = reader.tail(&log.name, first, Stated::default()).await.unwrap();
            assert_eq!(tail.counted.leftovers, [PackNumber(packs + 1)]);
            let mut packs = Vec::new();
            let mut stretch = Some(tail);
            while let Some(survey) = stretch {
                assert!(survey.stored.len() as u64 <= STRETCH_PACKS);
                packs.extend(survey.counted_from(first).into_iter().rev());
                stretch = reader.before(&survey, first).await.unwrap();
            }
            packs.reverse();
            assert_eq!(packs, whole.counted_from(first), "{first}");
        }
    });
}

#[test]
fn a_tail_lists_what_lies_before_it_where_nothing_states_that_it_was_stored() {
    run(async {
        let mut vault = TestVault::new();
        let mut log = TestLog::new(&vault, 1);
        let of = ("db-1".parse().unwrap(), Epoch(1));
        for lsn in 1..=300 {
            log.add(&vault, &of, lsn, &Op::Time, None);
            let (path, bytes) = log.close(&mut vault, false);
            // They state nothing, and the first never was stored.
            if lsn > 1 {
                vault.put(&path, bytes).await;
            }
        }
        let reader = vault.reader();
        let tail = reader.tail(&log.name, PackNumber(299), Stated::default()).await.unwrap();
        assert_eq!((tail.from, tail.counted.packs), (PackNumber(0), vec![]));
        // Its writer knows better.
        let known = Stated::by_writer(PackNumber(299));
        let tail = reader.tail(&log.name, PackNumber(299), known).await.unwrap();
        assert_eq!(tail.counted.packs, [PackNumber(299)]);
        assert_eq!(tail.stored.len(), 1);
    });
}

#[test]
fn another_format_is_a_newer_one_when_the_digest_fits_and_damage_when_not() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = pack_of(&mut vault, 1, BLOCK).await;
        // One index within the first read, and one beyond it.
        for seed in 0..6000 {
            machine.does(Op::Write(extent(0, seed * 7 % 4000, 9), noise(seed, 9)));
        }
        machine.store(&mut vault).await;
        for number in 0..2 {
            let place = machine.log.place(number);
            let whole = vault.get(&place.path()).await;
            let index_bytes = vault.reader().pack(&place).await.unwrap().header.index_bytes;
            assert_eq!(index_bytes > 64 << 10, number == 1);
            let mut changed = whole.clone();
            changed[8] = 2;
            vault.put(&place.path(), changed.clone()).await;
            let error = vault.reader().pack(&place).await.unwrap_err();
            assert!(error.is_damage(), "{error}");
            assert!(error.to_string().contains("digest"), "{error}");
            let end = HEADER_BYTES + index_bytes as usize;
            let mut hasher = blake3::Hasher::new();
            hasher.update(&changed[..104]).update(&changed[HEADER_BYTES..end]);
            changed[104..136].copy_from_slice(hasher.finalize().as_bytes());
            vault.put(&place.path(), changed.clone()).await;
            let error = vault.reader().pack(&place).await.unwrap_err();
            let cause = PackError::Format(2);
            assert_eq!(error, LogError::Pack { place: place.clone(), cause });
            assert!(!error.is_damage());
            // Whatever is left of it.
            for cut in [10, 135, HEADER_BYTES, end - 1] {
                vault.put(&place.path(), changed[..cut].to_vec()).await;
                let error = vault.reader().pack(&place).await.unwrap_err();
                assert!(error.is_damage(), "{cut}: {error}");
            }
            vault.put(&place.path(), whole).await;
        }
    });
}
