//! The life of a machine, event by event, for properties.

use proptest::prelude::*;
use tidegate_model::{BookmarkKind, DiskNumber};

use super::{BLOCK, Op, TestLog, TestMachine, TestVault, disk, extent};

/// The size of a disk: a few blocks, and no multiple of anything.
const DISK_BYTES: u64 = 9 * BLOCK + 513;

/// What may happen in the life of a machine.
#[derive(Debug, Clone)]
pub enum Event {
    Write(u8, u64, u64, u8),
    Zero(u8, u64, u64),
    Resize(u8, u64),
    Time,
    Seal,
    Store,
    /// Comes back in the same log or another; what was sent of a record may be left there. What
    /// follows the committed LSN, less so many, is sent again.
    Reconnect(bool, Option<usize>, u64),
    /// Known blocks are kept again from now on, or not.
    References(bool),
}

pub fn event() -> impl Strategy<Value = Event> {
    let place = (0..DISK_BYTES, 1..4 * BLOCK);
    prop_oneof![
        6 => (0..2_u8, place.clone(), 0..4_u8)
            .prop_map(|(disk, (offset, length), byte)| Event::Write(disk, offset, length, byte)),
        3 => (0..2_u8, 0..8_u64, 1..4_u64, 1..4_u8)
            .prop_map(|(disk, at, blocks, byte)| Event::Write(disk, at * BLOCK, blocks * BLOCK, byte)),
        1 => (0..2_u8, place).prop_map(|(disk, (offset, length))| Event::Zero(disk, offset, length)),
        1 => (0..2_u8, 1..DISK_BYTES).prop_map(|(disk, bytes)| Event::Resize(disk, bytes)),
        1 => Just(Event::Time),
        2 => Just(Event::Seal),
        2 => Just(Event::Store),
        1 => (any::<bool>(), proptest::option::of(1..3_usize), 0..6_u64)
            .prop_map(|(same, left, again)| Event::Reconnect(same, left, again)),
        1 => any::<bool>().prop_map(Event::References),
    ]
}

/// A machine with two disks after all these, which are stored; the LSN at which its copy ended.
pub async fn live(vault: &mut TestVault, events: &[Event]) -> (TestMachine, u64) {
    let mut machine = TestMachine::new("db-1", 1, TestLog::new(vault, 1));
    machine.does(Op::Disk(disk(0, DISK_BYTES)));
    machine.does(Op::Disk(disk(1, DISK_BYTES)));
    let copy_end = machine.marks(BookmarkKind::CopyEnd, true);
    let mut logs = 1;
    for event in events {
        apply(vault, &mut machine, &mut logs, event).await;
    }
    machine.store(vault).await;
    (machine, copy_end)
}

pub async fn apply(vault: &mut TestVault, machine: &mut TestMachine, logs: &mut u8, event: &Event) {
    let size = |machine: &TestMachine, number: u8| {
        let number = DiskNumber::try_from(number).unwrap();
        machine.states.last().unwrap()[&number].len() as u64
    };
    match event {
        Event::Write(number, offset, length, byte) => {
            let length = (*length).min(size(machine, *number).saturating_sub(*offset));
            if length > 0 {
                machine.writes(extent(*number, *offset, length), *byte);
            }
        }
        Event::Zero(number, offset, length) => {
            let length = (*length).min(size(machine, *number).saturating_sub(*offset));
            if length > 0 {
                machine.does(Op::Zero(extent(*number, *offset, length)));
            }
        }
        Event::Resize(number, bytes) => {
            machine.does(Op::Disk(disk(*number, *bytes)));
        }
        Event::Time => {
            machine.does(Op::Time);
        }
        Event::Seal => {
            machine.send(vault);
            machine.log.seal(vault);
        }
        Event::Store => {
            machine.store(vault).await;
        }
        Event::Reconnect(same, left, again) => {
            let committed = machine.stored.saturating_sub(*again);
            if let Some(op) = machine.ops.last().filter(|_| left.is_some()) {
                let lsn = machine.ops.len() as u64;
                machine.log.add(vault, &machine.of, lsn, op, *left);
            }
            let log = (!same).then(|| {
                *logs += 1;
                TestLog::new(vault, *logs)
            });
            if log.is_some() {
                // What the old session left comes late, but it comes.
                machine.log.store(vault, false).await;
            }
            machine.reconnect(log, committed);
        }
        Event::References(on) => machine.log.references = *on,
    }
}
