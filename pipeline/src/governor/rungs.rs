//! What each level costs and saves, beside the others.
//!
//! Only ratios count: what the data at hand cost and save is measured at the rung that is taken, and
//! these tell what it would be at another. One that is better than they say at one rung is better than
//! they say from everywhere, so that an error in them makes the governor settle a rung beside the best,
//! and never swing.

/// A level; about what compressing at it costs, in thousandths of level 1; and what it saves, in
/// thousandths of the bytes (programs, 256 KiB frames; from 3 up 4 MiB).
#[derive(Debug, Clone, Copy)]
struct Rung {
    level: i32,
    cost: f64,
    saving: f64,
}

const fn at(level: i32, cost: f64, saving: f64) -> Rung {
    Rung { level, cost, saving }
}

/// How many there are.
pub(super) const COUNT: usize = 10;
/// From fast to small. Levels between them gain too little to be worth a step.
const RUNGS: [Rung; COUNT] = [
    at(-7, 630.0, 380.0),
    at(-5, 700.0, 420.0),
    at(-3, 790.0, 460.0),
    at(-1, 890.0, 500.0),
    at(1, 1000.0, 540.0),
    at(3, 1300.0, 590.0),
    at(5, 2000.0, 600.0),
    at(6, 2500.0, 605.0),
    at(9, 4500.0, 610.0),
    at(12, 11_000.0, 615.0),
];
/// Where it begins: level 1.
pub(super) const FIRST: usize = 4;
/// Going up, costs grow by no more than this at once, or by one rung: what is far is known roughly.
const CLIMB_MAX: f64 = 1.6;
/// What a rung does to a byte: compressing it takes so many nanoseconds, and so much of it is saved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Effect {
    pub compress: f64,
    pub saved: f64,
}

/// Its level.
pub(super) const fn level(rung: usize) -> i32 {
    RUNGS[rung].level
}

/// The highest to which one may climb at once.
pub(super) fn reach(from: usize) -> usize {
    let most = RUNGS[from].cost * CLIMB_MAX;
    let near = (from + 1..COUNT).take_while(|to| RUNGS[*to].cost <= most).last();
    near.unwrap_or(from + 1).min(COUNT - 1)
}

/// What `to` would do with data with which `from` does this.
pub(super) fn predict(from: usize, to: usize, effect: Effect) -> Effect {
    let (from, to) = (RUNGS[from], RUNGS[to]);
    // Data that shrink to nearly nothing have little left to be saved.
    let saved = (effect.saved * to.saving / from.saving).min(f64::midpoint(1.0, effect.saved));
    Effect { compress: effect.compress * to.cost / from.cost, saved }
}
