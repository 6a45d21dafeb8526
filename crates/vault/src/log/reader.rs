//! Reads headers and indexes of packs: authenticated, and of the place that was asked for.
//!
//! Of the sealed indexes of which only a part is expanded a reader and its clones have no more than
//! [`INDEX_ROOM_BYTES`] in memory at once, however many search: each waits for room when it knows what
//! it needs, and then for nothing but the store. Whole indexes are their callers' to bound.

use std::collections::HashMap;
use std::mem::size_of;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tidegate_model::{LogId, PackNumber};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::cache::ByteCache;
use super::survey::INDEXES_AHEAD;
use super::{LogError, PackPlace};
use crate::fold::is_superseded;
use crate::gc::{Collected, read_collected};
use crate::layout;
use crate::pack::{
    Envelope, FrameEntry, HEADER_BYTES, PackBlocks, PackError, PackHeader, PackIndex, PackKind,
    PackSummary, Record, SEALED_INDEX_BYTES_MAX, open_blocks, open_index, open_summary,
};
use crate::seal::{KeyRing, LogCiphers};
use crate::store::{Store, StoreError};
use crate::vault::Vault;

/// What is read of a pack at first. Holds the header and the compressed index of a pack of whole
/// blocks several times over; a pack of small writes takes a second request.
pub(super) const HEAD_BYTES_GUESS: u32 = 64 << 10;

/// Memory for the sealed indexes of which only a part is expanded: the longest that there can be
/// fits, alone. Of usual ones, 8 KiB each, more than a thousand do, so that no search waits for another.
pub const INDEX_ROOM_BYTES: usize = SEALED_INDEX_BYTES_MAX;

/// Memory for indexes unless the caller says otherwise: those of some 2,000 packs of whole blocks,
/// so that references into 32 GiB of history are followed without reading an index twice.
pub const CACHE_BYTES_DEFAULT: usize = 128 << 20;

/// What a machine or another log in an index takes: its entry, and a name on the heap.
const LISTED_BYTES: usize = 128;

/// A pack whose header and index were read and checked.
#[derive(Debug)]
pub struct PackRead {
    /// Where it lies.
    pub place: PackPlace,
    /// Its header.
    pub header: PackHeader,
    /// Its index.
    pub index: PackIndex,
}

impl PackRead {
    /// The error of one of its frames.
    #[must_use]
    pub fn frame_error(&self, entry: &FrameEntry, cause: PackError) -> LogError {
        LogError::Frame { place: self.place.clone(), frame: entry.number, cause }
    }

    fn summary(&self) -> PackSummary {
        let PackIndex { last, committed_packs, ref machines, .. } = self.index;
        PackSummary { last, committed_packs, machines: machines.clone() }
    }

    fn memory_bytes(&self) -> usize {
        // Texts of disks and bookmarks are few; a slot of `kept` stands for each record.
        size_of::<Self>()
            + self.index.records.len() * (size_of::<Record>() + size_of::<u32>())
            + self.index.frames.len() * size_of::<FrameEntry>()
            + (self.index.machines.len() + self.index.logs.len()) * LISTED_BYTES
    }
}

/// What lies at a pack's place.
#[derive(Debug, Clone)]
pub(super) enum Found {
    /// A pack.
    Pack(Arc<PackRead>),
    /// The end of the log, put there from outside.
    Tombstone,
}

/// Reads packs of a vault; keeps the indexes that were used last. Cheap to clone.
#[derive(Clone)]
pub struct LogReader(Arc<Inner>);

struct Inner {
    store: Store,
    ring: KeyRing,
    cache: Mutex<ByteCache<(LogId, PackNumber), Arc<PackRead>>>,
    /// Bytes of [`INDEX_ROOM_BYTES`] that are free.
    room: Semaphore,
    /// What was removed as garbage, as it was when somebody asked.
    collected: Mutex<Option<Arc<Collected>>>,
    /// The lengths of heads that are known before they are read.
    heads: Mutex<HashMap<(LogId, PackNumber), u32>>,
    /// Whole indexes that are on their way at once.
    ahead: usize,
}

impl LogReader {
    /// A reader of the vault whose store and keys these are, with so much memory for indexes.
    #[must_use]
    pub fn new(store: Store, ring: KeyRing, cache_bytes: usize) -> Self {
        Self::with_ahead(store, ring, cache_bytes, INDEXES_AHEAD)
    }

    /// The same with so many whole indexes on their way at once, of 16 MiB at most each.
    #[must_use]
    pub fn with_ahead(store: Store, ring: KeyRing, cache_bytes: usize, ahead: usize) -> Self {
        let cache = Mutex::new(ByteCache::new(cache_bytes));
        let room = Semaphore::new(INDEX_ROOM_BYTES);
        let (heads, collected) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { store, ring, cache, room, collected, heads, ahead }))
    }

    /// A reader of an open vault.
    #[must_use]
    pub fn of(vault: &Vault) -> Self {
        Self::new(vault.store().clone(), vault.ring().clone(), CACHE_BYTES_DEFAULT)
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The keys.
    #[must_use]
    pub fn ring(&self) -> &KeyRing {
        &self.0.ring
    }

    /// How many whole indexes are on their way at once.
    pub(crate) fn ahead(&self) -> usize {
        self.0.ahead
    }

    /// How far garbage was collected: as it was when somebody asked before, unless `fresh`.
    ///
    /// # Errors
    /// [`LogError::Steps`] when that can't be read.
    pub async fn collected(&self, fresh: bool) -> Result<Arc<Collected>, LogError> {
        let known = || self.0.collected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(collected) = known().clone().filter(|_| !fresh) {
            return Ok(collected);
        }
        let collected = Arc::new(read_collected(&self.0.store, &self.0.ring).await?);
        *known() = Some(collected.clone());
        Ok(collected)
    }

    /// Notes how long the heads (header and index) of packs are: just so much is then read of them. Who
    /// notes bounds how many; each takes some 40 bytes.
    pub(crate) fn note_heads(&self, heads: impl Iterator<Item = ((LogId, PackNumber), u32)>) {
        let mut known = self.0.heads.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(heads.filter(|(_, bytes)| *bytes > 0));
    }

    fn known_head(&self, place: &PackPlace) -> Option<u64> {
        let known = self.0.heads.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&place.key()).map(|bytes| u64::from(*bytes))
    }

    /// What lies at `place`. `stored_bytes` is the object's size where a listing gave it.
    ///
    /// # Errors
    /// [`LogError`] when there is nothing, or not what belongs there.
    pub(super) async fn find(
        &self,
        place: &PackPlace,
        stored_bytes: Option<u64>,
    ) -> Result<Found, LogError> {
        if let Some(pack) = self.cached(place, stored_bytes)? {
            return Ok(Found::Pack(pack));
        }
        let (header, index) = self.head(place, stored_bytes).await?;
        if header.kind == PackKind::Tombstone {
            return Ok(Found::Tombstone);
        }
        let ciphers = self.index_ciphers(place, &header, &index)?;
        let owned = place.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let mut index = index;
            match open_index(&header, &mut index, &ciphers) {
                Ok(index) => Ok(PackRead { place: owned, header, index }),
                Err(cause) => Err(LogError::Pack { place: owned, cause }),
            }
        });
        let pack = opened.await.map_err(|error| LogError::Stopped(error.to_string()))??;
        let (pack, bytes) = (Arc::new(pack), size_of::<Arc<PackRead>>());
        let bytes = bytes + pack.memory_bytes();
        let mut cache = self.0.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.put(place.key(), pack.clone(), bytes);
        Ok(Found::Pack(pack))
    }

    /// The pack at `place`.
    ///
    /// # Errors
    /// [`LogError`] when it isn't there, or not what belongs there.
    pub async fn pack(&self, place: &PackPlace) -> Result<Arc<PackRead>, LogError> {
        self.sized_pack(place, None).await
    }

    /// The same; `stored_bytes` is the object's size where a listing gave it.
    pub(crate) async fn sized_pack(
        &self,
        place: &PackPlace,
        stored_bytes: Option<u64>,
    ) -> Result<Arc<PackRead>, LogError> {
        match self.find(place, stored_bytes).await? {
            Found::Pack(pack) => Ok(pack),
            Found::Tombstone => Err(LogError::Tombstone(place.clone())),
        }
    }

    /// What the pack at `place` says of its log and its machines; it isn't kept.
    ///
    /// # Errors
    /// As [`Self::pack`].
    pub(super) async fn summary(
        &self,
        place: &PackPlace,
        stored_bytes: Option<u64>,
    ) -> Result<PackSummary, LogError> {
        if let Some(pack) = self.cached(place, stored_bytes)? {
            return Ok(pack.summary());
        }
        self.opened(place, stored_bytes, open_summary).await
    }

    /// What is `told` of the blocks that the pack at `place` keeps; it isn't kept.
    ///
    /// # Errors
    /// As [`Self::pack`].
    pub(super) async fn kept_blocks<T>(
        &self,
        place: &PackPlace,
        stored_bytes: Option<u64>,
        told: impl FnOnce(&PackHeader, PackBlocks) -> T,
    ) -> Result<T, LogError> {
        let open = |header: &PackHeader, index: &mut [u8], ciphers: &LogCiphers| {
            open_blocks(header, index, ciphers).map(|blocks| told(header, blocks))
        };
        self.opened(place, stored_bytes, open).await
    }

    /// What `open` makes of the sealed index of the pack at `place`, which has its room until then.
    async fn opened<T>(
        &self,
        place: &PackPlace,
        stored_bytes: Option<u64>,
        open: impl FnOnce(&PackHeader, &mut [u8], &LogCiphers) -> Result<T, PackError>,
    ) -> Result<T, LogError> {
        let (header, first) = self.header(place, stored_bytes).await?;
        let _room = self.room(header.index_bytes).await?;
        let mut index = self.sealed_index(place, &header, first).await?;
        if header.kind == PackKind::Tombstone {
            return Err(LogError::Tombstone(place.clone()));
        }
        let ciphers = self.index_ciphers(place, &header, &index)?;
        // On this thread: most take less time than to wake another, and what is expanded at once
        // is bounded by the few threads that a runtime has.
        open(&header, &mut index, &ciphers)
            .map_err(|cause| LogError::Pack { place: place.clone(), cause })
    }

    /// Room for a sealed index, when there is some. Whoever has it asks for no more.
    async fn room(&self, index_bytes: u32) -> Result<SemaphorePermit<'_>, LogError> {
        let room = self.0.room.acquire_many(index_bytes).await;
        room.map_err(|error| LogError::Stopped(error.to_string()))
    }

    fn cached(
        &self,
        place: &PackPlace,
        stored_bytes: Option<u64>,
    ) -> Result<Option<Arc<PackRead>>, LogError> {
        let cached = self.0.cache.lock().unwrap_or_else(PoisonError::into_inner).get(place.key());
        if let Some(pack) = &cached {
            check_size(place, &pack.header, stored_bytes)?;
        }
        Ok(cached)
    }

    /// What opens the frames of a pack.
    ///
    /// # Errors
    /// [`PackError::KeyVersion`] when the ring lacks its root key.
    pub fn ciphers(&self, pack: &PackRead) -> Result<LogCiphers, LogError> {
        self.ciphers_of(&pack.place, &pack.header)
    }

    fn ciphers_of(&self, place: &PackPlace, header: &PackHeader) -> Result<LogCiphers, LogError> {
        self.0.ring.log_ciphers(header.key_version, header.log).ok_or_else(|| LogError::Pack {
            place: place.clone(),
            cause: PackError::KeyVersion(header.key_version),
        })
    }

    /// What opens an index. Without a key for it, one that was changed is told from one that is
    /// whole.
    fn index_ciphers(
        &self,
        place: &PackPlace,
        header: &PackHeader,
        index: &[u8],
    ) -> Result<LogCiphers, LogError> {
        match self.ciphers_of(place, header) {
            // A changed bit, and no key that is missing: the digest needs none.
            Err(_) if header.digest_with(index) != header.digest => {
                Err(LogError::Pack { place: place.clone(), cause: PackError::Digest })
            }
            ciphers => ciphers,
        }
    }

    /// Header and sealed index, compared with their place and each other.
    async fn head(
        &self,
        place: &PackPlace,
        stored_bytes: Option<u64>,
    ) -> Result<(PackHeader, BytesMut), LogError> {
        let (header, first) = self.header(place, stored_bytes).await?;
        let index = self.sealed_index(place, &header, first).await?;
        Ok((header, index))
    }

    /// The header, compared with its place, and the first bytes of the object.
    async fn header(
        &self,
        place: &PackPlace,
        stored_bytes: Option<u64>,
    ) -> Result<(PackHeader, Bytes), LogError> {
        let refuse = |cause| LogError::Pack { place: place.clone(), cause };
        let first = self.first_bytes(place, stored_bytes).await?;
        let header = match PackHeader::decode(&first) {
            Ok(header) => header,
            Err(PackError::Format(format)) => {
                return Err(refuse(self.unknown(place, &first, format).await?));
            }
            Err(cause) => return Err(refuse(cause)),
        };
        self.check_place(place, &header).map_err(refuse)?;
        check_size(place, &header, stored_bytes)?;
        Ok((header, first))
    }

    /// The sealed index that belongs to a header, of which `first` may have a part.
    async fn sealed_index(
        &self,
        place: &PackPlace,
        header: &PackHeader,
        first: Bytes,
    ) -> Result<BytesMut, LogError> {
        let index = self.index(place, &first, header.index_bytes, header.object_bytes).await?;
        // A tombstone has nothing else that would tell a changed bit; a pack's index does.
        if header.kind == PackKind::Tombstone && header.digest_with(&index) != header.digest {
            return Err(LogError::Pack { place: place.clone(), cause: PackError::Digest });
        }
        Ok(index)
    }

    /// What is wrong with a pack whose header states a format that we don't know.
    async fn unknown(
        &self,
        place: &PackPlace,
        first: &Bytes,
        format: u16,
    ) -> Result<PackError, LogError> {
        let refuse = |cause| LogError::Pack { place: place.clone(), cause };
        let envelope = Envelope::decode(first).map_err(refuse)?;
        let end = HEADER_BYTES as u64 + u64::from(envelope.index_bytes);
        let _room = self.room(envelope.index_bytes).await?;
        let index = self.index(place, first, envelope.index_bytes, end).await?;
        Ok(if envelope.fits(&index) { PackError::Format(format) } else { PackError::Digest })
    }

    /// The sealed index, of which `first` may have a part; `object_bytes` is what the object has
    /// at least.
    async fn index(
        &self,
        place: &PackPlace,
        first: &Bytes,
        index_bytes: u32,
        object_bytes: u64,
    ) -> Result<BytesMut, LogError> {
        let index_bytes = index_bytes as usize;
        let mut index = BytesMut::from(first.get(HEADER_BYTES..).unwrap_or_default());
        index.truncate(index_bytes);
        if index.len() < index_bytes {
            let range = (HEADER_BYTES + index.len()) as u64..(HEADER_BYTES + index_bytes) as u64;
            index.extend_from_slice(&self.get(place, range, object_bytes).await?);
        }
        Ok(index)
    }

    /// The first bytes of an object, as many as there are of the guess.
    async fn first_bytes(
        &self,
        place: &PackPlace,
        stored_bytes: Option<u64>,
    ) -> Result<Bytes, LogError> {
        let path = place.path();
        let guess = u64::from(HEAD_BYTES_GUESS);
        let known = self.known_head(place);
        let end = known.unwrap_or_else(|| stored_bytes.unwrap_or(guess).min(guess));
        if end == 0 {
            return Ok(Bytes::new());
        }
        let first = match self.store().get_range(&path, 0..end).await {
            Err(StoreError::Short { bytes: 0, .. }) => return Ok(Bytes::new()),
            Err(StoreError::Short { bytes, .. }) if bytes < end => {
                self.store().get_range(&path, 0..bytes).await
            }
            first => first,
        };
        match first {
            Err(StoreError::NotFound { .. }) => Err(self.absent(place).await),
            first => Ok(first?),
        }
    }

    /// Why a pack isn't there: what was collected is no loss.
    async fn absent(&self, place: &PackPlace) -> LogError {
        let was_collected = match layout::is_dense(&place.log) {
            true => is_superseded(self.store(), &place.log.node, place.number.0)
                .await
                .map_err(LogError::from),
            false => self.collected(true).await.map(|collected| collected.removed.has(place)),
        };
        match was_collected {
            Ok(true) => LogError::Collected(place.clone()),
            Ok(false) => LogError::Missing(place.clone()),
            Err(error) => error,
        }
    }

    async fn get(
        &self,
        place: &PackPlace,
        range: std::ops::Range<u64>,
        stated: u64,
    ) -> Result<Bytes, LogError> {
        match self.store().get_range(&place.path(), range).await {
            Err(StoreError::NotFound { .. }) => Err(self.absent(place).await),
            Err(StoreError::Short { bytes: stored, .. }) => {
                Err(LogError::Size { place: place.clone(), stored, stated })
            }
            got => Ok(got?),
        }
    }

    fn check_place(&self, place: &PackPlace, header: &PackHeader) -> Result<(), PackError> {
        if header.vault != self.0.ring.vault() {
            return Err(PackError::Elsewhere("of another vault"));
        }
        if header.log != place.log.id {
            return Err(PackError::Elsewhere("of another log"));
        }
        if header.number != place.number {
            return Err(PackError::Elsewhere("of another number"));
        }
        Ok(())
    }
}

fn check_size(
    place: &PackPlace,
    header: &PackHeader,
    stored_bytes: Option<u64>,
) -> Result<(), LogError> {
    match stored_bytes {
        Some(stored) if stored != header.object_bytes => {
            Err(LogError::Size { place: place.clone(), stored, stated: header.object_bytes })
        }
        _ => Ok(()),
    }
}
