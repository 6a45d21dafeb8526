//! Reading records back, in the order of their LSNs: what is sent, and sent again.

use std::collections::BTreeMap;

use tidegate_model::{Checksum, DiskNumber, Lsn};

use super::error::JournalError;
use super::inspect::unread;
use super::names::FileName;
use super::state::Place;
use super::walk::Walk;
use super::{Change, Record};
use crate::order::{HEADER_BYTES, OrderBody, OrderHeader, OrderRecord};
use crate::storage::{ReadAt, Storage};

/// A reader that goes from LSN to LSN. It holds one record and a chunk of order records.
#[derive(Debug)]
pub struct Reader<S: Storage> {
    storage: S,
    next: Lsn,
    at: Option<Segment<S::File>>,
}

/// The segment that is being read.
#[derive(Debug)]
struct Segment<F> {
    number: u64,
    walk: Walk<F>,
    logs: BTreeMap<DiskNumber, F>,
}

impl<S: Storage> Reader<S> {
    /// A reader that begins with `from`.
    pub const fn new(storage: S, from: Lsn) -> Self {
        Self { storage, next: from, at: None }
    }

    /// The LSN that it reads next.
    pub const fn next_lsn(&self) -> Lsn {
        self.next
    }

    /// The next durable record that isn't committed; `None` until there is one. `place_of` is
    /// [`State::place_of`](super::State::place_of).
    ///
    /// # Errors
    /// [`JournalError`] when it can't be read, or isn't whole any more.
    pub fn next(
        &mut self,
        place_of: impl Fn(Lsn) -> Place,
    ) -> Result<Option<Record>, JournalError> {
        loop {
            let number = match place_of(self.next) {
                Place::NotYet => return Ok(None),
                Place::GoOn(lsn) => {
                    self.next = lsn;
                    continue;
                }
                Place::In(number) => number,
            };
            match self.read(number) {
                // What was committed and deleted meanwhile needn't be read.
                Err(_) if place_of(self.next) != Place::In(number) => {}
                read => {
                    let record = read?;
                    self.next = self.next.next();
                    return Ok(Some(record));
                }
            }
        }
    }

    fn read(&mut self, number: u64) -> Result<Record, JournalError> {
        if self.at.as_ref().is_none_or(|at| at.number != number) {
            self.at = Some(self.begin(number)?);
        }
        let name = FileName::order(number);
        let Some(at) = &mut self.at else { unreachable!("it was put there") };
        loop {
            let record = at.walk.next().map_err(|error| unread(name, error))?;
            let record = record.map_err(|error| damaged(name, self.next, &error))?;
            if matches!(record.body, OrderBody::End { .. }) || record.lsn > self.next {
                return Err(damaged(name, self.next, &"it isn't there"));
            }
            if record.lsn == self.next && !matches!(record.body, OrderBody::Committed(_)) {
                return at.record(&self.storage, record);
            }
        }
    }

    fn begin(&self, number: u64) -> Result<Segment<S::File>, JournalError> {
        let name = FileName::order(number);
        let read = || {
            let file = self.storage.open(&name.to_string())?;
            let mut bytes = vec![0; HEADER_BYTES];
            let count = file.fill_at(0, &mut bytes)?;
            bytes.truncate(count);
            Ok((file, bytes))
        };
        let (file, bytes) = read().map_err(|error| unread(name, error))?;
        let header = OrderHeader::decode(&bytes);
        let header = header.map_err(|error| damaged(name, self.next, &error))?;
        let walk = Walk::new(file, header.mark(), HEADER_BYTES as u64);
        Ok(Segment { number, walk, logs: BTreeMap::new() })
    }
}

impl<F: ReadAt + Clone> Segment<F> {
    /// The whole record, a write's data with it.
    fn record<S: Storage<File = F>>(
        &mut self,
        storage: &S,
        order: OrderRecord,
    ) -> Result<Record, JournalError> {
        let OrderRecord { lsn, time, body, .. } = order;
        let (change, checksum) = match body {
            OrderBody::Disk(disk) => (Change::Disk(disk), Checksum::of(&[])),
            OrderBody::Zero(extent) => (Change::Zero(extent), Checksum::of(&[])),
            OrderBody::Bookmark(bookmark) => (Change::Bookmark(bookmark), Checksum::of(&[])),
            OrderBody::Time | OrderBody::End { .. } | OrderBody::Committed(_) => {
                (Change::Time, Checksum::of(&[]))
            }
            OrderBody::Write { extent, location, checksum } => {
                let (disk, offset) = (extent.disk, extent.offset);
                let data = self.data(storage, disk, location, extent.length)?;
                if Checksum::of(&data) != checksum {
                    let name = FileName::log(self.number, disk);
                    return Err(damaged(name, lsn, &"its data have another checksum"));
                }
                (Change::Write { disk, offset, data }, checksum)
            }
        };
        Ok(Record { lsn, time, change, checksum })
    }

    fn data<S: Storage<File = F>>(
        &mut self,
        storage: &S,
        disk: DiskNumber,
        location: u64,
        bytes: u64,
    ) -> Result<Vec<u8>, JournalError> {
        let name = FileName::log(self.number, disk);
        let file = match self.logs.get(&disk) {
            Some(file) => file.clone(),
            None => {
                let file = storage.open(&name.to_string()).map_err(|error| unread(name, error))?;
                self.logs.insert(disk, file.clone());
                file
            }
        };
        // At most a record's bytes, by the order record's decoder.
        let mut data = vec![0; usize::try_from(bytes).unwrap_or(0)];
        let count = file.fill_at(location, &mut data).map_err(|error| unread(name, error))?;
        data.truncate(count);
        Ok(data)
    }
}

fn damaged(name: FileName, lsn: Lsn, why: &dyn std::fmt::Display) -> JournalError {
    JournalError::Damaged { name: name.to_string(), what: format!("LSN {lsn}: {why}") }
}
