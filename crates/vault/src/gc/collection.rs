//! One collection: what it asks for, in which order, and what it concludes. Pure.
//!
//! The order is what makes it right without a clock:
//!
//! 1. *The logs before the machines.* What a pack has, its session's record names, and that was created
//!    before the pack. So what the machines' records don't name wasn't in the packs that were listed.
//! 2. *Pins last.* Who pins a manifest looks afterwards whether it is still the newest. So when a newer
//!    one was seen, the pin of whoever goes on from an older one is there.
//! 3. *A list is settled only when every log that may still grow has read it*: the newest pack that counts
//!    states it. From then on no new reference to a condemned pack comes, and those that came are in packs
//!    that are stored.
//! 4. *Then all is asked again.* What has come to be needed since the list was made is spared.
//!
//! A manifest that is folded later needs nothing else: it is made of what the one before needs, and of
//! the packs behind it.

use std::collections::BTreeMap;

use tidegate_model::{LogName, Name, PackNumber};

use super::needs::{IndexEntry, MachineSeen, Needs, Root};
use super::packs::{PackSet, Ranges};
use super::sieve::Sieve;
use super::step::{Collected, LIST_PACKS_MAX, Step};
use crate::log::PackPlace;

/// How often another may be first.
const TRIES_MAX: u32 = 8;
/// Packs whose indexes are asked for at once: what each says of a hundred machines, some 100 bytes each,
/// takes 3 MB together.
const BATCH_PACKS: usize = if cfg!(test) { 3 } else { 256 };

/// A log, as a collection sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSeen {
    /// The packs that count and weren't removed.
    pub packs: Ranges,
    /// The newest that counts, if there is one.
    pub newest: Option<PackNumber>,
    /// Stored packs that count for nothing and never will: they lie beyond the tombstone.
    pub left_over: Ranges,
    /// The first number that isn't there.
    pub next: PackNumber,
    /// The newest step that its newest pack states; 0 without one.
    pub stated: u64,
    /// Whether it may grow.
    pub end: LogEnd,
}

/// Whether a log may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// A tombstone stands at its end.
    Fenced,
    /// Its owner ended it.
    Last,
    /// It may.
    Open {
        /// Whether its run began so lately that its owner may still be about to read the list.
        is_young: bool,
    },
}

/// What a collection wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// How far collections have come.
    Collected,
    /// Every log of every run, and every log that is there.
    Logs,
    /// Every machine: the records of its epochs and sessions, then its newest manifest.
    Machines,
    /// What those need who have pinned a manifest.
    Pins,
    /// To what the packs of these logs refer, from these on.
    References(BTreeMap<LogName, PackNumber>),
    /// What the indexes of these packs say, [`BATCH_PACKS`] at most.
    Indexes(PackSet),
    /// That this step is created, unless there is one of its number.
    Create(Step),
    /// That these logs are closed: a tombstone where each would grow, unless something is there.
    Fence(Vec<(LogName, PackNumber)>),
    /// That what is stored of these packs is deleted.
    Delete(PackSet),
    /// Nothing more.
    Nothing,
}

/// The answer to each [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Ask::Collected`].
    Collected {
        /// How far.
        collected: Collected,
        /// Whether the open list has been there for so long that who hasn't read it is closed.
        late: bool,
    },
    /// To [`Ask::Logs`].
    Logs(BTreeMap<LogName, LogSeen>),
    /// To [`Ask::Machines`].
    Machines(BTreeMap<Name, MachineSeen>),
    /// To [`Ask::Pins`].
    Pins(Vec<Root>),
    /// To [`Ask::References`].
    References(PackSet),
    /// To [`Ask::Indexes`]; and the packs, none of them newer in their log, that are to be asked for again.
    Indexes(Vec<(PackPlace, Vec<IndexEntry>)>, PackSet),
    /// To [`Ask::Create`]: whether it was created.
    Created(bool),
    /// To [`Ask::Fence`].
    Fenced,
    /// To [`Ask::Delete`].
    Deleted,
}

/// What a collection came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Packs that were condemned.
    pub condemned: u64,
    /// Packs that were removed.
    pub removed: u64,
    /// Packs of a list that were spared: somebody has come to need them.
    pub spared: u64,
    /// Logs that haven't read the open list yet.
    pub waits_for: Vec<LogName>,
    /// Logs that were closed.
    pub fenced: Vec<LogName>,
    /// Packs that nobody needs but a server that is asked how far a machine's epoch goes.
    pub last_words: u64,
    /// Packs that only machines have that the vault doesn't know.
    pub unknown: u64,
    /// Why nothing may be collected: a pack has records of a machine that nothing accounts for.
    pub unnamed: Option<(PackPlace, Name)>,
    /// Why nothing may be collected: this log states a step, and there is none of that number.
    pub lost_step: Option<(LogName, u64)>,
    /// Why nothing may be collected: this pack was removed, and this machine needs it. What has folded
    /// it is lost.
    pub lost_fold: Option<(PackPlace, Name)>,
    /// Others collected all the time.
    pub contended: bool,
}

/// One collection.
#[derive(Debug, Default)]
pub struct Collection {
    collected: Collected,
    late: bool,
    logs: BTreeMap<LogName, LogSeen>,
    machines: BTreeMap<Name, MachineSeen>,
    needs: Needs,
    /// The packs that nobody needs, but for those that were looked into.
    candidates: PackSet,
    sieve: Sieve,
    /// What the step has that is to be created.
    created: Option<Step>,
    /// Whether it has condemned.
    condemned: bool,
    /// It wants nothing more once it has deleted.
    ends: bool,
    tries: u32,
    /// The newest step when a log stated a later one.
    doubted: Option<u64>,
    outcome: Outcome,
}

impl Collection {
    /// What it wants first.
    #[must_use]
    pub const fn begin(&self) -> Ask {
        Ask::Collected
    }

    /// What it came to.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        self.outcome
    }

    /// Takes an answer to what it wanted, and says what it wants next.
    pub fn told(&mut self, answer: Answer) -> Ask {
        match answer {
            Answer::Collected { collected, late } => {
                (self.collected, self.late) = (collected, late);
                Ask::Logs
            }
            Answer::Logs(logs) => self.told_logs(logs),
            Answer::Fenced => Ask::Logs,
            Answer::Machines(machines) => {
                self.machines = machines;
                self.outcome.lost_fold = self.lost_fold();
                // What is stored contradicts itself: nothing is touched.
                if self.outcome.lost_fold.is_some() { Ask::Nothing } else { Ask::Pins }
            }
            Answer::Pins(pinned) => {
                self.needs = Needs::default();
                let now = self.machines.values().map(|machine| &machine.root);
                now.chain(&pinned).for_each(|root| self.needs.add(root));
                Ask::References(self.needs.tails.clone())
            }
            Answer::References(packs) => {
                self.needs.packs.add_all(&packs);
                (self.candidates, self.sieve) = (self.candidates(), self.new_sieve());
                Ask::Indexes(self.batch())
            }
            Answer::Indexes(packs, left) => {
                self.candidates.add_all(&left);
                self.told_indexes(packs)
            }
            Answer::Created(created) => self.told_created(created),
            Answer::Deleted if self.ends || self.condemned => Ask::Nothing,
            Answer::Deleted => Ask::Collected,
        }
    }

    fn told_logs(&mut self, logs: BTreeMap<LogName, LogSeen>) -> Ask {
        self.logs = logs;
        let beyond = self.logs.iter().find(|(_, seen)| seen.stated > self.collected.newest);
        if let Some((log, seen)) = beyond {
            let step = (log.clone(), seen.stated);
            // Others may have created it since: then it is there when that is asked again.
            if self.doubted.replace(self.collected.newest) == Some(self.collected.newest) {
                self.outcome.lost_step = Some(step);
                return Ask::Nothing;
            }
            return Ask::Collected;
        }
        let Some(list) = self.collected.open_list() else { return Ask::Machines };
        let waits: Vec<Waits> = waits(list, &self.logs).collect();
        if waits.is_empty() {
            return Ask::Machines;
        }
        let silent = waits.iter().filter(|waits| self.late && !waits.is_young);
        let silent: Vec<_> = silent.map(|waits| (waits.log.clone(), waits.next)).collect();
        if !silent.is_empty() && self.outcome.fenced.is_empty() {
            self.outcome.fenced = silent.iter().map(|(log, _)| log.clone()).collect();
            return Ask::Fence(silent);
        }
        self.outcome.waits_for = waits.into_iter().map(|waits| waits.log).collect();
        self.end()
    }

    /// The packs that nobody needs: of the open list if there is one, or else of all.
    fn candidates(&self) -> PackSet {
        let needless = |place: &PackPlace| !self.needs.has(place);
        if self.collected.open_list().is_some() {
            let condemned = self.collected.condemned.places();
            return condemned
                .filter(|place| {
                    needless(place) && !self.is_left_over(place) && self.is_stored(place)
                })
                .collect();
        }
        let stored = self.logs.iter().flat_map(|(log, seen)| {
            let packs = seen.packs.runs().flat_map(|(first, last)| first.0..=last.0);
            packs.map(|number| PackPlace { log: log.clone(), number: PackNumber(number) })
        });
        stored.filter(needless).collect()
    }

    /// Where packs aren't condemned yet, last words stay.
    fn new_sieve(&self) -> Sieve {
        match self.collected.open_list() {
            None => Sieve::condemning(self.speakers()),
            Some(_) => Sieve::default(),
        }
    }

    /// Takes the next candidates, the newest of a log first.
    fn batch(&mut self) -> PackSet {
        self.candidates.take_last(BATCH_PACKS)
    }

    /// The newest packs of logs say what these have read, and whether they have ended: they stay.
    fn speakers(&self) -> PackSet {
        let open = self.logs.iter().filter(|(_, seen)| seen.end != LogEnd::Fenced);
        let newest = open.filter_map(|(log, seen)| Some((log, seen.newest?)));
        newest.map(|(log, number)| PackPlace { log: log.clone(), number }).collect()
    }

    /// Whether the pack lies beyond its log's tombstone: it counts for nothing, whatever it has; unless a
    /// manifest names it all the same, as where a pack before it was lost.
    fn is_left_over(&self, place: &PackPlace) -> bool {
        let beyond = self.logs.get(&place.log).is_some_and(|log| log.left_over.has(place.number));
        beyond && !self.needs.packs.has(place)
    }

    fn is_stored(&self, place: &PackPlace) -> bool {
        self.logs.get(&place.log).is_some_and(|log| log.packs.has(place.number))
    }

    /// Whether a condemned pack may go without a look into it: it counts for nothing, or has gone.
    fn goes_unseen(&self, place: &PackPlace) -> bool {
        let is_there = self
            .logs
            .get(&place.log)
            .is_some_and(|log| log.packs.has(place.number) || log.left_over.has(place.number));
        self.is_left_over(place) || !is_there && !self.needs.has(place)
    }

    fn told_indexes(&mut self, packs: Vec<(PackPlace, Vec<IndexEntry>)>) -> Ask {
        self.sieve.add(packs, &self.machines);
        let is_full = self.sieve.sieved.passed.count() >= LIST_PACKS_MAX as u64;
        let is_condemning = self.collected.open_list().is_none();
        let is_done = self.candidates.is_empty() || is_condemning && is_full;
        if self.sieve.sieved.unnamed.is_none() && !is_done {
            return Ask::Indexes(self.batch());
        }
        let sieved = std::mem::take(&mut self.sieve).sieved;
        if sieved.unnamed.is_some() {
            self.outcome.unnamed = sieved.unnamed;
            return self.end();
        }
        if is_condemning {
            (self.outcome.last_words, self.outcome.unknown) = (sieved.last_words, sieved.unknown);
        }
        let number = self.collected.newest + 1;
        let packs = match self.collected.open_list() {
            Some(_) => {
                let mut removed = self.collected.removed.clone();
                removed.add_all(&sieved.passed);
                let condemned = self.collected.condemned.places();
                let unseen = condemned.filter(|place| self.goes_unseen(place));
                unseen.for_each(|place| removed.add(&place));
                removed
            }
            None if self.condemned => return self.end(),
            None => {
                let mut condemned = sieved.passed;
                let left_over = self.logs.iter().flat_map(|(log, seen)| {
                    let numbers = seen.left_over.runs().flat_map(|(first, last)| first.0..=last.0);
                    numbers.map(|number| PackPlace { log: log.clone(), number: PackNumber(number) })
                });
                let left_over = left_over.filter(|place| self.is_left_over(place));
                left_over.for_each(|place| condemned.add(&place));
                condemned
            }
        };
        let step = Step { number, packs };
        if step.condemns() && step.packs.is_empty() {
            return self.end();
        }
        self.created = Some(step.clone());
        Ask::Create(step)
    }

    fn told_created(&mut self, created: bool) -> Ask {
        let Some(step) = self.created.take() else { return Ask::Nothing };
        if !created {
            self.tries += 1;
            self.outcome.contended = self.tries >= TRIES_MAX;
            return if self.outcome.contended { self.end() } else { Ask::Collected };
        }
        if step.condemns() {
            self.condemned = true;
            self.outcome.condemned += step.packs.count();
            return Ask::Collected;
        }
        let removed = step.packs.count() - self.collected.removed.count();
        self.outcome.removed += removed;
        self.outcome.spared += self.collected.condemned.count() - removed;
        Ask::Delete(step.packs)
    }

    /// A pack that was removed, and that a machine needs which hasn't folded it.
    fn lost_fold(&self) -> Option<(PackPlace, Name)> {
        self.machines.iter().find_map(|(machine, seen)| {
            seen.root.tails.iter().find_map(|(log, first)| {
                let number = self.collected.removed.of(log)?.next(*first)?;
                // What lay beyond a tombstone nobody needed.
                let counted = self.logs.get(log).is_none_or(|log| number < log.next);
                counted.then(|| (PackPlace { log: log.clone(), number }, machine.clone()))
            })
        })
    }

    /// Ends with what others may have left.
    fn end(&mut self) -> Ask {
        self.ends = true;
        Ask::Delete(self.collected.removed.clone())
    }
}

/// A log that may still refer to what a list condemns.
struct Waits {
    log: LogName,
    /// Where it would grow.
    next: PackNumber,
    is_young: bool,
}

/// The logs that may still refer to what `list` condemns.
fn waits(list: u64, logs: &BTreeMap<LogName, LogSeen>) -> impl Iterator<Item = Waits> + '_ {
    logs.iter().filter_map(move |(log, seen)| match seen.end {
        LogEnd::Open { is_young } if seen.stated < list => {
            Some(Waits { log: log.clone(), next: seen.next, is_young })
        }
        _ => None,
    })
}
