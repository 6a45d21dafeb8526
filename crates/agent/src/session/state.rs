//! What a copy keeps from one connection to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tidegate_model::{Disk, DiskNumber, Epoch, Extent, Lsn, Micros};
use tidegate_wire::{Begins, Hello, RecordKind, Totals, Welcome, limits::PROTOCOL_VERSION};
use tokio::time::Instant;

use super::feed::{Feed, Item};
use crate::copy::{CopyReport, CopyRequest};
use crate::error::{Awaited, CopyError};
use crate::progress::{Progress, add, raise};
use crate::reader::{Payload, Reader};
use crate::source::Source;
use crate::window::Window;

/// A record that isn't committed: all that its bytes are made of.
#[derive(Debug)]
pub(super) struct Kept {
    /// When it happened; later than or as late as the record before it.
    pub(super) time: Micros,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// Anything but a write.
    Record(RecordKind),
    Write(Extent, Payload),
}

impl Kept {
    /// Payload bytes of a write.
    pub(super) fn payload_bytes(&self) -> u64 {
        match &self.what {
            What::Record(_) => 0,
            What::Write(extent, _) => extent.length,
        }
    }

    /// Bytes of the disk that it says something about.
    fn disk_bytes(&self) -> u64 {
        match &self.what {
            What::Write(extent, _) | What::Record(RecordKind::Zero(extent)) => extent.length,
            What::Record(_) => 0,
        }
    }
}

/// The state of one copy.
#[derive(Debug)]
pub(crate) struct State {
    request: CopyRequest,
    disks: Vec<(DiskNumber, Arc<Source>)>,
    pub(super) progress: Arc<Progress>,
    pub(super) window: Window<Kept>,
    pub(super) feed: Option<Feed>,
    /// The last LSN that any connection has sent.
    pub(super) ever_sent: Lsn,
    epoch: Epoch,
    /// The record limit by which the disks are cut.
    record_bytes_max: Option<u32>,
    last_time: Micros,
    /// When something was last committed, or there was nothing to commit.
    advanced: Option<Instant>,
    connections: u64,
    totals: Totals,
    bytes_uncounted: u64,
}

impl State {
    pub(crate) fn new(
        request: &CopyRequest,
        disks: Vec<(DiskNumber, Arc<Source>)>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            request: request.clone(),
            disks,
            progress,
            window: Window::default(),
            feed: None,
            ever_sent: Lsn::NONE,
            epoch: Epoch::NONE,
            record_bytes_max: None,
            last_time: Micros(0),
            advanced: None,
            connections: 0,
            totals: Totals::default(),
            bytes_uncounted: 0,
        }
    }

    /// The last LSN that the vault has.
    pub(crate) const fn committed(&self) -> Lsn {
        self.window.committed_lsn()
    }

    /// Since when the vault owes a commit; `None` while no server has accepted the agent.
    pub(crate) const fn advanced(&self) -> Option<Instant> {
        self.advanced
    }

    /// What patience is needed for.
    pub(crate) const fn awaited(&self) -> Awaited {
        if self.advanced.is_none() { Awaited::Session } else { Awaited::Commit }
    }

    /// Whether everything is said and committed.
    pub(super) fn is_whole(&self) -> bool {
        self.window.is_empty() && self.feed.as_ref().is_some_and(Feed::has_ended)
    }

    /// The disks as they are declared.
    pub(super) fn declared(&self) -> impl Iterator<Item = Disk> {
        self.disks.iter().map(|(number, source)| Disk {
            number: *number,
            bytes: source.bytes(),
            name: source.name().to_owned(),
        })
    }

    /// The hello of the next connection.
    pub(super) fn hello(&mut self) -> Hello {
        self.connections += 1;
        if self.connections > 1 {
            add(&self.progress.reconnects, 1);
        }
        Hello {
            version: PROTOCOL_VERSION,
            vault: self.request.vault,
            incarnation: self.request.incarnation,
            epoch: self.epoch,
            committed: self.committed(),
            features: 0,
            begins: Begins::Copy,
            parent: None,
            machine: self.request.machine.clone(),
        }
    }

    /// Whether what a server knows of this copy agrees with what we know.
    pub(super) fn check(&self, welcome: &Welcome) -> Result<(), CopyError> {
        if self.epoch != Epoch::NONE && welcome.epoch != self.epoch {
            let (epoch, granted) = (self.epoch, welcome.epoch);
            return Err(CopyError::OtherEpoch { epoch, granted });
        }
        self.window.check_resume(welcome.committed)?;
        match self.record_bytes_max {
            Some(cut) if welcome.record_bytes_max < cut => {
                Err(CopyError::SmallerRecords { cut, granted: welcome.record_bytes_max })
            }
            _ => Ok(()),
        }
    }

    /// A server accepted us: takes what it has committed, and begins to read at the first time.
    pub(super) fn welcome(&mut self, welcome: &Welcome) -> Result<(), CopyError> {
        self.epoch = welcome.epoch;
        if self.advanced.is_none() {
            self.advanced = Some(Instant::now());
        }
        self.bytes_uncounted += self.committed_up_to(welcome.committed)?;
        if self.feed.is_none() {
            self.record_bytes_max = Some(welcome.record_bytes_max);
            let mut settings = self.request.reader.clone();
            settings.block_bytes = welcome.block_bytes;
            settings.record_bytes_max = welcome.record_bytes_max;
            self.feed = Some(Feed::start(&self.disks, &settings, self.progress.clone())?);
        }
        Ok(())
    }

    /// Lets go of what is committed; returns the payload bytes of it.
    pub(super) fn committed_up_to(&mut self, lsn: Lsn) -> Result<u64, CopyError> {
        let before = self.committed();
        let (mut payload_bytes, mut disk_bytes) = (0, 0);
        for kept in self.window.committed(lsn)? {
            payload_bytes += kept.payload_bytes();
            disk_bytes += kept.disk_bytes();
        }
        if self.committed() > before {
            self.advanced = Some(Instant::now());
        }
        add(&self.progress.bytes_committed, disk_bytes);
        raise(&self.progress.lsn_committed, self.committed().0);
        Ok(payload_bytes)
    }

    /// Keeps an item as the next record.
    pub(super) fn keep(&mut self, item: Item) {
        if self.window.is_empty() {
            self.advanced = Some(Instant::now());
        }
        let what = match item {
            Item::Disk(disk) => What::Record(RecordKind::Disk(disk)),
            Item::End(bookmark) => What::Record(RecordKind::Bookmark(bookmark)),
            Item::Span(span) => match span.payload {
                Some(payload) => What::Write(span.extent, payload),
                None => What::Record(RecordKind::Zero(span.extent)),
            },
        };
        self.last_time = self.last_time.max((self.request.clock)());
        self.window.push(Kept { time: self.last_time, what });
    }

    /// A connection has ended, with these totals.
    pub(super) fn disconnected(&mut self, totals: &Totals) {
        self.totals.zero_bytes += totals.zero_bytes;
        self.totals.deduplicated_bytes += totals.deduplicated_bytes;
        self.totals.kept_bytes += totals.kept_bytes;
        self.totals.stored_bytes += totals.stored_bytes;
        if self.window.is_empty() && self.advanced.is_some() {
            self.advanced = Some(Instant::now());
        }
    }

    pub(crate) fn report(&self) -> CopyReport {
        let seen = self.progress.snapshot();
        let reader = self.feed.as_ref().map(Feed::reader);
        let changes = self.feed.as_ref().map_or_else(Vec::new, |feed| feed.changes().to_vec());
        CopyReport {
            epoch: self.epoch,
            lsn: self.committed(),
            clean: changes.is_empty(),
            changes,
            bytes_total: self.disks.iter().map(|(_, source)| source.bytes()).sum(),
            bytes_read: seen.bytes_read,
            bytes_zero: seen.bytes_zero,
            bytes_sent: seen.bytes_sent,
            bytes_resent: seen.bytes_resent,
            bytes_deduplicated: self.totals.deduplicated_bytes,
            bytes_kept: self.totals.kept_bytes,
            bytes_stored: self.totals.stored_bytes,
            bytes_uncounted: self.bytes_uncounted,
            reconnects: seen.reconnects,
            buffer_bytes_max: reader.map_or(0, Reader::buffer_bytes_max),
            bytes_direct: reader.map_or(0, |r| r.counters().bytes_direct.load(Relaxed)),
            unregistered_because: reader
                .and_then(|reader| reader.counters().unregistered_because.get().cloned()),
        }
    }
}
