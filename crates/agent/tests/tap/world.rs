//! A machine for the tests: images, a journal, taps, a server, and what the journal gives back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidegate_agent::tap::{Resumed, Tap, TapError, TapSettings};
use tidegate_hrl::Journal;
use tidegate_hrl::journal::{Birth, Change, JournalSettings, Opening, Record};
use tidegate_hrl::uring::UringStorage;
use tidegate_model::{BookmarkKind, DiskNumber, Incarnation, Lsn, Micros};
use tidegate_nbd::serve::{Address, Offer, ServeSettings, Server};

pub const BOOT: [u8; 16] = [3; 16];
pub const DISK_BYTES: u64 = (2 << 20) + 512;

pub type TestTap = Arc<Tap<UringStorage>>;

/// Where the files are.
#[derive(Clone)]
pub struct Place {
    pub folder: PathBuf,
    pub disks: u8,
    pub journal_bytes: u64,
    pub incarnation: u8,
    pub boot: [u8; 16],
}

impl Place {
    pub fn new(folder: &Path) -> Self {
        let (folder, journal_bytes) = (folder.to_owned(), 4 << 30);
        Self { folder, disks: 1, journal_bytes, incarnation: 1, boot: BOOT }
    }

    pub fn image(&self, disk: u8) -> PathBuf {
        self.folder.join(format!("disk-{disk}.img"))
    }

    pub fn marks(&self, disk: u8) -> PathBuf {
        self.folder.join(format!("disk-{disk}.marks"))
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    pub fn settings(&self, disk: u8) -> TapSettings {
        let (path, marks) = (self.image(disk), self.marks(disk));
        TapSettings { disk: disk.try_into().unwrap(), path, marks, boot: self.boot }
    }

    /// Empty disks.
    pub fn make_images(&self) {
        for disk in 0..self.disks {
            std::fs::File::create(self.image(disk)).unwrap().set_len(DISK_BYTES).unwrap();
        }
    }

    pub fn journal(&self) -> (Arc<Journal<UringStorage>>, Opening) {
        let storage = UringStorage::open(&self.folder.join("journal")).unwrap();
        let settings = JournalSettings::of(self.journal_bytes).unwrap();
        let incarnation = Incarnation::from_bytes([self.incarnation; 16]);
        let birth = Birth { incarnation, boot: self.boot };
        let (journal, opening) =
            Journal::open(storage, settings, &birth, Box::new(|_| {})).unwrap();
        (Arc::new(journal), opening)
    }

    pub fn create(&self) -> Machine {
        let (journal, opening) = self.journal();
        let taps = (0..self.disks).map(|disk| {
            let settings = self.settings(disk);
            Arc::new(Tap::create(&settings, journal.clone(), &opening, Arc::new(now)).unwrap())
        });
        Machine { taps: taps.collect(), journal, place: self.clone(), rereads: Vec::new() }
    }

    /// Goes on with what is there.
    pub fn resume(&self) -> Machine {
        let (journal, opening) = self.journal();
        let (mut taps, mut rereads) = (Vec::new(), Vec::new());
        for disk in 0..self.disks {
            let settings = self.settings(disk);
            let resumed = Tap::resume(&settings, journal.clone(), &opening, Arc::new(now)).unwrap();
            match resumed {
                Resumed::Whole(tap) => taps.push(Arc::new(tap)),
                Resumed::Reread(tap, reread) => {
                    assert_eq!(reread.after, opening.recovered_to);
                    taps.push(Arc::new(tap));
                    rereads.push(reread);
                }
                Resumed::Resync(cause) => panic!("disk {disk}: {cause}"),
            }
        }
        Machine { taps, journal, place: self.clone(), rereads }
    }

    /// What a resumed tap is told, without keeping it.
    pub fn try_resume(&self) -> Result<Resumed<UringStorage>, TapError> {
        let (journal, opening) = self.journal();
        Tap::resume(&self.settings(0), journal, &opening, Arc::new(now))
    }
}

pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Micros(u64::try_from(since.as_micros()).unwrap())
}

pub struct Machine {
    pub taps: Vec<TestTap>,
    pub journal: Arc<Journal<UringStorage>>,
    pub place: Place,
    pub rereads: Vec<tidegate_agent::tap::Reread>,
}

impl Machine {
    pub fn serve(&self) -> Server {
        let offers = self.taps.iter().map(|tap| {
            let export = tap.export(&tap.disk().to_string()).unwrap();
            Offer { export, disk: tap.clone() }
        });
        let address = Address::Unix(self.place.socket());
        Server::start(&address, offers.collect(), ServeSettings::default()).unwrap()
    }

    /// Waits until the journal has written everything.
    pub fn settle(&self) -> Lsn {
        let last = self.journal.usage().last;
        self.journal.wait_durable(last).unwrap();
        last
    }

    /// The end that a service makes.
    pub fn close(self) {
        for tap in &self.taps {
            tap.close().unwrap();
        }
        drop(self.taps);
        Arc::into_inner(self.journal).unwrap().close().unwrap();
    }
}

/// The disks that a journal describes.
#[derive(Default)]
pub struct Replay {
    disks: BTreeMap<DiskNumber, Vec<u8>>,
    pub last: Lsn,
    /// Where gaps begin.
    pub gaps: BTreeMap<Lsn, BookmarkKind>,
}

impl Replay {
    pub fn disk(&mut self, number: u8) -> &mut Vec<u8> {
        let bytes = usize::try_from(DISK_BYTES).unwrap();
        self.disks.entry(number.try_into().unwrap()).or_insert_with(|| vec![0; bytes])
    }

    /// Applies what a journal has after the last that was applied, up to `end`.
    pub fn go_on(&mut self, journal: &Journal<UringStorage>, end: Lsn) {
        let mut reader = journal.read_from(self.last.next());
        while self.last < end {
            let record = reader.next().unwrap().expect("it is durable");
            self.apply(&record);
        }
    }

    fn apply(&mut self, record: &Record) {
        assert_eq!(record.lsn, self.last.next());
        self.last = record.lsn;
        match &record.change {
            Change::Write { disk, offset, data } => {
                let start = usize::try_from(*offset).unwrap();
                self.disk(disk.get())[start..start + data.len()].copy_from_slice(data);
            }
            Change::Zero(extent) => {
                let start = usize::try_from(extent.offset).unwrap();
                let bytes = usize::try_from(extent.length).unwrap();
                self.disk(extent.disk.get())[start..start + bytes].fill(0);
            }
            Change::Bookmark(mark) if mark.kind.begins_gap() => {
                self.gaps.insert(record.lsn, mark.kind);
            }
            _ => {}
        }
    }

    #[track_caller]
    pub fn assert_equals(&mut self, place: &Place) {
        for disk in 0..place.disks {
            let found = std::fs::read(place.image(disk)).unwrap();
            let replayed = self.disk(disk);
            let differs = found.iter().zip(replayed.iter()).position(|(a, b)| a != b);
            assert_eq!(differs, None, "disk {disk}: the first byte that differs");
            assert_eq!(found.len(), replayed.len());
        }
    }
}

pub const PATIENCE: Duration = Duration::from_secs(60);
