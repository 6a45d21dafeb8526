//! `tidegate maintain`: what is folded is told and recovered as before, by real processes on a real
//! vault; where it is damaged that is said, and the logs serve.

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use support::images;
use support::process::Tidegate;
use support::site::{Site, shown};

const MIB: u64 = 1 << 20;

/// What `points` and `machines` tell of the vault.
fn told(site: &Site) -> (Value, Value) {
    (site.call(&["points", "db"]).json(), site.call(&["machines"]).json())
}

fn files(site: &Site, folder: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(site.vault_path().join(folder)) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it is listed").path()).collect();
    files.sort();
    files
}

#[test]
fn what_is_folded_is_told_and_recovered_as_before() {
    let site = Site::with_vault();
    let (db, web) = (site.disk("db", 5 * MIB + 512), site.disk("web", 3 * MIB));
    site.replicate("db", &[&db]).run().success();
    site.replicate("web", &[&web, &db]).run().success();
    let first = site.path("first.img");
    images::copy(&db, &first);
    images::patch(&db, MIB + 5, b"changed since");
    site.replicate("db", &[&db]).run().success();
    let before = told(&site);
    let maintained = site.call(&["maintain"]).json();
    for (machine, place) in [("db", 0), ("web", 1)] {
        let line = &maintained["machines"][place];
        assert_eq!((&line["machine"], &line["manifest"]), (&machine.into(), &1.into()), "{line}");
        assert_eq!(line["error"], Value::Null, "{line}");
    }
    assert_eq!(told(&site), before);
    site.assert_recovers("db", 0, &db);
    site.assert_recovers("web", 0, &web);
    site.assert_recovers("web", 1, &first);
    assert!(site.verify()["layers"].as_u64() >= Some(3));
    // Another copy lies behind the fold; only that machine is asked for, and then nothing is left.
    images::patch(&db, 7, b"once more");
    site.replicate("db", &[&db]).run().success();
    site.assert_recovers("db", 0, &db);
    let before = told(&site);
    // The first was written twice.
    for manifest in [Value::from(3), Value::Null] {
        let maintained = site.call(&["maintain", "db"]).json();
        assert_eq!(maintained["machines"][0]["manifest"], manifest, "{maintained}");
        assert_eq!(told(&site), before);
    }
    site.assert_recovers("db", 0, &db);
    site.verify();
}

#[test]
fn a_damaged_layer_is_found_and_made_again_from_the_logs() {
    let site = Site::with_vault();
    let db = site.disk("db", 4 * MIB);
    site.replicate("db", &[&db]).run().success();
    site.call(&["maintain"]);
    let layers = files(&site, "machines/db/layers");
    let [layer] = &layers[..] else { panic!("one layer expected, not {layers:?}") };
    let mut bytes = fs::read(layer).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(layer, bytes).expect("it can be written");
    let name = layer.file_name().and_then(|name| name.to_str()).expect("a name in ASCII");
    site.command(&["verify"]).run().failure().says(&[name, "is damaged"]);
    let output = site.command(&["recover", "db", "--to", shown(&site.path("to"))]).run().success();
    output.says(&[name, "the logs are read instead"]);
    site.call(&["maintain", "--anew"]);
    site.verify();
    site.assert_recovers("db", 0, &db);
}

#[test]
fn a_machine_that_isnt_there_is_refused_and_the_others_are_folded() {
    let site = Site::with_vault();
    let db = site.disk("db", MIB);
    site.replicate("db", &[&db]).run().success();
    let output = site.command(&["maintain", "nobody", "db"]).run();
    let output = output.failure().says(&["the vault has no machine nobody"]);
    let lines = &output.json()["machines"];
    assert!(lines[0]["error"].as_str().is_some_and(|error| error.contains("nobody")), "{lines}");
    assert_eq!(lines[1]["manifest"], 1, "{lines}");
    // For people.
    let key = site.key();
    let call = ["maintain", "--vault", site.vault(), "--key-file", shown(&key)];
    Tidegate::new(call).run().success().says(&["db: nothing to fold"]);
}
