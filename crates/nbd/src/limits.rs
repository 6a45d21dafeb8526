//! The limits of the protocol as we speak it, each with its reason.

use tidegate_model::limits::DISK_BYTES_MAX;

/// Longest string that the protocol allows: names of exports, queries, texts of errors.
pub const STRING_BYTES_MAX: usize = 4096;

/// Longest text that we send with an error: what the document recommends for strings.
pub const TEXT_BYTES_MAX: usize = 256;

/// Most bytes of an option's data that are gathered: a name of an export and two queries of the
/// greatest length; known clients send less than 1 KiB. Longer ones are refused as too big.
pub const OPTION_BYTES_MAX: usize = 16 << 10;

/// Most bytes of an option's data that are skipped to refuse it politely: it costs us no memory,
/// but nobody has a reason to send so much.
pub const OPTION_SKIPPED_BYTES_MAX: u32 = 1 << 20;

/// Most options in a handshake. Known clients need less than ten, and some for each export that
/// they list; without a limit a peer could haggle for ever.
pub const OPTIONS_MAX: u32 = 1024;

/// Most replies that a client bears with for one option: known servers send less than ten.
pub const OPTION_REPLIES_MAX: usize = 64;

/// Most requests that a client has under way: as many as QEMU's server carries out at once.
pub const REQUESTS_ASKED_MAX: usize = 16;

/// Most bytes of data in one read or write: the least that a server must take unless it says
/// otherwise, and so what clients use that don't ask.
pub const PAYLOAD_BYTES_MAX: u32 = 32 << 20;

/// Longest write whose data are skipped to refuse it politely. The document calls nothing up to
/// [`PAYLOAD_BYTES_MAX`] an attack; twice that leaves room for a client that counts wrongly.
pub const SKIPPED_BYTES_MAX: u32 = 2 * PAYLOAD_BYTES_MAX;

/// Longest read that a client may want in one piece, at the least: below it a payload limit would
/// break reads with the flag DF.
pub const UNFRAGMENTED_BYTES: u32 = 64 << 10;

/// Smallest sector that clients know.
pub const SECTOR_BYTES: u32 = 512;

/// Largest minimum block size that the protocol allows.
pub const MINIMUM_BLOCK_BYTES_MAX: u32 = 64 << 10;

/// Most spans in the answer to one question for block status: 128 KiB. Who wants more asks again
/// from where they end.
pub const SPANS_SENT_MAX: usize = 16 << 10;

/// Most spans that are accepted in one answer: what the document bids servers to keep to.
pub const SPANS_MAX: usize = 1 << 20;

/// Largest export: any offset plus any length fits 64 bits.
pub const EXPORT_BYTES_MAX: u64 = DISK_BYTES_MAX;

/// Bytes of a client's words that are received at once: many short requests, and the beginning of a
/// long one, whose data are received into their place.
pub const RECEIVED_BYTES: usize = 64 << 10;

/// Most bytes of a buffer that a thread of a crew keeps for its next command. Longer ones are rare,
/// and making them anew costs little beside what they carry.
pub const KEPT_BYTES: usize = 256 << 10;

/// Bytes of the stack of a thread that serves: what a disk needs, which may decompress.
pub const STACK_BYTES: usize = 512 << 10;

const _: () = {
    assert!(OPTION_BYTES_MAX >= 3 * STRING_BYTES_MAX + 16);
    assert!(OPTION_BYTES_MAX <= OPTION_SKIPPED_BYTES_MAX as usize);
    assert!(TEXT_BYTES_MAX <= STRING_BYTES_MAX);
    assert!(SKIPPED_BYTES_MAX >= PAYLOAD_BYTES_MAX);
    assert!(PAYLOAD_BYTES_MAX >= UNFRAGMENTED_BYTES);
    assert!(SPANS_SENT_MAX <= SPANS_MAX);
    assert!(EXPORT_BYTES_MAX.checked_add(u32::MAX as u64).is_some());
};
