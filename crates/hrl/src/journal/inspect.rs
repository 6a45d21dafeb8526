//! Looking through one segment as it was found. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use tidegate_model::{Checksum, DiskNumber, Extent, Lsn, Micros};

use super::error::JournalError;
use super::names::FileName;
use super::repair::KeptWrite;
use super::walk::Walk;
use crate::format::{Entry, Sum};
use crate::order::{
    HEADER_BYTES, OrderBody, OrderHeader, OrderHeaderError, OrderRecord, RecordError, SegmentEnding,
};
use crate::storage::{ReadAt, Storage};

/// A segment as it was found.
pub(super) struct Found<F> {
    pub number: u64,
    pub file: F,
    pub header: OrderHeader,
    /// The last whole record, and its time.
    pub last: Lsn,
    pub time: Micros,
    /// As the record at its end says, or its header.
    pub committed: Lsn,
    /// The disks that were written to.
    pub disks: BTreeSet<DiskNumber>,
    /// `None` where nobody closed it.
    pub ending: Option<SegmentEnding>,
    /// Its writes, where nobody closed it.
    pub writes: Vec<KeptWrite>,
    /// Where its whole records end.
    pub cut: u64,
}

/// The segment with this number; `None` where it never began: not even its header is whole, and
/// nothing is written before that is durable.
pub(super) fn inspect<S: Storage>(
    storage: &S,
    number: u64,
    logs: &BTreeSet<DiskNumber>,
) -> Result<Option<Found<S::File>>, JournalError> {
    let name = FileName::order(number);
    let unread = |error| unread(name, error);
    let file = storage.open(&name.to_string()).map_err(unread)?;
    let mut bytes = vec![0; HEADER_BYTES];
    let count = file.fill_at(0, &mut bytes).map_err(unread)?;
    let header = match OrderHeader::decode(&bytes[..count]) {
        Ok(header) if header.segment == number => header,
        Ok(header) => return Err(damaged(name, &format!("it is that of {}", header.segment))),
        Err(OrderHeaderError::Version(version)) => {
            let (name, what) = (name.to_string(), format!("{version}, and 1 is known"));
            return Err(JournalError::Newer { name, what });
        }
        Err(error) => {
            let began = !logs.is_empty() || file.bytes().map_err(unread)? > HEADER_BYTES as u64;
            return if began { Err(damaged(name, &error)) } else { Ok(None) };
        }
    };
    let mut found = Found {
        number,
        file: file.clone(),
        last: Lsn(header.first.0.saturating_sub(1)),
        time: header.time,
        committed: header.committed,
        header,
        disks: BTreeSet::new(),
        ending: None,
        writes: Vec::new(),
        cut: HEADER_BYTES as u64,
    };
    found.ending = ending(&found)?;
    found.look_through(storage)?;
    Ok(Some(found))
}

/// How the segment ends, by its order alone.
fn ending<F: ReadAt + Clone>(found: &Found<F>) -> Result<Option<SegmentEnding>, JournalError> {
    let name = FileName::order(found.number);
    let mut walk = Walk::new(found.file.clone(), found.header.mark(), found.cut);
    let mut last = found.last;
    loop {
        match walk.next().map_err(|error| unread(name, error))? {
            Ok(OrderRecord { lsn, body: OrderBody::End { ending, .. }, .. }) => {
                return Ok((lsn == last).then_some(ending));
            }
            Ok(OrderRecord { lsn, body: OrderBody::Committed(_), .. }) if lsn == last => {}
            Ok(record) if record.lsn == last.next() => last = record.lsn,
            _ => return Ok(None),
        }
    }
}

impl<F: ReadAt + Clone> Found<F> {
    /// Goes to the last whole record. Where somebody closed the segment, data are taken for whole.
    fn look_through<S: Storage<File = F>>(&mut self, storage: &S) -> Result<(), JournalError> {
        let name = FileName::order(self.number);
        let mut walk = Walk::new(self.file.clone(), self.header.mark(), self.cut);
        let mut logs = Logs { number: self.number, files: BTreeMap::new() };
        loop {
            let record = match walk.next().map_err(|error| unread(name, error))? {
                Ok(record) => record,
                Err(RecordError::Field(what)) => {
                    let (name, what) = (name.to_string(), format!("the {what} of a record"));
                    return Err(JournalError::Newer { name, what });
                }
                Err(_) => break,
            };
            if let OrderBody::End { committed, .. } = record.body {
                self.committed = self.committed.max(committed);
                return Ok(());
            }
            if let OrderBody::Committed(lsn) = record.body
                && record.lsn == self.last
            {
                self.committed = self.committed.max(lsn);
                self.cut = walk.at();
                continue;
            }
            if record.lsn != self.last.next() {
                break;
            }
            if let OrderBody::Write { extent, location, checksum } = record.body {
                if self.ending.is_none() {
                    let entry = logs.whole(storage, extent, location, checksum)?;
                    let Some(entry) = entry else { break };
                    let entry = Entry { time: record.time.into(), ..entry };
                    let (disk, lsn) = (extent.disk, record.lsn);
                    self.writes.push(KeptWrite { disk, location, entry, lsn });
                }
                self.disks.insert(extent.disk);
            }
            (self.last, self.time) = (record.lsn, record.time);
            self.cut = walk.at();
        }
        let missing = self.last.next();
        let mut behind = Walk::new(self.file.clone(), self.header.mark(), self.cut);
        if behind.proves_durable(missing).map_err(|error| unread(name, error))? {
            return Err(damaged(name, &format!("LSN {missing} was durable and isn't whole")));
        }
        Ok(())
    }
}

/// The logs of a segment, opened as they are needed.
struct Logs<F> {
    number: u64,
    files: BTreeMap<DiskNumber, Option<F>>,
}

impl<F: ReadAt + Clone> Logs<F> {
    /// The entry of some data, if they are whole.
    fn whole<S: Storage<File = F>>(
        &mut self,
        storage: &S,
        extent: Extent,
        location: u64,
        checksum: Checksum,
    ) -> Result<Option<Entry>, JournalError> {
        let name = FileName::log(self.number, extent.disk);
        let file = match self.files.get(&extent.disk) {
            Some(file) => file.clone(),
            None => {
                let file = match storage.open(&name.to_string()) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    file => Some(file.map_err(|error| unread(name, error))?),
                };
                self.files.insert(extent.disk, file.clone());
                file
            }
        };
        let Some(file) = file else { return Ok(None) };
        // At most a record's bytes, by the order record's decoder.
        let data_bytes = u32::try_from(extent.length).unwrap_or(0);
        let mut data = vec![0; data_bytes as usize];
        let count = file.fill_at(location, &mut data).map_err(|error| unread(name, error))?;
        let entry = Entry {
            byte_offset: extent.offset,
            data_bytes,
            data_checksum: Sum::of(&data).checksum(),
            ..Entry::default()
        };
        Ok((count == data.len() && Checksum::of(&data) == checksum).then_some(entry))
    }
}

pub(super) fn unread(name: FileName, error: io::Error) -> JournalError {
    JournalError::Io { name: name.to_string(), what: "read", error }
}

pub(super) fn damaged(name: FileName, what: &dyn std::fmt::Display) -> JournalError {
    JournalError::Damaged { name: name.to_string(), what: what.to_string() }
}
