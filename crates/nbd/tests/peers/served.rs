//! A server on a socket in the file system, with a `Vec` as disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_nbd::serve::{Address, Disk, Failure, Offer, ServeSettings, Server, Zeroing};
use tidegate_nbd::{BlockSizes, Errno, Export, Span, StatusFlags, TransmissionFlags};

/// All that the disk can.
pub const ALL: TransmissionFlags = TransmissionFlags::FLUSH
    .with(TransmissionFlags::FUA)
    .with(TransmissionFlags::TRIM)
    .with(TransmissionFlags::WRITE_ZEROES)
    .with(TransmissionFlags::MULTI_CONN)
    .with(TransmissionFlags::CACHE)
    .with(TransmissionFlags::FAST_ZERO);

/// What is told as one: holes are whole blocks of zeros.
const BLOCK: usize = 4096;

/// A disk that is served until this is dropped.
pub struct Served {
    server: Server,
    disk: Arc<VecDisk>,
    _folder: Option<tempfile::TempDir>,
}

#[derive(Default)]
struct VecDisk {
    bytes: Mutex<Vec<u8>>,
    flushes: AtomicU64,
    durable_writes: AtomicU64,
    /// The offset of a byte that can be neither read nor written, and one more: 0 is none.
    bad: AtomicU64,
}

impl Served {
    /// Over a socket in the file system.
    pub fn new(disk: Vec<u8>, flags: TransmissionFlags) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Unix(folder.path().join("a socket"));
        Self { _folder: Some(folder), ..Self::at(&address, disk, flags) }
    }

    pub fn at(address: &Address, disk: Vec<u8>, flags: TransmissionFlags) -> Self {
        let export = Export::new("disk", disk.len() as u64, flags, BlockSizes::default());
        let export = export.unwrap().described("a disk of the tests").unwrap();
        let disk = Arc::new(VecDisk { bytes: Mutex::new(disk), ..VecDisk::default() });
        let offers = vec![Offer { export, disk: disk.clone() }];
        let server = Server::start(address, offers, ServeSettings::default()).unwrap();
        Self { server, disk, _folder: None }
    }

    pub fn address(&self) -> &Address {
        self.server.address()
    }

    pub fn uri(&self) -> String {
        self.uri_of("disk")
    }

    pub fn uri_of(&self, export: &str) -> String {
        self.server.address().uri(export)
    }

    pub fn disk(&self) -> Vec<u8> {
        self.disk.bytes.lock().unwrap().clone()
    }

    pub fn fail_at(&self, offset: u64) {
        self.disk.bad.store(offset + 1, Ordering::SeqCst);
    }

    pub fn flushes(&self) -> u64 {
        self.disk.flushes.load(Ordering::SeqCst)
    }

    pub fn durable_writes(&self) -> u64 {
        self.disk.durable_writes.load(Ordering::SeqCst)
    }

    /// Stops it, and gives what is on the disk.
    pub fn stop(self) -> Vec<u8> {
        self.server.stop(Duration::from_secs(60));
        std::mem::take(&mut *self.disk.bytes.lock().unwrap())
    }
}

impl VecDisk {
    fn check(&self, offset: u64, bytes: u64) -> Result<(), Failure> {
        let bad = self.bad.load(Ordering::SeqCst);
        if (offset + 1..=offset + bytes).contains(&bad) {
            return Err(Failure::new(Errno::Io, "the disk is bad there"));
        }
        Ok(())
    }

    fn change(
        &self,
        offset: u64,
        bytes: u64,
        durable: bool,
        how: impl FnOnce(&mut [u8]),
    ) -> Result<(), Failure> {
        self.check(offset, bytes)?;
        self.durable_writes.fetch_add(u64::from(durable), Ordering::SeqCst);
        how(&mut self.bytes.lock().unwrap()[place(offset, bytes)]);
        Ok(())
    }
}

impl Disk for VecDisk {
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Failure> {
        self.check(offset, into.len() as u64)?;
        into.copy_from_slice(&self.bytes.lock().unwrap()[place(offset, into.len() as u64)]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Failure> {
        self.change(offset, data.len() as u64, durable, |place| place.copy_from_slice(data))
    }

    fn zero(&self, offset: u64, bytes: u64, how: Zeroing) -> Result<(), Failure> {
        self.change(offset, bytes, how.durable, |place| place.fill(0))
    }

    fn trim(&self, offset: u64, bytes: u64, durable: bool) -> Result<(), Failure> {
        self.change(offset, bytes, durable, |place| place.fill(0))
    }

    fn flush(&self) -> Result<(), Failure> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn status(&self, offset: u64, bytes: u64) -> Result<Vec<Span>, Failure> {
        let disk = self.bytes.lock().unwrap();
        let spans = disk[place(offset, bytes)].chunks(BLOCK).map(|block| {
            let zero = StatusFlags::HOLE.with(StatusFlags::ZERO);
            let is_zero = block.iter().all(|byte| *byte == 0);
            let flags = if is_zero { zero } else { StatusFlags::NONE };
            Span { length: block.len() as u64, flags }
        });
        Ok(spans.collect())
    }
}

fn place(offset: u64, bytes: u64) -> std::ops::Range<usize> {
    usize::try_from(offset).unwrap()..usize::try_from(offset + bytes).unwrap()
}
