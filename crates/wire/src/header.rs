//! The 56 bytes in front of every frame. docs/formats/wire.md, "Header".

use tidegate_model::{Checksum, Lsn, Micros, Reader};

use crate::DecodeError;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 56;
/// The part that the header's check covers.
const CHECKED_BYTES: usize = 48;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Agent: who it is and what it has.
    Hello = 1,
    /// Agent, record: a disk and its size.
    Disk = 2,
    /// Agent, record: bytes written to a disk.
    Write = 3,
    /// Agent, record: zeros written to a disk.
    Zero = 4,
    /// Agent, record: a named place in the stream.
    Bookmark = 5,
    /// Agent, record: time passed.
    Time = 6,
    /// Agent: nothing follows.
    Bye = 8,
    /// Server: what the agent gets, and where it goes on.
    Welcome = 65,
    /// Server: what has been received, and what is stored.
    Ack = 67,
    /// Server: the right to send more.
    Credit = 68,
    /// Server: why it takes so long.
    Slow = 69,
    /// Server: no, and why.
    Refuse = 71,
}

impl Kind {
    /// The kind with this code; `None` for codes that are reserved or unknown.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Hello,
            2 => Self::Disk,
            3 => Self::Write,
            4 => Self::Zero,
            5 => Self::Bookmark,
            6 => Self::Time,
            8 => Self::Bye,
            65 => Self::Welcome,
            67 => Self::Ack,
            68 => Self::Credit,
            69 => Self::Slow,
            71 => Self::Refuse,
            _ => return None,
        })
    }
}

/// A frame's header, as it lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame says.
    pub kind: Kind,
    /// Bit 0 of a bookmark: clean. Otherwise 0.
    pub flags: u8,
    /// The disk, for records about one; otherwise 0.
    pub disk: u8,
    /// Bytes that follow.
    pub payload_bytes: u32,
    /// The record's number; in an ack the last one received.
    pub lsn: Lsn,
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// How many bytes of the disk; of a disk its size; of a credit the bytes granted.
    pub length: u64,
    /// When the record happened.
    pub time: Micros,
    /// Checksum of the payload.
    pub checksum: Checksum,
}

impl Header {
    /// A header of this kind with no payload and all else 0.
    #[must_use]
    pub const fn of(kind: Kind) -> Self {
        Self {
            kind,
            flags: 0,
            disk: 0,
            payload_bytes: 0,
            lsn: Lsn::NONE,
            offset: 0,
            length: 0,
            time: Micros(0),
            checksum: Checksum(0),
        }
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.kind as u8;
        bytes[1] = self.flags;
        bytes[2] = self.disk;
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        let words = [self.lsn.0, self.offset, self.length, self.time.0, self.checksum.0];
        for (at, word) in (8..).step_by(8).zip(words) {
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let check = Checksum::of(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&check.0.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`DecodeError`] when its check doesn't fit, its kind is unknown, or a reserved byte is set.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut check = [0; 8];
        check.copy_from_slice(&bytes[CHECKED_BYTES..]);
        if Checksum::of(&bytes[..CHECKED_BYTES]).0 != u64::from_le_bytes(check) {
            return Err(DecodeError::HeaderCheck);
        }
        Self::fields(&mut Reader::new(bytes))
    }

    fn fields(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let code = reader.u8()?;
        let kind = Kind::from_code(code).ok_or(DecodeError::Kind(code))?;
        let (flags, disk) = (reader.u8()?, reader.u8()?);
        if reader.u8()? != 0 {
            return Err(DecodeError::Reserved);
        }
        Ok(Self {
            kind,
            flags,
            disk,
            payload_bytes: reader.u32()?,
            lsn: Lsn(reader.u64()?),
            offset: reader.u64()?,
            length: reader.u64()?,
            time: Micros(reader.u64()?),
            checksum: Checksum(reader.u64()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::Write,
            flags: 0,
            disk: 2,
            payload_bytes: 4096,
            lsn: Lsn(7),
            offset: 1 << 40,
            length: 4096,
            time: Micros(1_700_000_000_000_000),
            checksum: Checksum(0x0102_0304_0506_0708),
        }
    }

    #[test]
    fn a_headers_bytes_are_golden() {
        let hex: String = header().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "03000200",
            "00100000",
            "0700000000000000",
            "0000000000010000",
            "0010000000000000",
            "00401e18240a0600",
            "0807060504030201",
        );
        assert_eq!(hex[..96], *expected);
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn every_bit_of_a_header_counts() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), Err(DecodeError::HeaderCheck), "bit {bit}");
        }
    }

    #[test]
    fn unknown_kinds_and_reserved_bytes_are_refused() {
        let with = |at: usize, value: u8| {
            let mut bytes = header().encode();
            bytes[at] = value;
            let check = Checksum::of(&bytes[..CHECKED_BYTES]);
            bytes[CHECKED_BYTES..].copy_from_slice(&check.0.to_le_bytes());
            Header::decode(&bytes)
        };
        assert_eq!(with(0, 7), Err(DecodeError::Kind(7)), "hashes are reserved");
        assert_eq!(with(3, 1), Err(DecodeError::Reserved));
    }
}
