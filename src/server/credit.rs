//! How much a session may have on its way: a window that grows while memory is at ease.
//!
//! Pure. The base credit is one record, backed by a small buffer of the session's own; more is
//! granted on demand from what the large buffers leave. Credit counts payload bytes from their
//! grant until they are packed. The buffers are the bound, not the credit: a session for which
//! none is free stops reading its socket.

/// Most that one session may have on its way: several hundred milliseconds of a fast core's work.
const WINDOW_MAX: usize = 32 << 20;

/// A session's credit.
pub(crate) struct Window {
    base: usize,
    most: usize,
    size: usize,
    /// Granted, and not yet packed.
    out: usize,
}

/// How much of the large buffers is free, as the shard sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pool {
    pub free: usize,
    pub count: usize,
    pub buffer_bytes: usize,
}

impl Window {
    /// A window of one record, which `grant` of the welcome gives away.
    pub(crate) fn new(record_bytes_max: u32, pool: Pool) -> Self {
        let base = record_bytes_max as usize;
        let most = (pool.count / 2 * pool.buffer_bytes).clamp(base, WINDOW_MAX);
        Self { base, most, size: base, out: base }
    }

    /// Whether the session may use large buffers.
    pub(crate) const fn is_large(&self) -> bool {
        self.size > self.base
    }

    /// How long a frame may be so that `cores` have enough of this session alone to be busy: for each
    /// one that is worked on and one that waits, one that is filled and one that is packed.
    pub(crate) const fn frame_bytes(&self, cores: usize) -> usize {
        self.size / (2 * cores + 2)
    }

    /// `packed` bytes came back. Gives what to grant now, in bytes.
    pub(crate) fn returned(&mut self, packed: usize, pool: Pool) -> usize {
        self.out = self.out.saturating_sub(packed);
        if pool.free * 2 > pool.count {
            self.size = (self.size * 2).min(self.most);
        } else if pool.free * 8 < pool.count {
            self.size = (self.size / 2).max(self.base);
        }
        let grant = self.size.saturating_sub(self.out);
        // Many small grants would cost more than they give; but the last bytes must come back, or
        // an agent with a long write would wait for ever.
        if grant < self.base.min(self.size / 8) && self.out > self.base {
            return 0;
        }
        self.out += grant;
        grant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: u32 = 64 << 10;

    fn pool(free: usize) -> Pool {
        Pool { free, count: 100, buffer_bytes: 256 << 10 }
    }

    #[test]
    fn a_window_grows_while_memory_is_at_ease_and_shrinks_when_it_is_short() {
        let mut window = Window::new(RECORD, pool(100));
        assert!(!window.is_large());
        let mut out = RECORD as usize;
        for _ in 0..20 {
            out += window.returned(out / 2, pool(90)) - out / 2;
        }
        assert_eq!(window.size, 50 * (256 << 10));
        for _ in 0..20 {
            window.returned(1 << 20, pool(2));
        }
        assert!(!window.is_large());
    }

    #[test]
    fn an_agent_is_never_left_without_credit_for_a_record() {
        let mut window = Window::new(RECORD, pool(0));
        let mut credit = RECORD as usize;
        for sent in [1, 5000, 65536, 60000, 65536, 3, 65536] {
            if credit < sent {
                // All that it had sent was packed.
                panic!("the agent waits for ever");
            }
            credit = credit - sent + window.returned(sent, pool(0));
        }
        assert_eq!(credit, RECORD as usize);
    }
}
