//! Dense packs: that those can be read which a manifest names, and which points damage of them touches.
//!
//! Those that nothing names were left by a fold that was killed, or are needed by the manifest before.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::{FrameNumber, LogName, Lsn, Name};

use super::folds::Folds;
use super::report::{Finding, Spot};
use super::{Progress, Steps, VerifyError};
use crate::fold::{FoldedEpoch, LayerEntry, LayerSource, read_layer};
use crate::layout;
use crate::log::{LogError, LogReader, PackPlace, Survey};

impl Folds {
    /// The dense packs that are named, each as a log by itself, and what of them isn't there.
    pub async fn dense(
        &self,
        reader: &LogReader,
        findings: &mut Vec<Finding>,
    ) -> Result<BTreeMap<LogName, Survey>, VerifyError> {
        let mut surveys = BTreeMap::new();
        for (machine, manifest) in self.manifests() {
            let mut stored = reader.dense_surveys(machine).await?;
            let named = manifest.epochs.iter().flat_map(FoldedEpoch::kept_in);
            let named = named.map(|(place, _)| place).filter(|place| layout::is_dense(&place.log));
            for place in named.collect::<BTreeSet<_>>() {
                match stored.remove(&place.log) {
                    Some(survey) => drop(surveys.insert(place.log, survey)),
                    None => {
                        let spot = Spot::Pack(place.clone());
                        findings.push(Finding::new(spot, LogError::Missing(place)));
                    }
                }
            }
        }
        Ok(surveys)
    }
}

/// Checks the heads of dense packs.
pub async fn check(
    reader: &LogReader,
    surveys: &BTreeMap<LogName, Survey>,
    steps: &mut Steps<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), VerifyError> {
    for survey in surveys.values() {
        for (number, bytes) in survey.counted.packs.iter().zip(survey.stored.values()) {
            steps.step(Progress::Index);
            let place = survey.place(*number);
            match reader.sized_pack(&place, Some(*bytes)).await {
                Ok(_) => {}
                Err(error) if error.is_damage() => {
                    findings.push(Finding::new(Spot::Pack(place), error));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Fills in which records damaged dense packs have. Only run when there is damage.
pub async fn touch(
    reader: &LogReader,
    folds: &Folds,
    findings: &mut [Finding],
) -> Result<(), VerifyError> {
    if !findings.iter().any(|finding| spot_of(finding).is_some()) {
        return Ok(());
    }
    for (machine, manifest) in folds.manifests() {
        for epoch in &manifest.epochs {
            for entry in &epoch.layers {
                touch_by(reader, (machine, epoch), *entry, Lsn::NONE, findings).await?;
            }
            let Some(base) = &epoch.base else { continue };
            for entry in &base.layers {
                // Only who wants its place or a later one goes by it.
                touch_by(reader, (machine, epoch), *entry, base.lsn, findings).await?;
            }
        }
    }
    Ok(())
}

/// What a layer needs of damaged places, from an LSN on.
async fn touch_by(
    reader: &LogReader,
    (machine, epoch): (&Name, &FoldedEpoch),
    entry: LayerEntry,
    from: Lsn,
    findings: &mut [Finding],
) -> Result<(), VerifyError> {
    let (store, ring) = (reader.store(), reader.ring());
    let layer = match read_layer(store, ring, machine, epoch.epoch, entry).await {
        Ok(layer) => layer,
        // Told before.
        Err(error) if error.is_damage() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for finding in findings {
        let Some((place, frame)) = spot_of(finding) else { continue };
        let Some(pack) = layer.packs.iter().position(|of| *of == place) else { continue };
        let needs = layer.extents.iter().filter(|entry| match entry.source {
            LayerSource::Kept { pack: of, frame: kept, .. } => {
                of as usize == pack && frame.is_none_or(|frame| frame == kept)
            }
            LayerSource::Zero => false,
        });
        if let Some(lsn) = needs.map(|entry| entry.lsn.max(from)).min() {
            let first = finding.first.entry((machine.clone(), epoch.epoch)).or_insert(lsn);
            *first = lsn.min(*first);
        }
    }
    Ok(())
}

/// The dense pack, or the frame of one, that is damaged.
fn spot_of(finding: &Finding) -> Option<(PackPlace, Option<FrameNumber>)> {
    let (place, frame) = match &finding.spot {
        Spot::Pack(place) => (place, None),
        Spot::Frame(place, frame) => (place, Some(*frame)),
        Spot::Packs(..) | Spot::Epoch(..) | Spot::Object(_) => return None,
    };
    layout::is_dense(&place.log).then(|| (place.clone(), frame))
}
