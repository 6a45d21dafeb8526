//! Memory in large pages: one fault at its first use where 4 KiB pages take 512, and few misses of
//! the address cache where it is used in no order.
//!
//! A crate of its own for one system call: the pipeline, whose tables and buffers are so large,
//! makes none itself.

use rustix::mm::{Advice, madvise};

/// Asks the kernel to put large pages under `memory`. Only time is at stake: where the kernel has
/// none to give, or was told not to, the memory stays as it is.
pub fn prefer_large_pages<T>(memory: &mut [T]) {
    let page = rustix::param::page_size();
    let all = memory.as_mut_ptr_range();
    let skipped = all.start.cast::<u8>().align_offset(page);
    let Some(bytes) = size_of_val(memory).checked_sub(skipped) else { return };
    let whole_pages = bytes - bytes % page;
    if whole_pages > 0 {
        let begin = all.start.cast::<u8>().wrapping_add(skipped);
        // SAFETY: whole pages within `memory`, which is borrowed for us alone, and the advice
        // changes nothing of what is in them.
        let _ = unsafe { madvise(begin.cast(), whole_pages, Advice::LinuxHugepage) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of the mapping that has `address`: the flags of its pages.
    fn flags(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut here = false;
        for line in maps.lines() {
            let range = line.split_whitespace().next().and_then(|word| word.split_once('-'));
            let number = |text: &str| usize::from_str_radix(text, 16).ok();
            if let Some((Some(begin), Some(end))) = range.map(|(a, b)| (number(a), number(b))) {
                here = (begin..end).contains(&address);
            }
            if here && let Some(flags) = line.strip_prefix("VmFlags:") {
                return flags.to_owned();
            }
        }
        String::new()
    }

    #[test]
    fn the_kernel_hears_it_and_the_contents_stay() {
        let mut memory = vec![7_u64; 1 << 20];
        let middle = (&raw const memory[1 << 19]) as usize;
        assert!(!flags(middle).contains(" hg"));
        prefer_large_pages(&mut memory);
        assert!(flags(middle).contains(" hg"), "{}", flags(middle));
        assert!(memory.iter().all(|word| *word == 7));
    }

    #[test]
    fn less_than_a_page_is_left_alone() {
        prefer_large_pages::<u8>(&mut []);
        prefer_large_pages(&mut [1_u8; 3]);
    }
}
