//! What a copy has to say, in order: the disks, their data, and the bookmark that ends the copy.
//!
//! Watches the disks from before the first byte is read until after the last, so that the bookmark
//! says truly whether they changed meanwhile.

use std::sync::Arc;

use tidegate_model::{Bookmark, BookmarkKind, Disk, DiskNumber};

use crate::progress::Progress;
use crate::reader::{Reader, ReaderError, ReaderSettings, Span};
use crate::source::{Change, ChangeWatch, Source};

/// One record to be.
#[derive(Debug)]
pub(super) enum Item {
    /// A disk is declared.
    Disk(Disk),
    /// Data or zeros of a disk.
    Span(Span),
    /// The copy ends here.
    End(Bookmark),
}

#[derive(Debug)]
enum Stage {
    /// The disk with this index is next.
    Disks(usize),
    Spans,
    Ended,
}

/// The items of one copy.
#[derive(Debug)]
pub(super) struct Feed {
    disks: Vec<(DiskNumber, Arc<Source>)>,
    watches: Vec<ChangeWatch>,
    reader: Reader,
    stage: Stage,
    changes: Vec<Change>,
}

impl Feed {
    /// Begins to watch and to read.
    pub(super) fn start(
        disks: &[(DiskNumber, Arc<Source>)],
        settings: &ReaderSettings,
        progress: Arc<Progress>,
    ) -> Result<Self, ReaderError> {
        let watches = disks.iter().map(|(_, source)| ChangeWatch::begin(source));
        let watches = watches.collect::<Result<_, _>>()?;
        let reader = Reader::start(disks.to_vec(), settings, progress)?;
        Ok(Self {
            disks: disks.to_vec(),
            watches,
            reader,
            stage: Stage::Disks(0),
            changes: Vec::new(),
        })
    }

    /// The next item; `None` after the bookmark. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Item>, ReaderError> {
        match self.stage {
            Stage::Disks(index) => {
                if let Some((number, source)) = self.disks.get(index) {
                    self.stage = Stage::Disks(index + 1);
                    let (bytes, name) = (source.bytes(), source.name().to_owned());
                    return Ok(Some(Item::Disk(Disk { number: *number, bytes, name })));
                }
                self.stage = Stage::Spans;
            }
            Stage::Spans => {}
            Stage::Ended => return Ok(None),
        }
        if let Some(span) = self.reader.next().await? {
            return Ok(Some(Item::Span(span)));
        }
        self.stage = Stage::Ended;
        for ((_, source), watch) in self.disks.iter().zip(&self.watches) {
            self.changes.extend(watch.end(source)?);
        }
        let (kind, clean) = (BookmarkKind::CopyEnd, self.changes.is_empty());
        Ok(Some(Item::End(Bookmark { kind, clean, name: String::new() })))
    }

    /// Whether all items were given out.
    pub(super) const fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// What changed while it was read; known when the feed has ended.
    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The reader, for what it counted.
    pub(super) const fn reader(&self) -> &Reader {
        &self.reader
    }
}
