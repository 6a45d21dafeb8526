//! Sees to it that two manifests of a machine are whole: what is deleted is deleted by these (`needed`), so
//! that no single damaged object costs a point, nor keeps garbage for ever.
//!
//! Of a machine that was switched off nothing comes to be folded. So what its newest manifest says that can
//! be read is written once more, under the next number.

use tidegate_model::Name;

use super::FoldError;
use super::objects::{
    MANIFESTS_KEPT, create_manifest, manifest_numbers, newest_manifest, read_manifest,
};
use crate::log::LogReader;
use crate::meta::MetaError;

/// How often is looked: twice something is written, and others may be first.
const TRIES_MAX: u64 = 8;

/// Writes the newest manifest of a machine once more, until the two newest can be read; gives how many
/// were written. Nothing of a machine that isn't folded, or of which neither can be read.
///
/// # Errors
/// [`FoldError::Meta`] for what the store reports; [`FoldError::Contended`].
pub async fn ensure_two(reader: &LogReader, machine: &Name) -> Result<u64, FoldError> {
    let (store, ring) = (reader.store(), reader.ring());
    for written in 0..TRIES_MAX {
        if are_whole(reader, machine).await? {
            return Ok(written);
        }
        let newest = newest_manifest(store, ring, machine).await?;
        let Some(mut manifest) = newest.manifest else { return Ok(written) };
        manifest.number = newest.number.saturating_add(1);
        // Whoever was first has written one, too.
        create_manifest(store, ring, machine, &manifest).await?;
    }
    Err(FoldError::Contended { machine: machine.clone() })
}

/// Whether the two newest manifests are there and can be read.
async fn are_whole(reader: &LogReader, machine: &Name) -> Result<bool, MetaError> {
    let (store, ring) = (reader.store(), reader.ring());
    let numbers = manifest_numbers(store, machine).await?;
    for number in numbers.iter().rev().take(MANIFESTS_KEPT) {
        match read_manifest(store, ring, machine, *number).await {
            Ok(_) => {}
            Err(error) if error.is_damage() => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(numbers.len() >= MANIFESTS_KEPT)
}
