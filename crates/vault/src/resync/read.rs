//! Reads what an epoch stands on.

use tidegate_model::{Epoch, Lsn, Name, Point};

use super::ResyncError;
use super::standing::{Standing, Window};
use crate::chain::{MachineHistory, READ_TRIES_MAX};
use crate::fold::read_layer;
use crate::log::LogReader;
use crate::meta::{self, Records};
use crate::points::Referred;

/// What `epoch` of a machine stands on in a window: nothing but zeros where it stands on nothing.
/// `thoroughly`: that every pack to which it refers can be read is looked at, too.
///
/// # Errors
/// [`ResyncError`]; see [`ResyncError::is_for_good`].
pub async fn read(
    reader: &LogReader,
    machine: &Name,
    epoch: Epoch,
    window: Window,
    thoroughly: bool,
) -> Result<Standing, ResyncError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match read_once(reader, machine, epoch, window, thoroughly).await {
            // Others folded it meanwhile, and what went isn't needed any more.
            Err(ResyncError::Lacks { cause, .. })
                if cause.is_collected() && tries < READ_TRIES_MAX => {}
            read => return read,
        }
    }
}

async fn read_once(
    reader: &LogReader,
    machine: &Name,
    epoch: Epoch,
    window: Window,
    thoroughly: bool,
) -> Result<Standing, ResyncError> {
    let point = Point { epoch, lsn: Lsn::NONE };
    let broken = |cause| ResyncError::Broken { machine: machine.clone(), epoch, cause };
    // What it stands on follows from the records alone, and must be known before the logs are read.
    let epochs = meta::list_epochs(reader.store(), reader.ring(), machine).await?;
    let known = MachineHistory::new(machine.clone(), epochs, Records::default());
    let lineage = known.lineage(point).map_err(broken)?;
    let (mut standing, mut referred) = (Standing::new(window, &lineage), Referred::default());
    let history = MachineHistory::read_telling(reader, machine, |pack| {
        standing.add_pack(pack, machine);
        if thoroughly {
            referred.add_pack(pack, Some(machine));
        }
    });
    let history = history.await?;
    history.whole_lineage(point).map_err(broken)?;
    for Point { epoch, lsn } in &lineage {
        let declared = history.epochs.get(epoch).map(|told| &told.trace.declared);
        for (at, (_, disk)) in declared.into_iter().flat_map(|disks| disks.range(..=*lsn)) {
            standing.add_disk(*epoch, *at, disk);
        }
    }
    if thoroughly {
        if let Some(fold) = &history.fold {
            referred.add_fold(machine, fold);
        }
        let lacks = referred.check(reader).await?;
        if let Some((_, cause)) = lacks.first_in(machine, &lineage) {
            let (machine, cause) = (machine.clone(), cause.clone());
            return Err(ResyncError::Lacks { machine, epoch, cause });
        }
    }
    add_layers(reader, &history, &lineage, &mut standing).await?;
    Ok(standing)
}

/// Takes the layers, one after another. One that is damaged leaves nothing known: a restore reads the
/// logs instead, which may tell otherwise.
async fn add_layers(
    reader: &LogReader,
    history: &MachineHistory,
    lineage: &[Point],
    standing: &mut Standing,
) -> Result<(), ResyncError> {
    let (store, ring, machine) = (reader.store(), reader.ring(), &history.machine);
    let folded = history.fold.iter().flat_map(|fold| &fold.epochs);
    for epoch in folded {
        let Some(upto) = lineage.iter().find(|point| point.epoch == epoch.epoch) else { continue };
        for entry in epoch.needed(upto.lsn) {
            match read_layer(store, ring, machine, epoch.epoch, entry).await {
                Ok(layer) => standing.add_layer(&layer),
                Err(error) if error.is_damage() => {
                    tracing::warn!(%error, "nothing is known of what it had");
                    standing.forget();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
