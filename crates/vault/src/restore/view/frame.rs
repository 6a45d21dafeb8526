//! A frame that was opened: its content, and the kept records in it.

use tidegate_model::{BlockName, Checksum};

use crate::log::{PackPlace, PackRead};
use crate::pack::Content;
use crate::restore::error::Damage;
use crate::restore::map::Kept;

/// A frame's content. It was authenticated; each record in it was compared with its checksum once.
pub struct OpenFrame {
    plain: Vec<u8>,
    records: Vec<InFrame>,
}

/// A kept record, as the index of its pack states it.
struct InFrame {
    begin: u32,
    bytes: u32,
    checksum: Checksum,
    name: Option<BlockName>,
    /// Whether its bytes have the checksum.
    is_whole: bool,
}

impl OpenFrame {
    /// The frame at this place of a pack, whose content was opened.
    pub fn of(pack: &PackRead, place: u32, plain: Vec<u8>) -> Self {
        let records = pack.index.kept_of(place).filter_map(|record| {
            let Content::Kept { extent, checksum, name, offset, .. } = &record.content else {
                return None;
            };
            // Opening the index made sure that the record lies within its frame.
            let bytes = u32::try_from(extent.length).ok()?;
            let found = plain.get(*offset as usize..)?.get(..bytes as usize)?;
            let is_whole = Checksum::of(found) == *checksum;
            Some(InFrame { begin: *offset, bytes, checksum: *checksum, name: *name, is_whole })
        });
        let records = records.collect();
        Self { plain, records }
    }

    /// The bytes of a kept record, from `skip` on so many.
    ///
    /// # Errors
    /// [`Damage`] when there is no such record, it is another than was meant, or its bytes aren't
    /// those that were captured.
    pub fn bytes_of(
        &self,
        wanted: &Kept,
        skip: u32,
        length: usize,
        place: &PackPlace,
    ) -> Result<&[u8], Damage> {
        let (frame, ordinal) = (wanted.frame, wanted.ordinal);
        let missing = || Damage::Record { place: place.clone(), frame, ordinal };
        let there = self.records.get(ordinal as usize).filter(|there| there.is(wanted));
        let there = there.ok_or_else(missing)?;
        if !there.is_whole {
            return Err(Damage::Checksum { place: place.clone(), frame, ordinal });
        }
        let begin = there.begin as usize;
        let record = &self.plain[begin..begin + there.bytes as usize];
        record.get(skip as usize..).and_then(|rest| rest.get(..length)).ok_or_else(missing)
    }

    /// What it takes of memory.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.plain.capacity() + self.records.capacity() * size_of::<InFrame>()
    }
}

impl InFrame {
    fn is(&self, wanted: &Kept) -> bool {
        self.bytes == wanted.bytes
            && self.checksum == wanted.checksum
            && wanted.name.is_none_or(|name| self.name == Some(name))
    }
}
