//! The first pass: every index, every gap, every reference.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::StreamExt;
use tidegate_model::{BlockName, Checksum, Counted, FrameNumber, LogName, PackNumber};

use super::folds::Folds;
use super::report::{Counts, Finding, Spot};
use super::{Progress, Steps, VerifyError};
use crate::chain::Traces;
use crate::log::{LogError, LogReader, PackPlace, PackRead, Stated, Survey};
use crate::pack::Content;
use crate::restore::target_place;

/// What the first pass gathers. The names of kept blocks take some 20 bytes each: 300 MB for a
/// tebibyte of 64 KiB blocks.
pub struct Indexes {
    pub surveys: BTreeMap<LogName, Survey>,
    pub counts: Counts,
    pub findings: Vec<Finding>,
    pub traces: Traces,
    /// Logs that say where they end.
    pub closed: HashSet<LogName>,
    names: HashSet<BlockName>,
    /// Packs of which it was told that they can't be read.
    told: HashSet<PackPlace>,
    /// For each log the packs that were looked at.
    seen: HashMap<LogName, HashSet<PackNumber>>,
}

/// What a reference, or an extent of a layer, says of its target.
pub struct Pointer {
    pub frame: FrameNumber,
    pub ordinal: u32,
    pub bytes: u64,
    pub checksum: Checksum,
    /// Its name, where it was found by name.
    pub name: Option<BlockName>,
}

impl Indexes {
    /// Nothing looked at yet.
    pub fn new(surveys: BTreeMap<LogName, Survey>) -> Self {
        Self {
            surveys,
            counts: Counts::default(),
            findings: Vec::new(),
            traces: Traces::default(),
            closed: HashSet::new(),
            names: HashSet::new(),
            told: HashSet::new(),
            seen: HashMap::new(),
        }
    }

    /// Reads every pack that counts. A reference may prove that packs beyond a gap count after
    /// all, so this goes on until nothing new counts.
    pub async fn read(
        &mut self,
        reader: &LogReader,
        folds: &Folds,
        steps: &mut Steps<'_>,
    ) -> Result<(), VerifyError> {
        loop {
            let mut some = false;
            for log in self.surveys.keys().cloned().collect::<Vec<_>>() {
                let seen = self.seen.entry(log.clone()).or_default();
                let counted = self.surveys[&log].counted.packs.iter();
                let new: Vec<_> = counted.copied().filter(|number| seen.insert(*number)).collect();
                some |= !new.is_empty();
                self.read_log(reader, folds, &log, new, steps).await?;
            }
            if !some {
                return Ok(());
            }
        }
    }

    async fn read_log(
        &mut self,
        reader: &LogReader,
        folds: &Folds,
        log: &LogName,
        numbers: Vec<PackNumber>,
        steps: &mut Steps<'_>,
    ) -> Result<(), VerifyError> {
        let survey = self.surveys[log].clone();
        let mut packs = std::pin::pin!(reader.packs(&survey, numbers));
        while let Some((place, pack)) = packs.next().await {
            steps.step(Progress::Index);
            match pack {
                Ok(pack) => self.add(reader, folds, &pack).await?,
                // Since it was listed. Whoever needs it all the same tells of it.
                Err(LogError::Collected(_)) => {}
                Err(error) if error.is_damage() => self.find_pack(&place, &error),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Notes what is wrong with a pack, once.
    fn find_pack(&mut self, place: &PackPlace, error: &LogError) {
        if self.told.insert(place.clone()) {
            self.findings.push(Finding::new(Spot::Pack(place.clone()), error));
        }
    }

    async fn add(
        &mut self,
        reader: &LogReader,
        folds: &Folds,
        pack: &PackRead,
    ) -> Result<(), VerifyError> {
        self.counts.packs += 1;
        if pack.index.last {
            self.closed.insert(pack.place.log.clone());
        }
        self.counts.frames += pack.index.frames.len() as u64;
        self.counts.records += pack.index.records.len() as u64;
        self.counts.stored_bytes += pack.header.object_bytes;
        let mut pointers: BTreeMap<PackPlace, Vec<Pointer>> = BTreeMap::new();
        for record in &pack.index.records {
            match &record.content {
                Content::Kept { extent, name, .. } => self.count_kept(extent.length, *name),
                Content::Reference { extent, checksum, name, target } => {
                    self.counts.references += 1;
                    let place = target_place(&pack.place, &pack.index, target.log, target.pack);
                    pointers.entry(place).or_default().push(Pointer {
                        frame: target.frame,
                        ordinal: target.ordinal,
                        bytes: extent.length,
                        checksum: *checksum,
                        name: Some(*name),
                    });
                }
                _ => {}
            }
        }
        self.traces.add_pack(&pack.place, &pack.index, None);
        for (target, pointers) in pointers {
            self.check_pointers(reader, folds, pack, &target, &pointers).await?;
        }
        Ok(())
    }

    fn count_kept(&mut self, bytes: u64, name: Option<BlockName>) {
        self.counts.kept_bytes += bytes;
        if name.is_some_and(|name| !self.names.insert(name)) {
            self.counts.duplicate_blocks += 1;
            self.counts.duplicate_bytes += bytes;
        }
    }

    /// Every reference leads to a kept record with its name, checksum and length.
    async fn check_pointers(
        &mut self,
        reader: &LogReader,
        folds: &Folds,
        pack: &PackRead,
        target: &PackPlace,
        pointers: &[Pointer],
    ) -> Result<(), VerifyError> {
        if target.log != pack.place.log
            && let Some(survey) = self.surveys.get_mut(&target.log)
        {
            survey.state(Stated::by_reference(target.number));
        }
        let found = match reader.pack(target).await {
            Ok(found) => found,
            Err(error) if error.is_damage() => {
                // What is wrong with the target is told where it lies, unless nobody looks there; and
                // nothing is, where it was collected and what refers to it is folded.
                let told = match error.is_collected() {
                    true => folds.have(pack) || folds.are_outdated(reader, pack).await?,
                    false => self.surveys.contains_key(&target.log),
                };
                if !told {
                    self.find_pack(target, &error);
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let lost = pointers.iter().filter(|pointer| !leads(pointer, &found)).count();
        if lost > 0 {
            let what = format!(
                "{} in {} into {target} can't be followed: no kept record there has their name, checksum and length",
                Counted(lost, "reference"),
                pack.place
            );
            self.findings.push(Finding::new(Spot::Pack(pack.place.clone()), what));
        }
        Ok(())
    }

    /// What the surveys say once everything was read.
    pub fn judge(&mut self) {
        let surveys = std::mem::take(&mut self.surveys);
        for (log, survey) in &surveys {
            self.counts.logs += 1;
            self.counts.leftovers += survey.counted.leftovers.len() as u64;
            for (first, last) in &survey.counted.missing {
                let spot = Spot::Packs(log.clone(), *first, *last);
                let ended = survey.tombstone.filter(|at| (first..=last).contains(&at));
                let what = match ended {
                    Some(at) => LogError::Tombstone(survey.place(at)).to_string(),
                    None => format!("{spot} is missing: it was committed, and isn't there"),
                };
                self.findings.push(Finding::new(spot, what));
            }
            for (place, error) in &survey.damaged {
                self.find_pack(place, error);
            }
        }
        self.surveys = surveys;
    }
}

/// Whether a pointer leads to what it says.
pub fn leads(pointer: &Pointer, target: &PackRead) -> bool {
    let place = target.index.frame_place(pointer.frame);
    let kept = place.and_then(|place| target.index.kept_at(place, pointer.ordinal));
    matches!(
        kept.map(|record| &record.content),
        Some(Content::Kept { extent, checksum, name, .. })
            if extent.length == pointer.bytes
                && *checksum == pointer.checksum
                && pointer.name.is_none_or(|wanted| *name == Some(wanted))
    )
}
