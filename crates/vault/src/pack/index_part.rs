//! Parts of an index, as they are expanded: where records are many, they are nearly all that an index
//! takes, and who looks for something else needs no memory for them.
//!
//! What is read was authenticated as a whole; of the rules of the format only those are checked that
//! what is given stands on.

use std::io::{self, BufReader, Read};

use tidegate_model::limits::{PACK_FRAMES_MAX, PACK_RECORDS_MAX};
use tidegate_model::{BlockName, FrameNumber, Reader};
use zstd::stream::read::Decoder;

use super::error::PackError;
use super::frame::Codec;
use super::header::PackHeader;
use super::index::PackSummary;
use super::index_codec::{
    self, FRAME_BYTES, LOG_BYTES, MACHINE_BYTES, PREAMBLE_BYTES, Preamble, Unsealed,
};
use super::record_codec::{self, RECORD_BYTES};
use crate::seal::LogCiphers;

/// What is expanded at once of an index that is read record by record.
const STEP_BYTES: usize = 8 << 10;
/// Most memory of a [`PackBlocks`], and of what finds it.
pub const BLOCKS_BYTES_MAX: usize = PACK_RECORDS_MAX as usize * size_of::<PackBlock>()
    + PACK_FRAMES_MAX as usize * size_of::<u32>()
    + STEP_BYTES;

/// The whole blocks that a pack keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackBlocks {
    /// One past the number of its last frame.
    pub frames_end: FrameNumber,
    /// The blocks, in the order of its frames.
    pub blocks: Vec<PackBlock>,
}

/// A whole block that a pack keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackBlock {
    /// Its name.
    pub name: BlockName,
    /// The frame, by its number in the log.
    pub frame: FrameNumber,
    /// Which of the frame's kept records, from 0.
    pub ordinal: u32,
}

/// Opens as much of a pack's index as a [`PackSummary`] has; see [`super::open_index`].
///
/// # Errors
/// As [`super::open_index`]; rules that the other sections break aren't found.
pub fn open_summary(
    header: &PackHeader,
    sealed: &mut [u8],
    ciphers: &LogCiphers,
) -> Result<PackSummary, PackError> {
    let opened = index_codec::unseal(header, sealed, ciphers)?;
    let mut sections = Sections::of(&opened)?;
    let preamble = sections.preamble()?;
    let machines = sections.take(preamble.machines as usize * MACHINE_BYTES)?;
    Ok(PackSummary {
        last: preamble.last,
        committed_packs: preamble.committed_packs,
        machines: index_codec::decode_machines(&mut Reader::new(&machines), preamble.machines)?,
    })
}

/// Opens as much of a pack's index as [`PackBlocks`] has; see [`super::open_index`]. All or nothing.
///
/// # Errors
/// As [`super::open_index`]; rules that the other sections break aren't found.
pub fn open_blocks(
    header: &PackHeader,
    sealed: &mut [u8],
    ciphers: &LogCiphers,
) -> Result<PackBlocks, PackError> {
    let opened = index_codec::unseal(header, sealed, ciphers)?;
    let mut sections = Sections::of(&opened)?;
    let preamble = sections.preamble()?;
    let before = preamble.machines as usize * MACHINE_BYTES + preamble.logs as usize * LOG_BYTES;
    sections.pass(before)?;
    let frames = sections.frames(preamble.frames, header)?;
    let number = |behind: &u32| FrameNumber(header.first_frame.0.saturating_add((*behind).into()));
    let frames_end = frames.last().map_or(header.first_frame, |last| number(last).next());
    let mut blocks = Vec::with_capacity(preamble.records as usize);
    let (mut current, mut ordinal) = (None, 0);
    for _ in 0..preamble.records {
        let record: [u8; RECORD_BYTES] = sections.array()?;
        let Some((frame, name)) = record_codec::kept(&record)? else { continue };
        if current != Some(frame) {
            if frame != current.map_or(0, |current: u32| current + 1) {
                return Err(PackError::Field("the frames' records are out of order"));
            }
            (current, ordinal) = (Some(frame), 0);
        }
        let frame = frames.get(frame as usize).map(number);
        let frame = frame.ok_or(PackError::Field("a record names a frame that isn't there"))?;
        blocks.extend(name.map(|name| PackBlock { name, frame, ordinal }));
        ordinal += 1;
    }
    Ok(PackBlocks { frames_end, blocks })
}

/// An index's sections, one after another.
struct Sections<'a> {
    bytes: BufReader<Box<dyn Read + 'a>>,
    plain_bytes: u32,
}

impl<'a> Sections<'a> {
    fn of(opened: &Unsealed<'a>) -> Result<Self, PackError> {
        let plain_bytes = opened.plain_bytes;
        let refuse = |_| PackError::Decompress { expected: plain_bytes };
        let expanded: Box<dyn Read + 'a> = match opened.codec {
            Codec::Raw => Box::new(opened.content),
            Codec::Zstd => Box::new(Decoder::with_buffer(opened.content).map_err(refuse)?),
        };
        Ok(Self { bytes: BufReader::with_capacity(STEP_BYTES, expanded), plain_bytes })
    }

    fn preamble(&mut self) -> Result<Preamble, PackError> {
        let bytes: [u8; PREAMBLE_BYTES] = self.array()?;
        Preamble::decode(&mut Reader::new(&bytes))
    }

    /// How far behind the pack's first possible frame each frame's number lies. They rise.
    fn frames(&mut self, count: u32, header: &PackHeader) -> Result<Vec<u32>, PackError> {
        if count != header.frame_count {
            return Err(PackError::Field("header and index disagree about the number of frames"));
        }
        let mut frames = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let entry: [u8; FRAME_BYTES] = self.array()?;
            let behind = index_codec::frame_behind(&entry)?;
            if frames.last().is_some_and(|before| *before >= behind) {
                return Err(PackError::Field("the frames' numbers don't rise"));
            }
            frames.push(behind);
        }
        Ok(frames)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PackError> {
        let mut bytes = [0; N];
        self.bytes.read_exact(&mut bytes).map_err(|_| self.cut())?;
        Ok(bytes)
    }

    /// The next section; its length follows from a count that was held to its limit.
    fn take(&mut self, length: usize) -> Result<Vec<u8>, PackError> {
        let mut bytes = vec![0; length];
        self.bytes.read_exact(&mut bytes).map_err(|_| self.cut())?;
        Ok(bytes)
    }

    /// Passes over so many bytes.
    fn pass(&mut self, length: usize) -> Result<(), PackError> {
        let length = length as u64;
        match io::copy(&mut (&mut self.bytes).take(length), &mut io::sink()) {
            Ok(passed) if passed == length => Ok(()),
            _ => Err(self.cut()),
        }
    }

    const fn cut(&self) -> PackError {
        PackError::Decompress { expected: self.plain_bytes }
    }
}
