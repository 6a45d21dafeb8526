//! The second pass, on demand: every frame opens, and holds what was captured.

use std::sync::Arc;

use futures::{TryStreamExt, stream};
use tidegate_model::Checksum;

use super::report::{Finding, Spot};
use super::{Progress, Steps, VerifyError, counted_packs};
use crate::log::buffers::Buffers;
use crate::log::frames::{FetchedRun, FrameRun, runs};
use crate::log::{LogReader, PackRead, Survey};
use crate::pack::{Content, Expander, Record};
use crate::seal::BlockNamer;

/// Runs of frames that are fetched and checked at once, each in one of as many buffers.
const RUNS_IN_FLIGHT: usize = 8;

/// Checks every frame of the packs that count.
pub async fn read(
    reader: &LogReader,
    surveys: impl Iterator<Item = &Survey>,
    steps: &mut Steps<'_>,
) -> Result<Vec<Finding>, VerifyError> {
    let namer = Arc::new(reader.ring().block_namer());
    let buffers = Buffers::new(RUNS_IN_FLIGHT);
    let work = counted_packs(reader, surveys)
        .map_err(VerifyError::from)
        .map_ok(|pack| {
            let places = 0..u32::try_from(pack.index.frames.len()).unwrap_or(u32::MAX);
            let runs = runs(&pack.index, places);
            stream::iter(runs.into_iter().map(move |run| Ok((pack.clone(), run))))
        })
        .try_flatten()
        .map_ok(|(pack, run)| check_run(reader, &buffers, namer.clone(), pack, run))
        .try_buffer_unordered(RUNS_IN_FLIGHT);
    let mut work = std::pin::pin!(work);
    let mut findings = Vec::new();
    while let Some((bytes, found)) = work.try_next().await? {
        steps.step(Progress::Contents(bytes));
        findings.extend(found);
    }
    Ok(findings)
}

async fn check_run(
    reader: &LogReader,
    buffers: &Buffers,
    namer: Arc<BlockNamer>,
    pack: Arc<PackRead>,
    run: FrameRun,
) -> Result<(u64, Vec<Finding>), VerifyError> {
    let bytes = run.range.end - run.range.start;
    let fetched = match reader.fetch(&pack, &run, buffers).await {
        Ok(fetched) => fetched,
        Err(error) if error.is_damage() => {
            return Ok((bytes, vec![Finding::new(Spot::Pack(pack.place.clone()), error)]));
        }
        Err(error) => return Err(error.into()),
    };
    let check = move || check_frames(&namer, &pack, &run, fetched);
    Ok((bytes, tokio::task::spawn_blocking(check).await.map_err(VerifyError::stopped)?))
}

fn check_frames(
    namer: &BlockNamer,
    pack: &PackRead,
    run: &FrameRun,
    mut fetched: FetchedRun,
) -> Vec<Finding> {
    let (mut expander, mut plain) = (Expander::default(), Vec::new());
    let mut findings = Vec::new();
    for place in &run.frames {
        let number = pack.index.frames[*place as usize].number;
        let spot = || Spot::Frame(pack.place.clone(), number);
        if let Err(error) = fetched.open(pack, *place, &mut expander, &mut plain) {
            findings.push(Finding::new(spot(), error));
            continue;
        }
        let wrong = pack.index.kept_of(*place).filter_map(|record| wrong(namer, record, &plain));
        for (why, record) in wrong {
            let (spot, lsn) = (spot(), record.lsn);
            let what = format!("{spot}: the kept bytes of LSN {lsn} {why}");
            findings.push(Finding::new(spot, what));
        }
    }
    findings
}

/// What is wrong with a kept record of an opened frame.
fn wrong<'r>(
    namer: &BlockNamer,
    record: &'r Record,
    plain: &[u8],
) -> Option<(&'static str, &'r Record)> {
    let Content::Kept { extent, checksum, name, offset, .. } = &record.content else { return None };
    let bytes = usize::try_from(extent.length)
        .ok()
        .and_then(|length| plain.get(*offset as usize..(*offset as usize).checked_add(length)?));
    let why = match (bytes, name) {
        (None, _) => "lie beyond the frame",
        (Some(bytes), _) if Checksum::of(bytes) != *checksum => {
            "don't have the checksum that was taken when they were captured"
        }
        (Some(bytes), Some(name)) if namer.name_block(bytes) != *name => {
            "don't have the name under which they are found"
        }
        _ => return None,
    };
    Some((why, record))
}
