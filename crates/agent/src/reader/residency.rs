//! Is a part of a disk in the page cache? Decides between reading through the cache and past it.
//!
//! What is cached is copied faster than any disk can deliver it. What isn't would be copied once
//! more than needed, and would push out of memory what this machine works with. So each window of
//! a disk is looked at before it is read.

use std::fs::File;
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::fd::AsRawFd;

use rustix::io::ReadWriteFlags;

/// How much of a disk is decided about at once: large against a read, small against memory.
pub(super) const WINDOW_BYTES: u64 = 64 << 20;

/// Single pages looked at where the kernel can't count (before 6.5, or another's file). Each that
/// is missing makes the kernel read ahead a little, so they are few.
const PROBES: u64 = 8;

/// Whether at least half of `range` is in the page cache.
pub(super) fn is_mostly_cached(file: &File, range: Range<u64>) -> bool {
    match cached_bytes(file, &range) {
        Some(cached) => cached >= (range.end - range.start) / 2,
        None => probe(file, &range),
    }
}

/// What the kernel counts: `cachestat`, since Linux 6.5. `None` where it can't or won't.
fn cached_bytes(file: &File, range: &Range<u64>) -> Option<u64> {
    /// The same on every architecture.
    const SYS_CACHESTAT: libc::c_long = 451;
    // `struct cachestat_range` of linux/mman.h: offset, length.
    let asked = [range.start, range.end - range.start];
    // `struct cachestat` of linux/mman.h: pages cached, dirty, under writeback, evicted,
    // evicted of late.
    let mut counted = [0_u64; 5];
    // SAFETY: the kernel reads the 16 bytes of `asked` and writes the 40 bytes of `counted`, both
    // of which outlive the call; flags must be 0. A kernel without this call returns ENOSYS.
    let status = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), asked.as_ptr(), counted.as_mut_ptr(), 0)
    };
    (status == 0).then(|| counted[0].saturating_mul(rustix::param::page_size() as u64))
}

/// Looks at a few pages: a read that may not wait succeeds when its page is there.
fn probe(file: &File, range: &Range<u64>) -> bool {
    let step = (range.end - range.start) / PROBES;
    let is_cached = |probe: &u64| {
        let mut byte = [0_u8];
        let offset = range.start + probe * step;
        let into = &mut [IoSliceMut::new(&mut byte)];
        rustix::io::preadv2(file, into, offset, ReadWriteFlags::NOWAIT).is_ok()
    };
    let cached = (0..PROBES).filter(is_cached).count() as u64;
    cached * 2 >= PROBES
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_just_written_is_cached_by_either_way_of_looking() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 1 << 20]).unwrap();
        assert!(is_mostly_cached(&file, 0..1 << 20));
        assert!(probe(&file, &(0..1 << 20)));
    }

    #[test]
    fn what_was_dropped_from_the_cache_is_not() {
        let mut file = tempfile::tempfile_in(".").unwrap();
        file.write_all(&[1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert!(!is_mostly_cached(&file, 0..1 << 20));
    }
}
