//! What a fold may hold, for who has no memory to spare: a server that folds in the background. Who has
//! memory folds without: then a fold holds what the machine's history asks for.
//!
//! What is a fold's to choose (how many packs it takes, whether it thins) it does within its limits, and
//! tells what it left. What isn't (how long a log is, or a manifest) is looked at before, and refused.
//! Between looking and reading a log may grow by what is stored in that time: little.

use std::mem::size_of;

use futures::TryStreamExt;
use tidegate_model::{LogName, Name, PackNumber};

use super::FoldError;
use super::error::TooMuch;
use super::layer::{LAYER_EXTENTS_MAX, LayerExtent};
use super::objects::{manifest_numbers, read_manifest_within};
use crate::chain::MachineHistory;
use crate::layout;
use crate::log::LogReader;
use crate::store::{Store, StoreError};

/// What is read or made at a time: a layer while it is opened or sealed (50 MB), and two of the longest indexes
/// (7 MiB sealed, 9 MiB open); or what is copied into dense packs (70 MiB). Some indexes that are kept, what
/// the store client and its runtime have.
const READING_BYTES: usize = 96 << 20;
/// An extent that is held, and its copy while it is sorted out what is visible, or copied where it lies.
const EXTENT_BYTES: usize = 2 * 96;
const _: () = assert!(2 * size_of::<LayerExtent>() <= EXTENT_BYTES);
/// A pack of a listed log: its size and place in a tree, and in the list of those that count.
const STORED_BYTES: usize = 64;
/// One that is to be read, with the time at which it was stored.
const WAITING_BYTES: usize = 96;
/// One that was taken: its size, why it is needed, what it takes of the machine.
const TAKEN_BYTES: usize = 512;
/// A byte of a manifest: as it was, as it is put together anew, and as it is written, with what is told of
/// its packs besides.
const MANIFEST_COPIES: usize = 10;

/// What a fold may hold at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldLimits {
    /// Most packs that are stored of a log.
    pub stored: u64,
    /// Most packs of a log that aren't folded.
    pub waiting: u64,
    /// Most packs that are taken for one manifest.
    pub taken: u64,
    /// Most extents that are held to make a base or to thin an epoch.
    pub extents: usize,
    /// Most bytes of a manifest.
    pub manifest_bytes: usize,
}

impl FoldLimits {
    /// The least memory with which there is a point in folding.
    pub const BYTES_MIN: usize = 256 << 20;

    /// Limits by which a fold holds no more than so many bytes; `None` for less than
    /// [`Self::BYTES_MIN`].
    #[must_use]
    pub fn within(bytes: usize) -> Option<Self> {
        let rest = bytes.checked_sub(READING_BYTES).filter(|_| bytes >= Self::BYTES_MIN)?;
        // Extents aren't held while a whole log is listed, but those of a new layer while it is read.
        let shared = rest / 5 * 3;
        let new = LAYER_EXTENTS_MAX * EXTENT_BYTES / 2;
        Some(Self {
            stored: (shared / STORED_BYTES) as u64,
            waiting: ((shared - new) / WAITING_BYTES) as u64,
            taken: (rest / 10 / TAKEN_BYTES) as u64,
            extents: shared / EXTENT_BYTES,
            manifest_bytes: rest / 10 * 3 / MANIFEST_COPIES,
        })
    }

    /// Looks whether a machine can be folded within these limits.
    ///
    /// # Errors
    /// [`FoldError::TooMuch`] when it can't.
    pub(super) async fn check(&self, reader: &LogReader, machine: &Name) -> Result<(), FoldError> {
        let (store, ring) = (reader.store(), reader.ring());
        let refuse = |what, found, most| {
            let machine = machine.clone();
            Err(FoldError::TooMuch { machine, what, found, most })
        };
        let newest = manifest_numbers(store, machine).await?.last().copied();
        let manifest = match newest {
            None => None,
            Some(number) => {
                match read_manifest_within(store, ring, machine, number, self.manifest_bytes).await
                {
                    Ok(Ok(manifest)) => Some(manifest),
                    Ok(Err(bytes)) => {
                        let most = self.manifest_bytes as u64;
                        return refuse(TooMuch::ManifestBytes, bytes as u64, most);
                    }
                    // Told by who reads it.
                    Err(error) if error.is_damage() => None,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let history = MachineHistory::listed(reader, machine, manifest.map(Into::into)).await?;
        for (log, first) in history.logs() {
            let begin = history.folded_upto(&log, first).unwrap_or_default();
            let stored = count(store, &log, begin).await.map_err(crate::meta::MetaError::from)?;
            if stored.all > self.stored {
                return refuse(TooMuch::StoredPacks(log), stored.all, self.stored);
            }
            if stored.waiting > self.waiting {
                return refuse(TooMuch::WaitingPacks(log), stored.waiting, self.waiting);
            }
        }
        Ok(())
    }
}

/// How many packs of a log are stored.
struct Stored {
    all: u64,
    waiting: u64,
}

async fn count(store: &Store, log: &LogName, begin: PackNumber) -> Result<Stored, StoreError> {
    let mut stored = Stored { all: 0, waiting: 0 };
    let mut listed = store.list(&layout::log(log), None);
    while let Some(object) = listed.try_next().await? {
        let Some((_, number)) = layout::parse_pack(&object.path) else { continue };
        stored.all += 1;
        stored.waiting += u64::from(number >= begin);
    }
    Ok(stored)
}
