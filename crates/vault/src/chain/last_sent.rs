//! When a machine was sent to last, as far as its newest session's log tells.

use futures::TryStreamExt;
use tidegate_model::{LogName, Micros, Name, PackNumber};

use super::HistoryError;
use crate::layout;
use crate::log::{LogReader, PackPlace};
use crate::meta;

/// How many of a log's last packs are looked at: a minute's of a busy server, and hours of an idle one.
const PACKS_MAX: usize = 256;

/// When the newest pack was stored that has something of a machine, or the record of its newest session
/// if that is younger, by the store's clock; `None` when nothing tells.
///
/// # Errors
/// [`HistoryError`] when the vault can't be read. Damage is passed over: it isn't from now.
pub async fn last_sent(reader: &LogReader, machine: &Name) -> Result<Option<Micros>, HistoryError> {
    let (store, ring) = (reader.store(), reader.ring());
    let Some(epoch) = meta::epoch_numbers(store, machine).await?.into_iter().max() else {
        return Ok(None);
    };
    let session = match meta::newest_session(store, ring, machine, epoch).await {
        Err(error) if error.is_damage() => None,
        session => session?.map(|session| {
            (layout::session(machine, epoch, session.number), session.log, session.pack)
        }),
    };
    let first = match meta::read_epoch(store, ring, machine, epoch).await {
        Err(error) if error.is_damage() => None,
        record => record?.map(|record| (layout::epoch(machine, epoch), record.log, record.pack)),
    };
    let Some((record, log, first)) = session.or(first) else { return Ok(None) };
    let granted = store.head(&record).await.map_err(meta::MetaError::from)?.modified;
    let mut packs = last_packs(reader, &log, first).await?;
    while let Some((number, stored)) = packs.pop() {
        let place = PackPlace { log: log.clone(), number };
        match reader.pack(&place).await {
            Ok(pack) if pack.index.machines.iter().any(|entry| entry.name == *machine) => {
                return Ok(Some(granted.max(stored)));
            }
            Ok(_) => {}
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(granted))
}

/// The last packs of a log from `first` on, and when they were stored.
async fn last_packs(
    reader: &LogReader,
    log: &LogName,
    first: PackNumber,
) -> Result<Vec<(PackNumber, Micros)>, HistoryError> {
    let mut packs = Vec::new();
    let before = first.0.checked_sub(1).map(|before| layout::pack(log, PackNumber(before)));
    let mut listed = reader.store().list(&layout::log(log), before.as_deref());
    while let Some(object) = listed.try_next().await.map_err(meta::MetaError::from)? {
        let place = layout::parse_pack(&object.path);
        packs.extend(place.map(|(_, number)| (number, object.modified)));
        if packs.len() > 2 * PACKS_MAX {
            packs.drain(..PACKS_MAX);
        }
    }
    Ok(packs.split_off(packs.len().saturating_sub(PACKS_MAX)))
}
