//! What a copy has to say, in order: the disks, their data, and the bookmark that ends the copy.
//!
//! Begins at the first welcome, which says how to cut. Watches the disks from before the first byte
//! is read until after the last, so that the bookmark says truly whether they changed meanwhile.

use std::sync::Arc;

use tidegate_model::{Bookmark, BookmarkKind, Disk, DiskNumber, Lsn, Micros};
use tidegate_wire::{RecordKind, Welcome};

use super::Clock;
use crate::error::CopyError;
use crate::progress::Progress;
use crate::reader::{Reader, ReaderError, ReaderSettings, Span};
use crate::session::{Feed, Kept, Payload, What};
use crate::source::{Change, ChangeWatch, Source};

/// The records of one copy.
pub(super) struct CopyFeed {
    disks: Vec<(DiskNumber, Arc<Source>)>,
    settings: ReaderSettings,
    clock: Clock,
    progress: Arc<Progress>,
    last_time: Micros,
    reading: Option<Reading>,
}

/// A copy that has begun.
struct Reading {
    watches: Vec<ChangeWatch>,
    reader: Reader,
    stage: Stage,
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Stage {
    /// The disk with this index is next.
    Disks(usize),
    Spans,
    Ended,
}

impl CopyFeed {
    /// A copy that will read by `settings`, but for what the server's welcome says.
    pub(super) fn new(
        disks: Vec<(DiskNumber, Arc<Source>)>,
        settings: ReaderSettings,
        clock: Clock,
        progress: Arc<Progress>,
    ) -> Self {
        Self { disks, settings, clock, progress, last_time: Micros(0), reading: None }
    }

    /// The disks' sizes together.
    pub(super) fn bytes_total(&self) -> u64 {
        self.disks.iter().map(|(_, source)| source.bytes()).sum()
    }

    /// What changed while it was read; known when the feed has ended.
    pub(super) fn changes(&self) -> &[Change] {
        self.reading.as_ref().map_or(&[], |reading| &reading.changes)
    }

    /// The reader, for what it counted.
    pub(super) fn reader(&self) -> Option<&Reader> {
        self.reading.as_ref().map(|reading| &reading.reader)
    }

    /// Begins to watch and to read.
    fn start(&mut self, welcome: &Welcome) -> Result<Reading, ReaderError> {
        self.settings.block_bytes = welcome.block_bytes;
        self.settings.record_bytes_max = welcome.record_bytes_max;
        let watches = self.disks.iter().map(|(_, source)| ChangeWatch::begin(source));
        let watches = watches.collect::<Result<_, _>>()?;
        let reader = Reader::start(self.disks.clone(), &self.settings, self.progress.clone())?;
        Ok(Reading { watches, reader, stage: Stage::Disks(0), changes: Vec::new() })
    }

    fn disk(number: DiskNumber, source: &Source) -> Disk {
        Disk { number, bytes: source.bytes(), name: source.name().to_owned() }
    }

    async fn next_of(
        disks: &[(DiskNumber, Arc<Source>)],
        reading: &mut Reading,
    ) -> Result<Option<What>, ReaderError> {
        match reading.stage {
            Stage::Disks(index) => {
                if let Some((number, source)) = disks.get(index) {
                    reading.stage = Stage::Disks(index + 1);
                    let disk = RecordKind::Disk(Self::disk(*number, source));
                    return Ok(Some(What::Record(disk)));
                }
                reading.stage = Stage::Spans;
            }
            Stage::Spans => {}
            Stage::Ended => return Ok(None),
        }
        if let Some(Span { extent, payload }) = reading.reader.next().await? {
            return Ok(Some(match payload {
                Some(payload) => What::Write(extent, Payload::Read(payload)),
                None => What::Record(RecordKind::Zero(extent)),
            }));
        }
        reading.stage = Stage::Ended;
        for ((_, source), watch) in disks.iter().zip(&reading.watches) {
            reading.changes.extend(watch.end(source)?);
        }
        let (kind, clean) = (BookmarkKind::CopyEnd, reading.changes.is_empty());
        let bookmark = Bookmark { kind, clean, name: String::new() };
        Ok(Some(What::Record(RecordKind::Bookmark(bookmark))))
    }
}

impl Feed for CopyFeed {
    type Error = CopyError;

    fn welcomed(&mut self, welcome: &Welcome) -> Result<(), CopyError> {
        if self.reading.is_none() {
            self.reading = Some(self.start(welcome)?);
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Kept>, CopyError> {
        let Some(reading) = &mut self.reading else { return Ok(None) };
        let what = Self::next_of(&self.disks, reading).await?;
        Ok(what.map(|what| {
            self.last_time = self.last_time.max((self.clock)());
            Kept { time: self.last_time, what }
        }))
    }

    fn has_ended(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| matches!(reading.stage, Stage::Ended))
    }

    fn committed(&mut self, _: Lsn) -> Result<(), CopyError> {
        Ok(())
    }

    fn declared(&self, lsn: Lsn) -> Vec<Disk> {
        // Disks are the first records: disk n has LSN n + 1.
        let declared = (1..).zip(&self.disks).take_while(|(number, _)| *number <= lsn.0);
        declared.map(|(_, (number, source))| Self::disk(*number, source)).collect()
    }
}
