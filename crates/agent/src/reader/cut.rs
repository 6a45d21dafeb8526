//! Cuts what was read into records: data by whole blocks, zeros merged into one extent.
//!
//! Pure. What goes in are the disk's ranges in order, what comes out are [`Span`]s in the same
//! order that cover the same bytes. A data record is a stretch of whole blocks up to the record limit
//! (where a block is larger than the limit: a part of one block), so that every whole block can
//! be deduplicated. Zeros in a row are one span, however long, and is given out when data or the
//! end of the disk follows.

use std::ops::Range;
use std::sync::Arc;

use tidegate_model::{DiskNumber, Extent, is_zero};

use super::pool::{Buffer, Payload};

/// A stretch of a disk as one record will carry it.
#[derive(Debug, Clone)]
pub struct Span {
    /// Where it lies.
    pub extent: Extent,
    /// Its bytes; `None` when all are 0.
    pub payload: Option<Payload>,
}

/// How to cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grain {
    block_bytes: usize,
    record_bytes_max: usize,
}

impl Grain {
    /// Records of at most `record_bytes_max`, by blocks of `block_bytes`.
    pub(super) const fn new(block_bytes: u32, record_bytes_max: u32) -> Self {
        let (block_bytes, limit) = (block_bytes as usize, record_bytes_max as usize);
        let whole_blocks = limit / block_bytes * block_bytes;
        let record_bytes_max = if whole_blocks == 0 { limit } else { whole_blocks };
        Self { block_bytes, record_bytes_max }
    }
}

/// Cuts one disk.
#[derive(Debug)]
pub(super) struct Cutter {
    grain: Grain,
    disk: DiskNumber,
    at: u64,
    zeros: u64,
}

impl Cutter {
    /// A cutter at the first byte of `disk`.
    pub(super) const fn new(disk: DiskNumber, grain: Grain) -> Self {
        Self { grain, disk, at: 0, zeros: 0 }
    }

    /// Takes the next `bytes` of the disk as zeros.
    pub(super) const fn zeros(&mut self, bytes: u64) {
        self.zeros += bytes;
        self.at += bytes;
    }

    /// Takes the next bytes of the disk, the first `length` of `buffer`, and gives out the spans
    /// that are complete. Returns how many of the bytes were zeros.
    pub(super) fn data(&mut self, buffer: Buffer, length: usize, out: &mut Vec<Span>) -> u64 {
        let buffer = Arc::new(buffer);
        let (mut stretch, mut zeros) = (0..0, 0);
        let mut start = 0;
        while start < length {
            let end = length.min(start + self.grain.block_bytes);
            if is_zero(&buffer[start..end]) {
                self.records(&buffer, stretch, out);
                self.zeros((end - start) as u64);
                zeros += (end - start) as u64;
                stretch = end..end;
            } else if end - stretch.start > self.grain.record_bytes_max {
                self.records(&buffer, stretch, out);
                stretch = start..end;
            } else {
                stretch.end = end;
            }
            start = end;
        }
        self.records(&buffer, stretch, out);
        zeros
    }

    /// Gives out the zeros at the end of the disk.
    pub(super) fn end(&mut self, out: &mut Vec<Span>) {
        if self.zeros > 0 {
            let extent =
                Extent { disk: self.disk, offset: self.at - self.zeros, length: self.zeros };
            out.push(Span { extent, payload: None });
            self.zeros = 0;
        }
    }

    /// One stretch of data that isn't zero: one record, or the parts of one large block.
    fn records(&mut self, buffer: &Arc<Buffer>, stretch: Range<usize>, out: &mut Vec<Span>) {
        if stretch.is_empty() {
            return;
        }
        self.end(out);
        for start in stretch.clone().step_by(self.grain.record_bytes_max) {
            let end = stretch.end.min(start + self.grain.record_bytes_max);
            let length = (end - start) as u64;
            let extent = Extent { disk: self.disk, offset: self.at, length };
            out.push(Span { extent, payload: Some(Payload::of(buffer, start..end)) });
            self.at += length;
        }
    }
}
