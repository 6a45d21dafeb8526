//! Random values of every format.

use proptest::prelude::*;
use tidegate_hrl::format::{Entry, FileHeader, Stamp, UniqueId, Version};
use tidegate_hrl::order::{OrderBody, OrderHeader, OrderRecord, SegmentEnding};
use tidegate_model::limits::{DISK_BYTES_MAX, DISKS_MAX};
use tidegate_model::{
    Bookmark, BookmarkKind, Checksum, Disk, DiskNumber, Extent, Incarnation, Lsn, Micros,
};

fn disk() -> impl Strategy<Value = DiskNumber> {
    (0_u8..64).prop_map(|number| DiskNumber::try_from(number).unwrap())
}

fn extent(length_max: u64) -> impl Strategy<Value = Extent> {
    (disk(), 0..DISK_BYTES_MAX / 2, 1..=length_max).prop_map(|(disk, offset, length)| Extent {
        disk,
        offset,
        length,
    })
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé/ ]{0,300}"
}

fn body() -> impl Strategy<Value = OrderBody> {
    let kind = prop_oneof![
        Just(BookmarkKind::CrashConsistent),
        Just(BookmarkKind::ApplicationConsistent),
        Just(BookmarkKind::Group),
        Just(BookmarkKind::CopyEnd),
        Just(BookmarkKind::GapJournalFull),
        Just(BookmarkKind::GapKilled),
        Just(BookmarkKind::GapDiskError),
        Just(BookmarkKind::GapPass),
    ];
    let ending = prop_oneof![
        Just(SegmentEnding::Closed),
        Just(SegmentEnding::Continued),
        Just(SegmentEnding::Recovered),
    ];
    prop_oneof![
        (disk(), 0..=DISK_BYTES_MAX, text())
            .prop_map(|(number, bytes, name)| OrderBody::Disk(Disk { number, bytes, name })),
        (extent(256 << 10), any::<u64>(), any::<u64>()).prop_map(|(extent, location, checksum)| {
            OrderBody::Write { extent, location, checksum: Checksum(checksum) }
        }),
        extent(DISK_BYTES_MAX / 2).prop_map(OrderBody::Zero),
        (kind, any::<bool>(), text())
            .prop_map(|(kind, clean, name)| OrderBody::Bookmark(Bookmark { kind, clean, name })),
        Just(OrderBody::Time),
        any::<u64>().prop_map(|lsn| OrderBody::Committed(Lsn(lsn))),
        (any::<u64>(), ending)
            .prop_map(|(committed, ending)| OrderBody::End { committed: Lsn(committed), ending }),
    ]
}

pub fn order_record() -> impl Strategy<Value = OrderRecord> {
    (any::<u64>(), any::<u64>(), any::<u64>(), body()).prop_map(|(lsn, time, durable, body)| {
        OrderRecord { lsn: Lsn(lsn), time: Micros(time), durable: Lsn(durable), body }
    })
}

pub fn order_header() -> impl Strategy<Value = OrderHeader> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    (any::<[u8; 16]>(), numbers, any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(
        |(incarnation, (segment, first, committed, time), boot, log)| OrderHeader {
            incarnation: Incarnation::from_bytes(incarnation),
            segment,
            first: Lsn(first),
            committed: Lsn(committed),
            time: Micros(time),
            boot,
            last_logs: std::array::from_fn::<_, DISKS_MAX, _>(|index| {
                if index % 3 == 0 { UniqueId(log) } else { UniqueId::NONE }
            }),
        },
    )
}

pub fn entry() -> impl Strategy<Value = Entry> {
    (any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
        |(byte_offset, data_bytes, time, data_checksum)| Entry {
            byte_offset,
            data_bytes,
            time: Stamp(time),
            data_checksum,
        },
    )
}

pub fn file_header() -> impl Strategy<Value = FileHeader> {
    let sizes = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let small = (any::<u32>(), any::<[u8; 4]>(), any::<u32>(), any::<u32>(), any::<u16>());
    let ids = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u8; 16]>());
    (any::<bool>(), sizes, small, ids, 1_u32..=2048).prop_map(
        |(newer, sizes, (created, application, version, modified, flags), ids, blocks)| {
            FileHeader {
                version: if newer { Version::V2 } else { Version::V1 },
                created: Stamp(created),
                creator_application: application,
                creator_version: version,
                original_bytes: sizes.0,
                current_bytes: sizes.1,
                eol_location: sizes.2,
                error_code: 0,
                metadata_bytes: blocks * 512,
                unique_id: UniqueId(ids.0),
                previous_unique_id: UniqueId(ids.1),
                last_modified: Stamp(modified),
                entries_total: sizes.3,
                file_type: 0,
                flags,
                data_write_guid: if newer { UniqueId(ids.2) } else { UniqueId::NONE },
            }
        },
    )
}
