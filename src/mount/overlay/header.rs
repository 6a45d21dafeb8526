//! The first page of an overlay, and where in the file what lies. docs/formats/overlay.md. Pure.

use tidegate_model::limits::{DISK_BYTES_MAX, DISKS_MAX, NAME_BYTES_MAX};
use tidegate_model::{
    Checksum, Disk, DiskNumber, Epoch, Lsn, Name, Point, Reader, Short, VaultId, Writer,
};

/// Bytes of a page: of the header, and of a map.
pub(super) const PAGE_BYTES: usize = 4096;
/// What is kept as a whole: a page, too, of the systems that write to disks.
pub(super) const BLOCK_BYTES: u64 = PAGE_BYTES as u64;
/// Blocks of which one page of a map tells.
pub(super) const PAGE_BLOCKS: u64 = PAGE_BYTES as u64 * 8;

const MAGIC: [u8; 4] = *b"TGOV";
const FORMAT: u16 = 1;
/// The page but for its checksum.
const CHECKED_BYTES: usize = PAGE_BYTES - 8;

/// Over what an overlay lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beneath {
    /// The vault.
    pub vault: VaultId,
    /// The machine.
    pub machine: Name,
    /// The point.
    pub point: Point,
    /// Its disks that are mounted, by number: how long each is.
    pub disks: Vec<(DiskNumber, u64)>,
}

/// Why a page is no header of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// Another kind of file.
    #[error("it is no overlay")]
    Magic,
    /// A newer program's.
    #[error("it is an overlay of format {0}, and this program knows format {FORMAT}")]
    Format(u16),
    /// Changed since it was written.
    #[error("its first page is damaged")]
    Damaged,
}

impl From<Short> for HeaderError {
    fn from(_: Short) -> Self {
        Self::Magic
    }
}

impl Beneath {
    /// The disks of a point.
    pub(crate) fn of<'d>(
        vault: VaultId,
        machine: Name,
        point: Point,
        disks: impl Iterator<Item = &'d Disk>,
    ) -> Self {
        let disks = disks.map(|disk| (disk.number, disk.bytes)).collect();
        Self { vault, machine, point, disks }
    }

    /// The page.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_BYTES);
        let name = self.machine.as_str().as_bytes();
        let count = |of: usize| u8::try_from(of).expect("names and disks have limits below 256");
        let mut writer = Writer::new(&mut page);
        writer.bytes(&MAGIC).u16(FORMAT).u8(count(self.disks.len())).u8(count(name.len()));
        writer.bytes(self.vault.as_bytes()).u64(self.point.lsn.0).u32(self.point.epoch.0).zeros(4);
        writer.bytes(name).zeros(NAME_BYTES_MAX + 1 - name.len());
        for (number, bytes) in &self.disks {
            writer.u64(*bytes).u8(number.get()).zeros(7);
        }
        page.resize(CHECKED_BYTES, 0);
        let checksum = Checksum::of(&page);
        Writer::new(&mut page).u64(checksum.0);
        page
    }

    /// Reads a page.
    pub(super) fn decode(page: &[u8]) -> Result<Self, HeaderError> {
        let mut reader = Reader::new(page);
        if reader.array::<4>()? != MAGIC {
            return Err(HeaderError::Magic);
        }
        let checked = page.get(..CHECKED_BYTES).ok_or(HeaderError::Damaged)?;
        let stated = Reader::new(&page[CHECKED_BYTES..]).u64()?;
        if Checksum::of(checked).0 != stated {
            return Err(HeaderError::Damaged);
        }
        let format = reader.u16()?;
        if format != FORMAT {
            return Err(HeaderError::Format(format));
        }
        Self::fields(&mut reader).ok_or(HeaderError::Damaged)
    }

    fn fields(reader: &mut Reader<'_>) -> Option<Self> {
        let (disks, name) = (usize::from(reader.u8().ok()?), usize::from(reader.u8().ok()?));
        let vault = VaultId::from_bytes(reader.array().ok()?);
        let (lsn, epoch) = (Lsn(reader.u64().ok()?), Epoch(reader.u32().ok()?));
        reader.bytes(4).ok()?;
        let field = reader.bytes(NAME_BYTES_MAX + 1).ok()?;
        let machine = std::str::from_utf8(field.get(..name)?).ok()?.parse().ok()?;
        let disk = |_| {
            let (bytes, number) = (reader.u64().ok()?, reader.u8().ok()?);
            reader.bytes(7).ok()?;
            let number = DiskNumber::try_from(number).ok()?;
            (bytes <= DISK_BYTES_MAX).then_some((number, bytes))
        };
        let disks = (0..disks).map(disk).collect::<Option<Vec<_>>>()?;
        let rises = disks.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let point = Point { epoch, lsn };
        rises.then_some(Self { vault, machine, point, disks })
    }

    /// Where the parts of each disk lie, and how long the file is.
    pub(super) fn layout(&self) -> (Vec<Place>, u64) {
        let mut places: Vec<_> = self
            .disks
            .iter()
            .map(|(_, bytes)| Place { bytes: *bytes, map_at: 0, data_at: 0 })
            .collect();
        let mut at = PAGE_BYTES as u64;
        for place in &mut places {
            place.map_at = at;
            at += place.pages() * PAGE_BYTES as u64;
        }
        for place in &mut places {
            place.data_at = at;
            at += place.blocks() * BLOCK_BYTES;
        }
        (places, at)
    }
}

/// Where a disk's map and data lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// How long the disk is.
    pub bytes: u64,
    /// Its map: a bit for each block, set where the overlay has it.
    pub map_at: u64,
    /// Its data: each block at its place on the disk.
    pub data_at: u64,
}

impl Place {
    /// Blocks of the disk; the last may be cut.
    pub const fn blocks(&self) -> u64 {
        self.bytes.div_ceil(BLOCK_BYTES)
    }

    /// Pages of its map.
    pub const fn pages(&self) -> u64 {
        self.blocks().div_ceil(PAGE_BLOCKS)
    }
}

const _: () = {
    assert!(NAME_BYTES_MAX < 256 && DISKS_MAX < 256);
    assert!(40 + NAME_BYTES_MAX + 1 + DISKS_MAX * 16 <= CHECKED_BYTES, "a header is one page");
    // Every place in the longest file fits a signed offset.
    assert!(DISKS_MAX as u64 * (DISK_BYTES_MAX + DISK_BYTES_MAX / 1024) < i64::MAX as u64);
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn beneath() -> Beneath {
        Beneath {
            vault: VaultId::from_bytes([1; 16]),
            machine: "db-1".parse().unwrap(),
            point: Point { epoch: Epoch(3), lsn: Lsn(118_204) },
            disks: [(0, 4096 * 32_768 + 1), (2, 0), (5, 513)]
                .map(|(number, bytes)| (DiskNumber::try_from(number).unwrap(), bytes))
                .to_vec(),
        }
    }

    #[test]
    fn a_header_has_these_bytes() {
        let page = beneath().encode();
        assert_eq!(page.len(), PAGE_BYTES);
        assert_eq!(page[..8], *b"TGOV\x01\x00\x03\x04");
        assert_eq!(page[8..24], [1; 16]);
        assert_eq!(page[24..40], *b"\xbc\xcd\x01\0\0\0\0\0\x03\0\0\0\0\0\0\0");
        assert_eq!(page[40..46], *b"db-1\0\0");
        assert_eq!(page[104..120], *b"\x01\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(page[136..152], *b"\x01\x02\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
        assert!(page[152..CHECKED_BYTES].iter().all(|byte| *byte == 0));
        assert_eq!(page[CHECKED_BYTES..], Checksum::of(&page[..CHECKED_BYTES]).0.to_le_bytes());
        assert_eq!(Beneath::decode(&page), Ok(beneath()));
    }

    #[test]
    fn parts_of_a_file_follow_each_other() {
        let (places, length) = beneath().layout();
        assert_eq!(places[0].map_at, 4096);
        assert_eq!((places[0].pages(), places[1].map_at), (2, 3 * 4096));
        assert_eq!((places[1].pages(), places[2].map_at), (0, 3 * 4096));
        assert_eq!((places[2].pages(), places[0].data_at), (1, 4 * 4096));
        assert_eq!(places[2].data_at, 4 * 4096 + 32_769 * 4096);
        assert_eq!(length, places[2].data_at + 4096);
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_found(at in 0..PAGE_BYTES, bit in 0..8_u32) {
            let mut page = beneath().encode();
            page[at] ^= 1 << bit;
            prop_assert!(Beneath::decode(&page).is_err());
        }

        #[test]
        fn no_page_panics(mut page in proptest::collection::vec(any::<u8>(), 0..PAGE_BYTES + 1)) {
            for (byte, magic) in page.iter_mut().zip(MAGIC) {
                *byte = magic;
            }
            let _ = Beneath::decode(&page);
            // With a checksum that fits, so that the fields are looked at.
            page.resize(CHECKED_BYTES, 0);
            page[4..6].copy_from_slice(&FORMAT.to_le_bytes());
            let checksum = Checksum::of(&page);
            Writer::new(&mut page).u64(checksum.0);
            let _ = Beneath::decode(&page);
        }
    }
}
