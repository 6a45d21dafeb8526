//! What the journal holds, as a session sends it: durable records in the order of their LSNs, from
//! what isn't committed on.
//!
//! The journal's files are read on a thread for waiting, some records at a time: a disk that is slow
//! (after an outage they are no longer in memory) holds no connection up. Bound: two such readings in
//! memory, one being handed on and one ahead; what is handed on counts in the window.
//!
//! Invariant: LSNs have no gap, or the feed ends with an error. Nothing is given out before it is
//! durable, so what was sent can be sent again by the next life of this agent.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_hrl::journal::{Change, JournalError, Record};
use tidegate_hrl::uring::UringStorage;
use tidegate_model::limits::RECORD_BYTES_DEFAULT;
use tidegate_model::{Disk, Extent, Lsn};
use tidegate_wire::limits::FEATURE_HASHES;
use tidegate_wire::{RecordKind, Welcome};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::drain::SharedLink;
use super::error::LiveError;
use super::notes::Notebook;
use super::{Journal, Progressing, Stands};
use crate::session::{Feed, Kept, Payload, What};

type JournalReader = tidegate_hrl::JournalReader<UringStorage>;

/// Bytes of one reading, about: what one write to a connection takes.
const READING_BYTES: u64 = 1 << 20;
/// Records of one reading: small ones, too, are handed on soon.
const READING_RECORDS: usize = 1024;

/// Most bytes of a write in the journal: no server grants less, and a record that was given an LSN
/// is never cut again.
pub const CAPTURED_BYTES_MAX: u32 = RECORD_BYTES_DEFAULT;

/// The records of one journal.
pub(crate) struct JournalFeed {
    journal: Arc<Journal>,
    notebook: Arc<Notebook>,
    reading: Reading,
    ready: VecDeque<Record>,
    /// The last LSN that was given out, or that needn't be any more.
    given: Lsn,
    progress: watch::Receiver<Progressing>,
    link: SharedLink,
}

enum Reading {
    /// Nobody reads.
    Idle(JournalReader),
    /// Somebody does, and may be done.
    Busy(JoinHandle<Done>),
    /// The one who read is gone: a defect, or the process ends.
    Lost,
}

struct Done {
    reader: JournalReader,
    read: Result<Vec<Record>, JournalError>,
    /// Whether it ended because it had enough.
    full: bool,
}

impl JournalFeed {
    /// The records of `journal` that aren't committed. `progress` says what is durable, and `link` is
    /// told when a server is ready for them.
    pub(crate) fn new(
        journal: Arc<Journal>,
        notebook: Arc<Notebook>,
        progress: watch::Receiver<Progressing>,
        link: SharedLink,
    ) -> Self {
        let given = journal.usage().committed;
        let reading = Reading::Idle(journal.read_from(given.next()));
        Self { journal, notebook, reading, ready: VecDeque::new(), given, progress, link }
    }

    /// Whether everything was given out that will ever be appended.
    fn is_at_end(&self) -> bool {
        self.progress.borrow().end.is_some_and(|end| self.given >= end)
    }

    /// Reads on; false when there is nothing that is durable.
    async fn read(&mut self) -> Result<bool, LiveError> {
        self.begin();
        let Reading::Busy(reading) = &mut self.reading else {
            return Err(JournalError::Failed.into());
        };
        // Dropped here, what is read is taken the next time.
        let done = reading.await;
        self.reading = Reading::Lost;
        let Ok(Done { reader, read, full }) = done else {
            return Err(JournalError::Failed.into());
        };
        self.reading = Reading::Idle(reader);
        self.ready.extend(read?);
        if full {
            self.begin();
        }
        Ok(!self.ready.is_empty())
    }

    /// Waits for a reading that is under way: the journal's directory is in use as long.
    pub(crate) async fn rest(&mut self) {
        if let Reading::Busy(reading) = &mut self.reading {
            // What it read is read again.
            let _ = reading.await;
        }
        self.reading = Reading::Lost;
    }

    /// Begins to read on, unless that is under way.
    fn begin(&mut self) {
        match std::mem::replace(&mut self.reading, Reading::Lost) {
            Reading::Idle(reader) => {
                // What becomes durable from here on it may miss, and that wakes who waits.
                self.progress.borrow_and_update();
                let reading = tokio::task::spawn_blocking(|| read_some(reader));
                self.reading = Reading::Busy(reading);
            }
            other => self.reading = other,
        }
    }

    /// The record as it is sent.
    fn kept(&mut self, record: Record) -> Result<Kept, LiveError> {
        let Record { lsn, time, change, checksum } = record;
        if lsn != self.given.next() {
            return Err(LiveError::Gap { expected: self.given.next(), found: lsn });
        }
        let what = match change {
            Change::Write { data, .. } if data.len() > CAPTURED_BYTES_MAX as usize => {
                return Err(LiveError::TooLong { lsn, bytes: data.len() as u64 });
            }
            Change::Write { disk, offset, data } => {
                let extent = Extent { disk, offset, length: data.len() as u64 };
                What::Write(extent, Payload::Captured(Arc::new(data), checksum))
            }
            Change::Disk(disk) => What::Record(RecordKind::Disk(disk)),
            Change::Zero(extent) => What::Record(RecordKind::Zero(extent)),
            Change::Bookmark(bookmark) => What::Record(RecordKind::Bookmark(bookmark)),
            Change::Time => What::Record(RecordKind::Time),
        };
        self.given = lsn;
        Ok(Kept { time, what })
    }
}

/// Reads what there is, up to the bounds of a reading.
fn read_some(mut reader: JournalReader) -> Done {
    let (mut records, mut bytes) = (Vec::new(), 0);
    loop {
        if records.len() >= READING_RECORDS || bytes >= READING_BYTES {
            return Done { reader, read: Ok(records), full: true };
        }
        match reader.next() {
            Ok(Some(record)) => {
                if let Change::Write { data, .. } = &record.change {
                    bytes += data.len() as u64;
                }
                records.push(record);
            }
            Ok(None) => return Done { reader, read: Ok(records), full: false },
            Err(error) => return Done { reader, read: Err(error), full: false },
        }
    }
}

impl Feed for JournalFeed {
    type Error = LiveError;

    fn welcomed(&mut self, welcome: &Welcome) -> Result<(), LiveError> {
        self.link.change(|link| (link.connected, link.trouble) = (true, None));
        let answers = welcome.features & FEATURE_HASHES != 0;
        self.notebook.change(|notes| {
            notes.epoch = welcome.epoch;
            // From here on records go out, and the epoch's last session is of this run.
            notes.sent = None;
            let own = notes.tokens.len().saturating_sub(1);
            notes.tokens.drain(..own);
            if !answers && notes.copy_end.is_none() {
                // What isn't compared yet is copied, now and after a kill.
                notes.stands = Stands::Nothing;
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Kept>, LiveError> {
        loop {
            while let Some(record) = self.ready.pop_front() {
                // The vault may have said that it has what was read ahead.
                if record.lsn > self.given {
                    return self.kept(record).map(Some);
                }
            }
            if self.is_at_end() {
                return Ok(None);
            }
            // It may have begun before this was called, and then before the newest became durable.
            let has_more = self.read().await?;
            if !has_more && !self.is_at_end() && self.progress.changed().await.is_err() {
                return Err(JournalError::Failed.into());
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.is_at_end()
    }

    fn committed(&mut self, lsn: Lsn) -> Result<(), LiveError> {
        self.given = self.given.max(lsn);
        Ok(self.journal.committed(lsn)?)
    }

    fn declared(&self, lsn: Lsn) -> Vec<Disk> {
        self.notebook.read().declared(lsn)
    }
}
