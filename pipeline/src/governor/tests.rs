//! The governor before a model of cores, packs and a link, for each kind of data: it must settle, and
//! be nearly as fast as the best fixed level.

use super::*;

/// Milliseconds between tellings.
const TELLING_MS: u64 = 50;
const CORES: f64 = 2.0;
/// Bytes that packs under way may have.
const PACK_BYTES: f64 = 7.0 * 16e6;
const INPUT_BYTES: f64 = 4e9;
/// Everything but compression, in nanoseconds a byte.
const REST: f64 = 0.6;

/// Of each rung: nanoseconds a byte, and what is left of a byte.
type Data = [(f64, f64); RUNGS.len()];

/// As measured with program files (facts of the peers; beyond 3 with 4 MiB frames).
const TEXT: Data = [
    (1.20, 0.62),
    (1.32, 0.58),
    (1.49, 0.54),
    (1.71, 0.50),
    (1.94, 0.46),
    (2.55, 0.41),
    (4.00, 0.40),
    (4.70, 0.395),
    (9.00, 0.390),
    (25.0, 0.385),
];
/// Kept as it is, whatever the level.
const RANDOM: Data = [(0.05, 1.0); RUNGS.len()];

/// Half of each.
fn mixed() -> Data {
    let half = |at: usize| {
        let ((a, b), (c, d)) = (TEXT[at], RANDOM[at]);
        (f64::midpoint(a, c), f64::midpoint(b, d))
    };
    std::array::from_fn(half)
}

struct Run {
    seconds: f64,
    /// Changes of the rung in the second half of it.
    late_changes: usize,
}

/// Sends all input over a link of so many bytes a second, at a fixed rung or a governed one.
fn run(data: &Data, link: f64, fixed: Option<usize>) -> Run {
    let mut governor = Governor::default();
    let (mut left, mut packs, mut now_ms) = (INPUT_BYTES, 0.0, 0_u64);
    let (mut worked, mut changes) = (0.0, Vec::new());
    while left > 0.0 || packs > 0.0 {
        let (cost, ratio) = data[fixed.unwrap_or(governor.rung)];
        // In a millisecond: what the cores can do, and what packs have room for.
        let can = CORES * 1e6 / (cost + REST);
        let room = (PACK_BYTES - packs) / ratio;
        let done = can.min(room).min(left).max(0.0);
        left -= done;
        worked += done / can;
        packs += done * ratio;
        packs = (packs - link / 1e3).max(0.0);
        now_ms += 1;
        if now_ms.is_multiple_of(TELLING_MS) {
            #[allow(clippy::cast_possible_truncation)] // a part lies between 0 and 1
            let permille = |part: f64| (part * 1000.0) as u32;
            let busy = permille(worked / TELLING_MS as f64);
            let scarcity = Scarcity {
                busy,
                units_wait: busy > 990 && left > 0.0,
                packs: permille(packs / PACK_BYTES),
            };
            let before = governor.rung;
            governor.hear(&scarcity);
            if governor.rung != before {
                changes.push(now_ms);
            }
            worked = 0.0;
        }
        assert!(now_ms < 10_000_000, "it ends");
    }
    let late = changes.iter().filter(|at| **at > now_ms / 2).count();
    Run { seconds: now_ms as f64 / 1e3, late_changes: late }
}

#[test]
fn it_is_nearly_as_fast_as_the_best_fixed_level_whatever_link_and_data_are() {
    let (mut governed, mut fixed) = (0.0, [0.0; RUNGS.len()]);
    for link in [2e9, 60e6] {
        for data in [TEXT, RANDOM, mixed()] {
            let all: Vec<f64> =
                (0..RUNGS.len()).map(|rung| run(&data, link, Some(rung)).seconds).collect();
            let best = all.iter().copied().fold(f64::INFINITY, f64::min);
            let own = run(&data, link, None);
            assert!(own.seconds <= 1.05 * best, "{} s at {link}; {all:?}", own.seconds);
            assert!(own.late_changes <= 2, "{} changes at {link}", own.late_changes);
            governed += own.seconds;
            all.iter().zip(&mut fixed).for_each(|(one, sum)| *sum += one);
        }
    }
    assert!(fixed.iter().all(|sum| governed <= *sum), "{governed} of {fixed:?}");
}

#[test]
fn it_settles_at_links_of_any_rate() {
    for link in (1..60).map(|step| f64::from(step) * 20e6) {
        for data in [TEXT, mixed()] {
            let own = run(&data, link, None);
            let all = (0..RUNGS.len()).map(|rung| run(&data, link, Some(rung)).seconds);
            let best = all.fold(f64::INFINITY, f64::min);
            assert!(own.seconds <= 1.1 * best, "{} s of {best} at {link}", own.seconds);
            assert!(own.late_changes <= 8, "{} changes at {link}", own.late_changes);
        }
    }
}

#[test]
fn nothing_scarce_changes_nothing() {
    let mut governor = Governor::default();
    for busy in [0, 300, 700, 1000] {
        for packs in [0, 300, 500] {
            governor.hear(&Scarcity { busy, units_wait: false, packs });
        }
    }
    assert_eq!(governor.level(), 1);
}

#[test]
fn one_telling_alone_moves_nothing() {
    let mut governor = Governor::default();
    let scarce = Scarcity { busy: 1000, units_wait: true, packs: 0 };
    let idle = Scarcity { units_wait: false, ..scarce };
    for _ in 0..10 {
        governor.hear(&scarce);
        governor.hear(&idle);
    }
    assert_eq!(governor.level(), 1);
    governor.hear(&scarce);
    assert!(governor.hear(&scarce) < 1);
}

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
