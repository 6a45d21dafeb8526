//! Passes over image files, with agents that are killed within them: what the journal gives back is the
//! disk.

#![allow(clippy::cast_possible_truncation)] // tests run on 64 bits, with small numbers

use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use proptest::prelude::*;
use tidegate_hrl::journal::{Birth, Change, Ending, JournalSettings};
use tidegate_hrl::uring::UringStorage;
use tidegate_model::{Disk, DiskNumber, Incarnation, Lsn, Micros};

use super::hashes::{BLOCK, BLOCK_BYTES};
use super::*;

/// Not a whole number of blocks, and more than a stretch.
const BYTES: usize = 40 * BLOCK + 512;

/// A disk, its agent's folder, and what the journal made of it so far.
struct Scene {
    folder: tempfile::TempDir,
    vault: Vec<u8>,
    applied: Lsn,
}

/// A life of an agent.
struct Life {
    journal: Arc<Journal<UringStorage>>,
    passing: Passing<UringStorage>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("disk"), vec![0; BYTES]).unwrap();
        Self { folder, vault: vec![0xee; BYTES], applied: Lsn::NONE }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn hashes(&self) -> PathBuf {
        self.folder.path().join("hashes")
    }

    fn fill(&self, block: usize, value: u8) {
        let file = std::fs::OpenOptions::new().write(true).open(self.path()).unwrap();
        let bytes = BLOCK.min(BYTES - block * BLOCK);
        file.write_all_at(&vec![value; bytes], (block * BLOCK) as u64).unwrap();
    }

    fn live(&self, incarnation: u8) -> Life {
        self.live_with(incarnation, 64 << 20)
    }

    fn live_with(&self, incarnation: u8, journal_bytes: u64) -> Life {
        let storage =
            UringStorage::open(&self.folder.path().join(format!("journal-{incarnation}"))).unwrap();
        let incarnation = Incarnation::from_bytes([incarnation; 16]);
        let birth = Birth { incarnation, boot: [1; 16] };
        let bounds = JournalSettings::of(journal_bytes).unwrap();
        let (journal, opening) = Journal::open(storage, bounds, &birth, Box::new(|_| {})).unwrap();
        assert_ne!(opening.ending, Ending::Unclean { same_boot: false });
        let journal = Arc::new(journal);
        let number = DiskNumber::try_from(0).unwrap();
        let disk = Disk { number, bytes: BYTES as u64, name: "disk".to_owned() };
        let origin = FileOrigin { path: self.path(), bytes: BYTES as u64, snapshot: None };
        let (hashes, clock) = (self.hashes(), Arc::new(|| Micros(5)) as Clock);
        let passing =
            Passing::open(&disk, Box::new(origin), &hashes, journal.clone(), &opening, clock);
        Life { journal, passing: passing.unwrap() }
    }

    /// A pass to its end.
    fn pass(&mut self, life: &Life) -> Compared {
        let mut reading = life.passing.begin().unwrap();
        reading.open().unwrap();
        let compared = life.passing.compare(&mut *reading, &mut || true).unwrap();
        self.replay(life);
        compared
    }

    /// A pass that is killed before it reads the stretch with this number; what it appended became
    /// durable before that, or not.
    fn killed_pass(&mut self, life: Life, stretch: usize, durable: bool) {
        let mut looks = 0;
        let mut room = || {
            looks += 1;
            assert!(looks <= stretch, "killed");
            true
        };
        let mut reading = life.passing.begin().unwrap();
        reading.open().unwrap();
        let killed = AssertUnwindSafe(|| life.passing.compare(&mut *reading, &mut room).unwrap());
        let _ = catch_unwind(killed);
        if durable {
            life.journal.wait_durable(life.journal.usage().last).unwrap();
        }
        self.replay(&life);
    }

    /// What is durable is applied, as a recovery would.
    fn replay(&mut self, life: &Life) {
        let mut reader = life.journal.read_from(self.applied.next());
        while let Some(record) = reader.next().unwrap() {
            match record.change {
                Change::Write { offset, data, .. } => {
                    self.vault[offset as usize..offset as usize + data.len()]
                        .copy_from_slice(&data);
                }
                Change::Zero(extent) => {
                    let at = extent.offset as usize;
                    self.vault[at..at + extent.length as usize].fill(0);
                }
                other => panic!("{other:?} isn't of a pass"),
            }
            self.applied = record.lsn;
        }
    }

    #[track_caller]
    fn assert_whole(&self) {
        let disk = std::fs::read(self.path()).unwrap();
        let differ = (0..BYTES).find(|at| disk[*at] != self.vault[*at]);
        assert_eq!(differ.map(|at| at / BLOCK), None, "a block was missed");
    }
}

#[test]
fn only_what_changed_is_captured_and_zeros_without_data() {
    let mut scene = Scene::new();
    (0..20).for_each(|block| scene.fill(block, 7));
    let life = scene.live(1);
    let first = scene.pass(&life);
    scene.assert_whole();
    let bytes = BYTES as u64;
    let all = Compared { read_bytes: bytes, changed_bytes: bytes, data_bytes: 20 * BLOCK_BYTES };
    assert_eq!(first, all);
    let last = life.journal.usage().last;
    assert_eq!(last, Lsn(22), "zeros that follow each other are one record in each stretch");
    let nothing = Compared { read_bytes: bytes, ..Compared::default() };
    assert_eq!(scene.pass(&life), nothing);
    scene.fill(3, 8);
    scene.fill(4, 0);
    scene.fill(40, 9);
    let changed = scene.pass(&life);
    assert_eq!(changed.changed_bytes, 2 * BLOCK_BYTES + 512);
    assert_eq!(changed.data_bytes, BLOCK_BYTES + 512);
    scene.assert_whole();
}

#[test]
fn hashes_that_are_lost_or_of_another_journal_cost_a_capture_of_everything() {
    let mut scene = Scene::new();
    (0..41).for_each(|block| scene.fill(block, 7));
    let life = scene.live(1);
    scene.pass(&life);
    life.passing.close().unwrap();
    drop(life);
    let life = scene.live(1);
    assert_eq!(scene.pass(&life).changed_bytes, 0, "they outlive the process");
    drop(life);
    std::fs::remove_file(scene.hashes()).unwrap();
    let life = scene.live(1);
    assert_eq!(scene.pass(&life).changed_bytes, BYTES as u64);
    drop(life);
    scene.applied = Lsn::NONE;
    let life = scene.live(2);
    assert_eq!(scene.pass(&life).changed_bytes, BYTES as u64);
}

#[test]
fn a_block_that_changes_back_after_a_kill_is_captured() {
    let mut scene = Scene::new();
    let life = scene.live(1);
    scene.pass(&life);
    scene.fill(0, 9);
    // Its record is durable, and its hash isn't noted yet.
    scene.killed_pass(life, 1, true);
    assert_eq!(scene.vault[0], 9);
    scene.fill(0, 0);
    let life = scene.live(1);
    scene.pass(&life);
    scene.assert_whole();
}

#[test]
fn a_full_journal_makes_a_pass_wait_or_end_and_loses_nothing() {
    let mut scene = Scene::new();
    (0..41).for_each(|block| scene.fill(block, 1 + block as u8));
    // Less than the disk, and nobody takes anything out.
    let life = scene.live_with(1, JournalSettings::BYTES_MIN);
    for round in 1..200 {
        (0..41).for_each(|block| scene.fill(block, round + block as u8));
        let mut reading = life.passing.begin().unwrap();
        reading.open().unwrap();
        let mut asked = 0;
        let mut room = || {
            asked += 1;
            asked < 8
        };
        life.passing.compare(&mut *reading, &mut room).unwrap();
        scene.replay(&life);
        life.journal.committed(scene.applied).unwrap();
    }
    scene.pass(&life);
    scene.assert_whole();
}

#[test]
fn what_is_written_to_while_it_is_read_is_told_and_a_snapshot_that_stands_still_is_not() {
    let scene = Scene::new();
    let bytes = BYTES as u64;
    let other = scene.folder.path().join("snapshot");
    std::fs::copy(scene.path(), &other).unwrap();
    let begin = |snapshot: Option<PathBuf>| {
        let origin = FileOrigin { path: scene.path(), bytes, snapshot };
        let mut reading = origin.begin().unwrap();
        reading.open().unwrap();
        reading
    };
    let (itself, snapshot) = (begin(None), begin(Some(other)));
    assert_eq!((itself.changed(&[]).unwrap(), itself.moment()), (None, None));
    // The clock behind a file's times ticks every few milliseconds: write until it did.
    let change = (0..1000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        scene.fill(1, 1);
        itself.changed(&[]).unwrap()
    });
    assert!(change.is_some(), "it was written to");
    assert_eq!(snapshot.changed(&[]).unwrap(), None);
    assert!(snapshot.moment().is_some());
}

#[test]
fn a_snapshot_of_another_size_is_refused() {
    let scene = Scene::new();
    let other = scene.folder.path().join("other");
    std::fs::write(&other, vec![0; BYTES - 512]).unwrap();
    let origin =
        FileOrigin { path: scene.path(), bytes: BYTES as u64, snapshot: Some(other.clone()) };
    let error = origin.begin().unwrap().open().unwrap_err().to_string();
    assert!(error.contains("see that it is a snapshot of this disk"), "{error}");
}

/// A step of a machine's life.
#[derive(Debug, Clone)]
enum Step {
    Fill(usize, u8),
    Pass,
    Kill(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // Few values, so that blocks come to hold again what they held.
        6 => (0_usize..41, 0_u8..3).prop_map(|(block, value)| Step::Fill(block, value)),
        1 => Just(Step::Pass),
        2 => (0_usize..4, any::<bool>()).prop_map(|(stretch, durable)| Step::Kill(stretch, durable)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn after_a_whole_pass_the_journal_has_the_disk_whatever_was_killed_before(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut scene = Scene::new();
        let mut life = scene.live(1);
        for step in steps {
            match step {
                Step::Fill(block, value) => scene.fill(block, value),
                Step::Pass => {
                    scene.pass(&life);
                    scene.assert_whole();
                }
                Step::Kill(stretch, durable) => {
                    scene.killed_pass(life, stretch, durable);
                    life = scene.live(1);
                }
            }
        }
        scene.pass(&life);
        scene.assert_whole();
    }
}
