//! The first 160 bytes of a pack. docs/formats/pack.md, "Header".

use tidegate_model::limits::{PACK_BYTES_MAX, PACK_FRAMES_MAX};
use tidegate_model::{FrameNumber, LogId, PackId, PackNumber, Reader, RunId, VaultId, Writer};

use super::error::{PackError, reserved};
use super::index_codec::SEALED_INDEX_BYTES_MAX;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 160;
/// The part of the header that the sealed index authenticates: all before the digest.
const AUTHENTICATED_BYTES: usize = 104;
/// Where the length of the sealed index stands.
const INDEX_BYTES_AT: usize = 76;
const MAGIC: [u8; 8] = *b"TGPACK1\0";
const FORMAT: u16 = 1;

/// What an object at a pack's place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackKind {
    /// A pack.
    Pack,
    /// The end of the log, put there by garbage collection so that a silent owner's put fails.
    Tombstone,
}

impl PackKind {
    const fn code(self) -> u16 {
        match self {
            Self::Pack => 1,
            Self::Tombstone => 2,
        }
    }
}

/// A pack's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackHeader {
    /// What it is.
    pub kind: PackKind,
    /// The root key version under which index and frames are sealed.
    pub key_version: u32,
    /// The vault.
    pub vault: VaultId,
    /// The log.
    pub log: LogId,
    /// Its place in the log.
    pub number: PackNumber,
    /// No frame of this pack has a lower number, and none before it has this or a higher one.
    pub first_frame: FrameNumber,
    /// How many frames it has.
    pub frame_count: u32,
    /// Bytes of the sealed index, tag included.
    pub index_bytes: u32,
    /// Bytes of the whole object.
    pub object_bytes: u64,
    /// Random: tells it from any other pack of its number.
    pub id: PackId,
    /// BLAKE3 of the bytes before this field and of the sealed index.
    pub digest: [u8; 32],
}

impl PackHeader {
    /// The bytes that the sealed index authenticates.
    #[must_use]
    pub fn authenticated(&self) -> [u8; AUTHENTICATED_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        self.write_authenticated(&mut bytes);
        let mut array = [0; AUTHENTICATED_BYTES];
        array.copy_from_slice(&bytes);
        array
    }

    /// Appends the header.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let begin = buffer.len();
        self.write_authenticated(buffer);
        Writer::new(buffer).bytes(&self.digest);
        buffer.resize(begin + HEADER_BYTES, 0);
    }

    fn write_authenticated(&self, buffer: &mut Vec<u8>) {
        Writer::new(buffer)
            .bytes(&MAGIC)
            .u16(FORMAT)
            .u16(self.kind.code())
            .u32(self.key_version)
            .bytes(self.vault.as_bytes())
            .bytes(self.log.run.as_bytes())
            .u16(self.log.shard)
            .zeros(6)
            .u64(self.number.0)
            .u64(self.first_frame.0)
            .u32(self.frame_count)
            .u32(self.index_bytes)
            .u64(self.object_bytes)
            .bytes(self.id.as_bytes());
    }

    /// Reads a header from the first bytes of an object and checks each field against its limit.
    /// Nothing is authenticated yet: [`super::open_index`] does that.
    ///
    /// # Errors
    /// [`PackError`] when it is no header of ours.
    pub fn decode(bytes: &[u8]) -> Result<Self, PackError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<8>()? != MAGIC {
            return Err(PackError::Magic);
        }
        let format = reader.u16()?;
        if format != FORMAT {
            return Err(PackError::Format(format)); // or damage: [`Envelope`] tells
        }
        let kind = match reader.u16()? {
            1 => PackKind::Pack,
            2 => PackKind::Tombstone,
            _ => return Err(PackError::Field("the header's kind is unknown")),
        };
        let key_version = reader.u32()?;
        let vault = VaultId::from_bytes(reader.array()?);
        let run = RunId::from_bytes(reader.array()?);
        let shard = reader.u16()?;
        reserved(&mut reader, 6)?;
        let header = Self {
            kind,
            key_version,
            vault,
            log: LogId { run, shard },
            number: PackNumber(reader.u64()?),
            first_frame: FrameNumber(reader.u64()?),
            frame_count: reader.u32()?,
            index_bytes: reader.u32()?,
            object_bytes: reader.u64()?,
            id: PackId::from_bytes(reader.array()?),
            digest: reader.array()?,
        };
        reserved(&mut reader, HEADER_BYTES - AUTHENTICATED_BYTES - 32)?;
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), PackError> {
        let bare = self.frame_count == 0
            && self.index_bytes == 0
            && self.object_bytes == HEADER_BYTES as u64;
        if self.kind == PackKind::Tombstone && !bare {
            return Err(PackError::Field("a tombstone has something behind its header"));
        }
        if self.frame_count > PACK_FRAMES_MAX {
            return Err(PackError::Field("the header states too many frames"));
        }
        if self.index_bytes as usize > SEALED_INDEX_BYTES_MAX {
            return Err(PackError::Field("the header states too long an index"));
        }
        let least = HEADER_BYTES as u64 + u64::from(self.index_bytes);
        if self.object_bytes > PACK_BYTES_MAX || self.object_bytes < least {
            return Err(PackError::Field("the header states an impossible size"));
        }
        Ok(())
    }

    /// The digest that belongs to this header and this sealed index.
    #[must_use]
    pub fn digest_with(&self, sealed_index: &[u8]) -> [u8; 32] {
        digest(&self.authenticated(), sealed_index)
    }

    /// Where the first frame begins in the object.
    #[must_use]
    pub const fn frames_begin(&self) -> u64 {
        HEADER_BYTES as u64 + self.index_bytes as u64
    }
}

/// What the header of every format has at the same place: by it a reader tells a newer format from
/// a changed bit. docs/formats/pack.md, "Header".
#[derive(Debug, Clone)]
pub struct Envelope {
    covered: [u8; AUTHENTICATED_BYTES],
    digest: [u8; 32],
    /// Bytes of the sealed index.
    pub index_bytes: u32,
}

impl Envelope {
    /// Reads it from the first bytes of an object.
    ///
    /// # Errors
    /// [`PackError`] when these are too few, or state an index that is longer than any.
    pub fn decode(bytes: &[u8]) -> Result<Self, PackError> {
        let mut reader = Reader::new(bytes);
        let covered: [u8; AUTHENTICATED_BYTES] = reader.array()?;
        let digest = reader.array()?;
        let index_bytes = Reader::new(&covered[INDEX_BYTES_AT..]).u32()?;
        if index_bytes as usize > SEALED_INDEX_BYTES_MAX {
            return Err(PackError::Field("the header states too long an index"));
        }
        Ok(Self { covered, digest, index_bytes })
    }

    /// Whether this is the sealed index that was written with the header, and nothing changed.
    #[must_use]
    pub fn fits(&self, sealed_index: &[u8]) -> bool {
        digest(&self.covered, sealed_index) == self.digest
    }
}

fn digest(covered: &[u8; AUTHENTICATED_BYTES], sealed_index: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(covered).update(sealed_index);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> PackHeader {
        PackHeader {
            kind: PackKind::Pack,
            key_version: 1,
            vault: VaultId::from_bytes([1; 16]),
            log: LogId { run: RunId::from_bytes([2; 16]), shard: 3 },
            number: PackNumber(4),
            first_frame: FrameNumber(5),
            frame_count: 6,
            index_bytes: 700,
            object_bytes: 8000,
            id: PackId::from_bytes([9; 16]),
            digest: [10; 32],
        }
    }

    #[test]
    fn a_header_reads_back() {
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(PackHeader::decode(&bytes), Ok(header()));
    }

    #[test]
    fn a_header_cut_at_any_byte_is_refused() {
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        for end in 0..HEADER_BYTES {
            assert!(PackHeader::decode(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn the_envelope_of_any_format_shows_a_changed_bit() {
        let mut header = header();
        header.digest = header.digest_with(b"index");
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        let envelope = Envelope::decode(&bytes).unwrap();
        assert_eq!(envelope.index_bytes, 700);
        assert!(envelope.fits(b"index") && !envelope.fits(b"indey"));
        for at in 0..136 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(!Envelope::decode(&flipped).is_ok_and(|it| it.fits(b"index")), "{at}");
        }
        bytes[INDEX_BYTES_AT + 3] = 0xff;
        assert!(Envelope::decode(&bytes).is_err());
    }

    #[test]
    fn what_is_no_header_of_ours_is_refused() {
        let refused = |change: &dyn Fn(&mut PackHeader)| {
            let mut header = header();
            change(&mut header);
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            PackHeader::decode(&bytes).is_err()
        };
        assert!(!refused(&|_| ()));
        assert!(refused(&|h| h.frame_count = PACK_FRAMES_MAX + 1));
        assert!(refused(&|h| h.index_bytes = u32::MAX));
        assert!(refused(&|h| h.object_bytes = PACK_BYTES_MAX + 1));
        assert!(refused(&|h| h.object_bytes = 800));
        assert!(refused(&|h| h.kind = PackKind::Tombstone));
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        bytes[8] = 2;
        assert_eq!(PackHeader::decode(&bytes), Err(PackError::Format(2)));
        bytes[0] = b'X';
        assert_eq!(PackHeader::decode(&bytes), Err(PackError::Magic));
    }
}
