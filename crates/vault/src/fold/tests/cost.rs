//! What a recovery reads after a long history.

use std::sync::atomic::Ordering;

use tidegate_model::limits::FRAME_BYTES_DEFAULT;

use super::saga::disks_at;
use super::*;
use crate::retention::Policy;

const BLOCKS: u64 = 1024;
const HOURS: u64 = 7 * 24;
/// Writes an hour: a part of the disk such that it is written anew ten times in the week.
const WRITES: u64 = 64;

/// Blocks that don't shrink, and differ.
pub(super) fn noise(blocks: u64, seed: &mut u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..blocks * BLOCK / 8 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        bytes.extend(seed.to_le_bytes());
    }
    bytes
}

/// What is read of the store to bring the last state back.
async fn read_bytes(vault: &TestVault, machine: &TestMachine) -> u64 {
    let read = || vault.clock.read_bytes.load(Ordering::SeqCst);
    let before = read();
    let (reader, history) = (vault.reader(), history(vault).await);
    let end = Point { epoch: machine.of.1, lsn: Lsn(machine.ops.len() as u64) };
    let disks = disks_at(&reader, &history, end).await;
    assert!(disks == *machine.states.last().unwrap());
    read() - before
}

/// The same of a vault to which the disk was copied just now.
async fn read_of_fresh(disks: &Disks) -> u64 {
    let mut vault = TestVault::new();
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
    machine.does(Op::Disk(disk(0, BLOCKS * BLOCK)));
    let bytes = disks.values().next().unwrap();
    for (place, frame) in (0..).zip(bytes.chunks(FRAME_BYTES_DEFAULT as usize)) {
        let at = place * u64::from(FRAME_BYTES_DEFAULT);
        machine.does(Op::Write(extent(0, at, frame.len() as u64), frame.to_vec()));
        machine.send(&vault);
        machine.log.seal(&mut vault);
    }
    machine.marks(BookmarkKind::CopyEnd, true);
    machine.store(&mut vault).await;
    machine.publish(&vault).await;
    folded(&vault).await;
    read_bytes(&vault, &machine).await
}

/// A week in which every hour a part of a disk is written anew, in packs of 64 writes of `blocks`.
async fn week(blocks: u64, policy: Policy) -> (f64, f64) {
    let mut vault = TestVault::new();
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    machine.does(Op::Disk(disk(0, BLOCKS * BLOCK)));
    machine.does(Op::Write(extent(0, 0, BLOCKS * BLOCK), noise(BLOCKS, &mut seed)));
    machine.marks(BookmarkKind::CopyEnd, true);
    machine.store(&mut vault).await;
    machine.publish(&vault).await;
    let (mut written, mut copied) = (0, 0);
    for hour in 0..HOURS {
        vault.clock.advance(3600);
        for _ in 0..WRITES {
            let place = seed % (BLOCKS / blocks) * blocks;
            let bytes = noise(blocks, &mut seed);
            machine.does(Op::Write(extent(0, place * BLOCK, blocks * BLOCK), bytes));
            written += blocks * BLOCK;
            let before = machine.states.len() - 2;
            machine.states[before].clear();
        }
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        if hour % 5 == 4 {
            let now = vault.clock.now();
            let keeping = Some(Keeping { policy, now });
            let folding = Folding { keeping, base_extents_min: 32, ..Folding::default() };
            let report = fold(&vault.reader(), &db(), folding, &|_| ()).await.unwrap();
            copied += report.dense_bytes;
        }
    }
    folded(&vault).await;
    // As much more as is just too little for another base.
    for _ in 0..BLOCKS / 32 / blocks - 1 {
        let place = seed % (BLOCKS / blocks) * blocks;
        let bytes = noise(blocks, &mut seed);
        machine.does(Op::Write(extent(0, place * BLOCK, blocks * BLOCK), bytes));
    }
    machine.store(&mut vault).await;
    folded(&vault).await;
    let read = read_bytes(&vault, &machine).await;
    let fresh = read_of_fresh(machine.states.last().unwrap()).await;
    #[allow(clippy::cast_precision_loss)] // ratios
    let (ratio, copies) = (read as f64 / fresh as f64, copied as f64 / written as f64);
    println!("{blocks} blocks a write: {ratio:.3} times read, {copies:.2} copied for each written");
    (ratio, copies)
}

#[test]
fn a_recovery_after_a_week_reads_little_more_than_its_last_state_needs() {
    run(async {
        for blocks in [1, 4] {
            let (ratio, copies) = week(blocks, Policy::default()).await;
            assert!(ratio <= 1.2, "{blocks} blocks a write: {ratio}");
            assert!(copies <= 4.0, "{blocks} blocks a write: {copies}");
        }
    });
}
