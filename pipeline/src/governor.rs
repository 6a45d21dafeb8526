//! Chooses the compression level, and with it the length of frames, by what is scarce.
//!
//! Pure: it is told from time to time how busy the cores were and how much waits for what, and says
//! which rung to take. Units waiting for a core: lower. Packs waiting for the link while cores idle:
//! as much higher as the idle time pays for, by what rungs are known to cost. A rung that turned out
//! to be too dear isn't tried again for a while, longer each time, so that it settles.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use crate::unit::frame_bytes_for;

/// A level, and about what compressing at it costs, in thousandths of level 1 (programs, 256 KiB
/// frames; from 3 up 4 MiB). Only ratios of neighbours matter, and roughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rung {
    level: i32,
    cost: u32,
}

/// From fast to small. Levels between them gain too little to be worth a step.
const RUNGS: [Rung; 10] = [
    Rung { level: -7, cost: 630 },
    Rung { level: -5, cost: 700 },
    Rung { level: -3, cost: 790 },
    Rung { level: -1, cost: 890 },
    Rung { level: 1, cost: 1000 },
    Rung { level: 3, cost: 1300 },
    Rung { level: 5, cost: 2000 },
    Rung { level: 6, cost: 2500 },
    Rung { level: 9, cost: 4500 },
    Rung { level: 12, cost: 11_000 },
];
/// Where it begins: level 1.
const FIRST_RUNG: usize = 4;
/// The cores must have room for what a higher rung costs, in thousandths of their time.
const BUSY_MAX: u32 = 950;
/// The link is scarce when packs under way fill so much of their buffers, in thousandths; it isn't
/// when they fill less than the other.
const PACKS_MANY: u32 = 600;
const PACKS_FEW: u32 = 400;
/// So many tellings in a row that say the same move it: one alone may be chance.
const TELLINGS: u32 = 2;
/// A rung that was too dear isn't tried again for so many tellings, twice as many each time.
const HOLD_FIRST: u32 = 20;
const HOLD_MAX: u32 = 1280;

/// What was scarce since the last telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scarcity {
    /// How much of their time the cores worked on units, in thousandths.
    pub busy: u32,
    /// Whether units wait for a core.
    pub units_wait: bool,
    /// How much of the buffers for packs is under way to the store, in thousandths.
    pub packs: u32,
}

/// The governor.
#[derive(Debug)]
pub struct Governor {
    rung: usize,
    /// Tellings in a row for a higher rung (positive) or a lower one.
    trend: i64,
    /// The rung that was too dear, and for how many tellings it is still held against it.
    held: Option<(usize, u32)>,
    hold: u32,
}

impl Default for Governor {
    fn default() -> Self {
        Self { rung: FIRST_RUNG, trend: 0, held: None, hold: HOLD_FIRST }
    }
}

impl Governor {
    /// The level to take now.
    #[must_use]
    pub const fn level(&self) -> i32 {
        RUNGS[self.rung].level
    }

    /// Hears what was scarce, and gives the level to take from now on.
    pub fn hear(&mut self, scarcity: &Scarcity) -> i32 {
        self.held = self.held.and_then(|(rung, left)| Some((rung, left.checked_sub(1)?)));
        let higher = self.affordable(scarcity.busy);
        if scarcity.packs >= PACKS_MANY && higher > self.rung {
            self.trend = self.trend.max(0) + 1;
        } else if scarcity.packs < PACKS_FEW && scarcity.units_wait && self.rung > 0 {
            self.trend = self.trend.min(0) - 1;
        } else {
            self.trend = 0;
        }
        if self.trend.unsigned_abs() >= u64::from(TELLINGS) {
            if self.trend > 0 {
                self.rung = higher;
            } else {
                self.step_down();
            }
            self.trend = 0;
        }
        self.level()
    }

    /// The highest rung for which cores that are so busy have the time, below one that is held.
    fn affordable(&self, busy: u32) -> usize {
        let cost = u64::from(RUNGS[self.rung].cost);
        let limit = self.held.map_or(RUNGS.len(), |(rung, _)| rung);
        let fits = |rung: &usize| {
            u64::from(busy) * u64::from(RUNGS[*rung].cost) <= u64::from(BUSY_MAX) * cost
        };
        (self.rung + 1..limit).take_while(fits).last().unwrap_or(self.rung)
    }

    fn step_down(&mut self) {
        let again = self.held.is_none_or(|(rung, _)| rung <= self.rung);
        self.hold = if again { (self.hold * 2).min(HOLD_MAX) } else { HOLD_FIRST };
        self.held = Some((self.rung, self.hold));
        self.rung -= 1;
    }
}

/// The level and the frames that are taken now: where the governor, or who started the program, tells
/// it to cores and sessions.
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
#[path = "governor/tests.rs"]
mod tests;
