//! Finding out what a journal holds and how it was left.
//!
//! - A segment with a record at its end was closed: its order is read, its data are believed until they
//!   are read and compared.
//! - The newest segment may be open, and the one before it too, when the next had just begun. An open
//!   one is looked through to its last whole record (whole: the order record, and the data that it
//!   names), cut there and closed.
//! - Anything else that doesn't fit was durable once and is damaged. That is never repaired by itself.
//!   A record behind the cut that says that what is missing was durable is such a proof.
//!
//! First everything is read, and only when it fits something is changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use tidegate_model::limits::DISKS_MAX;
use tidegate_model::{DiskNumber, Lsn, Micros};

use super::error::JournalError;
use super::inspect::{Found, damaged, inspect, unread};
use super::names::{FileKind, FileName};
use super::repair::closed_log;
use super::state::{Segment, Start};
use super::{Birth, Ending};
use crate::format::UniqueId;
use crate::order::{OrderBody, OrderRecord, SegmentEnding};
use crate::storage::{ReadAt, Storage, Write};

/// The disks of which a segment has a log, and whether it has an order file.
#[derive(Default)]
pub(super) struct Files {
    pub order: bool,
    pub logs: BTreeSet<DiskNumber>,
}

/// Everything that the journal knows, and how it was left.
pub(super) fn recover<S: Storage>(
    storage: &S,
    birth: &Birth,
) -> Result<(Start, Ending), JournalError> {
    let files = list(storage)?;
    let mut found = Vec::new();
    let mut useless = Vec::new();
    for (number, files) in &files {
        let inspected = if files.order { inspect(storage, *number, &files.logs)? } else { None };
        match inspected {
            Some(segment) => found.push(segment),
            // Its removal, oldest segments first, wasn't ended; or it never began.
            None if found.is_empty() || files.order => useless.push((*number, files)),
            None => return Err(damaged(FileName::order(*number), &"it is missing")),
        }
    }
    check(&found, &files)?;
    let ending = found.last().map_or(Ending::New, |newest| match newest.ending {
        Some(SegmentEnding::Closed) => Ending::Clean,
        _ => Ending::Unclean { same_boot: newest.header.boot == birth.boot },
    });
    // A killed process may have left what isn't durable, names and the last two segments' bytes. All of
    // it is believed from now on, and built on.
    storage.sync_names().map_err(unlisted)?;
    for (number, files) in useless {
        remove_segment(storage, number, files.order, files.logs.iter().copied())?;
    }
    let next_segment = files.last_key_value().map_or(1, |(number, _)| number + 1);
    let mut start = begin(birth, next_segment, found.last());
    if let (Ending::Unclean { same_boot: false }, Some(newest)) = (ending, found.last()) {
        // What the host's end took isn't back because somebody looked: as long as this journal isn't
        // closed, whoever opens it finds what this one does.
        start.boot = newest.header.boot;
    }
    let recent = found.len().saturating_sub(2);
    let newest = found.last().map(|newest| newest.number);
    for (index, segment) in found.into_iter().enumerate() {
        start.committed = start.committed.max(segment.committed);
        if index >= recent {
            let if_open = if newest == Some(segment.number) {
                SegmentEnding::Recovered
            } else {
                SegmentEnding::Continued
            };
            settle(storage, &segment, if_open)?;
        }
        let logs = files.get(&segment.number).map(|files| &files.logs);
        start.segments.push_back(take_up(storage, segment, logs)?);
    }
    Ok((start, ending))
}

fn begin<F>(birth: &Birth, next_segment: u64, newest: Option<&Found<F>>) -> Start {
    let mut start = Start {
        incarnation: birth.incarnation,
        boot: birth.boot,
        segments: VecDeque::new(),
        next_segment,
        last: Lsn::NONE,
        committed: Lsn::NONE,
        time: Micros(0),
        last_logs: [UniqueId::NONE; DISKS_MAX],
    };
    if let Some(newest) = newest {
        (start.incarnation, start.last) = (newest.header.incarnation, newest.last);
        (start.time, start.last_logs) = (newest.time, newest.header.last_logs);
        for disk in &newest.disks {
            start.last_logs[disk.index()] =
                UniqueId::of_log(newest.header.incarnation, newest.number, *disk);
        }
    }
    start
}

pub(super) fn list<S: Storage>(storage: &S) -> Result<BTreeMap<u64, Files>, JournalError> {
    let names = storage.names().map_err(unlisted)?;
    let mut files: BTreeMap<u64, Files> = BTreeMap::new();
    for file in names.iter().filter_map(|name| FileName::parse(name)) {
        let of_segment = files.entry(file.segment).or_default();
        match file.kind {
            FileKind::Order => of_segment.order = true,
            FileKind::Log(disk) => {
                of_segment.logs.insert(disk);
            }
        }
    }
    Ok(files)
}

pub(super) fn unlisted(error: io::Error) -> JournalError {
    JournalError::Io { name: "list".to_owned(), what: "read", error }
}

/// Whether the segments follow each other without a gap, each as it should be where it stands, and what
/// isn't there any more was committed.
fn check<F>(found: &[Found<F>], files: &BTreeMap<u64, Files>) -> Result<(), JournalError> {
    let committed = found.iter().map(|segment| segment.committed).max();
    if let Some(oldest) =
        found.first().filter(|oldest| Some(oldest.header.first) > committed.map(Lsn::next))
    {
        let (first, committed) = (oldest.header.first, committed.unwrap_or_default());
        let what =
            format!("it begins with LSN {first}, and only up to {committed} all was committed");
        return Err(damaged(FileName::order(oldest.number), &what));
    }
    for pair in found.windows(2) {
        let [before, after] = pair else { continue };
        let name = FileName::order(after.number);
        if after.header.incarnation != before.header.incarnation {
            return Err(damaged(name, &"it is of another incarnation's journal"));
        }
        if after.header.first != before.last.next() {
            let (first, last) = (after.header.first, before.last);
            let what =
                format!("it begins with LSN {first}, and what comes before ends with {last}");
            return Err(damaged(name, &what));
        }
    }
    let closed = found.len().saturating_sub(2);
    for segment in &found[..closed] {
        if segment.ending.is_none() {
            return Err(damaged(FileName::order(segment.number), &"its end isn't there any more"));
        }
    }
    for segment in found {
        let logs = files.get(&segment.number).map(|files| &files.logs);
        let missing =
            segment.disks.iter().find(|disk| logs.is_none_or(|logs| !logs.contains(disk)));
        if let Some(disk) = missing {
            return Err(damaged(FileName::log(segment.number, *disk), &"it is missing"));
        }
    }
    match found.last() {
        Some(newest) if newest.ending == Some(SegmentEnding::Continued) => {
            Err(damaged(FileName::order(newest.number), &"the segment that follows it is missing"))
        }
        // Logs are made only when their segment's order file is there for good.
        None if files.values().any(|files| !files.logs.is_empty()) => {
            Err(damaged(FileName::order(0), &"logs are there, and no order file is"))
        }
        _ => Ok(()),
    }
}

/// A segment as the journal goes on with it.
fn take_up<S: Storage>(
    storage: &S,
    found: Found<S::File>,
    logs: Option<&BTreeSet<DiskNumber>>,
) -> Result<Segment, JournalError> {
    let number = found.number;
    // Of such nothing was whole.
    for disk in logs.into_iter().flatten().filter(|disk| !found.disks.contains(disk)) {
        remove(storage, FileName::log(number, *disk))?;
    }
    let order = FileName::order(number);
    let mut bytes = found.file.bytes().map_err(|error| unread(order, error))?;
    for disk in &found.disks {
        let name = FileName::log(number, *disk);
        let log = storage.open(&name.to_string()).and_then(|file| file.bytes());
        bytes += log.map_err(|error| unread(name, error))?;
    }
    let disks = found.disks.into_iter().collect();
    let (first, last) = (found.header.first, found.last);
    Ok(Segment { number, first, last, bytes, disks, closed: true })
}

/// Makes a segment durable as it was read, and closes it after its last whole record if nobody had:
/// its logs first, its order last.
fn settle<S: Storage>(
    storage: &S,
    found: &Found<S::File>,
    if_open: SegmentEnding,
) -> Result<(), JournalError> {
    let failed = |name: FileName| {
        move |error| JournalError::Io { name: name.to_string(), what: "closed", error }
    };
    // The header, too, is durable before a record stands behind it.
    let mut writes = vec![Write { file: found.file.clone(), parts: Vec::new() }];
    for disk in &found.disks {
        let name = FileName::log(found.number, *disk);
        let file = storage.open(&name.to_string()).map_err(failed(name))?;
        let mut parts = Vec::new();
        if found.ending.is_none() {
            let kept = found.writes.iter().filter(|write| write.disk == *disk);
            let id = UniqueId::of_log(found.header.incarnation, found.number, *disk);
            let previous = found.header.last_logs[disk.index()];
            let (end, closed) = closed_log(id, previous, kept).map_err(|lsn| {
                damaged(name, &format!("the data of LSN {lsn} stand where none can"))
            })?;
            storage.truncate(&file, end).map_err(failed(name))?;
            parts = closed;
        }
        writes.push(Write { file, parts });
    }
    let name = FileName::order(found.number);
    storage.write(writes).map_err(failed(name))?;
    if found.ending.is_some() {
        return Ok(());
    }
    storage.truncate(&found.file, found.cut).map_err(failed(name))?;
    let (lsn, time, durable) = (found.last, found.time, found.last);
    let body = OrderBody::End { committed: found.committed, ending: if_open };
    let mut end = Vec::new();
    OrderRecord { lsn, time, durable, body }.encode(found.header.mark(), &mut end);
    let parts = vec![(found.cut, end)];
    storage.write(vec![Write { file: found.file.clone(), parts }]).map_err(failed(name))
}

/// Removes a segment so that at no moment it is there without its logs.
pub(super) fn remove_segment<S: Storage>(
    storage: &S,
    number: u64,
    order: bool,
    logs: impl Iterator<Item = DiskNumber>,
) -> Result<(), JournalError> {
    if order {
        let name = FileName::order(number);
        remove(storage, name)?;
        storage.sync_names().map_err(|error| {
            let name = name.to_string();
            JournalError::Io { name, what: "removed", error }
        })?;
    }
    for disk in logs {
        remove(storage, FileName::log(number, disk))?;
    }
    Ok(())
}

fn remove<S: Storage>(storage: &S, name: FileName) -> Result<(), JournalError> {
    match storage.remove(&name.to_string()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(JournalError::Io { name: name.to_string(), what: "removed", error })
        }
        _ => Ok(()),
    }
}
