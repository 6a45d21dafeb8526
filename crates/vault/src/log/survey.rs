//! Lists a log, tells which of its packs count, and gives them in order.
//!
//! Who looks for something near a log's end takes its [`LogReader::tail`] and the stretches
//! [`LogReader::before`] it: of a log, however long, no more than [`STRETCH_PACKS`] are then held.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use tidegate_model::{LogName, PackNumber};

use super::counted::{Counted, Stated, judge};
use super::reader::{Found, HEAD_BYTES_GUESS};
use super::{LogError, LogReader, PackPlace, PackRead};
use crate::gc::Ranges;
use crate::layout;
use crate::pack::{HEADER_BYTES, PackBlocks, PackHeader, PackSummary};
use crate::store::StoreError;

/// Indexes on their way at once. With an average index of 8 KiB and at most 7 MiB each they hold
/// little; eight of them hide a store's latency behind decoding.
pub const INDEXES_AHEAD: usize = 8;
/// What who looks for something near a log's end has in memory, beside the indexes that all who look
/// share room for: the first bytes of packs on their way, and a stretch.
pub const SEARCH_BYTES: usize = INDEXES_AHEAD * HEAD_BYTES_GUESS as usize + STRETCH_BYTES;
/// A stretch's listing, which packs of it count, and those that are still to be read: some 100 bytes
/// a pack.
const STRETCH_BYTES: usize = 512 << 10;
const _: () = assert!(STRETCH_BYTES as u64 / STRETCH_PACKS >= 128);
/// How many packs that a listing lacks are asked for by name before they are called lost: the
/// listing of a log that is written to may be older in one place than in another.
const MISSING_ASKED_MAX: usize = 1024;

/// How many packs of a log a stretch has: the store lists as many in one answer.
pub const STRETCH_PACKS: u64 = 4096;
/// A tail begins so many packs before what is wanted of it, so that its newest packs, which state what
/// was stored when they closed, state more than lies before it. A shard has fewer packs on their way.
const UNDER_WAY_MAX: u64 = 256;

/// A log, or a stretch of one, as it is stored.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The log.
    pub log: LogName,
    /// Where the stretch begins: nothing before it was looked at, and all of that was stored.
    pub from: PackNumber,
    /// The sizes of the stored packs, by their numbers.
    pub stored: BTreeMap<u64, u64>,
    /// What was removed of it as garbage: stored once, and gone on purpose.
    pub removed: Ranges,
    /// Where it was ended from outside: nothing from there on counts.
    pub tombstone: Option<PackNumber>,
    /// What is known of how far it was committed.
    pub stated: Stated,
    /// Which packs count, which are lost, which were left over.
    pub counted: Counted,
    /// What is wrong with packs beyond a gap, which had to be read to judge it.
    pub damaged: Vec<(PackPlace, LogError)>,
}

impl Survey {
    /// Judges a log by a listing (sizes by number) from the pack `from` on, and nothing else.
    #[must_use]
    pub fn of(log: LogName, from: PackNumber, stored: BTreeMap<u64, u64>) -> Self {
        let mut survey = Self {
            log,
            from,
            stored,
            removed: Ranges::default(),
            tombstone: None,
            stated: Stated::default(),
            counted: Counted::default(),
            damaged: Vec::new(),
        };
        survey.judge();
        survey
    }

    /// Of a log of which nothing is there.
    #[must_use]
    pub fn none(log: LogName) -> Self {
        Self::of(log, PackNumber(0), BTreeMap::new())
    }

    /// Adds what is known of how far the log was committed.
    pub fn state(&mut self, stated: Stated) {
        if stated > self.stated {
            self.stated = stated;
            self.judge();
        }
    }

    /// The place of a pack of this log.
    #[must_use]
    pub fn place(&self, number: PackNumber) -> PackPlace {
        PackPlace { log: self.log.clone(), number }
    }

    /// The packs that count, from this one on.
    #[must_use]
    pub fn counted_from(&self, first: PackNumber) -> Vec<PackNumber> {
        self.counted.packs.iter().copied().filter(|number| *number >= first).collect()
    }

    /// The first pack that was committed and isn't there, from this one on.
    #[must_use]
    pub fn first_missing(&self, first: PackNumber) -> Option<PackPlace> {
        let (begin, _) = self.counted.missing.iter().find(|(_, last)| *last >= first)?;
        Some(self.place(first.max(*begin)))
    }

    fn judge(&mut self) {
        let numbers: BTreeSet<u64> = self.stored.keys().copied().collect();
        self.counted = judge(&numbers, self.from, self.stated, &self.removed);
    }
}

impl LogReader {
    /// Lists a log and judges it.
    ///
    /// # Errors
    /// [`LogError::Store`]; what is wrong with the packs themselves is in the survey.
    pub async fn survey(&self, log: &LogName) -> Result<Survey, LogError> {
        self.survey_from(log, PackNumber(0)).await
    }

    /// Lists a log from the pack `from` on, before which all was stored, and judges that.
    ///
    /// # Errors
    /// [`LogError::Store`]; what is wrong with the packs themselves is in the survey.
    pub async fn survey_from(&self, log: &LogName, from: PackNumber) -> Result<Survey, LogError> {
        let stored = self.list(log, from).try_collect().await?;
        let mut survey = Survey::of(log.clone(), from, stored);
        self.judge(&mut survey).await?;
        Ok(survey)
    }

    /// The last stretch of a log: its packs from `first` on, or the last of them if they are many.
    /// `stated` is what is known of how far the log was committed; the more, the less is listed.
    ///
    /// # Errors
    /// [`LogError::Store`]; what is wrong with the packs themselves is in the survey.
    pub async fn tail(
        &self,
        log: &LogName,
        first: PackNumber,
        stated: Stated,
    ) -> Result<Survey, LogError> {
        let proven = PackNumber(stated.packs());
        let mut from = first.min(proven.max(PackNumber(first.0.saturating_sub(UNDER_WAY_MAX))));
        let (mut stored, mut listed) = (BTreeMap::new(), self.list(log, from));
        while let Some((number, bytes)) = listed.try_next().await? {
            stored.insert(number, bytes);
            if stored.len() as u64 > STRETCH_PACKS {
                stored.pop_first();
                from = stored.keys().next().copied().map_or(from, PackNumber);
            }
        }
        let mut survey = Survey::of(log.clone(), from, stored);
        survey.state(stated);
        self.ask_newest(&mut survey).await?;
        if survey.stated.packs() < from.0 {
            // Only where none of all these is whole: then all must be known to tell what counts.
            return self.survey(log).await;
        }
        self.judge(&mut survey).await?;
        Ok(survey)
    }

    /// The stretch right before another, but nothing before `first`; `None` when there is none.
    ///
    /// # Errors
    /// [`LogError::Store`]; what is wrong with the packs themselves is in the survey.
    pub async fn before(
        &self,
        after: &Survey,
        first: PackNumber,
    ) -> Result<Option<Survey>, LogError> {
        if after.from <= first {
            return Ok(None);
        }
        let from = first.max(PackNumber(after.from.0.saturating_sub(STRETCH_PACKS)));
        let listed = self.list(&after.log, from);
        let stored = listed.try_take_while(|(number, _)| ready(Ok(*number < after.from.0)));
        let mut survey = Survey::of(after.log.clone(), from, stored.try_collect().await?);
        survey.state(Stated::by_writer(after.from));
        self.judge(&mut survey).await?;
        Ok(Some(survey))
    }

    /// Numbers and sizes of a log's packs from `from` on, in their order.
    fn list(
        &self,
        log: &LogName,
        from: PackNumber,
    ) -> impl Stream<Item = Result<(u64, u64), StoreError>> + Unpin + use<> {
        let before = from.0.checked_sub(1).map(|before| layout::pack(log, PackNumber(before)));
        let listed = self.store().list(&layout::log(log), before.as_deref());
        listed.try_filter_map(|object| {
            let place = layout::parse_pack(&object.path);
            ready(Ok(place.map(|(_, number)| (number.0, object.bytes))))
        })
    }

    /// Lists and judges every log of the vault; the paths of what is no pack come besides.
    ///
    /// # Errors
    /// [`LogError::Store`]; what is wrong with the packs themselves is in the surveys.
    pub async fn surveys(&self) -> Result<(BTreeMap<LogName, Survey>, Vec<String>), LogError> {
        let mut listed = self.store().list(layout::LOGS, None);
        let mut logs: BTreeMap<LogName, BTreeMap<u64, u64>> = BTreeMap::new();
        let mut strays = Vec::new();
        while let Some(object) = listed.try_next().await? {
            match layout::parse_pack(&object.path) {
                Some((log, number)) => {
                    logs.entry(log).or_default().insert(number.0, object.bytes);
                }
                None => strays.push(object.path),
            }
        }
        let mut surveys = BTreeMap::new();
        for (log, stored) in logs {
            let mut survey = Survey::of(log.clone(), PackNumber(0), stored);
            self.judge(&mut survey).await?;
            surveys.insert(log, survey);
        }
        Ok((surveys, strays))
    }

    /// The logs of which something is stored.
    ///
    /// # Errors
    /// [`LogError::Store`].
    pub async fn logs(&self) -> Result<Vec<LogName>, LogError> {
        let mut logs = Vec::new();
        for node in self.store().names(layout::LOGS).await?.folders {
            let node = format!("{}/{node}", layout::LOGS);
            let folders = self.store().names(&node).await?.folders;
            logs.extend(
                folders.iter().filter_map(|log| layout::parse_log(&format!("{node}/{log}"))),
            );
        }
        Ok(logs)
    }

    /// Reads the newest packs until one states that all before the stretch was stored.
    async fn ask_newest(&self, survey: &mut Survey) -> Result<(), LogError> {
        let newest = survey.stored.keys().rev().copied().map(PackNumber).collect();
        let mut packs = pin!(self.summaries(survey, newest, summary_states));
        while survey.stated.packs() < survey.from.0 {
            match packs.next().await {
                Some((_, Ok(stated))) => survey.state(stated),
                // Told by who reads it.
                Some((_, Err(error))) if error.is_damage() => {}
                Some((_, Err(error))) => return Err(error),
                None => break,
            }
        }
        Ok(())
    }

    /// Reads what tells where the log ends, and what a crash left from what is lost.
    pub(super) async fn judge(&self, survey: &mut Survey) -> Result<(), LogError> {
        self.find_tombstone(survey).await?;
        self.excuse(survey).await?;
        let leftovers = survey.counted.leftovers.clone();
        let packs: Vec<_> = self.summaries(survey, leftovers, summary_states).collect().await;
        for (place, stated) in packs {
            match stated {
                Ok(stated) => survey.state(stated),
                Err(error) if error.is_damage() => survey.damaged.push((place, error)),
                Err(error) => return Err(error),
            }
        }
        if !survey.counted.missing.is_empty() {
            self.excuse(survey).await?;
        }
        self.ask_for_missing(survey).await
    }

    /// Looks whether what seems to be missing was removed as garbage. As long as nothing is, what was
    /// known before will do.
    async fn excuse(&self, survey: &mut Survey) -> Result<(), LogError> {
        for fresh in [false, true] {
            let seems_whole =
                survey.counted.missing.is_empty() && survey.counted.leftovers.is_empty();
            if seems_whole && fresh {
                return Ok(());
            }
            let collected = self.collected(fresh).await?;
            if let Some(removed) = collected.removed.of(&survey.log) {
                survey.removed = removed.clone();
                survey.stored.retain(|number, _| !survey.removed.has(PackNumber(*number)));
                survey.judge();
            }
        }
        Ok(())
    }

    /// A tombstone is a header and nothing else, which no pack is: its size gives it away. The log
    /// ends before the first; a tombstone is no pack, wherever it stands.
    async fn find_tombstone(&self, survey: &mut Survey) -> Result<(), LogError> {
        let bare = survey.stored.iter().filter(|(_, bytes)| **bytes == HEADER_BYTES as u64);
        for number in bare.map(|(number, _)| *number).collect::<Vec<_>>() {
            let place = survey.place(PackNumber(number));
            match self.find(&place, None).await {
                Ok(Found::Tombstone) => {
                    survey.stored.remove(&number);
                    survey.tombstone.get_or_insert(PackNumber(number));
                }
                // What else is wrong with it is told by who reads it as a pack.
                Err(error @ LogError::Store(_)) if !error.is_damage() => return Err(error),
                Ok(Found::Pack(_)) | Err(_) => {}
            }
        }
        survey.judge();
        // It was put where the log would grow: all before it was committed, though its newest packs may
        // have been removed since.
        if let Some(end) = survey.tombstone {
            survey.state(Stated::by_writer(end));
        }
        Ok(())
    }

    async fn ask_for_missing(&self, survey: &mut Survey) -> Result<(), LogError> {
        let ranges = survey.counted.missing.clone();
        let numbers = ranges.iter().flat_map(|(first, last)| first.0..=last.0);
        let asked = numbers.filter(|number| survey.tombstone != Some(PackNumber(*number)));
        for number in asked.take(MISSING_ASKED_MAX).collect::<Vec<_>>() {
            match self.store().head(&survey.place(PackNumber(number)).path()).await {
                Ok(head) => {
                    survey.stored.insert(number, head.bytes);
                }
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        survey.judge();
        Ok(())
    }

    /// Reads packs of a surveyed log, several at once, and gives them in the order of `numbers`. A
    /// tombstone that came since the survey is a [`LogError::Tombstone`].
    pub fn packs(
        &self,
        survey: &Survey,
        numbers: Vec<PackNumber>,
    ) -> impl Stream<Item = (PackPlace, Result<Arc<PackRead>, LogError>)> + use<> {
        let reader = self.clone();
        stream::iter(sized(survey, numbers))
            .map(move |(place, bytes)| {
                let reader = reader.clone();
                async move {
                    let pack = reader.sized_pack(&place, bytes).await;
                    (place, pack)
                }
            })
            .buffered(self.ahead())
    }

    /// The same for what is `told` of each pack by its summary, which isn't kept. What is on its way
    /// has room that other searches wait for: who reads this waits for nothing else meanwhile.
    pub(crate) fn summaries<T, F: Fn(&PackPlace, PackSummary) -> T + Clone>(
        &self,
        survey: &Survey,
        numbers: Vec<PackNumber>,
        told: F,
    ) -> impl Stream<Item = (PackPlace, Result<T, LogError>)> + use<T, F> {
        let reader = self.clone();
        stream::iter(sized(survey, numbers))
            .map(move |(place, bytes)| {
                let (reader, told) = (reader.clone(), told.clone());
                async move {
                    let summary = reader.summary(&place, bytes).await;
                    let told = summary.map(|summary| told(&place, summary));
                    (place, told)
                }
            })
            .buffered(INDEXES_AHEAD)
    }

    /// The same for what is `told` of the blocks that each pack keeps, which aren't kept either. Told
    /// as soon as a pack was read, whatever comes before it.
    pub fn blocks<T, F: Fn(&PackHeader, PackBlocks) -> T + Clone>(
        &self,
        survey: &Survey,
        numbers: Vec<PackNumber>,
        told: F,
    ) -> impl Stream<Item = (PackPlace, Result<T, LogError>)> + use<T, F> {
        let reader = self.clone();
        stream::iter(sized(survey, numbers))
            .map(move |(place, bytes)| {
                let (reader, told) = (reader.clone(), told.clone());
                async move {
                    let told = reader.kept_blocks(&place, bytes, told).await;
                    (place, told)
                }
            })
            .buffered(INDEXES_AHEAD)
    }
}

/// The places of packs of a surveyed log, and their sizes as far as they are known.
fn sized(
    survey: &Survey,
    numbers: Vec<PackNumber>,
) -> impl Iterator<Item = (PackPlace, Option<u64>)> + use<> {
    let size = |number: PackNumber| (number, survey.stored.get(&number.0).copied());
    let (sizes, log): (Vec<_>, _) = (numbers.into_iter().map(size).collect(), survey.log.clone());
    sizes.into_iter().map(move |(number, bytes)| (PackPlace { log: log.clone(), number }, bytes))
}

/// What a pack says of how far its log was committed.
#[must_use]
pub fn stated_by(pack: &PackRead) -> Stated {
    Stated::by_pack(pack.place.number, pack.index.committed_packs, pack.index.last)
}

fn summary_states(place: &PackPlace, summary: PackSummary) -> Stated {
    Stated::by_pack(place.number, summary.committed_packs, summary.last)
}
