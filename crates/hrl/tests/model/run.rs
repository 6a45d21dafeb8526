//! One run: a journal on a crashing disk, and the list of what must come out of it.

use std::collections::BTreeMap;

use tidegate_hrl::format::UniqueId;
use tidegate_hrl::journal::{
    AppendError, Batch, Birth, Change, Ending, FileKind, FileName, JournalError, JournalSettings,
    Opening, Reader, State, Writer, discard, open,
};
use tidegate_hrl::limits::RECORD_COST_MAX;
use tidegate_hrl::scan::{DataState, Found, Scan};
use tidegate_hrl::storage::Storage;
use tidegate_model::{Bookmark, BookmarkKind, Disk, DiskNumber, Extent, Incarnation, Lsn, Micros};

use crate::disk::{Chance, CrashingDisk};

pub const SETTINGS: JournalSettings = JournalSettings {
    bytes_max: 100_000 + 3 * RECORD_COST_MAX,
    segment_bytes: 50_000,
    batch_bytes: RECORD_COST_MAX,
};

#[derive(Debug, Clone)]
pub enum Action {
    Write {
        disk: u8,
        place: u64,
        length: usize,
        fill: u8,
    },
    /// Many small writes, so that blocks get full.
    Many {
        disk: u8,
        count: usize,
    },
    Zero {
        disk: u8,
        length: u64,
    },
    Bookmark(usize),
    Disk {
        disk: u8,
        bytes: u64,
    },
    Time(u16),
    /// A batch is taken and not yet written, while the next one gathers.
    Take,
    /// Everything is written.
    Flush,
    /// So many percent of what is durable are committed.
    Commit(u8),
    /// Read from so many percent on.
    Read(u8),
    /// Close properly and open again.
    Reopen,
    /// After so many more steps of the file system.
    Crash {
        steps: u64,
        power: bool,
    },
}

type Expected = (Micros, Change<Vec<u8>>);

pub struct Run {
    disk: CrashingDisk,
    boot: u8,
    /// How the lit fuse ends.
    power: Option<bool>,
    journal: Option<(State, Writer<CrashingDisk>)>,
    held: Option<Batch>,
    /// What was appended; the LSN is the index and 1.
    appended: Vec<Expected>,
    /// What the journal said to be durable, and what it was told to be committed.
    durable: u64,
    committed: u64,
    clock: u64,
    /// The journal was closed properly, and not opened since.
    closed: bool,
    /// The host went down while it was open, and it wasn't closed since.
    host_lost: bool,
    chance: Chance,
    pub refused: u32,
    pub opening: Opening,
}

fn number(disk: u8) -> DiskNumber {
    DiskNumber::try_from(disk).unwrap()
}

impl Run {
    pub fn new(seed: u64) -> Self {
        let disk = CrashingDisk::new(seed);
        let opening = Opening {
            incarnation: incarnation(),
            ending: Ending::New,
            recovered_to: Lsn::NONE,
            committed: Lsn::NONE,
            time: Micros(0),
        };
        let mut run = Self {
            disk,
            boot: 1,
            power: None,
            journal: None,
            held: None,
            appended: Vec::new(),
            durable: 0,
            committed: 0,
            clock: 1_700_000_000_000_000,
            closed: false,
            host_lost: false,
            chance: Chance(seed ^ 0x5555),
            refused: 0,
            opening,
        };
        run.reopen(false);
        assert_eq!(run.opening.ending, Ending::New);
        run
    }

    pub fn act(&mut self, action: &Action) {
        if let Err(error) = self.try_act(action) {
            assert!(self.power.is_some(), "nothing fails without a crash: {error}");
            self.crash_now();
        }
    }

    fn try_act(&mut self, action: &Action) -> Result<(), JournalError> {
        match action {
            Action::Write { disk, place, length, fill } => {
                let data = self.data(*length, *fill);
                let (disk, offset) = (number(*disk), place * 4096);
                self.append(Change::Write { disk, offset, data })?;
            }
            Action::Many { disk, count } => {
                for place in 0..*count as u64 {
                    let (disk, offset, data) = (number(*disk), place * 512, self.data(40, 1));
                    self.append(Change::Write { disk, offset, data })?;
                }
            }
            Action::Zero { disk, length } => {
                let extent = Extent { disk: number(*disk), offset: 512, length: *length };
                self.append(Change::Zero(extent))?;
            }
            Action::Bookmark(length) => {
                let (kind, name) = (BookmarkKind::Group, "b".repeat((*length).min(1024)));
                self.append(Change::Bookmark(Bookmark { kind, clean: length % 2 == 0, name }))?;
            }
            Action::Disk { disk, bytes } => {
                let (number, bytes, name) = (number(*disk), *bytes, "/dev/vda".to_owned());
                self.append(Change::Disk(Disk { number, bytes, name }))?;
            }
            Action::Time(step) => {
                // Clocks go back, too.
                self.clock = self.clock.wrapping_add(u64::from(*step)).wrapping_sub(20_000);
                self.append(Change::Time)?;
            }
            Action::Take => {
                self.write_held()?;
                let (state, _) = self.journal.as_mut().unwrap();
                self.held = state.take_batch();
            }
            Action::Flush => self.flush()?,
            Action::Commit(percent) => {
                let lsn = self.committed.max(self.durable * u64::from(*percent) / 100);
                let (state, _) = self.journal.as_mut().unwrap();
                state.committed(Lsn(lsn))?;
                assert!(state.committed(Lsn(self.durable + 1)).is_err());
                self.committed = lsn;
                self.flush()?;
                let (state, writer) = self.journal.as_mut().unwrap();
                while let Some(segment) = state.removable().cloned() {
                    writer.remove(&segment)?;
                    state.forget(segment.number);
                }
            }
            Action::Read(percent) => self.read(self.durable * u64::from(*percent) / 100)?,
            Action::Reopen => {
                self.write_held()?;
                let (state, writer) = self.journal.as_mut().unwrap();
                writer.close(state)?;
                (self.closed, self.host_lost) = (true, false);
                self.durable = self.appended.len() as u64;
                self.reopen(true);
            }
            Action::Crash { steps, power } => {
                if self.power.is_some() {
                    self.crash_now();
                }
                self.disk.light_fuse(*steps);
                self.power = Some(*power);
            }
        }
        Ok(())
    }

    fn data(&mut self, length: usize, fill: u8) -> Vec<u8> {
        let salt = self.chance.next().to_le_bytes();
        (0..length).map(|index| salt[index % 8].wrapping_add(fill)).collect()
    }

    fn append(&mut self, change: Change<Vec<u8>>) -> Result<(), JournalError> {
        self.clock += 1;
        let borrowed = match &change {
            Change::Write { disk, offset, data } => {
                Change::Write { disk: *disk, offset: *offset, data: &data[..] }
            }
            Change::Disk(disk) => Change::Disk(disk.clone()),
            Change::Zero(extent) => Change::Zero(*extent),
            Change::Bookmark(bookmark) => Change::Bookmark(bookmark.clone()),
            Change::Time => Change::Time,
        };
        let without_room = self.chance.next().is_multiple_of(16);
        let (state, _) = self.journal.as_mut().unwrap();
        if without_room {
            state.set_room(false);
            let refused = state.append(&borrowed, Micros(self.clock));
            assert_eq!(refused, Err(AppendError::NoRoom));
            state.set_room(true);
        }
        match state.append(&borrowed, Micros(self.clock)) {
            Ok(lsn) => {
                assert_eq!(lsn, Lsn(self.appended.len() as u64 + 1));
                let last = self.appended.last().map_or(self.opening.time, |(time, _)| *time);
                self.appended.push((last.max(Micros(self.clock)), change));
                Ok(())
            }
            Err(AppendError::Behind { .. }) => {
                self.flush()?;
                self.append(change)
            }
            Err(AppendError::Full { bytes, bytes_max }) => {
                self.refused += 1;
                assert!(bytes + 3 * RECORD_COST_MAX > bytes_max, "it has room: {bytes}");
                let idle = self.committed == self.appended.len() as u64;
                assert!(!idle, "with everything committed it must take more");
                Ok(())
            }
            Err(AppendError::Ended | AppendError::NoRoom) => panic!("nothing failed"),
        }
    }

    fn write_held(&mut self) -> Result<(), JournalError> {
        if let Some(batch) = self.held.take() {
            let (state, writer) = self.journal.as_mut().unwrap();
            let written = batch.written();
            writer.carry_out(batch)?;
            state.written(written);
            self.durable = state.usage().durable.0;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        self.write_held()?;
        self.held = self.journal.as_mut().unwrap().0.take_batch();
        self.write_held()
    }

    fn read(&self, from: u64) -> Result<(), JournalError> {
        let (state, _) = self.journal.as_ref().unwrap();
        let mut reader = Reader::new(self.disk.clone(), Lsn(from));
        let mut expected = from.max(self.committed + 1).max(1);
        while let Some(record) = reader.next(|lsn| state.place_of(lsn))? {
            assert_eq!(record.lsn, Lsn(expected));
            let (time, change) = &self.appended[usize::try_from(expected).unwrap() - 1];
            assert_eq!((&record.time, &record.change), (time, change), "LSN {expected}");
            expected += 1;
        }
        assert_eq!(expected.max(self.durable + 1), expected, "all that is durable is given out");
        Ok(())
    }

    /// Whatever the fuse says: the process ends here, or the host.
    pub fn crash_now(&mut self) {
        match self.power.take() {
            Some(true) => {
                self.boot += 1;
                self.host_lost |= !self.closed;
                self.disk.power_cut();
            }
            _ => self.disk.kill(),
        }
        // Now and then it crashes again while it is being recovered.
        if self.chance.coin() {
            self.disk.light_fuse(self.chance.next() % 30);
            self.power = Some(self.chance.coin());
        }
        self.reopen(false);
    }

    fn reopen(&mut self, closed: bool) {
        (self.journal, self.held) = (None, None);
        let opened = open(self.disk.clone(), SETTINGS, &birth(self.boot));
        let (state, writer, opening) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                assert!(self.power.is_some(), "what crashed can be opened: {error}");
                return self.crash_now();
            }
        };
        let recovered = opening.recovered_to.0;
        assert!(recovered >= self.durable, "{recovered} of {} durable", self.durable);
        assert!(recovered <= self.appended.len() as u64);
        assert!(opening.committed.0 <= self.committed);
        if opening.ending == Ending::Clean {
            assert_eq!(recovered, self.appended.len() as u64, "clean, and something is missing");
        }
        match opening.ending {
            Ending::New | Ending::Clean => self.host_lost = false,
            Ending::Unclean { same_boot } => {
                assert!(!(same_boot && self.host_lost), "that the host went down is forgotten");
            }
        }
        self.closed = false;
        assert!(!closed || opening.ending == Ending::Clean, "closed, and not clean");
        self.appended.truncate(usize::try_from(recovered).unwrap());
        (self.durable, self.committed) = (recovered, opening.committed.0);
        self.opening = opening;
        self.journal = Some((state, writer));
    }

    pub fn check_bound(&self) {
        let bytes = self.disk.bytes();
        assert!(bytes <= SETTINGS.bytes_max, "{bytes} of {}", SETTINGS.bytes_max);
    }

    /// Reads everything, and looks at every log that is closed.
    pub fn check_everything(&mut self) {
        if self.power.take().is_some() {
            self.disk.kill();
        }
        self.flush().unwrap();
        self.read(0).unwrap();
        self.check_logs();
    }

    fn check_logs(&self) {
        let mut logs: Vec<FileName> = Vec::new();
        let names = self.disk.names().unwrap();
        logs.extend(names.iter().filter_map(|name| FileName::parse(name)));
        logs.sort();
        let newest = logs.last().unwrap().segment;
        let mut previous: BTreeMap<DiskNumber, UniqueId> = BTreeMap::new();
        for name in logs {
            let FileKind::Log(disk) = name.kind else { continue };
            let mut scan = Scan::open(self.disk.open(&name.to_string()).unwrap()).unwrap();
            assert_eq!(scan.is_closed(), name.segment != newest, "{name}");
            assert_eq!(scan.doubts(), []);
            if let Some(previous) = previous.insert(disk, scan.header().unique_id) {
                assert_eq!(scan.header().previous_unique_id, previous, "{name}");
            }
            let (mut entries, total) = (0, scan.header().entries_total);
            while let Some(found) = scan.next().unwrap() {
                match found {
                    Found::Entry(found) => {
                        assert_eq!(found.data, DataState::Whole, "{name}");
                        entries += 1;
                    }
                    Found::Problem(problem) => assert_eq!(name.segment, newest, "{problem}"),
                }
            }
            assert!(name.segment == newest || entries == total, "{name}: {entries} of {total}");
        }
    }

    /// Ends the process, properly or not.
    pub fn leave(&mut self, closed: bool) {
        if self.power.take().is_some() {
            self.disk.kill();
        }
        self.flush().unwrap();
        if let (true, Some((mut state, mut writer))) = (closed, self.journal.take()) {
            writer.close(&mut state).unwrap();
        }
        self.journal = None;
    }

    pub fn flip_a_byte(&self, file: &proptest::sample::Index, at: &proptest::sample::Index) {
        let names = self.disk.names().unwrap();
        let name = file.get(&names);
        let bytes = tidegate_hrl::storage::ReadAt::bytes(&self.disk.open(name).unwrap()).unwrap();
        self.disk.flip(name, at.index(usize::try_from(bytes).unwrap()));
    }

    pub fn flip(&self, name: &str, at: usize) {
        self.disk.flip(name, at);
    }

    /// Removes a file, or all of the newest segment.
    pub fn take_away(&self, name: &str) {
        let names = self.disk.names().unwrap();
        let files = names.iter().filter_map(|name| FileName::parse(name));
        let newest = files.map(|file| file.segment).max().unwrap();
        for found in names.iter().filter(|found| {
            let of_newest = FileName::parse(found).unwrap().segment == newest;
            *found == name || name == "newest" && of_newest
        }) {
            self.disk.remove(found).unwrap();
        }
    }

    pub fn discard(&self) {
        discard(&self.disk).unwrap();
        self.disk.power_cut();
    }

    /// The same, and it crashes on its way.
    pub fn discard_in_part(&self) {
        self.disk.light_fuse(6);
        discard(&self.disk).unwrap_err();
        self.disk.power_cut();
    }

    pub fn open_again(&self) -> Result<Opening, JournalError> {
        open(self.disk.clone(), SETTINGS, &birth(self.boot)).map(|(_, _, opening)| opening)
    }

    /// Whatever was damaged: it is told, or what comes out is what went in.
    pub fn check_after_damage(&self) {
        let Ok((state, _, opening)) = open(self.disk.clone(), SETTINGS, &birth(self.boot)) else {
            return;
        };
        let mut reader = Reader::new(self.disk.clone(), Lsn(1));
        let mut last = opening.committed;
        let all = loop {
            match reader.next(|lsn| state.place_of(lsn)) {
                Ok(Some(record)) => {
                    let (time, change) = &self.appended[usize::try_from(record.lsn.0).unwrap() - 1];
                    assert_eq!((&record.time, &record.change), (time, change));
                    last = record.lsn;
                }
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        let missing = all && last.0 < self.appended.len() as u64;
        assert!(!(missing && opening.ending == Ending::Clean), "{last} of {}", self.appended.len());
    }
}

pub fn birth(boot: u8) -> Birth {
    Birth { incarnation: incarnation(), boot: [boot; 16] }
}

fn incarnation() -> Incarnation {
    Incarnation::from_bytes([9; 16])
}
