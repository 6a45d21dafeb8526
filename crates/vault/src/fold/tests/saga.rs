//! A long life of one machine, over several epochs and many logs, folded at random on the way: at
//! every LSN it comes back as a model says that was changed step by step, and the moments that are
//! offered by LSN or time are those that the model has.

#![allow(clippy::cast_possible_truncation)] // tests run on 64 bits, with small numbers

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_model::{Epoch, Micros};

use super::*;
use crate::gc::{Collecting, collect, read_collected};
use crate::meta::Begins;
use crate::points::{At, MachinePoints};
use crate::testing::change;

/// How many records the life has.
const RECORDS: usize = 10_000;
/// How many LSNs are recovered, unless TIDEGATE_EVERY_LSN is set: that takes some minutes.
const SAMPLED: usize = 250;
/// The disks: small, so that everything is overwritten many times.
const DISK_BYTES: [u64; 2] = [5 * BLOCK + 100, 3 * BLOCK];

/// Numbers that a seed decides.
pub(super) struct Dice(u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn byte_below(&mut self, bound: u64) -> u8 {
        u8::try_from(self.below(bound)).unwrap()
    }

    /// One time in so many.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

pub(super) struct Saga {
    pub vault: TestVault,
    pub dice: Dice,
    pub epochs: Vec<TestMachine>,
    logs: u8,
    pub folds: u64,
    /// When each record was stored first.
    pub stored: BTreeMap<Point, Micros>,
    /// How often garbage was collected, and how many packs went.
    pub collects: u64,
    pub removed: u64,
}

/// How the life is folded.
pub(super) trait Folds {
    /// Folds it; gives how many manifests were made.
    async fn fold(saga: &mut Saga, folding: Folding) -> u64;
}

/// Everything is kept.
struct Keeper;

impl Folds for Keeper {
    async fn fold(saga: &mut Saga, folding: Folding) -> u64 {
        let report = fold(&saga.vault.reader(), &db(), folding, &|_| ()).await.unwrap();
        assert_eq!(report.losses, []);
        u64::from(report.manifest > 0)
    }
}

impl Saga {
    pub fn new() -> Self {
        let seed = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok());
        let dice = Dice(seed.unwrap_or(20_261_121).max(1));
        let (vault, stored) = (TestVault::new(), BTreeMap::new());
        Self { vault, dice, epochs: Vec::new(), logs: 0, folds: 0, stored, collects: 0, removed: 0 }
    }

    fn new_log(&mut self) -> TestLog {
        self.logs += 1;
        TestLog::new(&self.vault, self.logs)
    }

    fn now(&mut self) -> &mut TestMachine {
        self.epochs.last_mut().unwrap()
    }

    /// Begins the next epoch: with a copy, or from a place of one that was before.
    async fn begin_epoch(&mut self) {
        let history = match self.epochs.is_empty() {
            true => None,
            false => Some(history(&self.vault).await),
        };
        let (number, log) = (u32::try_from(self.epochs.len()).unwrap() + 1, self.new_log());
        // A place behind the last epoch is none: one time in so many epochs it is a copy.
        let parent = self.dice.byte_below(number.into());
        let parent = self.epochs.get(usize::from(parent)).and_then(|parent| {
            let history = history.as_ref()?;
            Some((parent, history.epochs.get(&parent.of.1)?.trace.retained.clone()))
        });
        match parent {
            Some((parent, retained)) => {
                let lsn = self.dice.below(parent.stored - 2) + 3;
                // The vault grants nothing else.
                let lsn = if retained.has(Lsn(lsn)) { lsn } else { retained.around(Lsn(lsn)).1.0 };
                let mut child = TestMachine::continuing(parent, lsn, number, log);
                child.states = vec![Model::of(&self.epochs, parent.of.1).at(lsn)];
                self.epochs.push(child);
            }
            None => {
                let mut machine = TestMachine::new("db-1", number, log);
                for (disk_number, bytes) in (0..).zip(DISK_BYTES) {
                    machine.does(Op::Disk(disk(disk_number, bytes)));
                }
                self.epochs.push(machine);
            }
        }
        self.now().marks(BookmarkKind::CopyEnd, true);
    }

    /// One more record.
    fn record(&mut self) {
        let number = self.dice.byte_below(2);
        let size = DISK_BYTES[usize::from(number)];
        let offset = self.dice.below(size);
        let length = (1 + self.dice.below(2 * BLOCK)).min(size - offset);
        let (offset, length) = match self.dice.one_in(3) {
            true => (offset / BLOCK * BLOCK, BLOCK.min(size - offset / BLOCK * BLOCK)),
            false => (offset, length),
        };
        let (range, byte) = (extent(number, offset, length), self.dice.byte_below(255) + 1);
        match self.dice.below(20) {
            0..=2 => drop(self.now().does(Op::Zero(range))),
            3 => drop(self.now().does(Op::Time)),
            4 => {
                let kind = match self.dice.below(4) {
                    0 => BookmarkKind::GapJournalFull,
                    1 => BookmarkKind::GapKilled,
                    _ => BookmarkKind::CrashConsistent,
                };
                self.now().marks(kind, !kind.begins_gap());
            }
            _ => drop(self.now().writes(range, byte)),
        }
        // What the disks were is computed again when it is asked for.
        let machine = self.now();
        let before = machine.states.len() - 2;
        if before > 0 {
            machine.states[before].clear();
        }
    }

    /// What happens between two records.
    async fn between<F: Folds>(&mut self) {
        let Self { vault, dice, epochs, .. } = self;
        if dice.one_in(20) {
            vault.clock.advance(dice.below(30 * 60));
        }
        let machine = epochs.last_mut().unwrap();
        if dice.one_in(8) {
            machine.send(vault);
            machine.log.seal(vault);
        }
        if dice.one_in(15) {
            machine.store(vault).await;
        }
        if dice.one_in(30) {
            // Another machine's records lie in the same packs.
            let (other, place) = (("web-1".parse().unwrap(), Epoch(1)), extent(0, 0, 700));
            machine.log.add(
                vault,
                &other,
                dice.below(1000) + 1,
                &Op::Write(place, vec![9; 700]),
                None,
            );
        }
        if dice.one_in(150) {
            let again = Event::Reconnect(dice.one_in(2), Some(1), dice.below(6));
            apply(vault, machine, &mut self.logs, &again).await;
        }
        self.note_stored();
        if self.dice.one_in(100) {
            self.fold::<F>().await;
        }
    }

    fn note_stored(&mut self) {
        let machine = self.epochs.last().unwrap();
        let now = self.vault.clock.now();
        for lsn in (1..=machine.stored).rev() {
            let point = Point { epoch: machine.of.1, lsn: Lsn(lsn) };
            if self.stored.contains_key(&point) {
                break;
            }
            self.stored.insert(point, now);
        }
    }

    async fn fold<F: Folds>(&mut self) {
        for machine in &self.epochs {
            machine.publish(&self.vault).await;
        }
        let anew = self.dice.one_in(12);
        // All at once, or much or most is left to the next fold.
        let copied_bytes_max = [u64::MAX, 30_000, 0][self.dice.below(3) as usize];
        let folding = Folding { anew, base_extents_min: 50, copied_bytes_max, ..FOLDING };
        self.folds += F::fold(self, folding).await;
    }

    /// Collects garbage. The log in use reads the list, and all others are closed.
    pub async fn collect(&mut self) {
        let Self { vault, epochs, .. } = self;
        let machine = epochs.last_mut().unwrap();
        // What was begun refers to what it knew.
        machine.store(vault).await;
        // What was condemned before is settled, and a list made, before whoever hasn't read it is closed.
        for _ in 0..3 {
            collect(&vault.reader(), Collecting::default()).await.unwrap();
            let collected = read_collected(&vault.store(), &vault.ring).await.unwrap();
            vault.known.retain(|_, (log, target)| !collected.forbids(log, target.pack));
            machine.log.condemned_list = collected.newest;
            machine.does(Op::Time);
            machine.store(vault).await;
        }
        machine.publish(vault).await;
        let how = Collecting { patience: Duration::ZERO, ..Collecting::default() };
        let report = collect(&vault.reader(), how).await.unwrap();
        assert!(!report.outcome.fenced.contains(&machine.log.name), "{report:?}");
        (self.collects, self.removed) = (self.collects + 1, self.removed + report.outcome.removed);
        self.note_stored();
    }

    pub async fn live<F: Folds>(&mut self) {
        self.begin_epoch().await;
        for record in 1..RECORDS {
            self.record();
            self.between::<F>().await;
            if record % (RECORDS / 7) == 0 {
                self.now().marks(BookmarkKind::CrashConsistent, true);
                let Self { vault, epochs, .. } = self;
                epochs.last_mut().unwrap().store(vault).await;
                self.note_stored();
                self.fold::<F>().await;
                self.begin_epoch().await;
            }
        }
        let Self { vault, epochs, .. } = self;
        epochs.last_mut().unwrap().store(vault).await;
        self.note_stored();
        self.fold::<F>().await;
    }
}

/// The disks of one epoch, as they become record by record.
pub(super) struct Model<'s> {
    machine: &'s TestMachine,
    disks: Disks,
    next: usize,
}

impl<'s> Model<'s> {
    pub fn of(epochs: &'s [TestMachine], epoch: Epoch) -> Self {
        let machine = epochs.iter().find(|machine| machine.of.1 == epoch).unwrap();
        Self { machine, disks: machine.states[0].clone(), next: 0 }
    }

    /// The disks after this record, and not before the last that was asked for.
    pub fn at(&mut self, lsn: u64) -> Disks {
        while (self.next as u64) < lsn {
            change(&mut self.disks, &self.machine.ops[self.next]);
            self.next += 1;
        }
        self.disks.clone()
    }
}

/// The LSNs of an epoch that are moments of its disks: behind the copy's end, and in no gap.
pub(super) fn moments(machine: &TestMachine) -> Vec<u64> {
    let (mut copied, mut gap, mut moments) = (false, false, Vec::new());
    for (lsn, op) in (1..).zip(&machine.ops) {
        if let Op::Bookmark(mark) = op {
            copied |= mark.kind == BookmarkKind::CopyEnd;
            gap = mark.kind.begins_gap();
        }
        if copied && !gap {
            moments.push(lsn);
        }
    }
    moments
}

/// The moment that a time asks for: of the last change or bookmark by then. Record n of each epoch is of
/// time n ms.
fn moment_at(epochs: &[TestMachine], time: u64) -> Option<Point> {
    let of_epoch = |machine: &TestMachine| {
        let mut moments = moments(machine).into_iter().filter(|lsn| lsn * 1000 <= time);
        let last = moments.rfind(|lsn| says_more_than_time(machine, *lsn))?;
        Some((last, machine.of.1))
    };
    let (lsn, epoch) = epochs.iter().filter_map(of_epoch).max()?;
    Some(Point { epoch, lsn: Lsn(lsn) })
}

/// Whether a record is a change or a bookmark.
pub(super) fn says_more_than_time(machine: &TestMachine, lsn: u64) -> bool {
    !matches!(machine.ops[(lsn - 1) as usize], Op::Time)
}

/// Asks for some LSNs and times, folded and not.
async fn ask(vault: &TestVault, epochs: &[TestMachine], dice: &mut Dice) {
    let plain = without_manifests(vault).await;
    for vault in [vault, &plain] {
        let (reader, history) = (vault.reader(), history(vault).await);
        let points = MachinePoints::of(&history);
        for _ in 0..30 {
            let machine = &epochs[dice.below(epochs.len() as u64) as usize];
            let lsn = 1 + dice.below(machine.ops.len() as u64);
            let point = Point { epoch: machine.of.1, lsn: Lsn(lsn) };
            let chosen = points.choose(&reader, &history, At::Point(point)).await;
            let is_moment = moments(machine).contains(&lsn);
            assert_eq!(chosen.is_ok_and(|chosen| chosen.clean), is_moment, "{point}");
        }
        for _ in 0..30 {
            let time = dice.below(2_000_000);
            let chosen = points.choose(&reader, &history, At::Time(Micros(time))).await;
            let chosen = chosen.ok().map(|chosen| chosen.point);
            assert_eq!(chosen, moment_at(epochs, time), "at {time}");
        }
    }
}

/// What a machine's disks are brought back to.
pub(super) async fn disks_at(reader: &LogReader, history: &MachineHistory, point: Point) -> Disks {
    let plan = RestorePlan::build(reader, history, point, &[]).await.unwrap();
    let sink = Arc::new(MemorySink::new(plan.disks()));
    plan.run(reader, sink.clone(), Means::default(), &|_| ()).await.unwrap();
    sink.disks()
}

#[test]
fn at_every_lsn_of_ten_thousand_records_the_disks_are_those_of_the_model() {
    run(async {
        let mut saga = Saga::new();
        saga.live::<Keeper>().await;
        assert!(saga.folds > 50 && saga.epochs.len() >= 7, "{} folds", saga.folds);
        let branches = saga.epochs.iter().filter(|m| m.record.begins == Begins::Continue);
        assert!(branches.count() > 2, "several epochs continue others");
        let every = std::env::var_os("TIDEGATE_EVERY_LSN").is_some();
        let (reader, history) = (saga.vault.reader(), history(&saga.vault).await);
        let Saga { vault, mut dice, epochs, .. } = saga;
        ask(&vault, &epochs, &mut dice).await;
        let mut recovered = 0;
        for machine in &epochs {
            let mut model = Model::of(&epochs, machine.of.1);
            for lsn in 1..=machine.ops.len() as u64 {
                let last = lsn == machine.ops.len() as u64;
                if !every && !last && !dice.one_in((RECORDS / SAMPLED) as u64) {
                    continue;
                }
                let point = Point { epoch: machine.of.1, lsn: Lsn(lsn) };
                let disks = disks_at(&reader, &history, point).await;
                assert!(disks == model.at(lsn), "the disks differ at {point}");
                recovered += 1;
            }
        }
        assert!(recovered >= SAMPLED / 2, "{recovered}");
    });
}
