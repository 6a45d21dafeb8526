//! What a collection may hold, for who has no memory to spare: a server that collects in the background.
//!
//! How much a vault has is looked at before, and refused where it is too much. Into how many packs is
//! looked at once is a collection's to choose.

use std::mem::size_of;

use futures::TryStreamExt;

use super::error::GcError;
use super::needs::IndexEntry;
use crate::layout;
use crate::log::{LogReader, PackPlace};
use crate::store::StoreError;

/// What is read at a time: a manifest as it is opened, the longest indexes, what the store client and its
/// runtime have.
const READING_BYTES: u64 = 96 << 20;
/// A pack: its size and place in a tree, and in the list of those that count.
const PACK_BYTES: u64 = 64;
/// An object of a machine: what an epoch or session records.
const RECORD_BYTES: u64 = 512;
/// What is told of a pack, or of a machine in it: names are on the heap.
const TOLD_BYTES: u64 = 192;
const _: () = assert!((size_of::<PackPlace>() + size_of::<IndexEntry>()) as u64 <= TOLD_BYTES);

/// Looks whether the vault can be collected within so many bytes; gives how much may be told of packs:
/// each counts, and each machine in it.
pub(super) async fn check(reader: &LogReader, bytes_max: u64) -> Result<u64, GcError> {
    let rest = bytes_max.saturating_sub(READING_BYTES);
    let packs = count(reader, layout::LOGS).await?;
    let records = count(reader, layout::MACHINES).await?;
    let bytes = packs * PACK_BYTES + records * RECORD_BYTES;
    // The rest is for what is told.
    let most = rest / 4 * 3;
    if bytes > most {
        return Err(GcError::TooMuch { packs, records, bytes, bytes_max: most });
    }
    Ok((rest - most) / TOLD_BYTES)
}

async fn count(reader: &LogReader, folder: &str) -> Result<u64, StoreError> {
    let mut listed = reader.store().list(folder, None);
    let mut count = 0;
    while listed.try_next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}
