//! The level and the frames that are taken now: where the governor, or who started the program, tells
//! it to cores and sessions.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use crate::unit::frame_bytes_for;

/// What is taken now.
#[derive(Debug)]
pub struct Effort {
    level: AtomicI32,
    frame_bytes: AtomicUsize,
    /// Frames are never longer.
    frame_bytes_max: usize,
    is_fixed: bool,
}

impl Effort {
    /// This level; frames as long as suits it, or as fixed, and no longer than `frame_bytes_max`.
    #[must_use]
    pub fn new(level: i32, fixed_frame: Option<usize>, frame_bytes_max: usize) -> Self {
        let frame_bytes = fixed_frame.unwrap_or_else(|| frame_bytes_for(level));
        Self {
            level: AtomicI32::new(level),
            frame_bytes: AtomicUsize::new(frame_bytes.min(frame_bytes_max)),
            frame_bytes_max,
            is_fixed: fixed_frame.is_some(),
        }
    }

    /// The level to compress at.
    #[must_use]
    pub fn level(&self) -> i32 {
        self.level.load(Ordering::Relaxed)
    }

    /// How long frames of whole blocks in sequence may be.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes.load(Ordering::Relaxed)
    }

    /// Takes another level from now on.
    pub fn set_level(&self, level: i32) {
        self.level.store(level, Ordering::Relaxed);
        if !self.is_fixed {
            let frame_bytes = frame_bytes_for(level).min(self.frame_bytes_max);
            self.frame_bytes.store(frame_bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_the_level_unless_they_are_fixed() {
        let effort = Effort::new(1, None, 4 << 20);
        assert_eq!(effort.frame_bytes(), 256 << 10);
        effort.set_level(3);
        assert_eq!(effort.frame_bytes(), 4 << 20);
        effort.set_level(12);
        assert_eq!(effort.frame_bytes(), 1 << 20);
        let fixed = Effort::new(1, Some(1 << 20), 4 << 20);
        fixed.set_level(3);
        assert_eq!(fixed.frame_bytes(), 1 << 20);
        assert_eq!(Effort::new(3, None, 256 << 10).frame_bytes(), 256 << 10);
    }
}
