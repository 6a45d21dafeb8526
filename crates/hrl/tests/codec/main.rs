//! Codecs and scan as their users see them: what is written reads back, what was changed is refused,
//! and garbage is neither believed nor able to stop anything.

#![allow(clippy::unwrap_used)] // also in functions that tests share

mod cut;
mod garbage;
mod log;
mod strategies;

use proptest::prelude::*;
use tidegate_hrl::format::{Block, Entry, FileHeader, encode_block};
use tidegate_hrl::order::{Mark, OrderHeader, OrderRecord, RecordError};
use tidegate_model::{DiskNumber, Incarnation};

use strategies::{entry, file_header, order_header, order_record};

fn mark(segment: u64) -> Mark {
    Mark::of(Incarnation::from_bytes([3; 16]), segment)
}

proptest! {
    #[test]
    fn an_order_record_reads_back_and_no_changed_one_does(
        record in order_record(),
        at in any::<prop::sample::Index>(),
        bit in 0_u32..8,
    ) {
        let mut bytes = Vec::new();
        record.encode(mark(1), &mut bytes);
        let length = bytes.len();
        let (read, count) = OrderRecord::decode(mark(1), &bytes).unwrap();
        prop_assert_eq!((read, count), (record, length));
        prop_assert!(OrderRecord::decode(mark(2), &bytes).is_err(), "of another segment");
        let cut = OrderRecord::decode(mark(1), &bytes[..length - 1]);
        prop_assert!(matches!(cut, Err(RecordError::Short(_))));
        bytes[at.index(length)] ^= 1 << bit;
        prop_assert!(OrderRecord::decode(mark(1), &bytes).is_err());
    }

    #[test]
    fn an_order_header_reads_back_and_no_changed_one_does(
        header in order_header(),
        at in any::<prop::sample::Index>(),
        bit in 0_u32..8,
    ) {
        let mut bytes = header.encode();
        prop_assert_eq!(OrderHeader::decode(&bytes).unwrap(), header);
        prop_assert!(OrderHeader::decode(&bytes[..4095]).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(OrderHeader::decode(&bytes).is_err());
    }

    #[test]
    fn a_file_header_reads_back_and_a_changed_one_is_doubted(
        header in file_header(),
        at in any::<prop::sample::Index>(),
        bit in 0_u32..8,
    ) {
        let mut bytes = header.encode();
        let (read, doubts) = FileHeader::decode(&bytes).unwrap();
        prop_assert_eq!(&read, &header);
        prop_assert!(doubts.is_empty());
        // Behind the cookie, whose last byte is the checksum's business like all others.
        let at = 7 + at.index(bytes.len() - 7);
        bytes[at] ^= 1 << bit;
        let changed = FileHeader::decode(&bytes);
        prop_assert!(changed.is_err() || !changed.unwrap().1.is_empty());
    }

    #[test]
    fn a_block_reads_back_and_an_entry_that_changed_is_found(
        mut entries in prop::collection::vec(entry(), 0..=127),
        distance in any::<u64>(),
        at in any::<prop::sample::Index>(),
        bit in 0_u32..8,
    ) {
        entries.sort_by_key(|entry| entry.time);
        let mut bytes = encode_block(distance, &entries, 4096);
        let block = Block::decode(&bytes).unwrap();
        prop_assert_eq!(&block.entries, &entries);
        prop_assert_eq!(block.header.previous_distance, distance);
        let at = at.index(32 + 32 * entries.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Block::decode(&bytes).is_err());
    }
}

#[test]
fn an_operation_that_is_not_known_is_refused() {
    let mut bytes = Vec::new();
    Entry::default().encode(&mut bytes);
    // The operation one up, the checksum one down.
    bytes[20] += 1;
    let checksum = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) - 1;
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    let error = Entry::decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("operation is 2"), "{error}");
}

#[test]
fn a_record_whose_check_fits_and_whose_fields_can_not_be_is_told_apart() {
    let record = OrderRecord {
        lsn: tidegate_model::Lsn(1),
        time: tidegate_model::Micros(1),
        durable: tidegate_model::Lsn(0),
        body: tidegate_hrl::order::OrderBody::Zero(tidegate_model::Extent {
            disk: DiskNumber::default(),
            offset: u64::MAX,
            length: 2,
        }),
    };
    let mut bytes = Vec::new();
    record.encode(mark(1), &mut bytes);
    assert_eq!(OrderRecord::decode(mark(1), &bytes), Err(RecordError::Field("extent")));
}
