//! Vaults in memory, whole and broken: what a check says of them.

use tidegate_model::{BookmarkKind, Epoch, FrameNumber, Lsn, PackId, Point};

use super::*;
use crate::layout;
use crate::pack::{HEADER_BYTES, PackHeader, PackKind};
use crate::testing::{BLOCK, Op, TestLog, TestMachine, TestVault, disk, extent, run};

mod folded;
mod unnamed;

/// db-1 with three packs of log 1; web-1 in log 2, whose one write refers to db-1's first block.
struct Sample {
    vault: TestVault,
    paths: Vec<String>,
}

async fn sample() -> Sample {
    let mut vault = TestVault::new();
    let mut first = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
    first.does(Op::Disk(disk(0, 8 * BLOCK)));
    first.writes(extent(0, 0, BLOCK), 1);
    let mut paths = vec![first.store(&mut vault).await];
    first.writes(extent(0, BLOCK, BLOCK), 2);
    first.marks(BookmarkKind::CopyEnd, true);
    paths.push(first.store(&mut vault).await);
    first.writes(extent(0, 2 * BLOCK, 100), 3);
    first.marks(BookmarkKind::CrashConsistent, true);
    paths.push(first.store(&mut vault).await);
    first.publish(&vault).await;
    let mut second = TestMachine::new("web-1", 1, TestLog::new(&vault, 2));
    second.does(Op::Disk(disk(0, BLOCK)));
    second.writes(extent(0, 0, BLOCK), 1);
    second.marks(BookmarkKind::CopyEnd, true);
    paths.push(second.store(&mut vault).await);
    second.publish(&vault).await;
    Sample { vault, paths }
}

async fn report(vault: &TestVault, contents: bool) -> Report {
    verify(&vault.reader(), contents, &|_| ()).await.unwrap()
}

/// Machines, each with the LSNs of its points.
type Touched = Vec<(String, Vec<u64>)>;

/// Breaks the sample, and gives what is said of it: the text of each finding with the machines
/// and the points that it touches.
fn broken(
    contents: bool,
    damage: impl AsyncFnOnce(&TestVault, &[String]),
) -> Vec<(String, Touched)> {
    run(async {
        let sample = sample().await;
        damage(&sample.vault, &sample.paths).await;
        let report = report(&sample.vault, contents).await;
        let touched = |touch: &Touch| {
            let lsns = touch.points.iter().map(|point| point.lsn.0).collect();
            (touch.machine.to_string(), lsns)
        };
        let told = |finding: &Finding| {
            (finding.what.clone(), finding.touches.iter().map(touched).collect())
        };
        report.damage.iter().map(told).collect()
    })
}

fn touches(expected: &[(&str, &[u64])]) -> Touched {
    expected.iter().map(|(machine, lsns)| ((*machine).to_owned(), lsns.to_vec())).collect()
}

async fn change(vault: &TestVault, path: &str, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = vault.get(path).await;
    change(&mut bytes);
    vault.put(path, bytes).await;
}

#[test]
fn a_whole_vault_is_clean_and_counted() {
    run(async {
        let sample = sample().await;
        let done = std::sync::Mutex::new(Done::default());
        let tell = |now| *done.lock().unwrap() = now;
        let report = verify(&sample.vault.reader(), true, &tell).await.unwrap();
        assert_eq!(report.damage, []);
        let counts = report.counts;
        assert_eq!((counts.runs, counts.logs, counts.packs, counts.leftovers), (2, 2, 4, 0));
        assert_eq!((counts.frames, counts.records, counts.references), (3, 9, 1));
        assert_eq!(counts.kept_bytes, 2 * BLOCK + 100);
        assert_eq!((counts.duplicate_blocks, counts.duplicate_bytes), (0, 0));
        let machines: Vec<_> =
            report.machines.iter().map(|m| (m.machine.as_str(), m.points)).collect();
        assert_eq!(machines, [("db-1", 2), ("web-1", 1)]);
        assert_eq!(done.lock().unwrap().packs, 4);
        let mut stored = 0;
        for path in &sample.paths {
            stored += sample.vault.get(path).await.len() as u64;
        }
        assert_eq!(counts.stored_bytes, stored);
    });
}

#[test]
fn a_block_that_is_kept_twice_is_counted() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.log.references = false;
        machine.does(Op::Disk(disk(0, 8 * BLOCK)));
        machine.writes(extent(0, 0, 3 * BLOCK), 1);
        machine.store(&mut vault).await;
        machine.publish(&vault).await;
        let counts = report(&vault, false).await.counts;
        assert_eq!((counts.duplicate_blocks, counts.duplicate_bytes), (2, 2 * BLOCK));
    });
}

#[test]
fn a_gap_that_a_crash_left_is_clean() {
    run(async {
        let mut sample = sample().await;
        let mut machine = TestMachine::new("app-1", 1, TestLog::new(&sample.vault, 3));
        machine.publish(&sample.vault).await;
        machine.does(Op::Disk(disk(0, BLOCK)));
        machine.send(&sample.vault);
        machine.log.close(&mut sample.vault, false);
        machine.does(Op::Time);
        machine.send(&sample.vault);
        let (path, bytes) = machine.log.close(&mut sample.vault, false);
        sample.vault.put(&path, bytes).await;
        let report = report(&sample.vault, true).await;
        assert_eq!(report.damage, []);
        assert_eq!((report.counts.packs, report.counts.leftovers), (4, 1));
    });
}

#[test]
fn a_missing_pack_is_found_with_all_that_it_touches() {
    let found = broken(false, async |vault, paths| vault.delete(&paths[0]).await);
    let missing = &found[0];
    assert!(missing.0.contains("00000000 is missing"), "{found:?}");
    assert_eq!(missing.1, touches(&[("db-1", &[4, 6]), ("web-1", &[3])]));
    // The later packs still count.
    assert!(found[1].0.contains("LSNs 1 to 2 were committed"), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_pack_that_only_a_reference_speaks_of_is_missed() {
    run(async {
        let mut vault = TestVault::new();
        let mut first = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        first.does(Op::Disk(disk(0, BLOCK)));
        first.store(&mut vault).await;
        first.writes(extent(0, 0, BLOCK), 1);
        let path = first.store(&mut vault).await;
        let mut second = TestMachine::new("web-1", 1, TestLog::new(&vault, 2));
        second.does(Op::Disk(disk(0, BLOCK)));
        second.writes(extent(0, 0, BLOCK), 1);
        second.store(&mut vault).await;
        first.publish(&vault).await;
        second.publish(&vault).await;
        assert!(report(&vault, true).await.is_clean());
        vault.delete(&path).await;
        let report = report(&vault, false).await;
        assert!(report.damage[0].what.contains("0001 is missing: it was committed"), "{report:?}");
        // Of the machine whose log it was nothing else tells that anything followed.
        let touched = report.damage[0].touches.iter().map(|touch| touch.machine.as_str());
        assert_eq!(touched.collect::<Vec<_>>(), ["db-1", "web-1"]);
    });
}

#[test]
fn a_pack_cut_short_is_found_whatever_is_left_of_it() {
    for keep in [0, 80, 160, 170, 400] {
        let found = broken(false, async |vault, paths| {
            change(vault, &paths[1], |bytes| bytes.truncate(keep)).await;
        });
        assert!(found[0].0.contains("00000001 "), "{keep}: {found:?}");
        assert_eq!(found[0].1, touches(&[("db-1", &[6])]), "{keep}: {found:?}");
    }
}

#[test]
fn a_changed_bit_is_found_in_an_index_always_and_in_a_frame_when_contents_are_read() {
    let index = broken(false, async |vault, paths| {
        change(vault, &paths[0], |bytes| bytes[200] ^= 8).await;
    });
    assert!(index[0].0.contains("digest"), "{index:?}");
    assert_eq!(index[0].1, touches(&[("db-1", &[4, 6]), ("web-1", &[3])]));
    let frame = async |vault: &TestVault, paths: &[String]| {
        change(vault, &paths[1], |bytes| *bytes.last_mut().unwrap() ^= 8).await;
    };
    assert_eq!(broken(false, frame), []);
    let found = broken(true, frame);
    assert!(found[0].0.contains("frame 1 in log/ps-1"), "{found:?}");
    assert_eq!((found.len(), &found[0].1), (1, &touches(&[("db-1", &[4, 6])])));
}

#[test]
fn swapped_packs_are_found() {
    let found = broken(false, async |vault, paths| {
        let (first, second) = (vault.get(&paths[0]).await, vault.get(&paths[3]).await);
        vault.put(&paths[0], second).await;
        vault.put(&paths[3], first).await;
    });
    let other_log = found.iter().filter(|found| found.0.contains("of another log")).count();
    assert_eq!(other_log, 2, "{found:?}");
}

#[test]
fn an_object_that_grew_or_of_another_vault_is_found() {
    let found = broken(false, async |vault, paths| {
        change(vault, &paths[2], |bytes| bytes.push(0)).await;
    });
    assert!(found[0].0.contains("cut or changed"), "{found:?}");
    let found = broken(false, async |vault, paths| {
        change(vault, &paths[2], |bytes| bytes[16] ^= 1).await;
    });
    assert!(found[0].0.contains("of another vault"), "{found:?}");
}

#[test]
fn a_damaged_record_of_a_machine_is_found() {
    let machine: tidegate_model::Name = "db-1".parse().unwrap();
    let epoch = layout::epoch(&machine, Epoch(1));
    let found = broken(false, async |vault, _| {
        change(vault, &epoch, |bytes| *bytes.last_mut().unwrap() ^= 1).await;
    });
    assert!(found[0].0.contains(&epoch) && found[0].0.contains("damaged"), "{found:?}");
    let found = broken(false, async |vault, _| vault.delete(&epoch).await);
    assert!(found[0].0.contains(&epoch) && found[0].0.contains("missing"), "{found:?}");
    let run = broken(false, async |vault, paths| {
        let (log, _) = layout::parse_pack(&paths[0]).unwrap();
        vault.delete(&layout::run(log.id.run)).await;
    });
    assert!(run[0].0.starts_with("runs/"), "{run:?}");
}

#[test]
fn a_session_that_knows_more_than_the_logs_hold_shows_a_loss_at_a_logs_end() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, BLOCK)));
        machine.marks(BookmarkKind::CopyEnd, true);
        machine.store(&mut vault).await;
        machine.does(Op::Time);
        let path = machine.store(&mut vault).await;
        machine.reconnect(Some(TestLog::new(&vault, 2)), 3);
        machine.publish(&vault).await;
        assert!(report(&vault, false).await.is_clean());
        vault.delete(&path).await;
        let report = report(&vault, false).await;
        assert!(report.damage[0].what.contains("LSNs 3 to 3 were committed"), "{report:?}");
        let reader = vault.reader();
        let usage = crate::usage::usage(&reader).await.unwrap();
        let last = usage[&machine.of.0].last_point.as_ref().unwrap().point;
        assert_eq!(last, Point { epoch: Epoch(1), lsn: Lsn(2) });
    });
}

#[test]
fn what_machines_take_adds_up_to_what_is_stored() {
    run(async {
        let sample = sample().await;
        let stored = report(&sample.vault, false).await.counts.stored_bytes;
        let usage = crate::usage::usage(&sample.vault.reader()).await.unwrap();
        assert_eq!(usage.values().map(|usage| usage.stored_bytes).sum::<u64>(), stored);
        let of = |name: &str| &usage[&name.parse().unwrap()];
        assert_eq!((of("db-1").kept_bytes, of("db-1").reference_bytes), (2 * BLOCK + 100, 0));
        assert_eq!((of("web-1").kept_bytes, of("web-1").reference_bytes), (0, BLOCK));
        assert_eq!((of("db-1").points, of("web-1").disks[0].bytes), (2, BLOCK));
    });
}

/// What garbage collection puts where a silent log goes on.
async fn put_tombstone(vault: &TestVault, path: &str) {
    let (log, number) = layout::parse_pack(path).unwrap();
    let mut header = PackHeader {
        kind: PackKind::Tombstone,
        key_version: 1,
        vault: vault.ring.vault(),
        log: log.id,
        number,
        first_frame: FrameNumber(0),
        frame_count: 0,
        index_bytes: 0,
        object_bytes: HEADER_BYTES as u64,
        id: PackId::from_bytes([8; 16]),
        digest: [0; 32],
    };
    header.digest = header.digest_with(&[]);
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    vault.put(path, bytes).await;
}

#[test]
fn a_log_ends_at_a_tombstone_and_what_its_owner_still_stored_counts_for_nothing() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, BLOCK)));
        machine.store(&mut vault).await;
        machine.does(Op::Time);
        machine.send(&vault);
        let (path, _) = machine.log.close(&mut vault, false);
        put_tombstone(&vault, &path).await;
        machine.does(Op::Time);
        machine.send(&vault);
        machine.log.committed = 1;
        let (path, bytes) = machine.log.close(&mut vault, false);
        vault.put(&path, bytes).await;
        machine.publish(&vault).await;
        let report = report(&vault, true).await;
        assert_eq!(report.damage, []);
        assert_eq!((report.counts.packs, report.counts.leftovers), (1, 1));
        let (reader, name) = (vault.reader(), machine.of.0.clone());
        let end = crate::grant::chain_end(&reader, &name, &machine.record).await.unwrap();
        assert_eq!(end, Lsn(1));
    });
}

#[test]
fn a_tombstone_in_the_place_of_a_committed_pack_is_damage() {
    let found = broken(false, async |vault, paths| put_tombstone(vault, &paths[1]).await);
    assert!(found[0].0.contains("a tombstone stands in its place"), "{found:?}");
    assert_eq!(found[0].1, touches(&[("db-1", &[6])]));
    // A changed bit doesn't make one.
    let found = broken(false, async |vault, paths| {
        put_tombstone(vault, &paths[1]).await;
        change(vault, &paths[1], |bytes| bytes[90] ^= 1).await;
    });
    assert!(found[0].0.contains("digest"), "{found:?}");
}

#[test]
fn a_reference_that_leads_to_another_block_is_found() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, 8 * BLOCK)));
        machine.writes(extent(0, 0, BLOCK), 1);
        machine.writes(extent(0, BLOCK, BLOCK), 2);
        machine.store(&mut vault).await;
        machine.publish(&vault).await;
        for (_, target) in vault.known.values_mut() {
            target.ordinal = 1 - target.ordinal;
        }
        machine.writes(extent(0, 2 * BLOCK, BLOCK), 1);
        machine.store(&mut vault).await;
        let found = report(&vault, false).await.damage;
        assert!(found[0].what.starts_with("1 reference in log/ps-1/"), "{found:?}");
        assert_eq!(found.len(), 1);
    });
}

#[test]
fn bytes_that_changed_before_they_were_sealed_are_found_by_their_checksum() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.does(Op::Disk(disk(0, 8 * BLOCK)));
        machine.log.bad_memory = true;
        machine.writes(extent(0, 0, BLOCK), 1);
        machine.marks(BookmarkKind::CopyEnd, true);
        machine.store(&mut vault).await;
        machine.publish(&vault).await;
        assert!(report(&vault, false).await.is_clean());
        let found = report(&vault, true).await.damage;
        assert!(found[0].what.contains("LSN 2 don't have the checksum"), "{found:?}");
        assert_eq!(found[0].touches[0].points.len(), 1);
    });
}

/// What is said of logs without an end.
async fn open_logs(vault: &TestVault) -> Vec<String> {
    report(vault, false).await.open_logs.iter().map(ToString::to_string).collect()
}

#[test]
fn a_log_without_a_closing_pack_is_told_and_no_damage() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.publish(&vault).await;
        // Nothing was stored yet, or all was lost: nobody can tell.
        let open = open_logs(&vault).await;
        assert_eq!(open.len(), 1, "{open:?}");
        assert!(open[0].starts_with("log/ps-1/0101") && open[0].contains("no packs"), "{open:?}");

        machine.does(Op::Disk(disk(0, BLOCK)));
        machine.store(&mut vault).await;
        machine.does(Op::Time);
        machine.store(&mut vault).await;
        let open = open_logs(&vault).await;
        assert_eq!(open.len(), 1, "{open:?}");
        assert!(open[0].contains("after pack 1 isn't known"), "{open:?}");
        assert!(!open[0].contains("may have lost"), "{open:?}");
        assert!(report(&vault, true).await.is_clean());

        let last = machine.log.store(&mut vault, true).await;
        assert_eq!(open_logs(&vault).await, [""; 0]);
        // A closing pack that is damaged is told as that.
        let whole = vault.get(&last).await;
        change(&vault, &last, |bytes| bytes[170] ^= 1).await;
        assert_eq!(open_logs(&vault).await, [""; 0]);
        assert!(!report(&vault, false).await.is_clean());
        vault.put(&last, whole).await;

        // Another log of the run was not closed, or lost its end.
        let mut other = TestMachine::new("web-1", 1, TestLog::of_shard(&vault, 1, 1));
        other.publish(&vault).await;
        other.does(Op::Disk(disk(0, BLOCK)));
        other.store(&mut vault).await;
        let open = open_logs(&vault).await;
        assert_eq!(open.len(), 1, "{open:?}");
        assert!(open[0].contains("-1: ") && open[0].contains("may have lost its end"), "{open:?}");
    });
}

#[test]
fn a_log_that_ends_at_a_tombstone_is_not_open() {
    run(async {
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.publish(&vault).await;
        machine.does(Op::Disk(disk(0, BLOCK)));
        machine.store(&mut vault).await;
        // Two collectors: the second tombstone changes nothing.
        for number in 1..3 {
            put_tombstone(&vault, &machine.log.place(number).path()).await;
        }
        let report = report(&vault, true).await;
        assert_eq!((report.damage, report.open_logs), (Vec::new(), Vec::new()));
    });
}

#[test]
fn an_epoch_that_continues_another_tells_of_a_loss_at_its_end() {
    run(async {
        let mut vault = TestVault::new();
        let mut parent = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        parent.publish(&vault).await;
        parent.does(Op::Disk(disk(0, BLOCK)));
        parent.marks(BookmarkKind::CopyEnd, true);
        parent.store(&mut vault).await;
        parent.does(Op::Time);
        let path = parent.store(&mut vault).await;
        let mut child = TestMachine::continuing(&parent, 3, 2, TestLog::new(&vault, 2));
        child.marks(BookmarkKind::CopyEnd, true);
        child.store(&mut vault).await;
        child.publish(&vault).await;
        assert!(report(&vault, false).await.is_clean());
        vault.delete(&path).await;
        let damage = report(&vault, false).await.damage;
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert!(damage[0].what.starts_with("epoch 1 of db-1: LSNs 3 to 3"), "{damage:?}");
        let points: Vec<_> = damage[0].touches[0].points.iter().map(|p| p.epoch.0).collect();
        assert_eq!(points, [2]);
        // And a damaged record of the one that is continued touches both.
        vault.put(&layout::epoch(&parent.of.0, Epoch(1)), b"nonsense".to_vec()).await;
        let damage = report(&vault, false).await.damage;
        let points: Vec<_> = damage[0].touches[0].points.iter().map(|p| p.epoch.0).collect();
        assert_eq!((damage.len(), points), (1, vec![1, 2]));
    });
}

#[test]
fn a_run_that_only_a_session_names_must_be_there() {
    run(async {
        let vault = TestVault::new();
        let machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.publish(&vault).await;
        assert!(report(&vault, false).await.is_clean());
        vault.delete(&layout::run(machine.log.name.id.run)).await;
        let damage = report(&vault, false).await.damage;
        assert!(damage[0].what.contains("doesn't claim log"), "{damage:?}");
    });
}

#[test]
fn every_damaged_record_of_a_machine_is_named_once() {
    let machine: tidegate_model::Name = "db-1".parse().unwrap();
    let epoch = layout::epoch(&machine, Epoch(1));
    for at in [8, 12, 70] {
        let found = broken(false, async |vault, _| {
            change(vault, &epoch, |bytes| bytes[at] ^= 1).await;
        });
        let naming: Vec<_> = found.iter().filter(|found| found.0.contains(&epoch)).collect();
        assert_eq!(naming.len(), 1, "{at}: {found:?}");
        assert_eq!(naming[0].1, touches(&[("db-1", &[4, 6])]), "{at}: {found:?}");
    }
    let session = layout::session(&machine, Epoch(1), 1);
    let found = broken(false, async |vault, _| vault.put(&session, b"nonsense".to_vec()).await);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0.contains(&session) && found[0].0.contains("damaged"), "{found:?}");
}
