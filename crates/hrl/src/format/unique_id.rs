//! The ids of logs: each log has one and names that of the log before it.

use std::fmt;

use tidegate_model::{Checksum, DiskNumber, Incarnation};

/// A UUID as [MS-HRL] stores one: 16 bytes, the first three groups little-endian.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct UniqueId(pub [u8; 16]);

impl UniqueId {
    /// No log.
    pub const NONE: Self = Self([0; 16]);

    /// The id of the log of `disk` in one segment of an incarnation's journal. It follows from these,
    /// whose randomness is the incarnation's, so that a log in a wrong place is found: a UUID of
    /// version 8 (RFC 9562), two XXH3-64 with the version and variant bits set.
    #[must_use]
    pub fn of_log(incarnation: Incarnation, segment: u64, disk: DiskNumber) -> Self {
        let mut name = [0; 26];
        name[..16].copy_from_slice(incarnation.as_bytes());
        name[16..24].copy_from_slice(&segment.to_le_bytes());
        name[24] = disk.get();
        let mut bytes = [0; 16];
        for (half, number) in bytes.chunks_exact_mut(8).zip(0..) {
            name[25] = number;
            half.copy_from_slice(&Checksum::of(&name).0.to_le_bytes());
        }
        bytes[7] = bytes[7] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        order.iter().enumerate().try_for_each(|(place, index)| {
            let dash = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{:02x}", self.0[*index])
        })
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UniqueId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_like_other_uuids_and_differs_by_all_that_it_follows_from() {
        let id = UniqueId(std::array::from_fn(|index| u8::try_from(index).unwrap()));
        assert_eq!(id.to_string(), "03020100-0504-0706-0809-0a0b0c0d0e0f");
        let disk = |number: u8| DiskNumber::try_from(number).unwrap();
        let incarnation = |byte| Incarnation::from_bytes([byte; 16]);
        let all = [
            UniqueId::of_log(incarnation(1), 1, disk(0)),
            UniqueId::of_log(incarnation(2), 1, disk(0)),
            UniqueId::of_log(incarnation(1), 2, disk(0)),
            UniqueId::of_log(incarnation(1), 1, disk(1)),
        ];
        for (index, id) in all.iter().enumerate() {
            assert!(!all[..index].contains(id));
            let text = id.to_string();
            assert_eq!(&text[14..15], "8", "{text}");
            assert!("89ab".contains(&text[19..20]), "{text}");
        }
    }
}
