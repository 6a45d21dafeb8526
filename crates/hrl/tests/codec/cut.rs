//! Logs that weren't closed, were cut, or lost a part: what is whole is still given out.

use proptest::prelude::*;
use tidegate_hrl::format::{Entry, Version, encode_block};
use tidegate_hrl::scan::Problem;

use crate::log::{Log, blocks, scan};

proptest! {
    #[test]
    fn a_log_of_any_version_reads_back(
        blocks in blocks(),
        newer in any::<bool>(),
        metadata in prop::sample::select(vec![512_u32, 1024, 4096]),
        closed in any::<bool>(),
    ) {
        let version = if newer { Version::V2 } else { Version::V1 };
        let log = Log::of(version, metadata, &blocks, closed);
        let (entries, problems) = scan(log.bytes);
        prop_assert_eq!(entries, log.entries);
        let expected = if closed { vec![] } else { vec![Problem::NotClosed] };
        prop_assert_eq!(problems, expected);
    }

    #[test]
    fn a_log_that_was_cut_is_read_up_to_its_last_whole_entry(
        blocks in blocks(),
        closed in any::<bool>(),
        at in any::<prop::sample::Index>(),
    ) {
        let mut log = Log::of(Version::V2, 512, &blocks, closed);
        let at = 4096 + at.index(log.bytes.len() - 4096);
        log.bytes.truncate(at);
        let whole = log.blocks.iter().filter(|(end, _)| *end <= at).map(|(_, count)| *count);
        let whole = whole.max().unwrap_or(0);
        let (entries, problems) = scan(log.bytes);
        prop_assert_eq!(&entries[..], &log.entries[..whole]);
        prop_assert!(!problems.is_empty());
    }

    #[test]
    fn a_block_that_is_lost_takes_only_its_own_entries(
        blocks in blocks(),
        lost in any::<prop::sample::Index>(),
        at in 0_usize..512,
    ) {
        let mut log = Log::of(Version::V2, 512, &blocks, true);
        let lost = lost.index(log.blocks.len());
        let (end, last) = log.blocks[lost];
        let first = lost.checked_sub(1).map_or(0, |before| log.blocks[before].1);
        // A byte of the header, or of an entry.
        let at = end - 512 + at % (32 + 32 * (last - first));
        log.bytes[at] ^= 0x20;
        let (entries, problems) = scan(log.bytes);
        let expected = [&log.entries[..first], &log.entries[last..]].concat();
        prop_assert_eq!(entries, expected);
        let names = |problem: &Problem| matches!(problem, Problem::Block { location, .. }
            if *location == (end - 512) as u64);
        prop_assert!(problems.iter().any(names), "{problems:?}");
    }
}

#[test]
fn data_that_look_like_a_block_are_none() {
    let mut log = Log::of(Version::V2, 512, &[vec![100], vec![5000], vec![30]], false);
    // At the distance that it names, with checksums that fit, but one byte is all that it describes.
    let (first_end, _) = log.blocks[0];
    let entry = Entry { data_bytes: 1, ..Entry::default() };
    let fake = encode_block(512 + 1000, &[entry], 512);
    let at = first_end + 1000;
    log.bytes[at..at + 512].copy_from_slice(&fake);
    let (entries, problems) = scan(log.bytes);
    assert_eq!((entries, problems), (log.entries, vec![Problem::NotClosed]));
}
