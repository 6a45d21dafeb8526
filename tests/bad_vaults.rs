//! Vaults that aren't there, aren't vaults, are of another time or have another key, and a full
//! disk under one: what a person is told, and that the vault stays as it was.

mod support;

use std::fs;

use support::devices::{self, FileSystem};
use support::process::{Output, Tidegate};
use support::refusals::{LIMIT, contents, shown};
use support::site::Site;

const MIB: u64 = 1 << 20;

/// Every command that opens a vault which must be there.
fn readers(site: &Site) -> Vec<Tidegate> {
    let (out, to) = (site.path("identity.json"), site.path("recovered"));
    vec![
        site.command(&["machines"]),
        site.command(&["points", "db"]),
        site.command(&["recover", "db", "--to", shown(&to)]),
        site.command(&["verify"]),
        site.command(&["enroll", "db", "--out", shown(&out)]),
        site.server_at("127.0.0.1:0"),
        key_command(site, &["add"], &["--new-key-file", shown(&site.path("new"))]),
    ]
}

/// `vault key ...`, which names its vault in another way.
fn key_command(site: &Site, command: &[&str], options: &[&str]) -> Tidegate {
    let key = site.key();
    Tidegate::new(["vault", "key"])
        .args(command)
        .args([site.vault(), "--key-file", shown(&key)])
        .args(options)
}

/// The commands that make a vault where none is.
fn makers(site: &Site) -> Vec<Tidegate> {
    let (key, disk) = (site.key(), site.disk("db", 4096));
    let init = Tidegate::new(["vault", "init", site.vault(), "--key-file", shown(&key)]);
    vec![init, site.replicate("db", &[&disk])]
}

/// Runs calls that must be refused as asked, with these words.
#[track_caller]
fn all_refuse(calls: Vec<Tidegate>, words: &[&str]) {
    all_fail(calls, 2, words);
}

/// Runs calls that must end with this status and these words, and give no result.
#[track_caller]
fn all_fail(calls: Vec<Tidegate>, status: i32, words: &[&str]) {
    for call in calls {
        let output = call.run().failure().says(words);
        assert_eq!(output.status.code(), Some(status), "{output}");
        assert_eq!(output.stdout, "", "results go there, and errors don't");
    }
}

#[test]
fn a_vault_that_is_not_there_is_named_and_not_made_by_those_who_only_use_it() {
    let site = Site::in_scratch();
    let mut calls = readers(&site);
    calls.push(Tidegate::new(["vault", "key", "list", site.vault()]));
    all_refuse(calls, &["there is no vault at", site.vault(), "tidegate vault init"]);
    assert!(!site.vault_path().exists());

    // A directory is there, and a container that isn't: no vault either.
    fs::create_dir(site.vault_path()).unwrap();
    all_refuse(readers(&site), &["there is no vault at", site.vault(), "tidegate vault init"]);
    let file = site.disk("file", 4096);
    let elsewhere = Site::in_scratch().elsewhere(&format!("file://{}", file.display()));
    let words = ["there is no vault at", shown(&file), "a file, not a directory"];
    all_refuse(vec![elsewhere.command(&["machines"])], &words);
}

#[test]
fn a_making_that_fails_leaves_no_directory_behind() {
    let site = Site::in_scratch();
    let short = site.path("short");
    fs::write(&short, "no key").unwrap();
    let at = |below: &str| format!("{}/{below}", site.vault());
    for vault in [site.vault().to_owned(), at("a/b")] {
        let with_key = ["--key-file", shown(&short)];
        let init = Tidegate::new(["vault", "init", &vault]).args(with_key);
        let disk = site.disk("db", 4096);
        let replicate = Tidegate::new(["replicate", shown(&disk), "--vault", &vault]);
        let calls = vec![init, replicate.args(with_key)];
        all_refuse(calls, &[shown(&short), "a key file has 32 to 65536 bytes"]);
        assert!(!site.vault_path().exists());
    }
    // One that is there stays.
    fs::create_dir(site.vault_path()).unwrap();
    let init = Tidegate::new(["vault", "init", site.vault(), "--key-file", shown(&short)]);
    all_refuse(vec![init], &[shown(&short)]);
    assert!(site.vault_path().is_dir());
}

#[test]
fn a_directory_with_other_things_is_left_as_it_is() {
    let site = Site::in_scratch();
    let vault = site.vault_path();
    fs::create_dir_all(vault.join("letters")).unwrap();
    fs::write(vault.join("letters/to-aunt.txt"), "Dear aunt").unwrap();
    let before = contents(&vault);
    all_refuse(readers(&site), &["there is no vault at", site.vault(), "tidegate vault init"]);
    let words = [shown(&vault), "holds other things (letters)", "an empty place"];
    all_refuse(makers(&site), &words);
    assert_eq!(contents(&vault), before);

    // Another program's file of the same name.
    fs::write(vault.join("vault.json"), "{\"items\": []}").unwrap();
    let mut calls = readers(&site);
    calls.push(site.replicate("db", &[&site.disk("db", 4096)]));
    all_refuse(calls, &[shown(&vault), "vault.json is not one of Tidegate's"]);
    assert_eq!(fs::read_to_string(vault.join("letters/to-aunt.txt")).unwrap(), "Dear aunt");
}

#[test]
fn a_format_that_is_not_known_is_told_from_damage_where_the_keys_can_tell() {
    let site = Site::with_vault();
    let disk = site.disk("db", 4096);
    site.replicate("db", &[&disk]).run().success();
    let with_format_2 = |object: &str, judge: &dyn Fn()| {
        let object = site.vault_path().join(object);
        let ours = fs::read_to_string(&object).unwrap();
        let other = ours.replacen("\"format\": 1", "\"format\": 2", 1);
        assert_ne!(ours, other, "the format stands in {}", object.display());
        fs::write(&object, other).unwrap();
        let before = contents(&site.vault_path());
        judge();
        assert_eq!(contents(&site.vault_path()), before);
        fs::write(&object, ours).unwrap();
    };
    let openers = || readers(&site).into_iter().chain(makers(&site).pop()).collect();
    let list = || Tidegate::new(["vault", "key", "list", site.vault()]);
    let either = [site.vault(), "has format 2", "use a newer Tidegate", "from a copy"];

    with_format_2("vault.json", &|| {
        let damaged = [site.vault(), "vault.json", "must say \"format\": 1", "restore it"];
        all_fail(openers(), 3, &damaged);
        // Without a key nothing tells.
        all_refuse(vec![list()], &either);
    });
    with_format_2("keys/00000000000000000001", &|| {
        all_refuse(openers(), &either);
        all_refuse(vec![list()], &either);
    });
    site.assert_recovers("db", 0, &disk);
}

#[test]
fn another_vaults_key_opens_nothing_and_another_vaults_parts_are_told() {
    let (site, other) = (Site::with_vault(), Site::in_scratch());
    let disk = site.disk("db", 4096);
    site.replicate("db", &[&disk]).run().success();
    fs::write(other.key(), [7; 64]).unwrap();
    other.init();
    let before = contents(&site.vault_path());
    let mistaken = other.elsewhere(site.vault());
    let mut calls = readers(&mistaken);
    calls.push(mistaken.replicate("db", &[&disk]));
    calls.push(key_command(&mistaken, &["list"], &[]));
    let words = [site.vault(), "wrong key file", "keys/", "tidegate vault key list"];
    all_refuse(calls, &words);
    // What opens it can be seen without a secret, and one that does is taken.
    let list = ["--json", "vault", "key", "list", site.vault()];
    let seen = Tidegate::new(list).env("TIDEGATE_PASSPHRASE", "a wrong one").run().success();
    let tried = key_command(&site, &["list"], &["--json"]).run().success();
    assert_eq!(seen.stdout, tried.stdout);
    assert_eq!(contents(&site.vault_path()), before);

    // The description of another vault, over ours.
    let stranger = Site::with_vault();
    let description = site.vault_path().join("vault.json");
    let ours = fs::read(&description).unwrap();
    fs::copy(stranger.vault_path().join("vault.json"), &description).unwrap();
    let output = site.command(&["machines"]).run().failure();
    output.says(&["vault.json", site.vault(), "was changed", "restore it"]);
    fs::write(&description, ours).unwrap();
    site.assert_recovers("db", 0, &disk);
    site.verify();
}

#[test]
fn a_wrong_or_missing_passphrase_is_told_apart_and_the_right_one_still_opens() {
    let site = Site::in_scratch();
    let call = |args: &[&str]| Tidegate::new(args).args(["--vault", site.vault()]);
    let secret = "TIDEGATE_PASSPHRASE";
    let init = ["vault", "init", site.vault()];
    Tidegate::new(init).env(secret, "the right one").run().success();
    let disk = site.disk("db", 4096);
    let replicate = ["replicate", shown(&disk), "--machine", "db"];
    call(&replicate).env(secret, "the right one").run().success();
    let before = contents(&site.vault_path());

    let refused = |call: Tidegate, words: &[&str]| {
        let output = call.run().failure().says(words);
        assert_eq!(output.status.code(), Some(2), "{output}");
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(!said.contains("the wrong one"), "a secret is shown:\n{output}");
    };
    let wrong = ["wrong passphrase", site.vault(), "tidegate vault key list"];
    for args in [&["machines"][..], &["verify"], &replicate] {
        refused(call(args).env(secret, "the wrong one"), &wrong);
    }
    refused(call(&["machines"]), &["passphrase is needed", "--passphrase-file", secret]);
    let file = site.path("no such file");
    let from_file = call(&["machines"]).args(["--passphrase-file", shown(&file)]);
    refused(from_file, &[shown(&file), "No such file"]);
    assert_eq!(contents(&site.vault_path()), before);
    call(&["verify", "--contents"]).env(secret, "the right one").run().success();
}

/// A vault on a small disk of its own, with one machine in it, and hardly any room left.
struct FullDisk {
    site: Site,
    first: std::path::PathBuf,
    ballast: std::path::PathBuf,
    _disk: FileSystem,
}

impl FullDisk {
    #[track_caller]
    fn new() -> Self {
        let disk = FileSystem::ext4(128 * MIB);
        let site = Site::below(disk.path());
        site.init();
        let first = site.disk("first", 4 * MIB);
        site.replicate("first", &[&first]).run().success();
        let ballast = disk.fill(24 * MIB);
        Self { site, first, ballast, _disk: disk }
    }

    /// What must be true of every error about it.
    #[track_caller]
    fn told(&self, output: Output) {
        let output = output.failure().says(&[self.site.vault(), "is full", "log/", "make room"]);
        assert_eq!(output.stderr.matches("is full").count(), 1, "told once:\n{output}");
    }

    /// What was there before is whole.
    #[track_caller]
    fn assert_nothing_is_lost(&self) {
        self.site.assert_recovers("first", 0, &self.first);
        self.site.verify();
    }
}

#[test]
fn a_full_disk_under_the_vault_is_told_and_with_room_again_the_copy_works() {
    if !devices::usable("a_full_disk_under_the_vault") {
        return;
    }
    let full = FullDisk::new();
    let site = &full.site;
    let disk = site.disk("second", 48 * MIB);
    let told = site.replicate("second", &[&disk]).run();
    assert_eq!(told.stdout, "", "errors go elsewhere, with --json too");
    full.told(told);
    full.assert_nothing_is_lost();
    site.fails_to_recover("second", "latest").says(&["second has no recovery point"]);

    fs::remove_file(&full.ballast).unwrap();
    site.replicate("second", &[&disk]).run().success();
    site.assert_recovers("second", 0, &disk);
    full.assert_nothing_is_lost();
    let staged =
        contents(&site.vault_path()).into_iter().filter(|(path, _)| shown(path).contains('#'));
    assert_eq!(staged.count(), 0, "what was half written is gone");
}

#[test]
fn a_server_whose_disk_is_full_ends_and_the_agent_goes_on_when_it_is_back_with_room() {
    if !devices::usable("a_server_whose_disk_is_full") {
        return;
    }
    let full = FullDisk::new();
    let site = &full.site;
    let disk = site.disk("second", 48 * MIB);
    site.enroll("second", "machine");
    let server = site.serve();
    let address = server.at();
    let agent = site.agent(&address, "second", &[&disk]).start();
    full.told(server.wait(LIMIT));
    assert!(!agent.ended(), "it waits for its server:\n{}", agent.printed());
    full.assert_nothing_is_lost();

    fs::remove_file(&full.ballast).unwrap();
    let server = site.server_at(&address).serve();
    let copied = agent.wait(LIMIT).success();
    assert!(copied.number("reconnects") > 0, "{copied}");
    server.stop().success();
    site.assert_recovers("second", 0, &disk);
    full.assert_nothing_is_lost();
}
