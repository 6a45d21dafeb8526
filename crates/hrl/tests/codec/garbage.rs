//! Garbage: no panic, no end in sight, nothing believed.

use proptest::prelude::*;
use tidegate_hrl::format::{Block, BlockHeader, Entry, FileHeader, Sum, Version};
use tidegate_hrl::journal::{Birth, JournalSettings, open};
use tidegate_hrl::order::{OrderHeader, OrderRecord};
use tidegate_hrl::scan::{Found, Scan};
use tidegate_hrl::uring::UringStorage;
use tidegate_model::Incarnation;

use crate::log::{Bytes, Log, blocks};
use crate::mark;

proptest! {
    #[test]
    fn no_decoder_panics(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        let _ = OrderRecord::decode(mark(1), &bytes);
        let _ = OrderHeader::decode(&bytes);
        let _ = FileHeader::decode(&bytes);
        let _ = BlockHeader::decode(&bytes);
        let _ = Block::decode(&bytes);
        let _ = Entry::decode(&bytes);
    }

    #[test]
    fn a_scan_of_a_log_with_garbage_in_it_ends_within_the_file(
        blocks in blocks(),
        closed in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<[u8; 8]>()), 1..20),
    ) {
        let mut log = Log::of(Version::V2, 512, &blocks, closed);
        for (at, bytes) in changes {
            let at = 8 + at.index(log.bytes.len() - 16);
            log.bytes[at..at + 8].copy_from_slice(&bytes);
        }
        let length = log.bytes.len() as u64;
        let Ok(mut scan) = Scan::open(Bytes(log.bytes)) else { return Ok(()) };
        let mut last = 0;
        while let Some(found) = scan.next().unwrap() {
            if let Found::Entry(found) = found {
                let end = found.data_location + u64::from(found.entry.data_bytes);
                prop_assert!(end <= found.block_location && found.block_location < length);
                prop_assert!(found.data_location >= last, "it goes forward");
                last = end;
            }
        }
    }

    /// Blocks that point anywhere, with checksums that fit.
    #[test]
    fn a_chain_that_leads_astray_ends(
        blocks in blocks(),
        changed in any::<prop::sample::Index>(),
        distance in prop_oneof![any::<u64>(), 0_u64..20_000],
        eol in prop_oneof![any::<u64>(), 0_u64..40_000],
    ) {
        let mut log = Log::of(Version::V2, 512, &blocks, true);
        let (end, _) = log.blocks[changed.index(log.blocks.len())];
        log.bytes[end - 512..end - 504].copy_from_slice(&distance.to_le_bytes());
        let checksum = Sum::around(&log.bytes[end - 512..end - 480], 12);
        log.bytes[end - 500..end - 496].copy_from_slice(&checksum.to_le_bytes());
        if eol % 3 == 0 {
            log.bytes[44..52].copy_from_slice(&eol.to_le_bytes());
        }
        let mut scan = Scan::open(Bytes(log.bytes)).unwrap();
        while scan.next().unwrap().is_some() {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_of_garbage_is_refused(
        order in prop::collection::vec(any::<u8>(), 4097..9000),
        log in prop::collection::vec(any::<u8>(), 0..9000),
    ) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("00000001.order"), &order).unwrap();
        std::fs::write(folder.path().join("00000001-disk-00.hrl"), &log).unwrap();
        let storage = UringStorage::open(folder.path()).unwrap();
        let settings = JournalSettings::of(JournalSettings::BYTES_MIN).unwrap();
        let birth = Birth { incarnation: Incarnation::from_bytes([3; 16]), boot: [0; 16] };
        prop_assert!(open(storage, settings, &birth).is_err());
        let left = std::fs::read(folder.path().join("00000001.order")).unwrap();
        prop_assert!(left == order, "nothing is changed");
    }
}
