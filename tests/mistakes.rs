//! Mistakes that a tired operator makes at the command line: each is refused before anything is
//! done, says what is wrong, where, and what to do, and gives no result.

mod support;

use std::fs;
use std::net::TcpListener;

use support::process::Tidegate;
use support::refusals::shown;
use support::site::Site;

const MIB: u64 = 1 << 20;

/// Runs a call that must be refused as asked, in these words, with nothing where results go.
#[track_caller]
fn refuses(call: Tidegate, words: &[&str]) {
    let output = call.run().refused(words);
    assert_eq!(output.stdout, "", "no result");
}

#[test]
fn what_is_too_small_or_too_large_is_answered_with_what_can_be_had() {
    let site = Site::with_vault();
    let disk = site.disk("db", MIB);
    site.enroll("db", "machine");
    let nowhere = "127.0.0.1:1";
    let window = site.agent(nowhere, "db", &[&disk]).args(["--window", "1.5MiB"]);
    refuses(window, &["--window 1536KiB is too little", "give 2MiB or more"]);
    let replicate = |options: &[&str]| site.replicate("db", &[&disk]).args(options);
    for size in ["512KiB", "17MiB"] {
        let words = [&format!("pack-size {size} can't be had") as &str, "give 1MiB to 16MiB"];
        refuses(replicate(&["--pack-size", size]), &words);
    }
    refuses(replicate(&["--memory", "1MiB"]), &["1 MiB of memory", "give at least", "--memory"]);
    let recover = site.recover("db", "latest", &site.path("to")).args(["--memory", "1MiB"]);
    refuses(recover, &["--memory 1MiB is too little", "give 32MiB or more"]);
    let key = site.key();
    let init = ["vault", "init", "file:///srv/none", "--block-bytes", "3KiB", "--key-file"];
    let words = ["--block-bytes 3KiB", "a power of two from 4KiB to 256KiB"];
    refuses(Tidegate::new(init).args([key]), &words);
}

#[test]
fn the_smallest_window_is_enough_for_a_copy() {
    let site = Site::with_vault();
    let disk = site.disk("db", 24 * MIB);
    site.enroll("db", "machine");
    let server = site.serve();
    site.agent(&server.at(), "db", &[&disk]).args(["--window", "2MiB"]).run().success();
    server.stop().success();
    site.assert_recovers("db", 0, &disk);
}

#[test]
fn what_a_vault_does_not_have_is_answered_with_what_it_has() {
    let site = Site::with_vault();
    let disk = site.disk("db", MIB);
    site.replicate("db", &[&disk]).run().success();
    let to = site.path("to");
    let point = site.last_point("db");
    refuses(site.recover("bd", "latest", &to), &["no machine bd", "it has only db"]);
    refuses(site.command(&["points", "bd"]), &["no machine bd", "it has only db"]);
    let before = ["before 2001-01-01T00:00:00Z", &point, "ask for that or a later one"];
    refuses(site.recover("db", "2001-01-01T00:00:00Z", &to), &before);
    // Nothing is refused, at three in the morning, that can only mean the newest.
    let output = site.recover("db", "2999-01-01T00:00:00Z", &to).run().success();
    let output =
        output.says(&["2999-01-01T00:00:00Z lies in the future", "the last moment before it"]);
    assert_eq!(output.json()["at_in_future"], true, "{output}");
    let output = site.recover("db", "latest", &site.path("latest")).run().success();
    assert!(!output.stderr.contains("future"), "{output}");
    assert_eq!(output.json()["at_in_future"], false, "{output}");
    fs::remove_file(&to).unwrap();
    let beyond = ["1:99999", "ends at LSN", "'tidegate points' lists"];
    refuses(site.recover("db", "1:99999", &to), &beyond);
    refuses(site.recover("db", "7:1", &to), &["there is no epoch 7", "'tidegate points' lists"]);
    refuses(site.recover("db", "yesterday", &to), &["--at", "'yesterday'", "'latest'"]);
    let disks = ["recover", "db", "--to", shown(&to), "--disk"];
    let with_disk = |number: &str| site.command(&[&disks[..], &[number]].concat());
    refuses(with_disk("1"), &["no disk 1", "it has 0"]);
    refuses(with_disk("64"), &["--disk", "disks 0 to 63"]);
    assert!(!to.exists());
}

#[test]
fn a_target_that_can_not_be_written_to_is_named_with_what_to_do() {
    let site = Site::with_vault();
    let disk = site.disk("db", MIB);
    site.replicate("db", &[&disk]).run().success();
    let missing = site.path("missing/back.img");
    refuses(site.recover("db", "latest", &missing), &[shown(&missing), "make its directory"]);
    refuses(site.recover("db", "latest", &disk), &[shown(&disk), "--force overwrites it"]);
    let below = disk.join("back.img");
    refuses(site.recover("db", "latest", &below), &[shown(&below), "a part of its path is a file"]);
    let all = site.command(&["recover", "db", "--to", shown(&disk)]);
    refuses(all, &[shown(&disk), "a part of its path is a file"]);
}

#[test]
fn secrets_and_identities_that_are_not_there_are_named_with_what_to_do() {
    let site = Site::with_vault();
    let none = site.path("none");
    let machines = ["machines", "--vault", site.vault(), "--key-file", shown(&none)];
    refuses(Tidegate::new(machines), &[shown(&none), "No such file", "check its path"]);
    let demo = ["demo", "--dir", shown(&none)];
    refuses(Tidegate::new(demo), &[shown(&none), "No such file", "--dir"]);
    let new = site.path("missing/key");
    let add = ["vault", "key", "add", site.vault(), "--new-key-file", shown(&new), "--key-file"];
    let add = Tidegate::new(add).args([site.key()]);
    refuses(add, &[shown(&new), "No such file", "name another place"]);
    let empty = Tidegate::new(["machines", "--vault", site.vault()]).env("TIDEGATE_PASSPHRASE", "");
    refuses(empty, &["TIDEGATE_PASSPHRASE: the passphrase is empty"]);
    let disk = site.disk("db", MIB);
    let agent = site.agent("127.0.0.1:1", "nobody", &[&disk]);
    refuses(agent, &["nobody.json", "No such file", "tidegate enroll"]);
    let out = site.path("missing/db.json");
    let enroll = site.command(&["enroll", "db", "--out", shown(&out)]);
    refuses(enroll, &[shown(&out), "No such file", "name a place"]);
    refuses(
        Tidegate::new(["vault", "init", site.vault()])
            .args(["--key-file".as_ref(), site.key().as_os_str()]),
        &[site.vault(), "there is a vault", "name another place"],
    );
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do() {
    let site = Site::with_vault();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    site.enroll("ps-1", "server");
    refuses(site.server_at(&address), &[&address, "is in use", "--listen"]);
    refuses(site.server_at(":9443"), &["--listen", "an IP address of this host and a port"]);
    let config = ["server", "--config", "/no/such.toml"];
    refuses(Tidegate::new(config), &["/no/such.toml", "No such file", "check its path"]);
    // Of no interface of this host: TEST-NET-1.
    refuses(site.server_at("192.0.2.1:9443"), &["192.0.2.1:9443", "--listen"]);
}

#[test]
fn a_mistyped_vault_is_answered_with_how_to_write_it() {
    let site = Site::in_scratch();
    let path = site.vault_path();
    fs::create_dir(&path).unwrap();
    let bare = format!("file:{}", path.display());
    for (vault, words) in [
        (shown(&path), site.vault()),
        (&bare, site.vault()),
        ("flie:///srv/vault", "file:///dir"),
        ("file://srv/vault", "three slashes"),
        ("az://Backups", "lower-case"),
    ] {
        refuses(Tidegate::new(["machines", "--vault", vault]), &[vault, words]);
    }
}
