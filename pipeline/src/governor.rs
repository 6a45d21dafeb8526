//! Chooses the compression level, and with it the length of frames, by what is scarce.
//!
//! Pure: it is told from time to time what the cores did and what waits for what, and says which rung
//! to take. A byte takes its time on the cores ([`Data::on_cores`]) and its time on the link (what is
//! left of it, over the link's rate, [`Link`]). Both work at once, so the longer of the two counts; of
//! the other as much as shows at the ends of a burst, where one waits for the other's first bytes or
//! last ones. The rung is taken whose bytes are through soonest. What it costs and saves at the rung
//! that is taken is measured; what another would do comes from a table ([`rungs`]).
//!
//! It decides only while something is scarce: units wait for a core from one telling to the next, or
//! packs fill their buffers. It learns of data only where there are enough: the end of a burst, when
//! packs merely drain, changes nothing, and the next burst begins with what the last one taught. Before
//! a pack was stored nothing is known of the link, and it stays where it is.

mod effort;
mod link;
mod rungs;

use std::time::Duration;

pub use self::effort::Effort;
pub use self::link::Link;
use self::rungs::Effect;

/// The link is scarce when packs under way fill so much of their buffers, in thousandths.
const PACKS_MANY: u32 = 600;
/// Until the link has the first packs of a burst, so much time passes: the usual age of a pack. Where a
/// burst has lasted no longer, cores and link work one after the other.
const FILL: Duration = Duration::from_millis(250);
/// A rung must promise to be faster by this: bytes differ, and so do measurements.
const GAIN_MIN: f64 = 0.05;
/// While packs fill their buffers and no unit waits the cores have time to spare, and to climb for a
/// little is worth it; where that has lasted for so long that it isn't just a burst's end.
const GAIN_MIN_SPARE: f64 = 0.002;
const SPARE_AFTER: Duration = Duration::from_secs(2);
/// A rung to which it climbed and that was too dear isn't tried again for so many tellings of work,
/// twice as many each time, but for one that comes after four times as many.
const HOLD_FIRST: u32 = 20;
const HOLD_MAX: u32 = 1280;
/// Tellings of less work than this teach nothing: a thousandth of what cores can do in one, or so.
const TELLING_BYTES_MIN: u64 = 1_000_000;
/// What was measured so many bytes ago counts half, about: a few tellings at full speed.
const MEMORY_BYTES: f64 = 64e6;

/// What was done and what was scarce since the last telling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scarcity {
    /// The time between the two.
    pub elapsed: Duration,
    /// What was worked on.
    pub work: Work,
    /// Whether units wait for a core.
    pub units_wait: bool,
    /// How much of the buffers for packs is under way to the store, in thousandths.
    pub packs: u32,
    /// Bytes a second that the link takes ([`Link::rate`]); `None` while nothing is known of it.
    pub link: Option<f64>,
}

/// Units that were worked on, and how long the cores took, as if each had done an equal part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes that came.
    pub bytes: u64,
    /// Bytes that are left of them, for the store.
    pub left_bytes: u64,
    /// How long they were compressed.
    pub compress: Duration,
    /// How long everything else about them took.
    pub rest: Duration,
}

/// The governor.
#[derive(Debug)]
pub struct Governor {
    rung: usize,
    /// The data, at the rung that is taken.
    data: Option<Data>,
    /// Units waited at the last telling.
    units_waited: bool,
    /// How long the burst has lasted; halved with each telling in which nothing happens.
    lasted: Duration,
    held: Held,
}

/// What it learnt of rungs that are too dear, in tellings of work.
#[derive(Debug)]
struct Held {
    /// It isn't to climb to this one, or beyond, for so long.
    rung: Option<usize>,
    since: u32,
    hold: u32,
    /// Whether the last move was up.
    has_climbed: bool,
}

/// What a byte takes of a core's time, in nanoseconds, and what is saved of it.
#[derive(Debug, Clone, Copy)]
struct Data {
    /// What cores do beside units, sessions above all: known while they have no rest.
    beside: f64,
    rest: f64,
    effect: Effect,
}

impl Default for Governor {
    fn default() -> Self {
        let held = Held { rung: None, since: 0, hold: HOLD_FIRST, has_climbed: false };
        Self { rung: rungs::FIRST, data: None, units_waited: false, lasted: Duration::ZERO, held }
    }
}

impl Governor {
    /// The level to take now.
    #[must_use]
    pub const fn level(&self) -> i32 {
        rungs::level(self.rung)
    }

    /// Hears what was scarce, and gives the level to take from now on.
    pub fn hear(&mut self, scarcity: &Scarcity) -> i32 {
        let no_rest = scarcity.units_wait && self.units_waited;
        self.units_waited = scarcity.units_wait;
        let has_work = scarcity.work.bytes >= TELLING_BYTES_MIN;
        let packs_many = scarcity.packs >= PACKS_MANY;
        if has_work {
            self.held.pass();
            self.learn(scarcity, no_rest);
        }
        self.lasted = if has_work || packs_many {
            self.lasted.saturating_add(scarcity.elapsed)
        } else {
            self.lasted / 2
        };
        let is_scarce = no_rest || (packs_many && has_work);
        if let (Some(link), Some(data), true) = (scarcity.link, self.data, is_scarce) {
            let spare = !no_rest && self.lasted >= SPARE_AFTER;
            self.decide(data, link, if spare { GAIN_MIN_SPARE } else { GAIN_MIN });
        }
        self.level()
    }

    /// What the data are like, at the rung that is taken.
    fn learn(&mut self, scarcity: &Scarcity, no_rest: bool) {
        let work = &scarcity.work;
        let bytes = float(work.bytes);
        let each = |time: Duration| time.as_secs_f64() * 1e9 / bytes;
        let beside = each(scarcity.elapsed.saturating_sub(work.compress + work.rest));
        let saved = (1.0 - float(work.left_bytes) / bytes).max(0.0);
        let effect = Effect { compress: each(work.compress), saved };
        let fresh = Data { beside: 0.0, rest: each(work.rest), effect };
        let data = self.data.get_or_insert(fresh);
        let part = bytes / (bytes + MEMORY_BYTES);
        let blend = |old: &mut f64, new: f64| *old += (new - *old) * part;
        if no_rest {
            blend(&mut data.beside, beside);
        }
        blend(&mut data.rest, fresh.rest);
        blend(&mut data.effect.compress, effect.compress);
        blend(&mut data.effect.saved, saved);
    }

    /// Takes the rung whose bytes are through soonest, if that is worth a move: up, for `gain_min`.
    fn decide(&mut self, data: Data, link: f64, gain_min: f64) {
        let ends = FILL.as_secs_f64() / (FILL + self.lasted).as_secs_f64();
        let predicted =
            |to: usize| Data { effect: rungs::predict(self.rung, to, data.effect), ..data };
        let time = |to: usize| predicted(to).time(link, ends);
        let rungs = 0..=rungs::reach(self.rung).min(self.held.limit()).max(self.rung);
        let Some(to) = rungs.min_by(|one, other| time(*one).total_cmp(&time(*other))) else {
            return;
        };
        let gain_min = if to > self.rung { gain_min } else { GAIN_MIN };
        if time(to) < time(self.rung) * (1.0 - gain_min) {
            self.held.moved(self.rung, to);
            (self.data, self.rung) = (Some(predicted(to)), to);
        }
    }
}

impl Held {
    fn pass(&mut self) {
        self.since = self.since.saturating_add(1);
        self.rung = self.rung.filter(|_| self.since < self.hold);
    }

    /// The highest rung to which it may climb.
    fn limit(&self) -> usize {
        self.rung.map_or(usize::MAX, |rung| rung.saturating_sub(1))
    }

    fn moved(&mut self, from: usize, to: usize) {
        if to < from && self.has_climbed {
            let is_new = self.since >= self.hold * 4;
            self.hold = if is_new { HOLD_FIRST } else { (self.hold * 2).min(HOLD_MAX) };
            (self.rung, self.since) = (Some(from), 0);
        }
        self.has_climbed = to > from;
    }
}

impl Data {
    fn on_cores(&self) -> f64 {
        self.beside + self.rest + self.effect.compress
    }

    /// How long a byte takes with a link of so many bytes a second, in nanoseconds, if so much of a
    /// burst is its ends.
    fn time(&self, link: f64, ends: f64) -> f64 {
        let (cores, sent) = (self.on_cores(), (1.0 - self.effect.saved) * 1e9 / link);
        cores.max(sent) + cores.min(sent) * ends
    }
}

#[allow(clippy::cast_precision_loss)] // bytes of a telling
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
#[path = "governor/tests.rs"]
mod tests;
