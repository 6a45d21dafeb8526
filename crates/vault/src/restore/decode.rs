//! Opens the frames of one run, checks what is wanted of them, and gives it to a writer.

use std::sync::Arc;

use tidegate_model::{Checksum, Extent, Name};

use super::RestoreError;
use super::cuts::{Found, Task};
use super::error::Damage;
use super::sink::{Part, WriteError, Writer};
use crate::log::PackRead;
use crate::log::frames::FetchedRun;
use crate::pack::Expander;

/// A task and its frames, as they were stored.
pub struct Job {
    /// What is to be done.
    pub task: Task,
    /// From what.
    pub fetched: FetchedRun,
}

/// One thread's means to open frames.
pub struct Decoder {
    machine: Arc<Name>,
    expander: Expander,
    parts: Vec<Part>,
}

impl Decoder {
    /// For frames of this machine.
    pub fn new(machine: Arc<Name>) -> Self {
        Self { machine, expander: Expander::default(), parts: Vec::new() }
    }

    /// Gives all cuts of a task to `writer`, until `stopped`; tells how many bytes they are.
    pub fn run(
        &mut self,
        mut job: Job,
        writer: &mut dyn Writer,
        stopped: &dyn Fn() -> bool,
    ) -> Result<u64, RestoreError> {
        let mut written = 0;
        for (place, cuts) in job.task.run.frames.iter().zip(&job.task.frames) {
            let Some(first) = cuts.first() else { continue };
            if stopped() {
                break;
            }
            let (pack, mut plain) = (&job.task.pack, self.written(writer.buffer())?);
            job.fetched
                .open(pack, *place, &mut self.expander, &mut plain)
                .map_err(|error| self.damaged(first.cut.to, Damage::Log(error)))?;
            check(pack, cuts, &plain).map_err(|(range, what)| self.damaged(range, what))?;
            written += join(cuts, &mut self.parts);
            let taken = writer.write(plain, &self.parts);
            self.written(taken)?;
        }
        Ok(written)
    }

    /// Waits until everything is written.
    pub fn flush(&self, writer: &mut dyn Writer) -> Result<(), RestoreError> {
        self.written(writer.flush())
    }

    fn written<T>(&self, done: Result<T, WriteError>) -> Result<T, RestoreError> {
        done.map_err(|WriteError { range, cause }| {
            let machine = Name::clone(&self.machine);
            RestoreError::Sink { machine, range, cause }
        })
    }

    fn damaged(&self, range: Extent, what: Damage) -> RestoreError {
        let (machine, what) = (Name::clone(&self.machine), Box::new(what));
        RestoreError::Damaged { machine, range, what }
    }
}

/// Every record that is wanted has the checksum that was taken when it was captured, and every cut
/// lies within its record.
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

/// The cuts as parts of their frame; neighbours in the frame that are neighbours on the disk are
/// one. Gives their bytes.
fn join(cuts: &[Found], parts: &mut Vec<Part>) -> u64 {
    let mut bytes = 0;
    parts.clear();
    for found in cuts {
        let (begin, to) = (found.begin as usize + found.cut.skip as usize, found.cut.to);
        bytes += to.length;
        match parts.last_mut() {
            Some(last)
                if last.to.disk == to.disk
                    && last.to.offset + last.to.length == to.offset
                    && last.begin as u64 + last.to.length == begin as u64 =>
            {
                last.to.length += to.length;
            }
            _ => parts.push(Part { begin, to }),
        }
    }
    bytes
}
