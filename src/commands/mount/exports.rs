//! Under which names the disks of a mount are served.

use std::sync::Arc;

use serde::Serialize;
use tidegate_nbd::serve::{Address, Offer};
use tidegate_nbd::{BlockSizes, Export, TransmissionFlags};

use super::memory::PAYLOAD_BYTES_MAX;
use crate::failure::Failure;
use crate::mount::MountedDisk;

/// A disk as it is told.
#[derive(Debug, Serialize)]
pub(super) struct Exported {
    pub disk: u8,
    /// What its machine calls it.
    pub name: String,
    pub bytes: u64,
    /// By its number; its name and, of the first disk, no name at all, lead there too.
    pub uri: String,
}

impl Exported {
    /// A disk that is served at `address`.
    pub(super) fn at(address: &Address, disk: &MountedDisk) -> Self {
        let disk = disk.disk();
        Self {
            disk: disk.number.get(),
            name: disk.name.clone(),
            bytes: disk.bytes,
            uri: address.uri(&disk.number.to_string()),
        }
    }
}

/// All exports: the first disk without a name, then each by its number, and by its name where no other
/// has that.
pub(super) fn offers(disks: &[Arc<MountedDisk>], writable: bool) -> Result<Vec<Offer>, Failure> {
    let mut offers: Vec<Offer> = Vec::new();
    let numbered = disks.iter().map(|disk| (disk.disk().number.to_string(), disk));
    let named = disks.iter().map(|disk| (disk.disk().name.clone(), disk));
    let first = disks.iter().take(1).map(|disk| (String::new(), disk));
    for (name, disk) in first.chain(numbered).chain(named) {
        if offers.iter().all(|offer| offer.export.name() != name) {
            let export = export(&name, disk, writable)
                .map_err(|error| Failure::usage(format!("disk {}: {error}", disk.disk().number)))?;
            offers.push(Offer { export, disk: disk.clone() });
        }
    }
    Ok(offers)
}

fn export(
    name: &str,
    disk: &MountedDisk,
    writable: bool,
) -> Result<Export, tidegate_nbd::ExportError> {
    let flags = if writable {
        TransmissionFlags::FLUSH
            .with(TransmissionFlags::FUA)
            .with(TransmissionFlags::TRIM)
            .with(TransmissionFlags::WRITE_ZEROES)
    } else {
        TransmissionFlags::READ_ONLY
    };
    let flags = flags.with(TransmissionFlags::MULTI_CONN);
    let sizes = BlockSizes { payload_max: PAYLOAD_BYTES_MAX, ..BlockSizes::default() };
    let told = disk.disk();
    Export::new(name, told.bytes, flags, sizes)?
        .described(&format!("disk {} ({})", told.number, told.name))
}
