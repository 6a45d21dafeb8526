//! Copies records: fetches the frames in which they lie, checks them, and stores dense packs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::{StreamExt, stream};
use tidegate_model::{Checksum, Epoch, LogId, Name, PackNumber};

use super::write::{ClosedDense, Copied, DenseWriter, Written};
use super::{Alive, BATCH_BYTES, NewPlace, Part, RUNS_AHEAD, RecordKey};
use crate::fold::FoldError;
use crate::fold::layer::KeptAt;
use crate::fold::packs::sizes_of;
use crate::log::buffers::Buffers;
use crate::log::frames::{FetchedRun, FrameRun, runs};
use crate::log::{LogError, LogReader, PackPlace, PackRead};
use crate::meta::MetaError;
use crate::pack::{Content, Expander};
use crate::store::Put;

/// Copies records of one epoch of a machine.
pub(in crate::fold) struct Copier<'r> {
    reader: &'r LogReader,
    machine: Name,
    epoch: Epoch,
    /// The number of the manifest that will name the packs.
    manifest: u64,
    buffers: Buffers,
    writer: Option<DenseWriter>,
    batch: Vec<Copied>,
    batch_bytes: usize,
    moved: HashMap<RecordKey, NewPlace>,
    /// The sizes of the packs that were made, and of their heads.
    pub made: HashMap<(LogId, PackNumber), (u64, u32)>,
    /// Bytes of these packs.
    pub stored_bytes: u64,
}

/// A run of frames of a pack, and the records that are wanted of each.
struct Wanted {
    pack: Arc<PackRead>,
    run: FrameRun,
    frames: VecDeque<(u32, Vec<Alive>)>,
}

impl<'r> Copier<'r> {
    /// For manifest `manifest`.
    pub fn new(reader: &'r LogReader, machine: &Name, epoch: Epoch, manifest: u64) -> Self {
        Self {
            reader,
            machine: machine.clone(),
            epoch,
            manifest,
            buffers: Buffers::new(RUNS_AHEAD),
            writer: None,
            batch: Vec::new(),
            batch_bytes: 0,
            moved: HashMap::new(),
            made: HashMap::new(),
            stored_bytes: 0,
        }
    }

    /// Copies these parts of `alive`, whose packs are in `table`. What can't be read isn't moved.
    pub async fn copy(
        &mut self,
        table: &[PackPlace],
        alive: &[Alive],
        mut parts: Vec<Part>,
    ) -> Result<(), FoldError> {
        // Each pack's index is fetched once.
        parts.sort_by_key(|part| part.alive.start);
        let (reader, buffers) = (self.reader, self.buffers.clone());
        let groups = parts.chunk_by(|a, b| a.pack == b.pack).map(<[Part]>::to_vec);
        let fetched = stream::iter(groups)
            .map(|group| async move {
                let place = &table[group[0].pack as usize];
                let pack = reader.pack(place).await;
                let alive = group.iter().flat_map(|part| &alive[part.alive.clone()]);
                let alive: Vec<Alive> = alive.copied().collect();
                stream::iter(wanted(pack, &alive))
            })
            .buffered(2)
            .flatten()
            .map(|wanted| {
                let buffers = buffers.clone();
                async move {
                    let wanted = wanted?;
                    let fetched = reader.fetch(&wanted.pack, &wanted.run, &buffers).await?;
                    Ok((wanted, fetched))
                }
            })
            .buffered(RUNS_AHEAD);
        let mut fetched = std::pin::pin!(fetched);
        while let Some(run) = fetched.next().await {
            match run {
                Ok((wanted, run)) => self.take(wanted, run).await?,
                Err(error) => left(error)?,
            }
        }
        self.flush().await
    }

    /// Where a record was copied to, if it was.
    pub fn new_place(&self, key: RecordKey) -> Option<KeptAt<'_>> {
        let new = self.moved.get(&key)?;
        Some((&new.place, new.frame, new.ordinal))
    }

    /// Stores what is left.
    pub async fn finish(&mut self) -> Result<(), FoldError> {
        let closed = match &mut self.writer {
            Some(writer) => writer.close()?,
            None => None,
        };
        self.store(closed.into_iter().collect()).await
    }

    /// Takes the records of a run, as many at once as there is room for.
    async fn take(&mut self, mut wanted: Wanted, mut run: FetchedRun) -> Result<(), FoldError> {
        let block_bytes = wanted.pack.index.block_bytes;
        self.writer.get_or_insert_with(|| {
            let ring = self.reader.ring().clone();
            DenseWriter::new(ring, self.machine.clone(), self.epoch, self.manifest, block_bytes)
        });
        while !wanted.frames.is_empty() {
            let room = BATCH_BYTES.saturating_sub(self.batch_bytes);
            let opened = tokio::task::spawn_blocking(move || {
                let copied = open(&mut wanted, &mut run, room);
                (wanted, run, copied)
            });
            let copied;
            (wanted, run, copied) = opened.await.map_err(|error| stopped(&error))?;
            let copied = copied?;
            self.batch_bytes += copied.iter().map(|copied| copied.bytes.len()).sum::<usize>();
            self.batch.extend(copied);
            if self.batch_bytes >= BATCH_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Writes what is held.
    async fn flush(&mut self) -> Result<(), FoldError> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let written = tokio::task::spawn_blocking(move || {
            let written = writer.write(batch);
            (writer, written)
        });
        let (writer, written) = written.await.map_err(|error| stopped(&error))?;
        self.writer = Some(writer);
        let Written { places, closed } = written?;
        self.moved.extend(places);
        self.store(closed).await
    }

    async fn store(&mut self, closed: Vec<ClosedDense>) -> Result<(), FoldError> {
        for ClosedDense { place, header, object } in closed {
            let path = place.path();
            let put = self.reader.store().create(&path, object.into()).await;
            if put.map_err(MetaError::from)? == Put::Exists {
                return Err(MetaError::damaged(&path, "another has this random name").into());
            }
            self.stored_bytes += header.object_bytes;
            self.made.insert(place.key(), sizes_of(&header));
        }
        Ok(())
    }
}

/// The runs of a pack that have these records.
fn wanted(pack: Result<Arc<PackRead>, LogError>, alive: &[Alive]) -> Vec<Result<Wanted, LogError>> {
    let pack = match pack {
        Ok(pack) => pack,
        Err(error) => return vec![Err(error)],
    };
    let by_frame = alive.chunk_by(|a, b| a.key.1 == b.key.1);
    let mut frames: HashMap<u32, Vec<Alive>> = HashMap::new();
    for frame in by_frame {
        if let Some(place) = pack.index.frame_place(frame[0].key.1) {
            frames.insert(place, frame.to_vec());
        }
    }
    let mut places: Vec<u32> = frames.keys().copied().collect();
    places.sort_unstable();
    let of_run = |run: FrameRun| {
        let frames = run.frames.iter().filter_map(|place| frames.remove_entry(place)).collect();
        Ok(Wanted { pack: pack.clone(), run, frames })
    };
    runs(&pack.index, places).into_iter().map(of_run).collect()
}

/// Opens frames of a run until `room` is filled; what isn't what it should be is left out.
fn open(wanted: &mut Wanted, run: &mut FetchedRun, room: usize) -> Result<Vec<Copied>, LogError> {
    let (mut expander, mut plain) = (Expander::default(), Vec::new());
    let (mut copied, mut bytes) = (Vec::new(), 0);
    while bytes < room.max(1) {
        let Some((place, alive)) = wanted.frames.pop_front() else { break };
        if let Err(error) = run.open(&wanted.pack, place, &mut expander, &mut plain) {
            left(error)?;
            continue;
        }
        for alive in alive {
            let Some(record) = record(&wanted.pack, place, &plain, &alive) else {
                let pack = &wanted.pack.place;
                tracing::warn!(%pack, lsn = %alive.lsn, "a kept record isn't what was captured");
                continue;
            };
            bytes += record.bytes.len();
            copied.push(record);
        }
    }
    Ok(copied)
}

/// A record of an opened frame, if it is what was captured.
fn record(pack: &PackRead, place: u32, plain: &[u8], alive: &Alive) -> Option<Copied> {
    let Alive { key, extent, lsn, time, .. } = *alive;
    let Content::Kept { extent: of, checksum, name, offset, .. } =
        pack.index.kept_at(place, key.2)?.content
    else {
        return None;
    };
    let begin = offset as usize;
    let bytes = plain.get(begin..begin.checked_add(usize::try_from(of.length).ok()?)?)?;
    let is_it = of.length == extent.length
        && checksum == alive.checksum
        && Checksum::of(bytes) == checksum
        && alive.name.is_none_or(|wanted| name == Some(wanted));
    is_it.then(|| Copied { key, extent, lsn, time, checksum, name, bytes: bytes.to_vec() })
}

/// What is damaged is left where it is.
fn left(error: LogError) -> Result<(), LogError> {
    if !error.is_damage() {
        return Err(error);
    }
    tracing::warn!(%error, "what it keeps is left where it is");
    Ok(())
}

fn stopped(error: &tokio::task::JoinError) -> LogError {
    LogError::Stopped(error.to_string())
}
