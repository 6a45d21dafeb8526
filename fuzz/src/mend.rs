//! Makes checks right where a fuzzer would never guess them, so that it gets to what they guard.

use tidegate_hrl::order::{Mark, RECORD_BYTES};
use tidegate_model::Checksum;
use tidegate_wire::HEADER_BYTES;

/// Where a frame's header states the length of its payload, the payload's checksum, and its own.
const PAYLOAD_BYTES_AT: usize = 4;
const PAYLOAD_CHECK_AT: usize = HEADER_BYTES - 16;
const HEADER_CHECK_AT: usize = HEADER_BYTES - 8;

/// Where a record of an order file states the length of its text, its kind, and of a write the place,
/// length and checksum of its data.
const TEXT_BYTES_AT: usize = 12;
const KIND_AT: usize = 8;
const LENGTH_AT: usize = 40;
const LOCATION_AT: usize = 48;
const CHECKSUM_AT: usize = 56;
const WRITE: u8 = 3;

/// Frames of the wire (docs/formats/wire.md), each with the checks that belong to its bytes.
pub(crate) fn frames(bytes: &[u8]) -> Vec<u8> {
    let mut mended = bytes.to_vec();
    let mut rest = mended.as_mut_slice();
    while rest.len() >= HEADER_BYTES {
        let (header, behind) = rest.split_at_mut(HEADER_BYTES);
        let stated = u32_at(header, PAYLOAD_BYTES_AT) as usize;
        let (payload, behind) = behind.split_at_mut(stated.min(behind.len()));
        put(header, PAYLOAD_CHECK_AT, Checksum::of(payload).0);
        let check = Checksum::of(&header[..HEADER_CHECK_AT]).0;
        put(header, HEADER_CHECK_AT, check);
        rest = behind;
    }
    mended
}

/// Records of an order file (docs/formats/order.md) with this mark, and the data of its writes.
pub(crate) fn records(bytes: &mut [u8], mark: Mark, data: &[u8]) {
    let mut rest = bytes;
    while rest.len() >= RECORD_BYTES {
        let text = (u32_at(rest, TEXT_BYTES_AT) as usize).min(rest.len() - RECORD_BYTES);
        let (record, behind) = rest.split_at_mut(RECORD_BYTES + text);
        if record[KIND_AT] == WRITE {
            let begin = u64_at(record, LOCATION_AT).min(data.len() as u64);
            let end = begin.saturating_add(u64_at(record, LENGTH_AT)).min(data.len() as u64);
            let place = usize::try_from(begin).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
            put(record, CHECKSUM_AT, Checksum::of(&data[place]).0);
        }
        put(record, 0, mark.check(&record[8..]));
        rest = behind;
    }
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
