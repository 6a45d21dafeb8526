//! Opens the frames of one run, checks what is wanted of them, and writes it. Runs on a thread
//! that may block.

use tidegate_model::{Checksum, Extent, Name};

use super::RestoreError;
use super::cuts::{Found, Task};
use super::error::Damage;
use super::sink::Sink;
use crate::log::PackRead;
use crate::log::frames::FetchedRun;

/// Writes all cuts of a task; gives the bytes.
pub fn task(
    task: &Task,
    mut fetched: FetchedRun,
    sink: &dyn Sink,
    machine: &Name,
) -> Result<u64, RestoreError> {
    let mut plain = Vec::new();
    let mut written = 0;
    for (place, cuts) in task.run.frames.iter().zip(&task.frames) {
        let Some(range) = cuts.first().map(|found| found.cut.to) else { continue };
        let damaged = |range, what| {
            let what = Box::new(what);
            RestoreError::Damaged { machine: machine.clone(), range, what }
        };
        fetched
            .open(&task.pack, *place, &mut plain)
            .map_err(|error| damaged(range, Damage::Log(error)))?;
        check(&task.pack, cuts, &plain).map_err(|(range, what)| damaged(range, what))?;
        written += write(cuts, &plain, sink, machine)?;
    }
    Ok(written)
}

/// Every record that is wanted has the checksum that was taken when it was captured.
fn check(pack: &PackRead, cuts: &[Found], plain: &[u8]) -> Result<(), (Extent, Damage)> {
    for same in cuts.chunk_by(|a, b| a.begin == b.begin) {
        let (found, record) = (&same[0], &same[0].cut.record);
        let begin = found.begin as usize;
        // Opening the index made sure that the record lies within its frame.
        let bytes = plain.get(begin..begin + record.bytes as usize).unwrap_or_default();
        if Checksum::of(bytes) != record.checksum || bytes.len() != record.bytes as usize {
            let (place, frame, ordinal) = (pack.place.clone(), record.frame, record.ordinal);
            return Err((found.cut.to, Damage::Checksum { place, frame, ordinal }));
        }
    }
    Ok(())
}

/// Writes the cuts; neighbours in the frame that are neighbours on the disk go as one write.
fn write(
    cuts: &[Found],
    plain: &[u8],
    sink: &dyn Sink,
    machine: &Name,
) -> Result<u64, RestoreError> {
    let from = |found: &Found| u64::from(found.begin) + u64::from(found.cut.skip);
    let follows = |a: &Found, b: &Found| {
        let (to, next) = (a.cut.to, b.cut.to);
        let on_disk = to.disk == next.disk && to.offset + to.length == next.offset;
        on_disk && from(a) + to.length == from(b)
    };
    let mut written = 0;
    for joined in cuts.chunk_by(follows) {
        let length = joined.iter().map(|found| found.cut.to.length).sum();
        let range = Extent { length, ..joined[0].cut.to };
        let begin = usize::try_from(from(&joined[0])).unwrap_or(usize::MAX);
        let bytes = usize::try_from(length)
            .ok()
            .and_then(|length| plain.get(begin..begin.checked_add(length)?))
            .unwrap_or_default();
        sink.write(range.disk, range.offset, bytes).map_err(|cause| RestoreError::Sink {
            machine: machine.clone(),
            range,
            cause,
        })?;
        written += length;
    }
    Ok(written)
}
