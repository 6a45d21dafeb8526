//! The 56 bytes in front of every frame. docs/formats/wire.md, "Header".

use tidegate_model::limits::{RECORD_BYTES_MAX, TEXT_BYTES_MAX};
use tidegate_model::{Checksum, Lsn, Micros, Reader};

use crate::DecodeError;
use crate::limits::{CONTROL_BYTES_MAX, HASH_BYTES, HASHES_MAX, REFUSAL_TEXT_BYTES_MAX};
use crate::message::{CLEAN, HAVE_BYTES};

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
    /// Agent, a question: does the vault hold these blocks there already?
    Hashes = 7,
    /// Agent: nothing follows.
    Bye = 8,
    /// Server: what the agent gets, and where it goes on.
    Welcome = 65,
    /// Server: which of the blocks that were asked for the vault holds.
    Have = 66,
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
            7 => Self::Hashes,
            8 => Self::Bye,
            65 => Self::Welcome,
            66 => Self::Have,
            67 => Self::Ack,
            68 => Self::Credit,
            69 => Self::Slow,
            71 => Self::Refuse,
            _ => return None,
        })
    }

    /// Whether the agent says it; otherwise the server does.
    #[must_use]
    pub const fn is_from_agent(self) -> bool {
        (self as u8) < 64
    }

    /// Most bytes of its payload, in any session. A hello may be longer than this version needs,
    /// so that one of a later version is understood as far as its version.
    #[must_use]
    pub const fn payload_bytes_max(self) -> usize {
        match self {
            Self::Write => RECORD_BYTES_MAX as usize,
            Self::Hello => CONTROL_BYTES_MAX,
            Self::Disk => TEXT_BYTES_MAX,
            Self::Bookmark => 1 + TEXT_BYTES_MAX,
            Self::Hashes => HASHES_MAX * HASH_BYTES,
            Self::Have => HAVE_BYTES,
            Self::Welcome => 70,
            Self::Ack => 40,
            Self::Slow => 9,
            Self::Refuse => 7 + 2 * REFUSAL_TEXT_BYTES_MAX,
            Self::Zero | Self::Time | Self::Bye | Self::Credit => 0,
        }
    }

    /// Which fields of the header it uses; all others are 0.
    const fn fields(self) -> Fields {
        let none = Fields { flags: 0, disk: false, lsn: false, place: false, length: false };
        match self {
            Self::Hello | Self::Bye | Self::Welcome | Self::Slow | Self::Refuse => none,
            Self::Disk => Fields { disk: true, lsn: true, length: true, ..none },
            Self::Write | Self::Zero => {
                Fields { disk: true, lsn: true, place: true, length: true, ..none }
            }
            Self::Hashes | Self::Have => Fields { disk: true, place: true, length: true, ..none },
            Self::Bookmark => Fields { flags: CLEAN, lsn: true, ..none },
            Self::Time | Self::Ack => Fields { lsn: true, ..none },
            Self::Credit => Fields { length: true, ..none },
        }
    }
}

/// What a kind uses of a header.
struct Fields {
    /// The flags that it has.
    flags: u8,
    disk: bool,
    lsn: bool,
    /// The offset.
    place: bool,
    length: bool,
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
    /// [`DecodeError`] when its check doesn't fit, its kind is unknown, or a byte that is reserved
    /// or that the kind doesn't use is set.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut check = [0; 8];
        check.copy_from_slice(&bytes[CHECKED_BYTES..]);
        if Checksum::of(&bytes[..CHECKED_BYTES]).0 != u64::from_le_bytes(check) {
            return Err(DecodeError::HeaderCheck);
        }
        let header = Self::fields(&mut Reader::new(bytes))?;
        header.check_unused()?;
        Ok(header)
    }

    fn check_unused(&self) -> Result<(), DecodeError> {
        let used = self.kind.fields();
        // A disk that is restated has no number, and so no time of its own.
        let has_time = used.lsn && self.kind != Kind::Ack && self.lsn != Lsn::NONE;
        let fields = [
            ("flags", self.flags & !used.flags == 0),
            ("disk", used.disk || self.disk == 0),
            ("lsn", used.lsn || self.lsn == Lsn::NONE),
            ("offset", used.place || self.offset == 0),
            ("length", used.length || self.length == 0),
            ("time", has_time || self.time == Micros(0)),
        ];
        match fields.into_iter().find(|(_, is_right)| !is_right) {
            Some((field, _)) => Err(DecodeError::Unused { kind: self.kind, field }),
            None => Ok(()),
        }
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
    fn a_field_that_a_kind_does_not_use_must_be_zero() {
        let all = [
            "Hello flags disk lsn offset length time",
            "Disk flags offset",
            "Write flags",
            "Zero flags",
            "Bookmark disk offset length",
            "Time flags disk offset length",
            "Hashes flags lsn time",
            "Bye flags disk lsn offset length time",
            "Welcome flags disk lsn offset length time",
            "Have flags lsn time",
            "Ack flags disk offset length time",
            "Credit flags disk lsn offset time",
            "Slow flags disk lsn offset length time",
            "Refuse flags disk lsn offset length time",
        ];
        let kinds: Vec<Kind> = (0..=u8::MAX).filter_map(Kind::from_code).collect();
        assert_eq!(kinds.len(), all.len());
        for (kind, expected) in kinds.into_iter().zip(all) {
            let mut plain = Header::of(kind);
            if kind.fields().lsn {
                plain.lsn = Lsn(1);
            }
            assert_eq!(Header::decode(&plain.encode()), Ok(plain));
            let set = [
                ("flags", Header { flags: 1, ..plain }),
                ("disk", Header { disk: 1, ..plain }),
                ("lsn", Header { lsn: Lsn(2), ..plain }),
                ("offset", Header { offset: 1, ..plain }),
                ("length", Header { length: 1, ..plain }),
                ("time", Header { time: Micros(1), ..plain }),
            ];
            let mut refused = vec![format!("{kind:?}")];
            for (field, header) in set {
                match Header::decode(&header.encode()) {
                    Ok(_) => {}
                    Err(error) => {
                        assert_eq!(error, DecodeError::Unused { kind, field });
                        refused.push(field.to_owned());
                    }
                }
            }
            assert_eq!(refused.join(" "), expected);
        }
    }

    #[test]
    fn a_restated_disk_has_no_time() {
        let restated = Header { length: 4096, ..Header::of(Kind::Disk) };
        assert_eq!(Header::decode(&restated.encode()), Ok(restated));
        let wrong = Header { time: Micros(1), ..restated };
        let unused = DecodeError::Unused { kind: Kind::Disk, field: "time" };
        assert_eq!(Header::decode(&wrong.encode()), Err(unused));
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
        assert_eq!(with(0, 70), Err(DecodeError::Kind(70)), "redirect is reserved");
        assert_eq!(with(3, 1), Err(DecodeError::Reserved));
        let unused = DecodeError::Unused { kind: Kind::Write, field: "flags" };
        assert_eq!(with(1, 1), Err(unused));
    }
}
