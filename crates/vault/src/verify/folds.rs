//! What is folded: that it can be read, and that it leads to what the logs hold.
//!
//! A manifest also proves something of the logs: packs that were folded were stored once, whatever
//! the logs themselves say.

use std::collections::BTreeMap;

use tidegate_model::{Counted, Epoch, LogName, Name};

use super::VerifyError;
use super::indexes::{Pointer, leads};
use super::report::{Finding, Spot};
use crate::chain::{MachineHistory, Traces};
use crate::fold::{
    Layer, LayerEntry, LayerSource, Manifest, is_superseded, newest_manifest, read_layer,
};
use crate::layout;
use crate::log::{LogReader, PackRead, Stated, Survey};
use crate::meta::MetaError;

/// The newest manifests of machines.
#[derive(Default)]
pub struct Folds(Vec<(Name, Manifest)>);

impl Folds {
    /// Reads them, before the logs are listed.
    pub async fn read(
        reader: &LogReader,
        histories: &[MachineHistory],
        findings: &mut Vec<Finding>,
    ) -> Result<Self, VerifyError> {
        let mut folds = Vec::new();
        for MachineHistory { machine, .. } in histories {
            let newest = newest_manifest(reader.store(), reader.ring(), machine).await?;
            folds.extend(newest.manifest.map(|manifest| (machine.clone(), manifest)));
            if let Some(error) = newest.damage {
                let spot = Spot::Object(layout::manifest(machine, newest.number));
                findings.push(Finding::new(spot, error));
            }
        }
        Ok(Self(folds))
    }

    /// Each machine's.
    pub fn manifests(&self) -> impl Iterator<Item = (&Name, &Manifest)> {
        self.0.iter().map(|(machine, manifest)| (machine, manifest))
    }

    /// Adds what they prove of the logs.
    pub fn state(&self, surveys: &mut BTreeMap<LogName, Survey>) {
        for folded in self.0.iter().flat_map(|(_, manifest)| &manifest.logs) {
            let none = || Survey::none(folded.log.clone());
            let survey = surveys.entry(folded.log.clone()).or_insert_with(none);
            survey.state(Stated::by_writer(folded.upto));
        }
    }

    /// Puts what they tell of the machines' records among what is read of the logs.
    pub fn seed(&self, traces: &mut Traces) {
        self.0.iter().for_each(|(machine, manifest)| manifest.seed(machine, traces));
    }

    /// Whether all that the pack has is folded: then nobody follows its references any more.
    pub fn have(&self, pack: &PackRead) -> bool {
        let folded = |name: &Name| {
            let mut of = self.0.iter().filter(|(machine, _)| machine == name);
            of.any(|(_, manifest)| manifest.has(&pack.place))
        };
        pack.index.machines.iter().all(|machine| folded(&machine.name))
    }

    /// Whether a machine in the pack was folded so often since that what it needed may have gone.
    pub async fn are_outdated(
        &self,
        reader: &LogReader,
        pack: &PackRead,
    ) -> Result<bool, MetaError> {
        for entry in &pack.index.machines {
            let of = self.0.iter().find(|(machine, _)| *machine == entry.name);
            let number = of.map_or(0, |(_, manifest)| manifest.number);
            if is_superseded(reader.store(), &entry.name, number).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the epochs out of histories of which nothing is kept.
    pub fn let_go(&self, histories: &mut [MachineHistory]) {
        for (history, manifest) in self.of(histories) {
            history.let_go(manifest.gone.iter());
        }
    }

    /// Tells histories that were read from the logs which of their places are kept.
    pub fn retain(&self, histories: &mut [MachineHistory]) {
        for (history, manifest) in self.of(histories) {
            for folded in &manifest.epochs {
                if let Some(told) = history.epochs.get_mut(&folded.epoch) {
                    told.trace.retained = folded.retained.clone();
                }
            }
        }
    }

    fn of<'h>(
        &self,
        histories: &'h mut [MachineHistory],
    ) -> impl Iterator<Item = (&'h mut MachineHistory, &Manifest)> {
        histories.iter_mut().filter_map(|history| {
            let (_, manifest) = self.0.iter().find(|(machine, _)| *machine == history.machine)?;
            Some((history, manifest))
        })
    }

    /// Checks their layers; gives how many there are.
    pub async fn check(
        &self,
        reader: &LogReader,
        findings: &mut Vec<Finding>,
    ) -> Result<u64, VerifyError> {
        let mut count = 0;
        let (store, ring) = (reader.store(), reader.ring());
        for (machine, manifest) in &self.0 {
            let mut found = Vec::new();
            count += check_layers(reader, machine, manifest, &mut found).await?;
            let mut number = manifest.number;
            // What went since, newer manifests don't need.
            while !found.is_empty() && is_superseded(store, machine, number).await? {
                let newest = newest_manifest(store, ring, machine).await?;
                let Some(manifest) = newest.manifest else { break };
                found.clear();
                number = manifest.number;
                check_layers(reader, machine, &manifest, &mut found).await?;
            }
            findings.append(&mut found);
        }
        Ok(count)
    }
}

/// Gives how many there are.
async fn check_layers(
    reader: &LogReader,
    machine: &Name,
    manifest: &Manifest,
    found: &mut Vec<Finding>,
) -> Result<u64, VerifyError> {
    let mut count = 0;
    for epoch in &manifest.epochs {
        let base = epoch.base.iter().flat_map(|base| &base.layers);
        for entry in epoch.layers.iter().chain(base) {
            count += 1;
            check_layer(reader, machine, epoch.epoch, *entry, found).await?;
        }
    }
    Ok(count)
}

async fn check_layer(
    reader: &LogReader,
    machine: &Name,
    epoch: Epoch,
    entry: LayerEntry,
    findings: &mut Vec<Finding>,
) -> Result<(), VerifyError> {
    let spot = || Spot::Object(layout::layer(machine, entry.layer));
    let layer = match read_layer(reader.store(), reader.ring(), machine, epoch, entry).await {
        Ok(layer) => layer,
        Err(error) if error.is_damage() => {
            findings.push(Finding::new(spot(), error));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let mut lost = 0;
    for (place, pointers) in layer.packs.iter().zip(pointers(&layer)) {
        match reader.pack(place).await {
            Ok(pack) => lost += pointers.iter().filter(|pointer| !leads(pointer, &pack)).count(),
            Err(error) if error.is_damage() => {
                if error.is_collected() {
                    let what = format!("{} needs {place}, and that was collected", spot());
                    findings.push(Finding::new(spot(), what));
                }
                // Or else it is told where it lies.
            }
            Err(error) => return Err(error.into()),
        }
    }
    if lost > 0 {
        let what = format!(
            "{}: {} can't be followed: no kept record there has their checksum and length",
            spot(),
            Counted(lost, "extent")
        );
        findings.push(Finding::new(spot(), what));
    }
    Ok(())
}

/// What a layer says of each of its packs.
fn pointers(layer: &Layer) -> Vec<Vec<Pointer>> {
    let mut pointers: Vec<Vec<Pointer>> = layer.packs.iter().map(|_| Vec::new()).collect();
    for found in &layer.extents {
        if let LayerSource::Kept { pack, frame, ordinal, checksum, name } = found.source {
            let bytes = found.extent.length;
            pointers[pack as usize].push(Pointer { frame, ordinal, bytes, checksum, name });
        }
    }
    pointers
}
