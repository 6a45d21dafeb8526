//! Where the disks are read that are captured in passes, by what the settings say of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tidegate_model::{Disk, Incarnation};

use super::error::LiveError;
use super::settings::{BitmapSource, DiskSource, LiveDisk, LiveSettings};
use crate::pass::{ExportOrigin, FileOrigin, Fleece, FleeceDisk, Origin};

type Origins = Vec<(Disk, Box<dyn Origin>)>;

/// The disks that are captured in passes, as they were declared, and where each is read.
pub(super) fn of(
    settings: &LiveSettings,
    incarnation: Incarnation,
    declared: &[Disk],
) -> Result<Origins, LiveError> {
    let mut origins: Origins = Vec::new();
    // The disks of one QEMU begin together.
    let mut fleeces: BTreeMap<PathBuf, (Fleece, Vec<Disk>)> = BTreeMap::new();
    for (disk, declared) in settings.disks.iter().zip(declared) {
        let (path, bytes) = (disk.path.clone(), declared.bytes);
        let origin: Box<dyn Origin> = match &disk.source {
            DiskSource::Tap { .. } => continue,
            DiskSource::Scan { snapshot } => {
                Box::new(FileOrigin { path, bytes, snapshot: snapshot.clone() })
            }
            DiskSource::Bitmap(BitmapSource::Export { address, export, bitmap }) => {
                let (address, export, bitmap) = (address.clone(), export.clone(), bitmap.clone());
                Box::new(ExportOrigin { path, bytes, address, export, bitmap })
            }
            DiskSource::Bitmap(BitmapSource::Monitor { monitor, address, node, scratch }) => {
                let (monitor, address) = (monitor.clone(), address.clone());
                let scratch = settings.scratch(disk.number, scratch.as_deref());
                let of_node = fleece_disk(settings, disk, bytes, node, scratch)?;
                let (fleece, disks) = fleeces.entry(monitor.clone()).or_insert_with(|| {
                    let (machine, disks) = (settings.machine.clone(), Vec::new());
                    (Fleece { monitor, address, machine, incarnation, disks }, Vec::new())
                });
                fleece.disks.push(of_node);
                disks.push(declared.clone());
                continue;
            }
        };
        origins.push((declared.clone(), origin));
    }
    for (fleece, disks) in fleeces.into_values() {
        let boxed = |origin| -> Box<dyn Origin> { Box::new(origin) };
        origins.extend(disks.into_iter().zip(fleece.origins().into_iter().map(boxed)));
    }
    Ok(origins)
}

fn fleece_disk(
    settings: &LiveSettings,
    disk: &LiveDisk,
    bytes: u64,
    node: &str,
    scratch: PathBuf,
) -> Result<FleeceDisk, LiveError> {
    // QEMU has another working folder.
    let scratch = std::path::absolute(&scratch).map_err(|error| LiveError::File {
        path: scratch,
        what: "found",
        error,
    })?;
    let (path, node, note) = (disk.path.clone(), node.to_owned(), settings.bitmap(disk.number));
    Ok(FleeceDisk { number: disk.number, path, bytes, node, scratch, note })
}
