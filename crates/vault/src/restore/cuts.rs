//! From segments to work: which kept records to fetch from which frames, and where they go. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_model::{Disk, Extent};

use super::error::Damage;
use super::map::{Kept, Source};
use super::state::{PackTable, State};
use crate::log::PackRead;
use crate::log::frames::{FrameRun, runs};
use crate::pack::Content;

/// A part of a kept record that goes to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The record.
    pub record: Kept,
    /// Where the part begins in it.
    pub skip: u32,
    /// Where it goes.
    pub to: Extent,
}

/// All that a restore writes, in the order in which it is best read.
pub struct Cuts {
    /// The disks.
    pub disks: Vec<Disk>,
    /// What is zero.
    pub zeros: Vec<Extent>,
    /// What is kept, ordered by log, pack, frame, record.
    pub kept: Vec<Cut>,
    /// Where it is kept.
    pub packs: PackTable,
}

impl Cuts {
    /// What is to be done to bring this state about.
    pub fn of(state: State) -> Self {
        let mut cuts =
            Self { disks: Vec::new(), zeros: Vec::new(), kept: Vec::new(), packs: state.packs };
        for (disk, map) in state.disks {
            for segment in map.segments(disk.bytes) {
                let (offset, length) = (segment.offset, segment.length);
                let to = Extent { disk: disk.number, offset, length };
                match segment.source {
                    Source::Zero => cuts.zeros.push(to),
                    Source::Kept { record, skip } => cuts.kept.push(Cut { record, skip, to }),
                }
            }
            cuts.disks.push(disk);
        }
        let packs = &cuts.packs;
        cuts.kept.sort_by(|a, b| {
            let by_pack = |cut: &Cut| packs.get(cut.record.pack);
            let in_pack = |cut: &Cut| (cut.record.frame, cut.record.ordinal, cut.to.offset);
            let same_pack = a.record.pack == b.record.pack;
            let packs = || by_pack(a).cmp(by_pack(b));
            if same_pack { in_pack(a).cmp(&in_pack(b)) } else { packs() }
        });
        cuts
    }

    /// The cuts of each pack, in order.
    pub fn by_pack(&self) -> impl Iterator<Item = &[Cut]> {
        self.kept.chunk_by(|a, b| a.record.pack == b.record.pack)
    }
}

/// A cut whose record was found in its frame.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// The cut.
    pub cut: Cut,
    /// Where the record begins in the content of its frame.
    pub begin: u32,
}

/// One run of frames, and what is to be written from them.
pub struct Task {
    /// The pack.
    pub pack: Arc<PackRead>,
    /// The frames.
    pub run: FrameRun,
    /// For each frame of the run its cuts.
    pub frames: Vec<Vec<Found>>,
}

/// Finds the records of a pack's cuts, and puts its frames together to runs.
///
/// # Errors
/// The range whose record isn't there, or isn't the one that was meant.
pub fn tasks(pack: &Arc<PackRead>, cuts: &[Cut]) -> Result<Vec<Task>, (Extent, Damage)> {
    let mut places = Vec::new();
    let mut frames: HashMap<u32, Vec<Found>> = HashMap::new();
    for of_frame in cuts.chunk_by(|a, b| a.record.frame == b.record.frame) {
        let Some(place) = pack.index.frame_place(of_frame[0].record.frame) else {
            return Err(not_there(pack, &of_frame[0]));
        };
        let found = of_frame.iter().map(|cut| match begin_of(pack, place, &cut.record) {
            Some(begin) => Ok(Found { cut: *cut, begin }),
            None => Err(not_there(pack, cut)),
        });
        frames.insert(place, found.collect::<Result<_, _>>()?);
        places.push(place);
    }
    let task = |run: FrameRun| {
        let frames = run.frames.iter().filter_map(|place| frames.remove(place)).collect();
        Task { pack: pack.clone(), run, frames }
    };
    Ok(runs(&pack.index, places).into_iter().map(task).collect())
}

/// Where a kept record begins in its frame; `None` when it isn't what was meant.
fn begin_of(pack: &PackRead, place: u32, wanted: &Kept) -> Option<u32> {
    let Content::Kept { extent, checksum, name, offset, .. } =
        &pack.index.kept_at(place, wanted.ordinal)?.content
    else {
        return None;
    };
    let same = extent.length == u64::from(wanted.bytes)
        && *checksum == wanted.checksum
        && wanted.name.is_none_or(|wanted| *name == Some(wanted));
    same.then_some(*offset)
}

fn not_there(pack: &PackRead, cut: &Cut) -> (Extent, Damage) {
    let (frame, ordinal) = (cut.record.frame, cut.record.ordinal);
    (cut.to, Damage::Record { place: pack.place.clone(), frame, ordinal })
}
