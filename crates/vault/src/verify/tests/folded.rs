//! What a check says of what is folded.

use tidegate_model::Name;

use super::*;
use crate::fold::{Folding, fold};

async fn folded_sample() -> Sample {
    let sample = sample().await;
    for machine in ["db-1", "web-1"] {
        let machine: Name = machine.parse().unwrap();
        fold(&sample.vault.reader(), &machine, Folding::default(), &|_| ()).await.unwrap();
    }
    sample
}

async fn found(vault: &TestVault) -> Vec<String> {
    let report = report(vault, false).await;
    report.damage.iter().map(|finding| finding.what.clone()).collect()
}

async fn layer_of(vault: &TestVault, machine: &str) -> String {
    let listed = vault.store().list(&format!("machines/{machine}/layers"), None);
    let listed: Vec<_> = listed.map(|object| object.unwrap().path).collect().await;
    assert_eq!(listed.len(), 1);
    listed[0].clone()
}

#[test]
fn a_folded_vault_is_clean_and_its_layers_are_counted() {
    run(async {
        let sample = folded_sample().await;
        let report = report(&sample.vault, true).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.counts.layers, 2);
    });
}

#[test]
fn damaged_manifests_and_layers_are_found() {
    run(async {
        let sample = folded_sample().await;
        let layer = layer_of(&sample.vault, "db-1").await;
        change(&sample.vault, &layer, |bytes| bytes[70] ^= 1).await;
        let what = found(&sample.vault).await;
        assert!(what.len() == 1 && what[0].contains(&layer), "{what:?}");
        let manifest = layout::manifest(&"web-1".parse().unwrap(), 1);
        change(&sample.vault, &manifest, |bytes| bytes.truncate(90)).await;
        let what = found(&sample.vault).await;
        assert!(what.len() == 2 && what[0].contains(&manifest), "{what:?}");
    });
}

#[test]
fn a_log_that_lost_its_end_is_found_by_what_was_folded_of_it() {
    run(async {
        let sample = folded_sample().await;
        for path in [&sample.paths[2], &sample.paths[3]] {
            let kept = sample.vault.get(path).await;
            sample.vault.delete(path).await;
            let what = found(&sample.vault).await;
            assert!(what.iter().any(|what| what.contains(path)), "{what:?}");
            sample.vault.put(path, kept).await;
        }
        assert_eq!(found(&sample.vault).await, [""; 0]);
    });
}

#[test]
fn a_layer_that_leads_elsewhere_is_found() {
    run(async {
        // A machine of the same name, with a log of the same name, that wrote something else.
        let sample = folded_sample().await;
        let other = {
            let mut vault = TestVault::new();
            let mut machine = TestMachine::new("db-1", 1, TestLog::new(&vault, 1));
            machine.does(Op::Disk(disk(0, 8 * BLOCK)));
            machine.writes(extent(0, 0, BLOCK), 9);
            machine.store(&mut vault).await;
            machine.writes(extent(0, BLOCK, BLOCK), 8);
            machine.marks(BookmarkKind::CopyEnd, true);
            machine.store(&mut vault).await;
            machine.writes(extent(0, 2 * BLOCK, 100), 7);
            machine.marks(BookmarkKind::CrashConsistent, true);
            machine.store(&mut vault).await;
            machine.publish(&vault).await;
            let db = "db-1".parse().unwrap();
            fold(&vault.reader(), &db, Folding::default(), &|_| ()).await.unwrap();
            vault
        };
        let layer = layer_of(&other, "db-1").await;
        let manifest = layout::manifest(&"db-1".parse().unwrap(), 1);
        for path in [&layer, &manifest] {
            sample.vault.put(path, other.get(path).await).await;
        }
        let what = found(&sample.vault).await;
        assert!(what[0].contains(&layer) && what[0].contains("3 extents can't be"), "{what:?}");
    });
}
