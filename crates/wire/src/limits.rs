//! The limits of the protocol.

use std::time::Duration;

use tidegate_model::limits::{NAME_BYTES_MAX, RECORD_BYTES_MAX, TEXT_BYTES_MAX};

/// The version that this program speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// Most payload bytes of a frame that isn't a write, and so all that a decoder ever gathers. The
/// longest that this version has are a refusal's two texts; a later version's hello may be longer.
/// Each kind has its own limit besides ([`crate::Kind::payload_bytes_max`]).
pub const CONTROL_BYTES_MAX: usize = 4096;

/// Bytes of a block's hash (BLAKE3).
pub const HASH_BYTES: usize = 32;

/// Most blocks that one question is about: 8 MiB of a disk in blocks of 64 KiB, in one frame.
pub const HASHES_MAX: usize = CONTROL_BYTES_MAX / HASH_BYTES;

/// Most questions that a session may have open. While one is answered the agent hashes for the next; a
/// server holds them beside what it has read of the connection.
pub const QUESTIONS_MAX: usize = 2;

/// A feature of hello and welcome: questions by hashes are asked, and answered.
pub const FEATURE_HASHES: u64 = 1;

/// Most bytes of each text of a refusal.
pub const REFUSAL_TEXT_BYTES_MAX: usize = 1024;

/// Most credit that an agent may hold, in bytes: a server that grants more is broken. 1 TiB is far
/// above the memory of any server, and no sum of two such numbers overflows.
pub const CREDIT_BYTES_MAX: u64 = 1 << 40;

/// A peer that is silent for so long is asked by TCP whether it lives, so often, at such intervals:
/// one that vanished is noticed after 10 + 3 x 5 s of silence. The same at both ends.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// See [`KEEPALIVE_IDLE`].
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// See [`KEEPALIVE_IDLE`].
pub const KEEPALIVE_PROBES: u32 = 3;

/// A peer whose TCP doesn't acknowledge what was sent is given up after this. The same at both ends.
pub const USER_TIMEOUT: Duration = Duration::from_secs(30);

const _: () = {
    assert!(TEXT_BYTES_MAX + 16 <= CONTROL_BYTES_MAX);
    assert!(NAME_BYTES_MAX + 128 <= CONTROL_BYTES_MAX);
    assert!(HASHES_MAX <= u128::BITS as usize, "an answer has a bit for each");
    assert!(2 * REFUSAL_TEXT_BYTES_MAX + 16 <= CONTROL_BYTES_MAX);
    assert!(CONTROL_BYTES_MAX <= RECORD_BYTES_MAX as usize);
};
