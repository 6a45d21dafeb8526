//! Disks of a running QEMU (or qemu-storage-daemon), of which its monitor gives one moment: a *fleecing*
//! export, that reads as the disk was when it began, while the guest goes on writing.
//!
//! In one transaction, for all disks of one QEMU: a new bitmap begins to record, those before it end, what
//! they recorded is merged into one that is read, and a job begins that keeps aside what is overwritten.
//!
//! Invariant: what isn't in the journal is in bitmaps. One is removed only when the records of all that it
//! named are durable, and a note says, by name, from which on the next pass reads. Where that one is missing,
//! or not all since, all of the disk is compared. So a kill, of either process, loses nothing.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tidegate_model::{Checksum, DiskNumber, Incarnation, Name};
use tidegate_nbd::serve::Address;

use super::bitmaps::{Bitmaps, Since};
use super::export::Dirty;
use super::jobs;
use super::qmp::{Qmp, QmpError};
use super::{Origin, PassError, Reading};
use crate::source::Change;

/// Bytes of a disk for which a bitmap has one bit: a block's.
const GRANULARITY: u64 = super::hashes::BLOCK_BYTES;

/// A disk of a running QEMU.
#[derive(Debug, Clone)]
pub struct FleeceDisk {
    /// Its number.
    pub number: DiskNumber,
    /// The image, by which the vault knows the disk.
    pub path: PathBuf,
    /// The disk's size, as it was declared.
    pub bytes: u64,
    /// QEMU's name for the node whose writes are followed.
    pub node: String,
    /// A file that isn't there, for what is overwritten while a pass reads. QEMU makes it.
    pub scratch: PathBuf,
    /// Where it is noted which bitmap the next pass begins with.
    pub note: PathBuf,
}

/// The disks of one QEMU.
#[derive(Debug)]
pub struct Fleece {
    /// The socket of its monitor.
    pub monitor: PathBuf,
    /// Where it serves NBD, or shall.
    pub address: Address,
    /// Whose disks they are: what is made in QEMU is named after that.
    pub machine: Name,
    /// Of which journal the bitmaps say what it lacks.
    pub incarnation: Incarnation,
    /// The disks.
    pub disks: Vec<FleeceDisk>,
}

/// One disk among them.
pub struct FleeceOrigin {
    fleece: Arc<Fleece>,
    /// The first disk begins for all.
    index: usize,
    shared: Arc<Mutex<Shared>>,
}

/// What the disks of one QEMU share in one pass.
#[derive(Default)]
struct Shared {
    /// For each disk, its bitmaps; none where nothing has begun.
    begun: Vec<Bitmaps>,
}

impl Fleece {
    /// An origin for each of the disks. Passes must be made over all of them together.
    #[must_use]
    pub fn origins(self) -> Vec<FleeceOrigin> {
        let (fleece, shared) = (Arc::new(self), Arc::<Mutex<Shared>>::default());
        let origin = |index| FleeceOrigin { fleece: fleece.clone(), index, shared: shared.clone() };
        (0..fleece.disks.len()).map(origin).collect()
    }

    /// QEMU's name for what a pass makes of a disk: 31 bytes at the most, with what is put behind it.
    fn name(&self, index: usize) -> String {
        let machine = Checksum::of(self.machine.as_str().as_bytes()).0 >> 32;
        format!("tidegate-{machine:08x}-{}", self.disks[index].number)
    }

    /// What its bitmaps' names begin with.
    fn prefix(&self, index: usize) -> String {
        let [a, b, c, d, ..] = *self.incarnation.as_bytes();
        format!("{}-{a:02x}{b:02x}{c:02x}{d:02x}-", self.name(index))
    }

    /// Begins a pass over all disks; gives their bitmaps.
    fn begin(&self) -> Result<Vec<Bitmaps>, PassError> {
        let mut qmp = Qmp::connect(&self.monitor)?;
        self.clear(&mut qmp)?;
        let mut bitmaps = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let (name, prefix) = (self.name(index), self.prefix(index));
            bitmaps.push(Bitmaps::find(&mut qmp, &disk.node, &name, &prefix, &disk.note)?);
            self.add_overlay(&mut qmp, index)?;
        }
        let actions = bitmaps.iter().enumerate().map(|(index, of)| self.actions(index, of));
        let actions: Vec<Value> = actions.flatten().collect();
        qmp.execute("transaction", &json!({ "actions": actions }))?;
        for (of, disk) in bitmaps.iter().zip(&self.disks).filter(|(of, _)| of.since == Since::Never)
        {
            of.remove_old(&mut qmp, &disk.node)?;
        }
        jobs::serve(&mut qmp, &self.address)?;
        for index in 0..self.disks.len() {
            let name = self.name(index);
            qmp.execute(
                "block-export-add",
                &json!({ "type": "nbd", "id": name, "node-name": name, "name": name,
                         "writable": false, "bitmaps": [drain(&name)] }),
            )?;
        }
        Ok(bitmaps)
    }

    /// The node over a disk in which what is overwritten is kept.
    fn add_overlay(&self, qmp: &mut Qmp, index: usize) -> Result<(), PassError> {
        let (disk, name) = (&self.disks[index], self.name(index));
        let scratch = &disk.scratch;
        File::create(scratch).map_err(|error| PassError::Image { path: scratch.clone(), error })?;
        let file = file(&name);
        let filename = scratch.to_string_lossy();
        let add = json!({ "driver": "file", "node-name": file, "filename": filename });
        qmp.execute("blockdev-add", &add)?;
        let options = json!({ "driver": "qcow2", "file": file, "size": disk.bytes });
        jobs::create(qmp, &name, &options)?;
        let add =
            json!({ "driver": "qcow2", "node-name": name, "file": file, "backing": disk.node });
        qmp.execute("blockdev-add", &add)?;
        Ok(())
    }

    /// What is done at one moment.
    fn actions(&self, index: usize, bitmaps: &Bitmaps) -> Vec<Value> {
        let (node, name) = (&self.disks[index].node, self.name(index));
        let mut actions = bitmaps.actions(node, &drain(&name), GRANULARITY);
        let data = json!({ "job-id": name, "device": node, "target": name, "sync": "none" });
        actions.push(json!({ "type": "blockdev-backup", "data": data }));
        actions
    }

    /// Takes away what a pass made, whether it is all there or not; not the bitmaps that record.
    fn clear(&self, qmp: &mut Qmp) -> Result<(), PassError> {
        for (index, disk) in self.disks.iter().enumerate() {
            let name = self.name(index);
            jobs::end_export(qmp, &name)?;
            jobs::end(qmp, &name)?;
            for node in [name.clone(), file(&name)] {
                qmp.try_execute("blockdev-del", &json!({ "node-name": node }))?;
            }
            let bitmap = json!({ "node": disk.node, "name": drain(&name) });
            qmp.try_execute("block-dirty-bitmap-remove", &bitmap)?;
            match std::fs::remove_file(&disk.scratch) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(PassError::Image { path: disk.scratch.clone(), error });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The node of the file that an overlay lies in.
fn file(name: &str) -> String {
    format!("{name}-file")
}

/// The bitmap that is read.
fn drain(name: &str) -> String {
    format!("{name}-drain")
}

impl Origin for FleeceOrigin {
    fn begin(&self) -> Result<Box<dyn Reading>, PassError> {
        let (fleece, shared) = (self.fleece.clone(), self.shared.clone());
        Ok(Box::new(FleeceReading { fleece, index: self.index, shared, opened: None }))
    }
}

struct FleeceReading {
    fleece: Arc<Fleece>,
    index: usize,
    shared: Arc<Mutex<Shared>>,
    opened: Option<Dirty>,
}

impl FleeceReading {
    fn opened(&mut self) -> &mut Dirty {
        self.opened.as_mut().expect("it is opened before it is read")
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // It is replaced as a whole, whoever panicked.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading for FleeceReading {
    fn open(&mut self) -> Result<(), PassError> {
        if self.index == 0 {
            let begun = self.fleece.begin()?;
            self.shared().begun = begun;
        }
        let name = self.fleece.name(self.index);
        let since = self.shared().begun[self.index].since;
        let drain = drain(&name);
        let bitmap = (since == Since::Noted).then_some(drain.as_str());
        let FleeceDisk { path, bytes, .. } = &self.fleece.disks[self.index];
        self.opened = Some(Dirty::open(&self.fleece.address, &name, bitmap, path, *bytes)?);
        Ok(())
    }

    fn next(&mut self, at: u64) -> Result<Option<Range<u64>>, PassError> {
        self.opened().next(at)
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), PassError> {
        self.opened().read(offset, into)
    }

    fn moment(&self) -> Option<String> {
        Some(self.fleece.monitor.display().to_string())
    }

    fn changed(&self, _frozen: &[PathBuf]) -> Result<Option<Change>, PassError> {
        Ok(None)
    }

    /// That the job still runs says that all that was overwritten meanwhile was kept.
    fn check(&self) -> Result<(), PassError> {
        let mut qmp = Qmp::connect(&self.fleece.monitor)?;
        let name = self.fleece.name(self.index);
        match jobs::status(&mut qmp, &name)?.as_deref() {
            Some("running" | "ready" | "paused") => Ok(()),
            _ => Err(qmp.state(format!(
                "the job '{name}' ended before the pass did, so what was read may mix moments; see \
                 that there is room for {}", self.fleece.disks[self.index].scratch.display()
            )).into()),
        }
    }

    fn captured(&mut self) -> Result<(), PassError> {
        let node = self.fleece.disks[self.index].node.clone();
        let note = self.fleece.disks[self.index].note.clone();
        let mut qmp = Qmp::connect(&self.fleece.monitor)?;
        self.shared().begun[self.index].captured(&mut qmp, &node, &note)
    }
}

impl Drop for FleeceReading {
    fn drop(&mut self) {
        self.opened = None;
        if self.index + 1 < self.fleece.disks.len() {
            return;
        }
        let cleared = Qmp::connect(&self.fleece.monitor).map_err(PassError::from);
        let cleared = cleared.and_then(|mut qmp| self.fleece.clear(&mut qmp));
        if let Err(error) = cleared {
            tracing::warn!(%error, "what a pass made in QEMU is there until the next");
        }
    }
}

/// An error of a monitor ends a pass.
impl From<QmpError> for PassError {
    fn from(error: QmpError) -> Self {
        Self::Monitor(error)
    }
}
