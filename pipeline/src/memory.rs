//! The memory of a process server, reserved at start as a sum of named terms.
//!
//! The bound is the user's; the plan divides it. Fixed needs first (executors, sessions,
//! compressors, the store client), then the table of known blocks, packs, and units' buffers from
//! what is left. Below the minimum there is no plan.

use tidegate_model::limits::{FRAME_BYTES_DEFAULT, FRAME_BYTES_MAX, PACK_CLOSE_BYTES_DEFAULT};
use tidegate_model::{Counted, Remedy};
use tidegate_vault::pack::SEALED_INDEX_BYTES_MAX;

use crate::compressor::COMPRESSOR_BYTES;
use crate::logs::PACK_PLACES_BYTES;
use crate::packer::Packer;
use crate::unit::{BUFFER_OVERHEAD_BYTES, UNIT_RECORD_BYTES_MAX};

/// The program itself: code, stacks of its threads, allocator, logging.
const PROGRAM_BYTES: usize = 48 << 20;
/// One executor: its io_uring rings, its own buffers, its tasks' stacks.
const EXECUTOR_BYTES: usize = 6 << 20;
/// One connection beside its payload: what it has read and can't handle yet (128 KiB), frames
/// to send (64 KiB), TLS records both ways (16 and 36 KiB), its task.
const CONNECTION_BYTES: usize = 256 << 10;
/// Connections beside those that have a session: health checks, handshakes, sessions that are about
/// to take over or have just been taken over.
const EXTRA_CONNECTIONS: usize = 32;
/// The store client: its threads, connections, what a put copies on its way out, an answer on its way
/// in.
const STORE_BYTES: usize = 24 << 20;
/// Grants of epochs that may be under way at once: each lists a log and reads indexes, and after an
/// outage all machines want one.
pub const GRANTS_MAX: usize = 4;
/// What each has of its own: the first bytes of packs on their way, and a stretch of a log's listing.
pub const GRANT_BYTES: usize = 1 << 20;
/// All of them, with the room for the indexes that they look through: one of the longest, or many.
const GRANTS_BYTES: usize = GRANTS_MAX * GRANT_BYTES + SEALED_INDEX_BYTES_MAX;
/// Machines whose disks may be compared with the vault at once, each with a window of what it holds.
pub const RESYNCS_MAX: usize = 4;
/// What one of them takes while it is read: a layer as it is opened, or the indexes of some packs.
const RESYNC_READING_BYTES: usize = 64 << 20;
/// All windows take this part of the bound: at 2 GiB one of them has 26 GiB of a disk.
const RESYNC_PART: usize = 32;
/// Maintenance in the background takes this part of the bound,
const MAINTENANCE_PART: usize = 4;
/// and this at least: with less a fold can't put two of the longest layers together.
pub const MAINTENANCE_BYTES_MIN: usize = 256 << 20;
/// Sessions: one for each so many bytes of the bound.
const BYTES_PER_SESSION: usize = 2 << 20;
const SESSIONS_MIN: usize = 16;
const SESSIONS_MAX: usize = 4096;
/// The table takes this part of the bound.
const TABLE_PART: usize = 8;
/// Packs take this part of what is left.
const PACK_PART: usize = 2;
/// Fewer pack buffers a shard than this, and filling waits for putting.
const PACKS_PER_SHARD_MIN: usize = 4;
/// More than this and a shard holds more than a second of anything.
const PACKS_PER_SHARD_MAX: usize = 16;
/// Smaller packs than this cost more in requests than they save in memory.
const PACK_BYTES_MIN: usize = 1 << 20;
/// Packs between close and commit, beside those that wait with frames in a buffer.
const PACKS_WITHOUT_FRAMES: usize = 4;
/// Most units of a shard between dispatch and pack: two for each core, so that one stream keeps all
/// busy, and some that have come home and wait for those before them. More would only wait, and
/// acknowledgements with them.
const UNITS_IN_FLIGHT_PER_CORE: usize = 2;
const UNITS_IN_FLIGHT_BEYOND: usize = 32;
/// Fewer unit buffers a shard than this, and a single stream can't keep the cores busy.
const UNITS_PER_SHARD_MIN: usize = 16;
/// Long unit buffers take this part of the memory of units.
const LONG_PART: usize = 2;
/// Fewer long buffers a shard than this, and a single stream can't keep the cores busy with them: one
/// is filled, one worked on, one waits, one is packed.
const LONG_PER_SHARD_MIN: usize = 4;
/// A pack buffer holds at least so many long frames: it closes before one that doesn't fit any more,
/// and must not go to the store half empty.
const LONG_FRAMES_PER_PACK_MIN: usize = 4;

/// A named part of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryTerm {
    /// What for.
    pub name: &'static str,
    /// How much, in bytes.
    pub bytes: usize,
}

/// There is too little. The sizes are told as they can be typed; the least is whole in MiB.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} MiB of memory are too little for {}: give at least {} MiB (--memory), or use fewer shards \
     (--cores)", given >> 20, Counted(*shards, "shard"), needed >> 20
)]
pub struct MemoryError {
    /// What was given, in bytes.
    pub given: usize,
    /// What is needed at least, in bytes.
    pub needed: usize,
    /// For so many shards.
    pub shards: usize,
}

impl MemoryError {
    /// A person must give more.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        Remedy::Refuse
    }
}

/// How the memory is divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Most sessions at once.
    pub sessions: usize,
    /// Most connections at once, with a session or without.
    pub connections: usize,
    /// Bytes of the table of known blocks.
    pub table_bytes: usize,
    /// Bytes of a small unit buffer: one record of the largest size. One is there for each session.
    pub small_buffer_bytes: usize,
    /// How many small ones.
    pub small_buffers: usize,
    /// Bytes of a large unit buffer: one frame.
    pub large_buffer_bytes: usize,
    /// How many large ones, over all shards.
    pub large_buffers: usize,
    /// Bytes of a long unit buffer: a frame of whole blocks in sequence. Of no meaning where there
    /// are none.
    pub long_buffer_bytes: usize,
    /// How many long ones, over all shards; 0 where memory is short or nobody wants them.
    pub long_buffers: usize,
    /// A pack closes at so many bytes of frames.
    pub pack_close_bytes: usize,
    /// Bytes of a pack buffer.
    pub pack_buffer_bytes: usize,
    /// How many a shard.
    pub pack_buffers_per_shard: usize,
    /// Most packs of a shard between close and commit.
    pub packs_in_flight_per_shard: usize,
    /// Most units of a shard between dispatch and pack.
    pub units_in_flight_per_shard: usize,
    /// Bytes of what the vault holds of a machine's disk, for each of [`RESYNCS_MAX`] machines that ask;
    /// 0 where there is no room for that.
    pub resync_window_bytes: usize,
    /// Bytes for maintenance in the background; 0 where there is no room for that.
    pub maintenance_bytes: usize,
    /// The sum.
    pub terms: Vec<MemoryTerm>,
}

impl MemoryPlan {
    /// Divides `bound` bytes among `shards` shards, for records of at most `record_bytes`, without
    /// long frames.
    ///
    /// # Errors
    /// [`MemoryError`] when it is too little, with what would be enough.
    pub fn new(bound: usize, shards: usize, record_bytes: usize) -> Result<Self, MemoryError> {
        Self::with_frames(bound, shards, record_bytes, FRAME_BYTES_DEFAULT as usize)
    }

    /// The same, with buffers for frames of up to `frame_bytes`, where there is room: for shorter
    /// ones, or none, where there isn't.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_frames(
        bound: usize,
        shards: usize,
        record_bytes: usize,
        frame_bytes: usize,
    ) -> Result<Self, MemoryError> {
        let needed = Self::minimum(shards, record_bytes);
        if bound < needed {
            return Err(MemoryError { given: bound, needed, shards });
        }
        let large = FRAME_BYTES_DEFAULT as usize + BUFFER_OVERHEAD_BYTES;
        let small = record_bytes + BUFFER_OVERHEAD_BYTES;
        let sessions = sessions_for(bound);
        let table_bytes = bound / TABLE_PART;
        let left = bound - fixed(shards, sessions, small, large) - table_bytes;
        let for_packs = left / PACK_PART / shards;
        let pack_close_bytes = (for_packs / PACKS_PER_SHARD_MIN)
            .saturating_sub(large + Packer::index_bytes_max())
            .clamp(PACK_BYTES_MIN, PACK_CLOSE_BYTES_DEFAULT as usize);
        let pack_buffer_bytes = pack_close_bytes + large;
        let pack_buffers_per_shard = (for_packs / pack_cost(pack_buffer_bytes))
            .clamp(PACKS_PER_SHARD_MIN, PACKS_PER_SHARD_MAX);
        let pack_bytes = pack_buffers_per_shard * pack_cost(pack_buffer_bytes) * shards;
        let for_units = left - pack_bytes;
        let (long, long_buffers) = long_buffers(for_units, shards, frame_bytes, pack_buffer_bytes);
        let large_buffers = (for_units - long_buffers * long) / large;
        let mut plan = Self {
            sessions,
            connections: sessions + EXTRA_CONNECTIONS,
            table_bytes,
            small_buffer_bytes: small,
            small_buffers: sessions + shards,
            large_buffer_bytes: large,
            large_buffers: large_buffers + shards,
            long_buffer_bytes: long,
            long_buffers,
            pack_close_bytes,
            pack_buffer_bytes,
            pack_buffers_per_shard,
            packs_in_flight_per_shard: pack_buffers_per_shard + PACKS_WITHOUT_FRAMES,
            units_in_flight_per_shard: units_in_flight(shards),
            resync_window_bytes: 0,
            maintenance_bytes: 0,
            terms: Vec::new(),
        };
        plan.terms = plan.sum(shards);
        Ok(plan)
    }

    /// The same, with room for comparing disks with the vault where that takes no more than half of what
    /// the bound has beyond the least.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_resync(
        bound: usize,
        shards: usize,
        record_bytes: usize,
        frame_bytes: usize,
    ) -> Result<Self, MemoryError> {
        let window_bytes = bound / RESYNC_PART / RESYNCS_MAX;
        let bytes = RESYNC_READING_BYTES + RESYNCS_MAX * window_bytes;
        let beyond = bound.saturating_sub(Self::minimum(shards, record_bytes));
        if bytes > beyond / 2 {
            return Self::with_frames(bound, shards, record_bytes, frame_bytes);
        }
        let mut plan = Self::with_frames(bound - bytes, shards, record_bytes, frame_bytes)?;
        plan.resync_window_bytes = window_bytes;
        plan.terms.push(MemoryTerm { name: "resync", bytes });
        Ok(plan)
    }

    /// The same, with room for maintenance in the background, too, under the same condition.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_maintenance(
        bound: usize,
        shards: usize,
        record_bytes: usize,
        frame_bytes: usize,
    ) -> Result<Self, MemoryError> {
        let bytes = (bound / MAINTENANCE_PART).max(MAINTENANCE_BYTES_MIN);
        let beyond = bound.saturating_sub(Self::minimum(shards, record_bytes));
        if bytes > beyond / 2 {
            return Self::with_resync(bound, shards, record_bytes, frame_bytes);
        }
        let mut plan = Self::with_resync(bound - bytes, shards, record_bytes, frame_bytes)?;
        plan.maintenance_bytes = bytes;
        plan.terms.push(MemoryTerm { name: "maintenance", bytes });
        Ok(plan)
    }

    /// With so much there is room for maintenance in the background.
    #[must_use]
    pub fn enough_for_maintenance(shards: usize, record_bytes: usize) -> usize {
        let least = Self::minimum(shards, record_bytes);
        // A half of what is beyond the least must be as much as its least, and as its part.
        (least + 2 * MAINTENANCE_BYTES_MIN).max(MAINTENANCE_PART * least / (MAINTENANCE_PART - 2))
    }

    /// The least with which `shards` shards can work.
    #[must_use]
    pub fn minimum(shards: usize, record_bytes: usize) -> usize {
        let large = FRAME_BYTES_DEFAULT as usize + BUFFER_OVERHEAD_BYTES;
        let small = record_bytes + BUFFER_OVERHEAD_BYTES;
        let packs = PACKS_PER_SHARD_MIN * pack_cost(PACK_BYTES_MIN + large);
        let left = shards * (packs + UNITS_PER_SHARD_MIN * large) * PACK_PART;
        // Sessions and table are parts of the bound themselves: grow it until they fit.
        let mut bound = left;
        loop {
            let fixed = fixed(shards, sessions_for(bound), small, large);
            let needed = fixed + bound / TABLE_PART + left;
            if needed <= bound {
                return bound.next_multiple_of(1 << 20);
            }
            bound = needed.next_multiple_of(1 << 20);
        }
    }

    /// All of it, in bytes.
    #[must_use]
    pub fn total(&self) -> usize {
        self.terms.iter().map(|term| term.bytes).sum()
    }

    fn sum(&self, shards: usize) -> Vec<MemoryTerm> {
        let term = |name, bytes| MemoryTerm { name, bytes };
        vec![
            term("program", PROGRAM_BYTES),
            term("executors", shards * EXECUTOR_BYTES),
            term("compressors", shards * COMPRESSOR_BYTES),
            term("store client", STORE_BYTES),
            term("grants", GRANTS_BYTES),
            term("connections", self.connections * CONNECTION_BYTES),
            term("indexes", shards * index_bytes(self.packs_in_flight_per_shard)),
            term("records of units", shards * units_in_flight(shards) * UNIT_RECORD_BYTES_MAX),
            term("table of known blocks", self.table_bytes),
            // One for each own log, and one for what a start takes over from older ones.
            term("places of packs", (shards + 1) * PACK_PLACES_BYTES),
            term("small buffers", self.small_buffers * self.small_buffer_bytes),
            term("unit buffers", self.large_buffers * self.large_buffer_bytes),
            term("long unit buffers", self.long_buffers * self.long_buffer_bytes),
            term("packs", shards * self.pack_buffers_per_shard * self.pack_buffer_bytes),
        ]
    }
}

/// The open pack's index twice, as gathered and as written out before it is compressed; and that of
/// each pack under way, if none of them shrank.
const fn index_bytes(packs_in_flight: usize) -> usize {
    (2 + packs_in_flight) * Packer::index_bytes_max()
}

/// A pack under way: its frames' buffer and its index.
const fn pack_cost(buffer_bytes: usize) -> usize {
    buffer_bytes + Packer::index_bytes_max()
}

/// Units of one shard under way at once, where there are so many shards.
const fn units_in_flight(shards: usize) -> usize {
    UNITS_IN_FLIGHT_BEYOND + UNITS_IN_FLIGHT_PER_CORE * shards
}

fn sessions_for(bound: usize) -> usize {
    (bound / BYTES_PER_SESSION).clamp(SESSIONS_MIN, SESSIONS_MAX)
}

/// Size and number of long buffers, workers' spares among them: of `frame_bytes`, or the longest half
/// of that, and half of that, of which there is room for enough. They come out of what units have.
fn long_buffers(
    for_units: usize,
    shards: usize,
    frame_bytes: usize,
    pack_buffer_bytes: usize,
) -> (usize, usize) {
    let mut frame_bytes = frame_bytes.min(FRAME_BYTES_MAX as usize);
    while frame_bytes > FRAME_BYTES_DEFAULT as usize {
        let long = frame_bytes + BUFFER_OVERHEAD_BYTES;
        let count = for_units / LONG_PART / long;
        let is_enough = count >= shards * (LONG_PER_SHARD_MIN + 1);
        if is_enough && pack_buffer_bytes >= LONG_FRAMES_PER_PACK_MIN * long {
            return (long, count);
        }
        frame_bytes /= 2;
    }
    (0, 0)
}

/// What doesn't depend on the bound, but for the sessions; a worker's spares among it.
fn fixed(shards: usize, sessions: usize, small: usize, large: usize) -> usize {
    PROGRAM_BYTES
        + STORE_BYTES
        + GRANTS_BYTES
        + (shards + 1) * PACK_PLACES_BYTES
        + shards
            * (EXECUTOR_BYTES
                + COMPRESSOR_BYTES
                + index_bytes(PACKS_WITHOUT_FRAMES)
                + units_in_flight(shards) * UNIT_RECORD_BYTES_MAX
                + small
                + large)
        + sessions * small
        + (sessions + EXTRA_CONNECTIONS) * CONNECTION_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn below_the_minimum_there_is_no_plan_and_the_error_says_what_is_enough() {
        let needed = MemoryPlan::minimum(2, 65536);
        assert!(MemoryPlan::new(needed, 2, 65536).is_ok());
        let error = MemoryPlan::new(needed - 1, 2, 65536).unwrap_err();
        assert_eq!(error.needed, needed);
        assert!(needed <= 256 << 20, "{needed}");
    }

    #[test]
    fn long_buffers_are_there_where_the_bound_allows_them() {
        let long = |mebibytes: usize, shards, frame| {
            let plan = MemoryPlan::with_frames(mebibytes << 20, shards, 65536, frame).unwrap();
            (plan.long_buffers, plan.long_buffer_bytes.saturating_sub(BUFFER_OVERHEAD_BYTES))
        };
        assert!(long(256, 2, 4 << 20).1 < 1 << 20, "little memory has shorter ones, or none");
        assert_eq!(long(1024, 2, 256 << 10), (0, 0), "nobody wants them");
        let (count, bytes) = long(832, 2, 4 << 20);
        assert_eq!(bytes, 4 << 20, "what replicate leaves the server unless told otherwise");
        assert!(count >= 16, "{count}");
        let (count, bytes) = long(512, 2, 4 << 20);
        assert!(count > 0 && bytes >= 1 << 20, "{count} {bytes}");
    }

    #[test]
    fn disks_are_compared_where_the_bound_has_room_for_that() {
        let window = |mebibytes: usize| {
            let plan = MemoryPlan::with_resync(mebibytes << 20, 2, 65536, 256 << 10).unwrap();
            plan.resync_window_bytes
        };
        assert_eq!(window(256), 0, "the least that two cores need, about");
        assert_eq!((window(512), window(2048)), (4 << 20, 16 << 20));
    }

    #[test]
    fn a_vault_is_maintained_where_the_bound_has_room_for_that() {
        let bytes = |bound, shards| {
            let plan = MemoryPlan::with_maintenance(bound, shards, 65536, 256 << 10).unwrap();
            plan.maintenance_bytes
        };
        assert_eq!(bytes(512 << 20, 2), 0);
        // What a server has unless told otherwise.
        assert_eq!((bytes(1 << 30, 2), bytes(8 << 30, 2)), (256 << 20, 2 << 30));
        for shards in [1, 2, 8, 40] {
            let enough = MemoryPlan::enough_for_maintenance(shards, 65536);
            assert!(bytes(enough, shards) > 0, "{shards} shards");
            assert_eq!(bytes(enough - (2 << 20), shards), 0, "{shards} shards");
        }
    }

    proptest! {
        #[test]
        fn the_terms_never_add_up_to_more_than_the_bound(
            bound in 1_usize << 27..1 << 36,
            shards in 1_usize..64,
            record in prop::sample::select(vec![65536_usize, 262_144]),
            frame in prop::sample::select(vec![256_usize << 10, 1 << 20, 4 << 20]),
        ) {
            let plans =
                [MemoryPlan::with_frames, MemoryPlan::with_resync, MemoryPlan::with_maintenance];
            for plan in plans
                .into_iter()
                .flat_map(|plan| plan(bound, shards, record, frame))
            {
                prop_assert!(plan.total() <= bound);
                prop_assert!(plan.pack_buffers_per_shard >= PACKS_PER_SHARD_MIN);
                prop_assert!(plan.large_buffers >= shards * UNITS_PER_SHARD_MIN);
                if plan.long_buffers > 0 {
                    prop_assert!(plan.long_buffer_bytes <= frame + BUFFER_OVERHEAD_BYTES);
                    prop_assert!(plan.long_buffers > shards * LONG_PER_SHARD_MIN);
                    prop_assert!(plan.pack_buffer_bytes >= 4 * plan.long_buffer_bytes);
                }
            }
        }
    }
}
