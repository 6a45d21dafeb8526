//! Frames: kept bytes of one machine, compressed and sealed as one. docs/formats/pack.md, "Frame".
//!
//! A frame carries its identity (key version, log, number) in front of it and authenticates it, so
//! that its sealed bytes can be copied to another object and still be known for what they are.

use tidegate_model::limits::FRAME_BYTES_MAX;
use tidegate_model::{FrameNumber, LogId, Reader, RunId};

use super::error::{PackError, reserved};
use crate::seal::{LogCiphers, TAG_BYTES};

/// Bytes in front of a frame's ciphertext.
pub const FRAME_HEADER_BYTES: usize = 48;
/// Bytes that a frame takes beyond its content: header and tag.
pub const FRAME_OVERHEAD_BYTES: usize = FRAME_HEADER_BYTES + TAG_BYTES;
/// Most bytes of ciphertext and tag: room for the tag, and for a compression that made the content
/// a little longer (ours keeps such content as it is).
pub const SEALED_FRAME_BYTES_MAX: u32 = FRAME_BYTES_MAX + 1024;
const MAGIC: [u8; 4] = *b"TGFR";
const FORMAT: u8 = 1;

/// How a frame's bytes were made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    Raw,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// How its bytes were made smaller.
    pub codec: Codec,
    /// The log in which it was written first.
    pub log: LogId,
    /// Its number there.
    pub number: FrameNumber,
    /// The root key version under which it is sealed.
    pub key_version: u32,
    /// Bytes of its content.
    pub plain_bytes: u32,
    /// Bytes after the header: ciphertext and tag.
    pub sealed_bytes: u32,
}

impl FrameHeader {
    /// The header's bytes, which are also the frame's additional authenticated data.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        // By hand rather than with a `Writer`, which allocates: this is done for every frame.
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&[FORMAT, self.codec.code()]);
        bytes[6..8].copy_from_slice(&self.log.shard.to_le_bytes());
        bytes[8..24].copy_from_slice(self.log.run.as_bytes());
        bytes[24..32].copy_from_slice(&self.number.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.key_version.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.plain_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.sealed_bytes.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`PackError`] when it is none of ours.
    pub fn decode(bytes: &[u8]) -> Result<Self, PackError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<4>()? != MAGIC {
            return Err(PackError::Field("a frame's first bytes are not those of one"));
        }
        let format = reader.u8()?;
        if format != FORMAT {
            // A pack of a newer format says so itself: in one of ours this was changed.
            return Err(PackError::Field("a frame's format is unknown"));
        }
        let codec = Codec::from_code(reader.u8()?)
            .ok_or(PackError::Field("a frame's compression is unknown"))?;
        let shard = reader.u16()?;
        let header = Self {
            codec,
            log: LogId { run: RunId::from_bytes(reader.array()?), shard },
            number: FrameNumber(reader.u64()?),
            key_version: reader.u32()?,
            plain_bytes: reader.u32()?,
            sealed_bytes: reader.u32()?,
        };
        reserved(&mut reader, 4)?;
        if header.plain_bytes == 0 || header.plain_bytes > FRAME_BYTES_MAX {
            return Err(PackError::Field("a frame states an impossible size"));
        }
        let content = (header.sealed_bytes as usize).checked_sub(TAG_BYTES);
        match content {
            Some(1..) if header.sealed_bytes <= SEALED_FRAME_BYTES_MAX => Ok(header),
            _ => Err(PackError::Field("a frame states an impossible sealed size")),
        }
    }
}

/// Undoes compression. Keep one for many frames: its memory ([`EXPANDER_BYTES`]) costs as much to
/// have as a small frame costs to expand.
#[derive(Default)]
pub struct Expander(Option<zstd::bulk::Decompressor<'static>>);

/// Memory of an [`Expander`]: zstd's context, which expands in one step and so has no window.
pub const EXPANDER_BYTES: usize = 192 << 10;

/// Opens a frame into `plain`, which then holds exactly the frame's content. `sealed` is the
/// frame's ciphertext and tag and is overwritten.
///
/// # Errors
/// [`PackError`] when the frame isn't the one its header states, unchanged.
pub fn open_frame(
    header: &FrameHeader,
    ciphers: &LogCiphers,
    sealed: &mut [u8],
    plain: &mut Vec<u8>,
) -> Result<(), PackError> {
    Expander::default().open_frame(header, ciphers, sealed, plain)
}

impl Expander {
    /// The same as [`open_frame`].
    ///
    /// # Errors
    /// As there.
    pub fn open_frame(
        &mut self,
        header: &FrameHeader,
        ciphers: &LogCiphers,
        sealed: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), PackError> {
        let content = unseal(header, ciphers, sealed)?;
        self.expand(header.codec, content, header.plain_bytes, plain)
    }

    /// Undoes the compression; `plain` ends up with exactly `plain_bytes` bytes, and never takes
    /// more memory than that (or than it had).
    pub(super) fn expand(
        &mut self,
        codec: Codec,
        content: &[u8],
        plain_bytes: u32,
        plain: &mut Vec<u8>,
    ) -> Result<(), PackError> {
        let expected = plain_bytes as usize;
        let refuse = || PackError::Decompress { expected: plain_bytes };
        plain.clear();
        plain.reserve_exact(expected);
        match codec {
            Codec::Raw if content.len() == expected => plain.extend_from_slice(content),
            Codec::Raw => return Err(refuse()),
            Codec::Zstd => {
                let zstd = self.0.get_or_insert_with(zstd::bulk::Decompressor::default);
                // Into the vector's spare room, which needn't be zeroed before and ends what a
                // frame can do that states less than it holds.
                let got = zstd.decompress_to_buffer(content, plain).map_err(|_| refuse())?;
                if got != expected || plain.len() != expected {
                    return Err(refuse());
                }
            }
        }
        Ok(())
    }
}

/// Opens the seal in place.
fn unseal<'s>(
    header: &FrameHeader,
    ciphers: &LogCiphers,
    sealed: &'s mut [u8],
) -> Result<&'s [u8], PackError> {
    if sealed.len() != header.sealed_bytes as usize || sealed.len() <= TAG_BYTES {
        return Err(PackError::Field("a frame's length is another than its header states"));
    }
    let (content, tag_bytes) = sealed.split_at_mut(sealed.len() - TAG_BYTES);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(tag_bytes);
    ciphers.open_frame(header.number, &header.encode(), content, tag)?;
    Ok(content)
}
