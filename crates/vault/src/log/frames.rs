//! Frames of a pack: which bytes of the object to fetch for them, and what comes out.
//!
//! Frames that lie near each other are fetched as one run, for a request costs as much as a
//! hundred kilobytes. Memory of a run: one of the [`Buffers`], and the content of one frame at a
//! time, opened.

use std::ops::Range;

use super::buffers::{Buffer, Buffers};
use super::{LogError, LogReader, PackRead};
use crate::pack::{
    Expander, FRAME_HEADER_BYTES, FrameEntry, FrameHeader, PackError, PackIndex,
    SEALED_FRAME_BYTES_MAX,
};
use crate::seal::LogCiphers;

/// A run is closed when it has this many bytes: enough that the request's cost is lost in it,
/// little enough that a small restore keeps several cores busy.
pub const RUN_BYTES_MAX: u64 = 4 << 20;
/// Most bytes of a run in memory: one frame of the longest kind may make a run alone.
pub const BUFFER_BYTES_MAX: u64 = {
    let frame = FRAME_HEADER_BYTES as u64 + SEALED_FRAME_BYTES_MAX as u64;
    if frame > RUN_BYTES_MAX { frame } else { RUN_BYTES_MAX }
};
/// Unwanted bytes between two frames that are read rather than skipped: what a store with 20 ms
/// latency and 100 MB/s could have sent in a tenth of a request's time.
const GAP_BYTES_MAX: u64 = 256 << 10;

/// Neighbouring frames of a pack that are fetched together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameRun {
    /// The wanted frames: places in the pack, rising.
    pub frames: Vec<u32>,
    /// The bytes of the object.
    pub range: Range<u64>,
}

/// Puts wanted frames (places in the pack, rising) together.
#[must_use]
pub fn runs(index: &PackIndex, wanted: impl IntoIterator<Item = u32>) -> Vec<FrameRun> {
    let mut runs: Vec<FrameRun> = Vec::new();
    for place in wanted {
        let Some(entry) = index.frames.get(place as usize) else { continue };
        let end = entry.offset + entry.object_bytes();
        match runs.last_mut() {
            Some(run)
                if entry.offset - run.range.end <= GAP_BYTES_MAX
                    && end - run.range.start <= RUN_BYTES_MAX =>
            {
                run.frames.push(place);
                run.range.end = end;
            }
            _ => runs.push(FrameRun { frames: vec![place], range: entry.offset..end }),
        }
    }
    runs
}

/// A run's bytes, and what opens its frames.
pub struct FetchedRun {
    bytes: Buffer,
    begin: u64,
    ciphers: LogCiphers,
}

impl LogReader {
    /// Fetches a run of frames into one of `buffers`, for which it waits.
    ///
    /// # Errors
    /// [`LogError`] of the store, or for a frame longer than any can be.
    pub async fn fetch(
        &self,
        pack: &PackRead,
        run: &FrameRun,
        buffers: &Buffers,
    ) -> Result<FetchedRun, LogError> {
        for entry in run.frames.iter().filter_map(|place| pack.index.frames.get(*place as usize)) {
            if entry.sealed_bytes > SEALED_FRAME_BYTES_MAX {
                let cause = PackError::Field("the index states a frame of impossible size");
                return Err(pack.frame_error(entry, cause));
            }
        }
        // No run is longer: each frame was just held to its limit, and their sum to a run's.
        let length = run.range.end - run.range.start;
        let Some(buffer) = buffers.take(length).await else {
            let cause = PackError::Field("the index states frames that overlap");
            return Err(LogError::Pack { place: pack.place.clone(), cause });
        };
        let bytes = self.store().read_range(&pack.place.path(), run.range.start, buffer).await?;
        Ok(FetchedRun { bytes, begin: run.range.start, ciphers: self.ciphers(pack)? })
    }
}

impl FetchedRun {
    /// Opens one of the run's frames into `plain`; each can be opened once. `expander` serves any
    /// number of frames.
    ///
    /// # Errors
    /// [`LogError::Frame`] when it isn't the frame that the index states, unchanged.
    pub fn open(
        &mut self,
        pack: &PackRead,
        place: u32,
        expander: &mut Expander,
        plain: &mut Vec<u8>,
    ) -> Result<(), LogError> {
        let Some(entry) = pack.index.frames.get(place as usize) else {
            let cause = PackError::Field("a record names a frame that isn't there");
            return Err(LogError::Pack { place: pack.place.clone(), cause });
        };
        self.open_entry(pack, entry, expander, plain)
            .map_err(|cause| pack.frame_error(entry, cause))
    }

    fn open_entry(
        &mut self,
        pack: &PackRead,
        entry: &FrameEntry,
        expander: &mut Expander,
        plain: &mut Vec<u8>,
    ) -> Result<(), PackError> {
        let outside = PackError::Field("a frame lies outside of what was fetched");
        let begin = entry.offset.checked_sub(self.begin).and_then(|at| usize::try_from(at).ok());
        let bytes = begin
            .zip(usize::try_from(entry.object_bytes()).ok())
            .and_then(|(begin, length)| {
                self.bytes.as_mut().get_mut(begin..begin.checked_add(length)?)
            })
            .ok_or(outside)?;
        let (head, sealed) = bytes.split_at_mut(FRAME_HEADER_BYTES);
        let header = FrameHeader::decode(head)?;
        let stated = FrameHeader {
            codec: entry.codec,
            log: pack.header.log,
            number: entry.number,
            key_version: pack.header.key_version,
            plain_bytes: entry.plain_bytes,
            sealed_bytes: entry.sealed_bytes,
        };
        if header != stated || !sealed.ends_with(&entry.tag) {
            return Err(PackError::Elsewhere("the index states another frame"));
        }
        expander.open_frame(&header, &self.ciphers, sealed, plain)
    }
}
