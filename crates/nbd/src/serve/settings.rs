//! How much a server takes on.

use std::time::Duration;

use crate::limits::{KEPT_BYTES, PAYLOAD_BYTES_MAX, RECEIVED_BYTES, SPANS_SENT_MAX, STACK_BYTES};

/// What a server is limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeSettings {
    /// Most clients at once. Whoever comes then is turned away.
    pub connections_max: usize,
    /// Most commands of one client that are carried out at once: threads of its crew.
    pub requests_max: usize,
    /// Most bytes of data that they hold; at least what one may have (`payload_max` of the export).
    pub bytes_max: u32,
    /// How long a client may take to choose an export.
    pub handshake_max: Duration,
}

impl Default for ServeSettings {
    /// 16 clients, as many as known ones open for one disk (nbdcopy 4, the kernel's client one a
    /// core); 16 commands of each, as many as QEMU sends; one of the longest at a time, or many short
    /// ones.
    fn default() -> Self {
        Self {
            connections_max: 16,
            requests_max: 16,
            bytes_max: PAYLOAD_BYTES_MAX,
            handshake_max: Duration::from_secs(30),
        }
    }
}

impl ServeSettings {
    /// The most memory that the server can take, in bytes.
    #[must_use]
    pub const fn memory_bytes(&self) -> u64 {
        // Kept after a command, and what is made for the answer to one for block status.
        let member = 2 * KEPT_BYTES + 24 * SPANS_SENT_MAX + STACK_BYTES;
        let connection =
            self.bytes_max as u64 + RECEIVED_BYTES as u64 + (self.requests_max * member) as u64;
        self.connections_max as u64 * connection
    }
}
