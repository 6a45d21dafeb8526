//! The heavy middle: one pure function over a unit, run on whichever core is idle.
//!
//! verify → split → zero test → hash → look up → compress → seal. It needs nothing but the unit,
//! the worker's own memory, and the two tables that all shards share.
//!
//! A worker has one spare buffer of each pool. It compresses from the unit's buffer into the
//! spare, seals there, and swaps the two: so the output never needs memory that isn't in hand, and
//! nothing is copied but what dedupe moved together.

use std::sync::Arc;

use tidegate_model::{BlockName, Checksum, Extent, Name, PackNumber, Piece};
use tidegate_vault::pack::{Codec, FRAME_HEADER_BYTES, FrameHeader};
use tidegate_vault::seal::{BlockNamer, LogCiphers, TAG_BYTES};

use crate::buffers::{Buffer, BufferPool};
use crate::compressor::{Compressor, CompressorError};
use crate::governor::Effort;
use crate::known::{Known, KnownBlocks};
use crate::logs::Logs;
use crate::probe::{Probe, Verdict};
use crate::split::{self, Cut};
use crate::stats::{Stage, StageTimes, UnitClock};
use crate::unit::{Entry, EntryKind, Fault, Outcome, OutcomeKind, Place, SealedFrame, Unit};

/// What every worker of a server is made from.
#[derive(Clone)]
pub struct WorkerSetup {
    /// The vault's block size, in bytes.
    pub block_bytes: u32,
    /// The level to compress at.
    pub effort: Arc<Effort>,
    /// The root key version that the ciphers belong to.
    pub key_version: u32,
    /// The ciphers of each shard's log.
    pub ciphers: Arc<[LogCiphers]>,
    /// Names blocks.
    pub namer: BlockNamer,
    /// The table of known blocks.
    pub known: Arc<KnownBlocks>,
    /// The logs.
    pub logs: Logs,
    /// Where time is added up.
    pub times: Arc<StageTimes>,
}

/// Works on units; one a core.
pub struct Worker {
    setup: WorkerSetup,
    compressor: Compressor,
    probe: Probe,
    spares: Vec<Buffer>,
}

impl Worker {
    /// A worker with a spare buffer of each of these pools.
    ///
    /// # Errors
    /// When zstd refuses the level or has no memory.
    ///
    /// # Panics
    /// If a pool is empty: the memory plan counts a buffer a pool for each worker.
    pub fn new(setup: WorkerSetup, pools: &[BufferPool]) -> Result<Self, CompressorError> {
        let compressor = Compressor::new(setup.effort.level())?;
        let take = |pool: &BufferPool| pool.take().expect("the plan counts a spare a worker");
        Ok(Self {
            setup,
            compressor,
            probe: Probe::default(),
            spares: pools.iter().map(take).collect(),
        })
    }

    /// Works on a unit that was dispatched.
    ///
    /// # Panics
    /// If the unit wasn't dispatched, or was worked on before: its frame would be sealed twice
    /// under one nonce.
    pub fn process(&mut self, unit: &mut Unit) {
        let place = unit.place.expect("a unit is dispatched before it is worked on");
        assert!(unit.outcomes.is_empty() && unit.frame.is_none(), "a unit is worked on once");
        let mut clock = UnitClock::start();
        let kept_bytes = self.decide(unit, place, &mut clock);
        if kept_bytes > 0 {
            self.seal(unit, place, kept_bytes, &mut clock);
        } else {
            unit.buffer = None;
        }
        clock.finish(&self.setup.times);
    }

    /// Decides what becomes of each record, and moves the bytes to keep together at the front of
    /// the buffer. Gives how many they are.
    fn decide(&self, unit: &mut Unit, place: Place, clock: &mut UnitClock) -> usize {
        let mut kept = Kept { bytes: 0, ordinal: 0 };
        let entries = std::mem::take(&mut unit.entries);
        for entry in &entries {
            let outcome =
                |kind| Outcome { lsn: entry.lsn, time: entry.time, piece: Piece::WHOLE, kind };
            match &entry.kind {
                EntryKind::Write { extent, at, checksum } => {
                    let write = Write { entry, extent: *extent, at: *at, checksum: *checksum };
                    if !self.decide_write(unit, place, &write, &mut kept, clock) {
                        unit.fault = Some(Fault::Spoiled(entry.lsn));
                        break;
                    }
                }
                EntryKind::Zero(extent) => {
                    unit.totals.zero_bytes += extent.length;
                    unit.outcomes.push(outcome(OutcomeKind::Zero(*extent)));
                }
                EntryKind::Disk(disk) => {
                    unit.outcomes.push(outcome(OutcomeKind::Disk(disk.clone())));
                }
                EntryKind::Bookmark(bookmark) => {
                    unit.outcomes.push(outcome(OutcomeKind::Bookmark(bookmark.clone())));
                }
                EntryKind::Time => unit.outcomes.push(outcome(OutcomeKind::Time)),
            }
        }
        unit.entries = entries;
        unit.totals.kept_bytes += kept.bytes as u64;
        kept.bytes
    }

    /// False when the bytes aren't those that the agent computed the checksum of.
    fn decide_write(
        &self,
        unit: &mut Unit,
        place: Place,
        write: &Write<'_>,
        kept: &mut Kept,
        clock: &mut UnitClock,
    ) -> bool {
        let buffer = unit.buffer.as_mut().expect("a unit with writes has a buffer");
        let length = usize::try_from(write.extent.length).expect("a write lies in its buffer");
        let bytes = &buffer[write.at..write.at + length];
        let intact = Checksum::of(bytes) == write.checksum;
        clock.lap(Stage::Checksum, length);
        if !intact {
            return false;
        }
        let first = unit.outcomes.len();
        for cut in split::cuts(write.extent.offset, length, self.setup.block_bytes) {
            let (begin, end) = (write.at + cut.begin, write.at + cut.end);
            let zero = tidegate_model::is_zero(&buffer[begin..end]);
            clock.lap(Stage::ZeroTest, end - begin);
            let extent = write.part(cut);
            if zero {
                unit.totals.zero_bytes += extent.length;
                push_zero(&mut unit.outcomes, first, write, extent);
                continue;
            }
            let checksum = if cut.end - cut.begin == length {
                write.checksum
            } else {
                Checksum::of(&buffer[begin..end])
            };
            let frame = Known { log: place.slot, frame: place.frame, ordinal: kept.ordinal };
            let kind = self.find(&buffer[begin..end], cut, extent, checksum, frame, clock);
            let kind = kind.unwrap_or_else(|name| {
                buffer.copy_within(begin..end, kept.bytes);
                let offset = u32::try_from(kept.bytes).expect("a frame is shorter than 4 GiB");
                kept.bytes += end - begin;
                kept.ordinal += 1;
                OutcomeKind::Kept { extent, checksum, name, offset }
            });
            if let OutcomeKind::Known { .. } = kind {
                unit.totals.deduplicated_bytes += extent.length;
            }
            unit.outcomes.push(write.outcome(kind));
        }
        number_pieces(&mut unit.outcomes[first..]);
        true
    }

    /// A reference when the block is known where it may be used; otherwise its name, if it has one.
    fn find(
        &self,
        bytes: &[u8],
        cut: Cut,
        extent: Extent,
        checksum: Checksum,
        mine: Known,
        clock: &mut UnitClock,
    ) -> Result<OutcomeKind, Option<BlockName>> {
        if !cut.whole_block {
            return Err(None);
        }
        let name = self.setup.namer.name_block(bytes);
        clock.lap(Stage::Hash, bytes.len());
        let known = self.look_up(name, mine);
        clock.lap(Stage::LookUp, bytes.len());
        match known {
            Some((known, pack)) => Ok(OutcomeKind::Known { extent, checksum, name, known, pack }),
            None => Err(Some(name)),
        }
    }

    /// Where the block may be referred to: in one's own log what lies in this frame or an earlier
    /// one; elsewhere what is committed, with its pack.
    fn look_up(&self, name: BlockName, mine: Known) -> Option<(Known, Option<PackNumber>)> {
        let logs = &self.setup.logs;
        let usable = |known: Known| {
            if known.log == mine.log {
                known.frame <= mine.frame && logs.may_refer_to(known.log, known.frame)
            } else {
                logs.is_committed(known.log, known.frame)
                    && logs.may_refer_to(known.log, known.frame)
            }
        };
        let known = self.setup.known.find_or_insert(name, mine, usable)?;
        if known.log == mine.log {
            return Some((known, None));
        }
        logs.pack_of(known.log, known.frame).map(|pack| (known, Some(pack)))
    }

    /// Compresses and seals the first `kept_bytes` bytes of the unit's buffer.
    fn seal(&mut self, unit: &mut Unit, place: Place, kept_bytes: usize, clock: &mut UnitClock) {
        let input = unit.buffer.take().expect("kept bytes lie in the unit's buffer");
        let spare = self.take_spare(&input);
        let machine = &unit.stream.machine;
        let (mut output, codec, content) = self.compress(machine, input, spare, kept_bytes);
        clock.lap(Stage::Compress, kept_bytes);

        let narrow = |bytes: usize| u32::try_from(bytes).expect("a frame is shorter than 4 GiB");
        let header = FrameHeader {
            codec,
            log: place.log,
            number: place.frame,
            key_version: self.setup.key_version,
            plain_bytes: narrow(kept_bytes),
            sealed_bytes: narrow(content + TAG_BYTES),
        };
        let head = header.encode();
        output[..FRAME_HEADER_BYTES].copy_from_slice(&head);
        let (begin, end) = (FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + content);
        let ciphers = &self.setup.ciphers[usize::from(place.shard)];
        let tag = ciphers.seal_frame(header.number, &head, &mut output[begin..end]);
        output[end..end + TAG_BYTES].copy_from_slice(&tag);
        clock.lap(Stage::Seal, content);
        unit.totals.stored_bytes += (end + TAG_BYTES) as u64;
        unit.frame = Some(SealedFrame { header, tag, bytes: end + TAG_BYTES });
        unit.buffer = Some(output);
    }

    /// Compresses from `input` into `spare`, behind the room for the header; or, where that
    /// doesn't make it smaller or isn't worth a try, moves the bytes there as they are. Gives the buffer that holds the
    /// content and how long it is; the other becomes the spare.
    fn compress(
        &mut self,
        machine: &Name,
        mut input: Buffer,
        mut spare: Buffer,
        kept_bytes: usize,
    ) -> (Buffer, Codec, usize) {
        let begin = FRAME_HEADER_BYTES;
        // Less than a 32nd saved isn't worth a reader's time.
        let most = kept_bytes - kept_bytes / 32;
        let verdict = self.probe.ask(machine, &input[..kept_bytes]);
        self.compressor.set_level(self.setup.effort.level());
        let packed = (verdict != Verdict::Skip)
            .then(|| {
                self.compressor.compress(&mut spare[begin..begin + most], &input[..kept_bytes])
            })
            .flatten();
        if verdict == Verdict::Unlikely {
            self.probe.tried(machine, packed.is_some());
        }
        if let Some(content) = packed {
            self.spares.push(input);
            (spare, Codec::Zstd, content)
        } else {
            input.copy_within(..kept_bytes, begin);
            self.spares.push(spare);
            (input, Codec::Raw, kept_bytes)
        }
    }

    fn take_spare(&mut self, like: &Buffer) -> Buffer {
        let place = self.spares.iter().position(|spare| spare.is_of_the_pool_of(like));
        self.spares.swap_remove(place.expect("a worker has a spare of each pool"))
    }
}

/// What is kept of a unit so far.
struct Kept {
    bytes: usize,
    ordinal: u32,
}

/// A write of a unit.
struct Write<'a> {
    entry: &'a Entry,
    extent: Extent,
    at: usize,
    checksum: Checksum,
}

impl Write<'_> {
    fn part(&self, cut: Cut) -> Extent {
        Extent {
            disk: self.extent.disk,
            offset: self.extent.offset + cut.begin as u64,
            length: (cut.end - cut.begin) as u64,
        }
    }

    fn outcome(&self, kind: OutcomeKind) -> Outcome {
        let Entry { lsn, time, .. } = *self.entry;
        Outcome { lsn, time, piece: Piece::WHOLE, kind }
    }
}

/// Zeros of one record that touch become one piece.
fn push_zero(outcomes: &mut Vec<Outcome>, first: usize, write: &Write<'_>, extent: Extent) {
    if outcomes.len() > first
        && let Some(Outcome { kind: OutcomeKind::Zero(before), .. }) = outcomes.last_mut()
    {
        before.length += extent.length;
        return;
    }
    outcomes.push(write.outcome(OutcomeKind::Zero(extent)));
}

fn number_pieces(pieces: &mut [Outcome]) {
    let count = pieces.len();
    for (number, outcome) in pieces.iter_mut().enumerate() {
        outcome.piece = split::piece(number, count);
    }
}
