//! Going through the records of an order file, from any of them on.

use std::io;

use tidegate_model::Lsn;

use crate::limits::ORDER_CHUNK_BYTES;
use crate::order::{Mark, OrderRecord, RECORD_BYTES, RecordError};
use crate::storage::ReadAt;

/// A walk through an order file. Holds [`ORDER_CHUNK_BYTES`].
#[derive(Debug)]
pub(super) struct Walk<F> {
    file: F,
    mark: Mark,
    at: u64,
    chunk: Vec<u8>,
    chunk_start: u64,
}

impl<F: ReadAt> Walk<F> {
    /// A walk that begins at byte `at`.
    pub(super) const fn new(file: F, mark: Mark, at: u64) -> Self {
        Self { file, mark, at, chunk: Vec::new(), chunk_start: at }
    }

    /// Where the next record begins.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// The next record, or why there is none.
    pub(super) fn next(&mut self) -> io::Result<Result<OrderRecord, RecordError>> {
        let known = usize::try_from(self.at - self.chunk_start).unwrap_or(usize::MAX);
        let decoded = OrderRecord::decode(self.mark, self.chunk.get(known..).unwrap_or_default());
        let decoded = match decoded {
            Ok(decoded) => Ok(decoded),
            // Perhaps only the chunk ends here, or it was read before the record was written.
            Err(_) => {
                self.refill()?;
                OrderRecord::decode(self.mark, &self.chunk)
            }
        };
        Ok(decoded.map(|(record, length)| {
            self.at += length as u64;
            record
        }))
    }

    /// Whether behind what can't be read there is a record that says that `lsn` was durable.
    pub(super) fn proves_durable(&mut self, lsn: Lsn) -> io::Result<bool> {
        loop {
            self.refill()?;
            let last = self.chunk.len() < ORDER_CHUNK_BYTES;
            let records = (0..self.chunk.len()).filter_map(|start| {
                let (record, _) = OrderRecord::decode(self.mark, &self.chunk[start..]).ok()?;
                Some(record)
            });
            if records.into_iter().any(|record| record.durable >= lsn) {
                return Ok(true);
            }
            if last {
                return Ok(false);
            }
            // The next chunk begins with what may be the beginning of a record.
            self.at += (ORDER_CHUNK_BYTES - 2 * RECORD_BYTES) as u64;
        }
    }

    fn refill(&mut self) -> io::Result<()> {
        self.chunk.resize(ORDER_CHUNK_BYTES, 0);
        let count = self.file.fill_at(self.at, &mut self.chunk)?;
        self.chunk.truncate(count);
        self.chunk_start = self.at;
        Ok(())
    }
}
