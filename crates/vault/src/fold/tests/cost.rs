//! What a recovery reads after a long history.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::saga::disks_at;
use super::*;
use crate::retention::Policy;

const BLOCKS: u64 = 1024;
const HOURS: u64 = 7 * 24;

/// Blocks that don't shrink, and differ.
fn noise(blocks: u64, seed: &mut u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..blocks * BLOCK / 8 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        bytes.extend(seed.to_le_bytes());
    }
    bytes
}

/// Sealed bytes of the frames in which the last state of a disk is kept.
async fn frames_bytes(vault: &TestVault) -> u64 {
    let reader = vault.reader();
    let newest = newest_manifest(&vault.store(), &vault.ring, &db()).await.unwrap();
    let mut frames = BTreeSet::new();
    for epoch in &newest.manifest.unwrap().epochs {
        let mut extents = Vec::new();
        for entry in &epoch.layers {
            let layer =
                read_layer(&vault.store(), &vault.ring, &db(), epoch.epoch, *entry).await.unwrap();
            let places = layer.packs;
            extents.extend(layer.extents.into_iter().map(|extent| (places.clone(), extent)));
        }
        super::super::visible::retain(&mut extents, |(_, extent)| extent, &epoch.disks, |_| ());
        for (places, extent) in &extents {
            if let LayerSource::Kept { pack, frame, .. } = extent.source {
                frames.insert((places[pack as usize].clone(), frame));
            }
        }
    }
    let mut sum = 0;
    for (place, number) in frames {
        let pack = reader.pack(&place).await.unwrap();
        let frame = pack.index.frames.iter().find(|frame| frame.number == number).unwrap();
        sum += frame.object_bytes();
    }
    sum
}

/// A week in which every hour a part of a disk is written anew, in packs of 16 writes of `blocks`.
async fn week(blocks: u64, policy: Policy) -> f64 {
    let mut vault = TestVault::new();
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    machine.does(Op::Disk(disk(0, BLOCKS * BLOCK)));
    machine.does(Op::Write(extent(0, 0, BLOCKS * BLOCK), noise(BLOCKS, &mut seed)));
    machine.marks(BookmarkKind::CopyEnd, true);
    machine.store(&mut vault).await;
    machine.publish(&vault).await;
    for hour in 0..HOURS {
        vault.clock.advance(3600);
        for _ in 0..16 {
            let place = seed % (BLOCKS / blocks) * blocks;
            let bytes = noise(blocks, &mut seed);
            machine.does(Op::Write(extent(0, place * BLOCK, blocks * BLOCK), bytes));
            let before = machine.states.len() - 2;
            machine.states[before].clear();
        }
        machine.marks(BookmarkKind::CrashConsistent, true);
        machine.store(&mut vault).await;
        if hour % 5 == 4 {
            let now = vault.clock.now();
            let keeping = Some(Keeping { policy, now });
            let folding = Folding { keeping, ..Folding::default() };
            fold(&vault.reader(), &db(), folding, &|_| ()).await.unwrap();
        }
    }
    folded(&vault).await;
    let needed = frames_bytes(&vault).await;
    let read = || vault.clock.read_bytes.load(Ordering::SeqCst);
    let before = read();
    let (reader, history) = (vault.reader(), history(&vault).await);
    let end = Point { epoch: machine.of.1, lsn: Lsn(machine.ops.len() as u64) };
    let disks = disks_at(&reader, &history, end).await;
    assert!(disks == *machine.states.last().unwrap());
    #[allow(clippy::cast_precision_loss)] // a ratio
    let ratio = (read() - before) as f64 / needed as f64;
    println!("{blocks} blocks a write: {needed} bytes needed, {ratio:.3} times read");
    ratio
}

#[test]
fn a_recovery_after_a_week_reads_little_more_than_its_last_state_needs() {
    run(async {
        for blocks in [1, 4] {
            let ratio = week(blocks, Policy::default()).await;
            assert!(ratio <= 1.2, "{blocks} blocks a write: {ratio}");
        }
    });
}
