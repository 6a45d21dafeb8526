//! The shell around the state: carries out batches and removals, and opens a journal.

use std::collections::BTreeMap;
use std::io;

use tidegate_model::DiskNumber;

use super::batch::{Batch, Closing};
use super::error::JournalError;
use super::names::FileName;
use super::recover::{list, recover, remove_segment, unlisted};
use super::state::{Segment, State};
use super::{Birth, JournalSettings, Opening};
use crate::order::HEADER_BYTES;
use crate::storage::{Storage, Write};

/// The files of one segment that are being written.
#[derive(Debug)]
struct Files<F> {
    order: F,
    logs: BTreeMap<DiskNumber, F>,
}

/// Carries out what [`State`] decides. Whoever has it is the only one that writes.
#[derive(Debug)]
pub struct Writer<S: Storage> {
    storage: S,
    files: Option<Files<S::File>>,
}

/// Opens the journal in `storage`, or makes one; what wasn't closed is recovered first.
///
/// # Errors
/// [`JournalError`]. When it is damaged nothing is changed; [`discard`] makes room for a new one.
pub fn open<S: Storage>(
    storage: S,
    settings: JournalSettings,
    birth: &Birth,
) -> Result<(State, Writer<S>, Opening), JournalError> {
    let (start, ending) = recover(&storage, birth)?;
    let opening = Opening {
        incarnation: start.incarnation,
        ending,
        recovered_to: start.last,
        committed: start.committed,
        time: start.time,
    };
    let empty: Vec<Segment> =
        start.segments.iter().filter(|segment| segment.last < segment.first).cloned().collect();
    let mut state = State::new(settings, start);
    let mut writer = Writer { storage, files: None };
    // From here on the newest segment is open, so that a crash shows.
    while let Some(batch) = state.take_batch() {
        let written = batch.written();
        writer.carry_out(batch)?;
        state.written(written);
    }
    for segment in empty {
        writer.remove(&segment)?;
        state.forget(segment.number);
    }
    Ok((state, writer, opening))
}

/// Deletes every file of a journal, in order to begin a new one.
///
/// # Errors
/// [`JournalError::Io`].
pub fn discard<S: Storage>(storage: &S) -> Result<(), JournalError> {
    // Oldest first: as long as there is anything, the newest tells how the journal ended.
    for (number, files) in list(storage)? {
        remove_segment(storage, number, files.order, files.logs.into_iter())?;
    }
    storage.sync_names().map_err(unlisted)
}

impl<S: Storage> Writer<S> {
    /// Writes a batch; when this returns, it is durable.
    ///
    /// # Errors
    /// [`JournalError::Io`]: whether it is durable isn't known, and nothing may be written any more.
    pub fn carry_out(&mut self, batch: Batch) -> Result<(), JournalError> {
        let name = FileName::order(batch.segment);
        let failed = |error| JournalError::Io { name: name.to_string(), what: "written", error };
        let (mut at, mut records) = batch.order;
        let mut before = None;
        if at == 0 {
            (at, before) = (HEADER_BYTES as u64, self.files.take());
            let rest = records.split_off(HEADER_BYTES);
            self.begin(name, std::mem::replace(&mut records, rest))?;
        }
        let Some(files) = &mut self.files else { unreachable!("the first batch begins a segment") };
        let mut writes = Vec::with_capacity(1 + batch.logs.len());
        if !records.is_empty() {
            writes.push(Write { file: files.order.clone(), parts: vec![(at, records)] });
        }
        let mut made = false;
        for (disk, part) in batch.logs {
            let file = match files.logs.get(&disk) {
                Some(file) => file.clone(),
                None => {
                    let name = FileName::log(batch.segment, disk).to_string();
                    let file = self.storage.create(&name).map_err(failed)?;
                    made = true;
                    files.logs.insert(disk, file.clone());
                    file
                }
            };
            writes.push(Write { file, parts: vec![part] });
        }
        self.storage.write(writes).map_err(failed)?;
        if made {
            self.storage.sync_names().map_err(failed)?;
        }
        if let (Some(closing), Some(files)) = (batch.closes, before) {
            self.close_files(closing, &files)?;
        }
        Ok(())
    }

    /// Writes what is left and closes the journal.
    ///
    /// # Errors
    /// [`JournalError`]; the journal is open then, as after a crash.
    pub fn close(&mut self, state: &mut State) -> Result<(), JournalError> {
        while let Some(batch) = state.take_batch() {
            let written = batch.written();
            self.carry_out(batch)?;
            state.written(written);
        }
        if state.has_failed() {
            return Err(JournalError::Failed);
        }
        match self.files.take() {
            Some(files) => self.close_files(state.close(), &files),
            None => Ok(()),
        }
    }

    /// Whether the file system has so much room set aside: [`State::room_bytes`].
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        self.storage.has_room(bytes)
    }

    /// Removes a segment that [`State::removable`] gave; then the state must forget it.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn remove(&self, segment: &Segment) -> Result<(), JournalError> {
        remove_segment(&self.storage, segment.number, true, segment.disks.iter().copied())
    }

    /// Makes a segment's order file, durable with its header before anything else is written: a header
    /// that isn't whole is of a segment that never began.
    fn begin(&mut self, name: FileName, header: Vec<u8>) -> Result<(), JournalError> {
        let make = || -> io::Result<S::File> {
            let order = self.storage.create(&name.to_string())?;
            let parts = vec![(0, header)];
            self.storage.write(vec![Write { file: order.clone(), parts }])?;
            self.storage.sync_names()?;
            Ok(order)
        };
        let order = make().map_err(|error| JournalError::Io {
            name: name.to_string(),
            what: "made",
            error,
        })?;
        self.files = Some(Files { order, logs: BTreeMap::new() });
        Ok(())
    }

    /// Closes a segment: its logs first, its order last.
    fn close_files(&self, closing: Closing, files: &Files<S::File>) -> Result<(), JournalError> {
        let name = FileName::order(closing.segment);
        let failed = |error| JournalError::Io { name: name.to_string(), what: "closed", error };
        let logs = closing.logs.into_iter().filter_map(|(disk, header)| {
            let file = files.logs.get(&disk)?.clone();
            Some(Write { file, parts: vec![(0, header)] })
        });
        self.storage.write(logs.collect()).map_err(failed)?;
        let parts = vec![closing.end];
        self.storage.write(vec![Write { file: files.order.clone(), parts }]).map_err(failed)
    }
}
