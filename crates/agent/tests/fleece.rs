//! Disks of a running qemu-storage-daemon, captured in passes while a guest writes: what a pass read is the
//! disks at its beginning, and what it didn't capture the next one does.

#![allow(clippy::unwrap_used)] // also in functions that tests share
#![allow(clippy::cast_possible_truncation)] // tests run on 64 bits, with small numbers

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_agent::pass::{Compared, Fleece, FleeceDisk, Image, Passing, Reading};
use tidegate_hrl::Journal;
use tidegate_hrl::journal::{Birth, Change, JournalSettings, Opening};
use tidegate_hrl::uring::UringStorage;
use tidegate_model::{Disk, DiskNumber, Incarnation, Lsn, Micros};
use tidegate_nbd::serve::Address;

const LIMIT: Duration = Duration::from_secs(60);
const BYTES: u64 = 8 << 20;
const BLOCK: u64 = 64 << 10;

/// Runs a tool, which must succeed.
#[track_caller]
fn tool(name: &str, arguments: &[&str]) {
    let output = Command::new("timeout").arg("60").arg(name).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains("failed"), "{name} {arguments:?}: {said}");
}

/// Two disks that a qemu-storage-daemon serves, and an agent's folder.
struct Scene {
    folder: tempfile::TempDir,
    daemon: Option<Child>,
    vault: [Vec<u8>; 2],
    applied: Lsn,
}

/// A life of an agent.
struct Life {
    journal: Arc<Journal<UringStorage>>,
    passing: Vec<Passing<UringStorage>>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for index in 0..2 {
            let image = folder.path().join(format!("{index}.qcow2"));
            tool("qemu-img", &["create", "-q", "-f", "qcow2", image.to_str().unwrap(), "8M"]);
        }
        let vault = [vec![0xee; BYTES as usize], vec![0xee; BYTES as usize]];
        let mut scene = Self { folder, daemon: None, vault, applied: Lsn::NONE };
        scene.serve();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn serve(&mut self) {
        let (qmp, nbd) = (self.text("qmp"), self.text("nbd"));
        let mut call = Command::new("qemu-storage-daemon");
        let chardev = format!("socket,id=m,path={qmp},server=on,wait=off");
        call.args(["--chardev", &chardev, "--monitor", "chardev=m"]);
        call.args(["--nbd-server", &format!("addr.type=unix,addr.path={nbd}")]);
        for index in 0..2 {
            let file = self.text(&format!("{index}.qcow2"));
            let node =
                format!("driver=qcow2,node-name=n{index},file.driver=file,file.filename={file}");
            let export =
                format!("type=nbd,id=g{index},node-name=n{index},name=g{index},writable=on");
            call.args(["--blockdev", &node, "--export", &export]);
        }
        self.daemon = Some(call.spawn().unwrap());
        let until = Instant::now() + LIMIT;
        while !self.answers() {
            assert!(Instant::now() < until, "qemu-storage-daemon doesn't serve");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answers(&self) -> bool {
        let uri = self.uri(1);
        let call = Command::new("qemu-io").args(["-f", "raw", "-c", "read 0 512", &uri]).output();
        call.unwrap().status.success()
    }

    /// Ends the daemon as a host does that is shut down, or at once.
    fn end(&mut self, gently: bool) {
        let mut daemon = self.daemon.take().unwrap();
        if gently {
            tool("kill", &[&daemon.id().to_string()]);
        } else {
            daemon.kill().unwrap();
        }
        daemon.wait().unwrap();
        for socket in ["qmp", "nbd"] {
            let _ = std::fs::remove_file(self.path(socket));
        }
    }

    fn uri(&self, index: usize) -> String {
        format!("nbd+unix:///g{index}?socket={}", self.text("nbd"))
    }

    fn write(&self, index: usize, value: u8, block: u64) {
        let write = format!("write -P {value} {} 4k", block * BLOCK + 512);
        tool("qemu-io", &["-f", "raw", "-c", &write, "-c", "flush", &self.uri(index)]);
    }

    /// What is on a disk now.
    fn disk(&self, index: usize) -> Vec<u8> {
        let copy = self.text("copy");
        tool("qemu-img", &["convert", "-f", "raw", "-O", "raw", &self.uri(index), &copy]);
        std::fs::read(copy).unwrap()
    }

    fn live(&self, incarnation: u8) -> Life {
        let storage = UringStorage::open(&self.path(&format!("journal-{incarnation}"))).unwrap();
        let incarnation = Incarnation::from_bytes([incarnation; 16]);
        let birth = Birth { incarnation, boot: [1; 16] };
        let bounds = JournalSettings::of(64 << 20).unwrap();
        let (journal, opening) = Journal::open(storage, bounds, &birth, Box::new(|_| {})).unwrap();
        let journal = Arc::new(journal);
        let of_disk = |index: usize| FleeceDisk {
            number: DiskNumber::try_from(index as u8).unwrap(),
            path: self.path(&format!("{index}.qcow2")),
            bytes: BYTES,
            node: format!("n{index}"),
            scratch: self.path(&format!("scratch-{index}")),
            note: self.path(&format!("disk-{index}.bitmap")),
        };
        let (monitor, address) = (self.path("qmp"), Address::Unix(self.path("nbd")));
        let disks = (0..2).map(of_disk).collect();
        let machine = "db-1".parse().unwrap();
        let fleece = Fleece { monitor, address, machine, incarnation, disks };
        let origins = fleece.origins().into_iter().enumerate();
        let passing = origins
            .map(|(index, origin)| self.passing(index, Box::new(origin), &journal, &opening));
        Life { passing: passing.collect(), journal }
    }

    fn passing(
        &self,
        index: usize,
        origin: Box<dyn tidegate_agent::pass::Origin>,
        journal: &Arc<Journal<UringStorage>>,
        opening: &Opening,
    ) -> Passing<UringStorage> {
        let image = Image::open(&self.path(&format!("{index}.qcow2"))).unwrap();
        let number = DiskNumber::try_from(index as u8).unwrap();
        let disk = Disk { number, bytes: image.bytes, name: image.name };
        let hashes = self.path(&format!("disk-{index}.hashes"));
        let clock = Arc::new(|| Micros(5));
        Passing::open(&disk, origin, &hashes, journal.clone(), opening, clock).unwrap()
    }

    /// A pass, with something done once it has begun. Whether all of it ends well.
    fn pass(&mut self, life: &Life, meanwhile: impl FnOnce(&Self)) -> Compared {
        let mut reads: Vec<Box<dyn Reading>> = Vec::new();
        for passing in &life.passing {
            reads.push(passing.begin().unwrap());
        }
        reads.iter_mut().for_each(|reading| reading.open().unwrap());
        meanwhile(self);
        let mut found = Compared::default();
        for (passing, reading) in life.passing.iter().zip(&mut reads) {
            found = found.and(passing.compare(&mut **reading, &mut || true).unwrap());
        }
        self.replay(life);
        reads.iter_mut().for_each(|reading| {
            reading.check().unwrap();
            assert_eq!(reading.changed(&[]).unwrap(), None);
            reading.captured().unwrap();
        });
        found
    }

    /// One that ends without a word of what it captured, as when the agent is killed.
    fn lost_pass(&mut self, life: Life, stretches: usize) {
        let mut reads: Vec<Box<dyn Reading>> = Vec::new();
        for passing in &life.passing {
            reads.push(passing.begin().unwrap());
        }
        reads.iter_mut().for_each(|reading| reading.open().unwrap());
        let mut left = stretches;
        for (passing, reading) in life.passing.iter().zip(&mut reads) {
            let mut room = || {
                left = left.saturating_sub(1);
                left > 0
            };
            passing.compare(&mut **reading, &mut room).unwrap();
        }
        self.replay(&life);
        // Nobody clears up.
        reads.into_iter().for_each(std::mem::forget);
    }

    fn replay(&mut self, life: &Life) {
        let mut reader = life.journal.read_from(self.applied.next());
        while let Some(record) = reader.next().unwrap() {
            match record.change {
                Change::Write { disk, offset, data } => {
                    let vault = &mut self.vault[usize::from(disk.get())];
                    vault[offset as usize..offset as usize + data.len()].copy_from_slice(&data);
                }
                Change::Zero(extent) => {
                    let vault = &mut self.vault[usize::from(extent.disk.get())];
                    vault[extent.offset as usize..(extent.offset + extent.length) as usize].fill(0);
                }
                other => panic!("{other:?} isn't of a pass"),
            }
            self.applied = record.lsn;
        }
    }

    #[track_caller]
    fn assert_whole(&self, disks: &[Vec<u8>; 2]) {
        for (disk, vault) in disks.iter().zip(&self.vault) {
            let differ = (0..disk.len()).find(|at| disk[*at] != vault[*at]);
            assert_eq!(differ.map(|at| at as u64 / BLOCK), None, "a block differs");
        }
    }

    fn disks(&self) -> [Vec<u8>; 2] {
        [self.disk(0), self.disk(1)]
    }

    /// Bitmaps that are left in an image that nobody has open.
    fn bitmaps(&self, index: usize) -> usize {
        let file = self.text(&format!("{index}.qcow2"));
        let output = Command::new("qemu-img").args(["info", "--output=json", &file]).output();
        String::from_utf8_lossy(&output.unwrap().stdout).matches("\"granularity\"").count()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn nobody(_: &Scene) {}

#[test]
fn a_pass_is_of_the_moment_at_which_it_begins_and_reads_only_what_changed() {
    let mut scene = Scene::new();
    scene.write(0, 1, 3);
    let life = scene.live(1);
    let first = scene.pass(&life, nobody);
    assert_eq!(first.read_bytes, 2 * BYTES, "the first compares everything");
    scene.assert_whole(&scene.disks());
    scene.write(0, 2, 3);
    scene.write(0, 3, 50);
    scene.write(1, 4, 7);
    let before = scene.disks();
    // Overwritten, and written anew, while the pass reads.
    let found = scene.pass(&life, |scene| {
        scene.write(0, 9, 50);
        scene.write(0, 9, 51);
        scene.write(1, 9, 7);
    });
    assert_eq!((found.read_bytes, found.changed_bytes), (3 * BLOCK, 3 * BLOCK));
    scene.assert_whole(&before);
    let found = scene.pass(&life, nobody);
    assert_eq!(found.changed_bytes, 3 * BLOCK, "and then is in the next");
    scene.assert_whole(&scene.disks());
    assert_eq!(scene.pass(&life, nobody).read_bytes, 0);
    assert!(!scene.path("scratch-0").exists());
}

#[test]
fn what_a_killed_agent_read_is_read_again_and_nothing_is_missed() {
    let mut scene = Scene::new();
    let life = scene.live(1);
    scene.pass(&life, nobody);
    drop(life);
    for round in 1..4 {
        scene.write(0, round, 2);
        scene.write(0, round, 20 + u64::from(round));
        scene.write(1, round, 100);
        let life = scene.live(1);
        scene.lost_pass(life, usize::from(round) * 3);
    }
    // Back to what it was before the first.
    scene.write(0, 0, 2);
    let life = scene.live(1);
    let found = scene.pass(&life, nobody);
    assert!(found.read_bytes >= 4 * BLOCK && found.read_bytes < BYTES, "{found:?}");
    scene.assert_whole(&scene.disks());
    assert_eq!(scene.pass(&life, nobody).read_bytes, 0);
    scene.end(true);
    assert_eq!(scene.bitmaps(0), 1, "only the one that records is left");
}

#[test]
fn a_node_that_the_guest_doesnt_write_to_any_more_is_refused() {
    let mut scene = Scene::new();
    let life = scene.live(1);
    scene.pass(&life, nobody);
    // A snapshot is put over it, as `blockdev-snapshot-sync` does.
    let mut monitor = UnixStream::connect(scene.path("qmp")).unwrap();
    let snapshot = scene.text("snapshot");
    write!(
        monitor,
        "{{\"execute\": \"qmp_capabilities\"}}\n{{\"execute\": \"blockdev-snapshot-sync\", \
         \"arguments\": {{\"node-name\": \"n0\", \"snapshot-file\": \"{snapshot}\", \
         \"snapshot-node-name\": \"over\"}}}}\n"
    )
    .unwrap();
    let until = Instant::now() + LIMIT;
    let mut said = String::new();
    let mut monitor = BufReader::new(monitor);
    while said.matches("\"return\"").count() < 2 {
        assert!(monitor.read_line(&mut said).unwrap() > 0 && Instant::now() < until, "{said}");
        assert!(!said.contains("\"error\""), "{said}");
    }
    drop(monitor);
    let mut reading = life.passing[0].begin().unwrap();
    let error = reading.open().unwrap_err().to_string();
    assert!(error.contains("name the node that the guest writes to now"), "{error}");
}

#[test]
fn bitmaps_outlive_the_daemon_and_where_they_are_lost_everything_is_compared() {
    let mut scene = Scene::new();
    let life = scene.live(1);
    scene.pass(&life, nobody);
    scene.write(1, 5, 9);
    scene.end(true);
    scene.serve();
    scene.write(1, 6, 10);
    let found = scene.pass(&life, nobody);
    assert_eq!((found.read_bytes, found.changed_bytes), (2 * BLOCK, 2 * BLOCK));
    // One that is killed leaves bitmaps that say nothing.
    scene.write(1, 7, 11);
    scene.end(false);
    scene.serve();
    let found = scene.pass(&life, nobody);
    assert_eq!((found.read_bytes, found.changed_bytes), (2 * BYTES, BLOCK));
    scene.assert_whole(&scene.disks());
    // Of another journal nothing is known, and its bitmaps are others.
    scene.write(0, 8, 12);
    drop(life);
    scene.applied = Lsn::NONE;
    let life = scene.live(2);
    let found = scene.pass(&life, nobody);
    assert_eq!(found.changed_bytes, 2 * BYTES);
    scene.assert_whole(&scene.disks());
    scene.end(true);
    assert_eq!(scene.bitmaps(0), 1, "those of the journal before are gone");
}
