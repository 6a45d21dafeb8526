//! The reader on real files: what it gives out is the file, exactly, within its bounds.

#![allow(clippy::cast_possible_truncation)] // tests run on 64 bits, with small numbers

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use proptest::prelude::*;
use tempfile::NamedTempFile;
use tidegate_model::{Checksum, Extent};

use super::*;
use crate::source::SourceError;

const BLOCK: u64 = BLOCK_BYTES_DEFAULT as u64;

fn disk(number: u8, path: &Path) -> (DiskNumber, Arc<Source>) {
    (number.try_into().unwrap(), Arc::new(Source::open(path).unwrap()))
}

fn small() -> ReaderSettings {
    ReaderSettings { read_bytes: 256 << 10, pool_bytes: 1 << 20, ..ReaderSettings::default() }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Reads all of `paths`, letting go of each span before the next.
fn read(
    paths: &[&Path],
    settings: &ReaderSettings,
    mut each: impl FnMut(&Span),
) -> Result<Reader, ReaderError> {
    let disks = paths.iter().zip(0..).map(|(path, number)| disk(number, path)).collect();
    let mut reader = Reader::start(disks, settings, Arc::default())?;
    block_on(async {
        while let Some(span) = reader.next().await? {
            each(&span);
        }
        Ok(reader)
    })
}

/// Reads one file and checks every promise about the spans; returns how many were zeros, and how
/// many data.
fn check(path: &Path, settings: &ReaderSettings) -> (usize, usize) {
    let file = File::open(path).unwrap();
    let bytes = file.metadata().unwrap().len();
    let (mut at, mut zeros, mut data, mut was_zero) = (0, 0, 0, false);
    let limit = u64::from(settings.record_bytes_max);
    read(&[path], settings, |span| {
        let Extent { offset, length, .. } = span.extent;
        assert_eq!(offset, at, "in order, without gaps");
        assert!(length > 0);
        at += length;
        let Some(payload) = &span.payload else {
            assert!(!was_zero, "zeros are merged");
            assert!(offset.is_multiple_of(BLOCK));
            was_zero = true;
            zeros += 1;
            return;
        };
        was_zero = false;
        data += 1;
        assert!(length <= limit && length == payload.len() as u64);
        if limit >= BLOCK {
            assert!(offset.is_multiple_of(BLOCK), "whole blocks");
            assert!(at.is_multiple_of(BLOCK) || at == bytes, "whole blocks, or the end");
        }
        assert!(offset / BLOCK == (at - 1) / BLOCK || limit >= BLOCK);
        let mut expected = vec![0; payload.len()];
        file.read_exact_at(&mut expected, offset).unwrap();
        assert!(payload[..] == expected[..], "the bytes at {offset}");
        assert_eq!(payload.checksum(), Checksum::of(&expected));
    })
    .unwrap();
    assert_eq!(at, bytes);
    (zeros, data)
}

/// A file with these bytes at these places, holes elsewhere.
fn file_of(bytes: u64, places: &[(u64, &[u8])]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(bytes).unwrap();
    for (offset, data) in places {
        file.as_file().write_all_at(data, *offset).unwrap();
    }
    file
}

/// Bytes without zeros or repetition.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8 | 1
    })
    .take(count)
    .collect()
}

#[test]
fn disks_of_odd_sizes_come_out_whole() {
    let noise = noise(3 << 20);
    for bytes in [1, 511, 4096, 65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 3_000_001] {
        let file = file_of(bytes as u64, &[(0, &noise[..bytes])]);
        for caching in [Caching::Auto, Caching::Buffered, Caching::Direct] {
            let (zeros, data) = check(file.path(), &ReaderSettings { caching, ..small() });
            assert_eq!((zeros, data), (0, bytes.div_ceil(65_536)));
        }
    }
}

#[test]
fn a_disk_of_zeros_is_one_span_whether_written_or_not() {
    let written = file_of(5_000_001, &[(0, &vec![0; 5_000_001])]);
    let hole = file_of(5_000_001, &[]);
    assert_eq!(check(written.path(), &small()), (1, 0));
    assert_eq!(check(hole.path(), &small()), (1, 0));
}

#[test]
fn a_huge_sparse_disk_costs_as_much_as_its_data() {
    let bytes = 64 << 30;
    let file = file_of(bytes, &[(10 << 30, b"here"), (40 << 30, b"there"), (bytes - 1, b"!")]);
    let mut spans = Vec::new();
    let reader = read(&[file.path()], &small(), |span| spans.push(span.clone())).unwrap();
    assert_eq!(spans.len(), 6);
    assert_eq!(spans.iter().map(|span| span.extent.length).sum::<u64>(), bytes);
    let last = spans[5].payload.as_ref().unwrap();
    assert_eq!((last.len() as u64, last[last.len() - 1]), (BLOCK, b'!'));
    let counters = reader.counters();
    let read = [&counters.bytes_direct, &counters.bytes_buffered]
        .map(|counter| counter.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(read[0] + read[1], 3 * BLOCK);
}

#[test]
fn records_smaller_and_larger_than_a_block_keep_to_its_borders() {
    let noise = noise(1_000_000);
    let file = file_of(2_000_000, &[(0, &noise), (1_300_000, &noise[..100_000])]);
    for record_bytes_max in [1000, 65_536, 100_000, 131_072, 256 << 10] {
        check(file.path(), &ReaderSettings { record_bytes_max, ..small() });
    }
    let mut largest = 0;
    let settings = ReaderSettings { record_bytes_max: 200_000, ..small() };
    read(&[file.path()], &settings, |span| {
        largest = largest.max(span.payload.as_ref().map_or(0, |payload| payload.len()));
    })
    .unwrap();
    assert_eq!(largest, 196_608, "three whole blocks");
}

#[test]
fn several_disks_come_one_after_the_other() {
    let noise = noise(200_000);
    let files = [file_of(200_000, &[(0, &noise)]), file_of(300_000, &[(0, &noise[..100])])];
    let mut ends = [0, 0];
    let paths = [files[0].path(), files[1].path()];
    read(&paths, &small(), |span| {
        let index = span.extent.disk.index();
        assert!(index == 1 || ends[1] == 0);
        assert_eq!(span.extent.offset, ends[index]);
        ends[index] += span.extent.length;
    })
    .unwrap();
    assert_eq!(ends, [200_000, 300_000]);
}

#[test]
fn no_more_is_read_than_the_pool_holds_until_payloads_are_let_go() {
    let noise = noise(4 << 20);
    let file = file_of(4 << 20, &[(0, &noise)]);
    let disks = vec![disk(0, file.path())];
    let settings = ReaderSettings { pool_bytes: 512 << 10, ..small() };
    let mut reader = Reader::start(disks, &settings, Arc::default()).unwrap();
    block_on(async {
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(reader.next().await.unwrap().unwrap());
        }
        // Two buffers of four blocks: the ninth block waits for one of the first eight.
        let waited = std::time::Duration::from_millis(200);
        assert!(tokio::time::timeout(waited, reader.next()).await.is_err());
        assert_eq!(reader.buffer_bytes_max(), 512 << 10);
        held.clear();
        let mut more = 0;
        while reader.next().await.unwrap().is_some() {
            more += 1;
        }
        assert_eq!(more, 64 - 8);
        assert_eq!(reader.buffer_bytes_max(), 512 << 10);
    });
}

#[test]
fn a_disk_that_shrinks_while_it_is_read_is_an_error_that_says_so() {
    let noise = noise(4 << 20);
    for sparse_end in [false, true] {
        let file = file_of(8 << 20, &[(0, &noise)]);
        if !sparse_end {
            file.as_file().write_all_at(&noise, 4 << 20).unwrap();
        }
        let disks = vec![disk(0, file.path())];
        let settings = ReaderSettings { pool_bytes: 512 << 10, ..small() };
        let mut reader = Reader::start(disks, &settings, Arc::default()).unwrap();
        let error = block_on(async {
            let first = reader.next().await.unwrap().unwrap();
            file.as_file().set_len(2 << 20).unwrap();
            drop(first);
            loop {
                match reader.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the reader took a part for the whole"),
                    Err(error) => break error,
                }
            }
        });
        assert!(
            matches!(error, ReaderError::Source(SourceError::Shrank { found: 2_097_152, .. })),
            "{error}"
        );
    }
}

#[test]
fn a_reader_dropped_in_the_middle_ends_its_thread() {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&noise(8 << 20)).unwrap();
    let source = disk(0, file.path());
    let mut reader = Reader::start(vec![source.clone()], &small(), Arc::default()).unwrap();
    let first = block_on(reader.next()).unwrap().unwrap();
    drop(reader);
    // The thread's share of the source goes when it ends.
    let begin = std::time::Instant::now();
    while Arc::strong_count(&source.1) > 1 {
        assert!(begin.elapsed().as_secs() < 10, "the thread goes on");
        std::thread::yield_now();
    }
    assert!(first.payload.unwrap().len() == 65_536, "a payload outlives its reader");
}

#[test]
fn settings_that_cannot_work_are_refused_with_their_values() {
    let base = ReaderSettings::default;
    for settings in [
        ReaderSettings { block_bytes: 1000, ..base() },
        ReaderSettings { record_bytes_max: 0, ..base() },
        ReaderSettings { read_bytes: 100_000, ..base() },
        ReaderSettings { depth: 0, ..base() },
        ReaderSettings { pool_bytes: 1 << 20, ..base() },
    ] {
        let error = Reader::start(Vec::new(), &settings, Arc::default()).unwrap_err();
        assert!(matches!(error, ReaderError::Settings { .. }), "{error}");
    }
}

/// A layout is a whole file to write and read: it counts for so many inputs of PROPTEST_CASES.
const INPUTS_PER_LAYOUT: u32 = 50;

/// So many layouts, or more if the environment asks for it.
fn cases(count: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: count.max(config.cases / INPUTS_PER_LAYOUT), ..config }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn any_layout_reads_back_as_the_file(
        bytes in 1_u64..3 << 20,
        places in prop::collection::vec((0_u64..3 << 20, 1_usize..300_000, any::<bool>()), 0..12),
        depth in 1_u32..20,
        block_shift in 12_u32..17,
        caching in prop::sample::select(vec![Caching::Auto, Caching::Buffered, Caching::Direct]),
    ) {
        let (noise, zeros) = (noise(300_000), vec![0; 300_000]);
        let places: Vec<(u64, &[u8])> = places
            .iter()
            .filter(|place| place.0 < bytes)
            .map(|(offset, length, is_noise)| {
                let length = (*length).min((bytes - offset) as usize);
                (*offset, if *is_noise { &noise[..length] } else { &zeros[..length] })
            })
            .collect();
        let file = file_of(bytes, &places);
        let settings = ReaderSettings {
            block_bytes: 1 << block_shift, depth, caching, pool_bytes: 512 << 10, ..small()
        };
        let mut copy = vec![0xff_u8; bytes as usize];
        read(&[file.path()], &settings, |span| {
            let start = span.extent.offset as usize;
            let target = &mut copy[start..start + span.extent.length as usize];
            match &span.payload {
                Some(payload) => target.copy_from_slice(payload),
                None => target.fill(0),
            }
        })
        .unwrap();
        prop_assert!(copy == std::fs::read(file.path()).unwrap());
    }
}

/// Not a test: `TIDEGATE_IMAGE=FILE cargo test --release -p tidegate-agent rate -- --ignored
/// --nocapture`.
#[test]
#[ignore = "measures"]
fn rate_of_reading_an_image() {
    let Some(image) = std::env::var_os("TIDEGATE_IMAGE") else { return };
    for read_bytes in [256 << 10, 512 << 10, 1 << 20] {
        for caching in [Caching::Auto, Caching::Buffered, Caching::Direct] {
            let settings = ReaderSettings { read_bytes, caching, ..ReaderSettings::default() };
            let begin = std::time::Instant::now();
            let mut bytes = [0, 0];
            let reader = read(&[Path::new(&image)], &settings, |span| {
                bytes[usize::from(span.payload.is_none())] += span.extent.length;
            })
            .unwrap();
            let seconds = begin.elapsed().as_secs_f64();
            println!(
                "{read_bytes} {caching:?}: {:.2} GB/s, data and zeros {bytes:?}, {:?}",
                (bytes[0] + bytes[1]) as f64 / seconds / 1e9,
                reader.counters()
            );
        }
    }
}
