//! Machines whose blocks are kept in packs of others, which are then broken.

use tidegate_model::BookmarkKind;

use super::*;
use crate::points::read;
use crate::testing::{BLOCK, Op, TestLog, TestMachine, TestVault, disk, extent, run};
use crate::usage::usage;

const CRASH: BookmarkKind = BookmarkKind::CrashConsistent;
const END: BookmarkKind = BookmarkKind::CopyEnd;

/// A machine whose one block, of ones, is kept in pack 0 of `log`; and the path of that pack.
async fn keeper(vault: &mut TestVault, log: TestLog) -> (TestMachine, String) {
    let mut keeper = TestMachine::new("db-1", 1, log);
    keeper.does(Op::Disk(disk(0, 4 * BLOCK)));
    keeper.writes(extent(0, 0, BLOCK), 1);
    keeper.marks(END, true);
    let path = keeper.store(vault).await;
    keeper.publish(vault).await;
    (keeper, path)
}

/// A machine with a point at LSN 3, whose LSN 4 refers to the block of ones, and a point at 5.
async fn referring(vault: &mut TestVault, log: TestLog) -> TestMachine {
    let mut machine = TestMachine::new("web-1", 1, log);
    machine.does(Op::Disk(disk(0, 4 * BLOCK)));
    machine.writes(extent(0, 0, BLOCK), 2);
    machine.marks(END, true);
    machine.store(vault).await;
    machine.writes(extent(0, BLOCK, BLOCK), 1);
    machine.marks(CRASH, true);
    machine.store(vault).await;
    machine.publish(vault).await;
    machine
}

/// The points (epoch, LSN) that web-1 is offered, the gaps, and what is damaged.
async fn told(vault: &TestVault) -> (Vec<(u32, u64)>, Vec<String>, Vec<String>) {
    let (history, points) = read(&vault.reader(), &"web-1".parse().unwrap()).await.unwrap();
    let of = |point: Point| (point.epoch.0, point.lsn.0);
    let gaps = points.gaps.iter().map(ToString::to_string).collect();
    let losses = history.losses.iter().map(ToString::to_string).collect();
    (points.points.iter().map(|offered| of(offered.point)).collect(), gaps, losses)
}

fn assert_names(texts: &[String], words: &[&str]) {
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(words.iter().all(|word| texts[0].contains(word)), "{words:?}: {texts:?}");
}

#[test]
fn points_end_before_the_first_reference_to_a_pack_that_cannot_be_read() {
    run(async {
        let mut vault = TestVault::new();
        let log = TestLog::new(&vault, 1);
        let (_, path) = keeper(&mut vault, log).await;
        let log = TestLog::new(&vault, 2);
        referring(&mut vault, log).await;
        assert_eq!(told(&vault).await, (vec![(1, 3), (1, 5)], vec![], vec![]));
        let whole = vault.get(&path).await;
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            Some(bytes)
        };
        let cut = Some(whole[..whole.len() - 1].to_vec());
        for broken in [flipped(80), flipped(170), cut, None] {
            match broken {
                Some(bytes) => vault.put(&path, bytes).await,
                None => vault.delete(&path).await,
            }
            let (points, gaps, losses) = told(&vault).await;
            assert_eq!(points, [(1, 3)]);
            let words = ["epoch 1: from 1:4 on", &path, "1 recovery point", "`tidegate verify`"];
            assert_names(&gaps, &words);
            assert_names(&losses, &[&path]);
            let usages = usage(&vault.reader()).await.unwrap();
            let usage = &usages[&"web-1".parse::<Name>().unwrap()];
            assert_eq!(usage.points, 1);
            assert_eq!(usage.last_point.as_ref().unwrap().point.lsn, Lsn(3));
        }
        vault.put(&path, whole).await;
        assert_eq!(told(&vault).await, (vec![(1, 3), (1, 5)], vec![], vec![]));
    });
}

#[test]
fn an_epoch_that_continues_another_beyond_the_reference_is_not_offered_either() {
    run(async {
        let mut vault = TestVault::new();
        let log = TestLog::new(&vault, 1);
        let (_, path) = keeper(&mut vault, log).await;
        let log = TestLog::new(&vault, 2);
        let parent = referring(&mut vault, log).await;
        // Epoch 2 leaves the parent before the reference, epoch 3 behind it.
        for (epoch, lsn) in [(2, 3), (3, 5)] {
            let log = TestLog::new(&vault, u8::try_from(epoch).unwrap() + 1);
            let mut child = TestMachine::continuing(&parent, lsn, epoch, log);
            child.writes(extent(0, 0, 10), 9);
            child.marks(END, true);
            child.store(&mut vault).await;
            child.publish(&vault).await;
        }
        let all = vec![(1, 3), (1, 5), (2, 2), (3, 2)];
        assert_eq!(told(&vault).await, (all, vec![], vec![]));
        vault.delete(&path).await;
        let (points, gaps, losses) = told(&vault).await;
        assert_eq!(points, [(1, 3), (2, 2)]);
        assert_names(&gaps[..1], &["epoch 1: from 1:4 on", &path]);
        assert_names(&gaps[1..], &["epoch 3: from 1:4 on", &path]);
        assert_names(&losses, &[&path, "is missing"]);
    });
}

#[test]
fn packs_of_others_in_the_own_log_are_looked_at_too() {
    run(async {
        let mut vault = TestVault::new();
        let log = TestLog::new(&vault, 1);
        let (keeper, before) = keeper(&mut vault, log).await;
        let mut machine = referring(&mut vault, keeper.log).await;
        // Another's block that came later is kept in a pack of its own, and then referred to.
        let sevens = Op::Write(extent(0, 0, BLOCK), vec![7; usize::try_from(BLOCK).unwrap()]);
        machine.log.add(&vault, &keeper.of, 4, &sevens, None);
        let between = machine.log.store(&mut vault, false).await;
        machine.writes(extent(0, 2 * BLOCK, BLOCK), 7);
        machine.marks(CRASH, true);
        machine.store(&mut vault).await;
        let all = vec![(1, 3), (1, 5), (1, 7)];
        assert_eq!(told(&vault).await, (all, vec![], vec![]));
        for (path, left) in [(before, vec![(1, 3)]), (between, vec![(1, 3), (1, 5)])] {
            let whole = vault.get(&path).await;
            vault.delete(&path).await;
            let (points, gaps, losses) = told(&vault).await;
            assert_eq!(points, left);
            assert_names(&gaps, &[&path, "is missing"]);
            assert_names(&losses, &[&path, "is missing"]);
            vault.put(&path, whole).await;
        }
    });
}
