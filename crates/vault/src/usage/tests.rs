//! What is told of machines in memory that lost something.

use tidegate_model::BookmarkKind;

use super::usage;
use crate::testing::{BLOCK, Op, TestLog, TestMachine, TestVault, disk, run};

#[test]
fn a_machine_without_points_is_told_to_have_lost_them_only_by_damage() {
    run(async {
        let lost = async |vault: &TestVault| {
            let usage = usage(&vault.reader()).await.unwrap();
            let usage = &usage[&"db-1".parse().unwrap()];
            (usage.points, usage.points_lost)
        };
        let mut vault = TestVault::new();
        let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
        machine.publish(&vault).await;
        machine.does(Op::Disk(disk(0, BLOCK)));
        machine.store(&mut vault).await;
        assert_eq!(lost(&vault).await, (0, false));
        machine.marks(BookmarkKind::CopyEnd, true);
        let last = machine.store(&mut vault).await;
        assert_eq!(lost(&vault).await, (1, false));
        let mut bytes = vault.get(&last).await;
        bytes[200] ^= 8;
        vault.put(&last, bytes).await;
        assert_eq!(lost(&vault).await, (0, true));
        // It isn't there, and only a session's record tells that there was more.
        vault.delete(&last).await;
        assert_eq!(lost(&vault).await, (0, false));
        machine.reconnect(Some(TestLog::new(&vault, 2)), 2);
        machine.publish(&vault).await;
        assert_eq!(lost(&vault).await, (0, true));
    });
}
