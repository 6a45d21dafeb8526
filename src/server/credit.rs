//! How much a session may have on its way: a window that grows until the cores have enough to do.
//!
//! Pure. The base credit is one record, backed by a small buffer of the session's own; more is
//! granted on demand from what the large buffers leave. Credit counts payload bytes from their
//! grant until they are packed. The buffers are the bound, not the credit: a session for which
//! none is free stops reading its socket.
//!
//! What is granted beyond what keeps the cores busy waits in sockets, and comes out of main memory
//! instead of the cache when its turn comes: 64 streams cost a tenth more CPU a byte with windows of
//! 32 MiB than with what is kept here, and their acknowledgements take ten times as long
//! (`tidegate bench --streams 64`). So windows shrink while units wait for a core. A
//! distant agent needs more on its way; while it does, nothing waits, and its window grows.

/// Most that one session may have on its way: several hundred milliseconds of a fast core's work.
const WINDOW_MAX: usize = 32 << 20;
/// The cores are busy for the next few milliseconds when so many units wait for each of them: as long
/// as an agent on the same cores may take to send more.
const UNITS_WAITING_PER_CORE: usize = 4;
/// What the first credit that comes back grows to, in large buffers: a stream that sends little needs
/// no more for long, and each grant costs a wake-up at both ends.
const FIRST_BUFFERS: usize = 4;

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

/// Whether the cores have enough to do, when so many units wait for one of them.
pub(crate) const fn is_crowded(units_waiting: usize, cores: usize) -> bool {
    units_waiting > UNITS_WAITING_PER_CORE * cores
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

    /// `packed` bytes came back, while the cores were `crowded` or not. Gives what to grant now, in
    /// bytes; all there is, if the agent is `told` something anyway.
    pub(crate) fn returned(
        &mut self,
        packed: usize,
        pool: Pool,
        crowded: bool,
        told: bool,
    ) -> usize {
        self.out = self.out.saturating_sub(packed);
        if packed > 0 {
            self.adapt(packed, pool, crowded);
        }
        let grant = self.size.saturating_sub(self.out);
        // Many small grants would cost more than they give; but the last bytes must come back, or
        // an agent with a long write would wait for ever.
        if grant < self.size / 4 && self.out > self.base && !told {
            return 0;
        }
        self.out += grant;
        grant
    }

    /// Grows or shrinks with what came back.
    fn adapt(&mut self, packed: usize, pool: Pool, crowded: bool) {
        if pool.free * 8 < pool.count {
            self.size = (self.size / 2).max(self.base);
        } else if crowded {
            // By half in the time in which all of it comes back; but it still fills a buffer.
            let enough = self.base.max(pool.buffer_bytes);
            self.size = (self.size - (packed / 2).min(self.size)).max(enough.min(self.size));
        } else if pool.free * 2 > pool.count {
            // By a quarter in the time in which all of it comes back.
            let first = FIRST_BUFFERS * pool.buffer_bytes;
            let size = if self.is_large() { self.size + packed / 4 } else { first };
            self.size = size.clamp(self.base, self.most);
        }
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
        for _ in 0..50 {
            out += window.returned(out / 2, pool(90), false, false) - out / 2;
        }
        assert_eq!(window.size, 50 * (256 << 10));
        for _ in 0..20 {
            window.returned(1 << 20, pool(2), false, false);
        }
        assert!(!window.is_large());
    }

    /// What is on its way of a session that uses all of its credit, when so much came back.
    fn turn(window: &mut Window, crowded: bool) -> usize {
        let back = window.out.min(256 << 10);
        window.returned(back, pool(90), crowded, false);
        window.out
    }

    #[test]
    fn a_window_shrinks_to_a_buffer_while_units_wait_and_grows_again_when_none_do() {
        let mut window = Window::new(RECORD, pool(100));
        let grown = (0..400).map(|_| turn(&mut window, false)).max();
        assert_eq!(grown, Some(50 * (256 << 10)));
        let turns = (0..200).take_while(|_| turn(&mut window, true) > 256 << 10).count();
        assert!((50..200).contains(&turns), "it halves in the time of a window: {turns}");
        assert!(window.is_large());
        assert_eq!(turn(&mut window, true), 256 << 10, "and stays as long as a buffer");
        let turns = (0..200).take_while(|_| turn(&mut window, false) < 8 << 20).count();
        assert!(turns < 150, "it grows by a quarter in the time of a window: {turns}");
    }

    #[test]
    fn what_is_held_back_comes_with_the_next_word_and_words_alone_change_nothing() {
        let mut window = Window::new(RECORD, pool(100));
        assert_eq!(window.returned(0, pool(90), false, true), 0, "nothing came back");
        assert!(!window.is_large());
        (0..50).for_each(|_| _ = turn(&mut window, false));
        window.returned(0, pool(90), false, true);
        let (size, piece) = (window.size, 64 << 10);
        assert_eq!(window.returned(piece, pool(50), false, false), 0, "too little for a word");
        assert_eq!(window.returned(0, pool(2), true, true), piece);
        assert_eq!(window.size, size);
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
            credit = credit - sent + window.returned(sent, pool(0), true, false);
        }
        assert_eq!(credit, RECORD as usize);
    }
}
