//! Packs in which a machine's deduplicated blocks are kept: whether they can be read, and which
//! points can't be had when one can't.
//!
//! A chain of LSNs is whole though a pack that it refers to is lost: another machine sent that, and
//! maybe to another log. Owns remembering where such packs are first needed, looking at them (size,
//! header and index), and taking points away. Doesn't look into frames (`verify --contents` does),
//! nor whether a frame or record is in an intact index (`verify` does).
//!
//! Errs on the safe side: a reference counts even if its block was overwritten before a point, or
//! its session broke off and the record came again otherwise, as in `verify`'s touches.
//!
//! Of packs that were folded only names and sizes are compared.
//!
//! Memory: one entry (some 50 bytes) a pack for each epoch that refers to it, one a pack that was
//! read, and what is wrong with each that can't be.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures::StreamExt;
use tidegate_model::{Epoch, LogId, LogName, Lsn, Name, PackNumber, Point};

use super::{Gap, GapCause, MachinePoints};
use crate::chain::MachineHistory;
use crate::fold::Manifest;
use crate::layout;
use crate::log::{LogError, LogReader, PackRead, Survey};
use crate::pack::{Content, TargetLog};
use crate::restore::target_place;

/// What names a pack.
type PackKey = (LogId, PackNumber);

/// Which packs the records of machines' epochs refer to.
#[derive(Debug, Default)]
pub struct Referred {
    /// For each epoch the packs, with the first LSN that refers to them.
    first: BTreeMap<(Name, Epoch), HashMap<PackKey, Lsn>>,
    /// The logs of these packs.
    logs: HashMap<LogId, LogName>,
    /// Packs that were read: nothing is wrong with them.
    intact: HashSet<PackKey>,
    /// The sizes of packs that were read when they were folded.
    sizes: HashMap<PackKey, u64>,
}

impl Referred {
    /// Takes a pack that was read; references of one machine only, if `only` names it.
    pub fn add_pack(&mut self, pack: &PackRead, only: Option<&Name>) {
        self.intact.insert(pack.place.key());
        // Many references lead to few packs: here they are put together by small keys.
        let mut targets: HashMap<(u16, TargetLog, PackNumber), Lsn> = HashMap::new();
        for record in &pack.index.records {
            if let Content::Reference { target, .. } = &record.content {
                let key = (record.machine, target.log, target.pack);
                let first = targets.entry(key).or_insert(record.lsn);
                *first = record.lsn.min(*first);
            }
        }
        for ((machine, log, number), lsn) in targets {
            let machine = &pack.index.machines[usize::from(machine)];
            if only.is_some_and(|only| *only != machine.name) {
                continue;
            }
            let place = target_place(&pack.place, &pack.index, log, number);
            let epoch = self.first.entry((machine.name.clone(), machine.epoch)).or_default();
            let first = epoch.entry(place.key()).or_insert(lsn);
            *first = lsn.min(*first);
            self.logs.entry(place.log.id).or_insert(place.log);
        }
    }

    /// Takes the packs in which the folded bytes of a machine are kept, its own as well: they were
    /// read once, and it suffices that they are there as they were.
    pub fn add_fold(&mut self, machine: &Name, fold: &Manifest) {
        for folded in &fold.epochs {
            let epoch = self.first.entry((machine.clone(), folded.epoch)).or_default();
            for (place, need) in folded.kept_in() {
                let first = epoch.entry(place.key()).or_insert(need.first);
                *first = need.first.min(*first);
                if need.bytes > 0 {
                    self.sizes.insert(place.key(), need.bytes);
                }
                self.logs.entry(place.log.id).or_insert(place.log);
            }
        }
    }

    /// Looks at the packs that weren't read yet.
    ///
    /// # Errors
    /// [`LogError`] when the store can't be read, or a key or a newer program is needed.
    pub async fn check(self, reader: &LogReader) -> Result<Lacks, LogError> {
        let mut unread: BTreeMap<&LogName, BTreeSet<PackNumber>> = BTreeMap::new();
        for key in self.first.values().flat_map(HashMap::keys) {
            if !self.intact.contains(key) {
                unread.entry(&self.logs[&key.0]).or_default().insert(key.1);
            }
        }
        let mut damaged: HashMap<PackKey, LogError> = HashMap::new();
        let mut dense = BTreeMap::new();
        let machines = unread.keys().filter(|log| layout::is_dense(log)).map(|log| &log.node);
        for machine in machines.collect::<BTreeSet<_>>() {
            dense.append(&mut reader.dense_surveys(machine).await?);
        }
        for (log, numbers) in unread {
            // The listing has the sizes, which tell a pack that was cut.
            let survey = match layout::is_dense(log) {
                true => dense.remove(log).unwrap_or_else(|| Survey::none(log.clone())),
                false => reader.survey(log).await?,
            };
            let as_it_was = |number: &PackNumber| {
                let folded = self.sizes.get(&(log.id, *number));
                folded.is_some_and(|bytes| survey.stored.get(&number.0) == Some(bytes))
            };
            let numbers = numbers.into_iter().filter(|number| !as_it_was(number));
            let mut packs = std::pin::pin!(reader.packs(&survey, numbers.collect()));
            while let Some((place, pack)) = packs.next().await {
                match pack {
                    Ok(_) => {}
                    Err(error) if error.is_damage() => {
                        damaged.insert(place.key(), error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let mut lacks = Lacks::default();
        for (epoch, packs) in self.first {
            let lost = packs.iter().filter_map(|(key, lsn)| Some((*lsn, *key, damaged.get(key)?)));
            let mut lost: Vec<_> = lost.collect();
            lost.sort_by_key(|(lsn, key, _)| (*lsn, *key));
            if !lost.is_empty() {
                let lost = lost.into_iter().map(|(lsn, _, error)| (lsn, error.clone())).collect();
                lacks.0.insert(epoch, lost);
            }
        }
        Ok(lacks)
    }
}

/// For epochs of machines: what is wrong with packs to which they refer, by the first LSN that
/// does. Epochs of which nothing is wrong aren't there.
#[derive(Debug, Default)]
pub struct Lacks(BTreeMap<(Name, Epoch), Vec<(Lsn, LogError)>>);

impl Lacks {
    /// All that is wrong; a pack comes once for each epoch that refers to it.
    pub fn errors(&self) -> impl Iterator<Item = &LogError> {
        self.0.values().flatten().map(|(_, error)| error)
    }

    /// The first place of a lineage that refers to such a pack, and what is wrong with that.
    pub(crate) fn first_in(&self, machine: &Name, lineage: &[Point]) -> Option<(Point, &LogError)> {
        lineage.iter().find_map(|part| {
            let (lsn, error) = self.of(machine, part.epoch).first()?;
            (*lsn <= part.lsn).then_some((Point { epoch: part.epoch, lsn: *lsn }, error))
        })
    }

    fn of(&self, machine: &Name, epoch: Epoch) -> &[(Lsn, LogError)] {
        self.0.get(&(machine.clone(), epoch)).map_or(&[], Vec::as_slice)
    }
}

impl MachinePoints {
    /// Takes away the points that refer to packs that can't be read, in their epochs or in those
    /// that they continue; a gap for each epoch tells of it.
    pub fn withhold(&mut self, history: &MachineHistory, lacks: &Lacks) {
        let mut withheld: BTreeMap<Epoch, (Point, usize)> = BTreeMap::new();
        let machine = self.machine.clone();
        self.points.retain(|offered| {
            let lineage = history.lineage(offered.point).unwrap_or_default();
            let since = lacks.first_in(&machine, &lineage).map(|(since, _)| since);
            if let Some(since) = since {
                withheld.entry(offered.point.epoch).or_insert((since, 0)).1 += 1;
            }
            since.is_none()
        });
        for (epoch, (since, points)) in withheld {
            let [(_, cause), others @ ..] = lacks.of(&machine, since.epoch) else { continue };
            let (cause, others) = (cause.clone(), others.len());
            let cause = GapCause::Referred { since, points, cause, others };
            self.gaps.push(Gap { epoch, cause });
        }
        self.gaps.sort_by_key(|gap| gap.epoch);
    }
}

#[cfg(test)]
mod tests;
