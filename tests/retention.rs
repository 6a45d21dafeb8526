//! What is kept of a machine's past, by real processes on a real vault whose packs are made older than
//! they are.

mod support;

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::images;
use support::site::{Site, shown};

const MIB: u64 = 1 << 20;

/// Makes every pack so many hours old.
fn age_packs(site: &Site, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    for pack in files(&site.vault_path().join("log")) {
        let file = File::options().write(true).open(pack).expect("it is a pack");
        file.set_modified(then).expect("its time can be set");
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("it is a folder");
    let paths = entries.map(|entry| entry.expect("it is listed").path());
    let files = |path: std::path::PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    paths.flat_map(files).collect()
}

fn points(site: &Site) -> Vec<String> {
    let listed = site.call(&["points", "db"]).json();
    let points = listed["points"].as_array().expect("a list").iter();
    points.map(|point| point["point"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn what_the_policy_doesnt_keep_goes_and_the_rest_comes_back() {
    let site = Site::with_vault();
    let db = site.disk("db", 4 * MIB + 512);
    let mut before = Vec::new();
    for round in 0..3_u64 {
        images::patch(&db, round * MIB, format!("round {round}").as_bytes());
        // Several packs a log, whose last one stays.
        site.replicate("db", &[&db]).args(["--pack-size", "1MiB"]).run().success();
        before = points(&site);
    }
    assert_eq!(before.len(), 3, "{before:?}");
    site.call(&["maintain", "--keep-garbage"]);
    assert_eq!(points(&site), before, "the default keeps what is young");
    age_packs(&site, 200 * 24);
    site.call(&["policy", "set", "--window", "1h", "--all", "2h", "--hourly", "1", "--daily", "0"]);
    site.call(&["policy", "set", "--weekly", "0"]);
    // How old they are was noted when they were folded.
    let kept = site.call(&["maintain", "--anew", "--keep-all", "--keep-garbage"]).json();
    assert_eq!(kept["machines"][0]["points_let_go"], 0, "{kept}");
    assert_eq!(points(&site), before);
    let maintained = site.call(&["maintain"]).json();
    assert_eq!(maintained["machines"][0]["epochs_let_go"], 2, "{maintained}");
    assert_eq!(points(&site), before[2..]);
    site.assert_recovers("db", 0, &db);
    let (to, gone) = (site.path("to"), &before[0]);
    let output = site.command(&["recover", "db", "--at", gone, "--to", shown(&to)]).run().failure();
    output.says(&["nothing of epoch 1 is kept any more"]);
    site.verify();
    // It goes on: another copy is the newest then, and again nothing else is kept.
    site.replicate("db", &[&db]).run().success();
    assert_eq!(points(&site).len(), 2);
    let packs = || files(&site.vault_path().join("log")).len();
    let before = packs();
    let maintained = site.call(&["maintain"]).json();
    // Two manifests no longer need what was let go.
    assert!(packs() < before, "{maintained}");
    site.assert_recovers("db", 0, &db);
    site.verify();
}

#[test]
fn a_policy_is_shown_as_it_was_set_for_the_vault_or_a_machine() {
    let site = Site::with_vault();
    let shown = |args: &[&str]| site.call(&[&["policy", "show"], args].concat()).json();
    let hourly = |shown: &Value| (shown["from"].clone(), shown["hourly"].clone());
    assert_eq!(hourly(&shown(&[])), ("default".into(), 168.into()));
    site.call(&["policy", "set", "--hourly", "7", "--window", "36h"]);
    site.call(&["policy", "set", "--machine", "db", "--hourly", "9"]);
    assert_eq!(hourly(&shown(&[])), ("vault".into(), 7.into()));
    let machine = shown(&["--machine", "db"]);
    assert_eq!(hourly(&machine), ("machine".into(), 9.into()));
    assert_eq!(machine["window_seconds"], 36 * 3600, "the rest is as the vault's was");
    site.call(&["policy", "set", "--machine", "db", "--as-vault"]);
    assert_eq!(hourly(&shown(&["--machine", "db"])), ("vault".into(), 7.into()));
    let refused = site.command(&["policy", "set", "--all", "4000d"]).run().failure();
    refused.says(&["all points of 4000 days can't be kept"]);
    site.command(&["policy", "set"]).run().failure().says(&["set what?"]);
    let text = support::process::Tidegate::new(["policy", "show", "--vault", site.vault()])
        .args(["--key-file".as_ref(), site.key().as_os_str()])
        .run()
        .success();
    text.says(&["every moment for", "36h", "7 hours"]);
}

#[test]
fn a_removed_machine_is_gone_and_others_keep_what_they_share_with_it() {
    let site = Site::with_vault();
    let (db, web) = (site.disk("db", 3 * MIB), site.disk("web", MIB));
    site.replicate("db", &[&db]).run().success();
    site.replicate("web", &[&web, &db]).run().success();
    site.call(&["maintain"]);
    let remove =
        |more: &[&str]| site.command(&[&["machines", "remove", "db"], more].concat()).run();
    remove(&["--yes"]).failure().says(&["its agent seems to run"]);
    age_packs(&site, 1);
    remove(&[]).failure().says(&["say --yes"]);
    site.command(&["machines", "remove", "nobody", "--yes"]).run().failure().says(&["nobody"]);
    remove(&["--yes"]).success();
    site.command(&["points", "db"]).run().failure().says(&["it was removed"]);
    let left = site.call(&["machines"]).json();
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
    site.assert_recovers("web", 0, &web);
    site.assert_recovers("web", 1, &db);
    site.verify();
    let layers = || files(&site.vault_path().join("machines/db/layers")).len();
    assert!(layers() > 0);
    site.call(&["maintain"]);
    assert_eq!(layers(), 0);
    site.assert_recovers("web", 1, &db);
    site.verify();
    remove(&["--yes"]).failure().says(&["no machine db"]);
    // It may come again, and has then no past.
    site.replicate("db", &[&db]).run().success();
    assert_eq!(points(&site).len(), 1);
    site.assert_recovers("db", 0, &db);
}
