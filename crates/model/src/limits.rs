//! The limits that formats and protocol share, and the defaults on which two parts of the program
//! must agree, in one place, each with its reason; relations between them are checked when the
//! crate is compiled.

/// Longest name of a machine or a node: a DNS label's length, and it fits the 64-byte field of the
/// pack index with its length in front.
pub const NAME_BYTES_MAX: usize = 63;

/// Longest free text (a disk's name, a bookmark's name): the longest path that Linux's tools show
/// whole, four times over.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Disks of one machine.
pub const DISKS_MAX: usize = 64;

/// Largest disk: 2^56 bytes, so that any offset plus any length fits 64 bits.
pub const DISK_BYTES_MAX: u64 = 1 << 56;

/// Block size of a vault unless it says otherwise.
pub const BLOCK_BYTES_DEFAULT: u32 = 64 << 10;
/// Smallest block size: below it the records about a block outweigh what dedupe saves.
pub const BLOCK_BYTES_MIN: u32 = 4 << 10;
/// Largest block size: a block must fit a default frame.
pub const BLOCK_BYTES_MAX: u32 = 256 << 10;

/// Most payload bytes in one frame of the wire protocol; longer writes are sent as several, each
/// with its own LSN (a disk promises no atomicity beyond a sector). One record of this size is the
/// base credit of a session.
pub const RECORD_BYTES_MAX: u32 = 256 << 10;
/// The record size that a server grants for the default block size.
pub const RECORD_BYTES_DEFAULT: u32 = 64 << 10;

/// Plain bytes of a frame unless configured otherwise.
pub const FRAME_BYTES_DEFAULT: u32 = 256 << 10;
/// Most plain bytes of a frame: what a reader must be ready to decompress at once.
pub const FRAME_BYTES_MAX: u32 = 4 << 20;

/// Most bytes of a pack: header, index and frames. Closing at 16 MiB by default leaves room for
/// the last frame and the index.
pub const PACK_BYTES_MAX: u64 = 64 << 20;
/// A pack closes when its frames reach this size, less where memory is less.
pub const PACK_CLOSE_BYTES_DEFAULT: u32 = 16 << 20;

/// Most records in one pack's index. At 96 bytes each the index stays below 7 MiB; a pack of
/// nothing but references describes 4 GiB of disk.
pub const PACK_RECORDS_MAX: u32 = 64 << 10;
/// Most frames in one pack.
pub const PACK_FRAMES_MAX: u32 = 64 << 10;
/// Most machines in one pack's index.
pub const PACK_MACHINES_MAX: u32 = 4096;
/// Most other logs that one pack refers to.
pub const PACK_LOGS_MAX: u32 = 4096;
/// Most bytes of texts (names of disks and bookmarks) in one pack's index.
pub const PACK_TEXT_BYTES_MAX: u32 = 1 << 20;

/// Most bytes of one small metadata object (an epoch, a session, a run, the keys).
pub const META_BYTES_MAX: u64 = 256 << 10;

/// The port at which process servers listen and agents look for them: nothing common is there, and
/// root isn't needed for it.
pub const PORT_DEFAULT: u16 = 9443;

/// Lowest zstd level: below it data grows faster than time is saved.
pub const LEVEL_MIN: i32 = -7;
/// Highest zstd level: what one compressor may take in the memory plan is sized for it.
pub const LEVEL_MAX: i32 = 12;

/// Seconds for which a server bears with a store that takes nothing: an outage of minutes passes by
/// itself.
pub const STORE_PATIENCE_SECONDS: u64 = 300;
/// Seconds for which an agent bears with a vault that commits nothing of its: longer than the
/// server with its store, whose complaint says more, and enough to replace a server by hand.
pub const AGENT_PATIENCE_SECONDS: u64 = 600;
/// The same before any server accepted the agent: a mistyped address should not cost minutes, but one
/// that is started anew after its host was lost finds its place taken for 30 seconds.
pub const AGENT_PATIENCE_AT_START_SECONDS: u64 = 45;
/// Longest patience that can be asked for, a day: whoever waits longer wants to know why.
pub const PATIENCE_SECONDS_MAX: u64 = 86_400;

/// Memory of an agent for what is sent and not yet committed: what a server with packs of 16 MiB
/// and some uploads on their way has not committed yet.
pub const WINDOW_BYTES_DEFAULT: u64 = 192 << 20;

const _: () = {
    assert!(LEVEL_MIN < LEVEL_MAX);
    assert!(AGENT_PATIENCE_SECONDS > STORE_PATIENCE_SECONDS, "the server complains first");
    assert!(AGENT_PATIENCE_SECONDS <= PATIENCE_SECONDS_MAX);
    assert!(WINDOW_BYTES_DEFAULT > 4 * PACK_CLOSE_BYTES_DEFAULT as u64);
    assert!(BLOCK_BYTES_MAX <= RECORD_BYTES_MAX, "a block must fit a record");
    assert!(RECORD_BYTES_DEFAULT >= BLOCK_BYTES_DEFAULT);
    assert!(RECORD_BYTES_MAX <= FRAME_BYTES_DEFAULT, "a record must fit a frame");
    assert!(FRAME_BYTES_DEFAULT <= FRAME_BYTES_MAX);
    assert!(PACK_CLOSE_BYTES_DEFAULT as u64 + 2 * FRAME_BYTES_MAX as u64 <= PACK_BYTES_MAX);
    assert!(NAME_BYTES_MAX < 64);
    assert!(DISKS_MAX <= 255);
};
